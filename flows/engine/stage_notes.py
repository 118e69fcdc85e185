"""Findings of stages that the user should see."""

from __future__ import annotations

from tasks.core.files import read_json
from tasks.params.workspace import Workspace


def stage_notes(workspace: Workspace, stage: str) -> list[str]:
    """Findings of one stage: failed data checks, warnings of the split."""
    if stage == "validate":
        valid = read_json(workspace.root / "reports" / "validation.json")
        return [
            f"Data: {check['message']}"
            for check in valid["checks"]
            if check["unexpected"] or not check["success"]
        ]
    if stage == "split":
        return [
            f"Split: {warning}"
            for warning in read_json(workspace.root / "data" / "splits" / "split.json")["warnings"]
        ]
    return []
