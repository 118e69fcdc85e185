"""What every section of params.yaml is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
MOST_TOKENS = 131_072  # of a text
MOST_THREADS = 256  # of onnxruntime; it never gets more than there are cores


class Section(BaseModel):
    """A part of params.yaml: frozen, and no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")
