"""Findings of stages that the user should see."""

from __future__ import annotations

from tasks.core.files import read_json
from tasks.params.workspace import Workspace
from tasks.reports.stage_reports import ValidationReport


def stage_notes(workspace: Workspace, stage: str) -> list[str]:
    """Findings of one stage: failed data checks, warnings of the split."""
    if stage == "validate":
        report = ValidationReport.read(workspace.root / "reports" / "validation.json")
        return [
            f"Data: {check.message}"
            for check in report.checks
            if check.unexpected or not check.success
        ]
    if stage == "split":
        return [
            f"Split: {warning}"
            for warning in read_json(workspace.root / "data" / "splits" / "split.json")["warnings"]
        ]
    return []
