"""Findings of stages that the user should see."""

from __future__ import annotations

from tasks.core.files import read_json
from tasks.params.workspace import Workspace
from tasks.reports.stage_reports import TrainingReport, ValidationReport


def stage_notes(workspace: Workspace, stage: str) -> list[str]:
    """Findings of one stage: failed data checks, warnings of the split, what labels are worth."""
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
    if stage == "finetune":
        training = TrainingReport.read(workspace.root / "reports" / "training.json")
        told = (training.self_training, training.learning_curve)
        return [f"Labels: {one}." for one in told if one is not None]
    return []
