"""Whether a stage's outs belong to its present inputs, as DVC sees it."""

from __future__ import annotations

import logging
from typing import Any, Literal

log = logging.getLogger(__name__)

StageStatus = Literal["clean", "stale", "missing"]


def stage_status(stage: Any) -> StageStatus:
    """The status of one of DVC's stages; what makes it so is logged."""
    status: StageStatus = "clean"
    if stage.changed():
        status = "stale" if all(out.exists for out in stage.outs) else "missing"
    log.debug("%s: %s; changed: %s", stage.name, status, _changed(stage, status))
    return status


def _changed(stage: Any, status: StageStatus) -> str:
    """The dependencies and outs because of which a stage is not clean."""
    if status == "clean" or not log.isEnabledFor(logging.DEBUG):
        return "nothing"
    entries = [str(entry) for entry in (*stage.deps, *stage.outs) if entry.status()]
    return ", ".join(entries) or "its command"
