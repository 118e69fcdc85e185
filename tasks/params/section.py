"""The base class and common types of the sections of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MOST_TOKENS = 131_072  # per text
MOST_THREADS = 256  # of onnxruntime, which is never given more than there are cores


class Section(BaseModel):
    """A section of params.yaml: frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
