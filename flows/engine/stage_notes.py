"""What stages found that a person should hear of."""

from __future__ import annotations

from tasks.core.files import read_json
from tasks.params.workspace import Workspace


def stage_notes(workspace: Workspace, stage: str) -> list[str]:
    """What a stage found that a person should hear of."""
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
