"""What MLflow's pages say of a version and its run: figures, what ships, the last verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.core.progress import LINES
from tasks.core.user import user_name
from tasks.lifecycle.registry import run_id_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from tasks.lifecycle.decisions import Decision
    from tasks.reports.stage_reports import EvaluationReport, VerificationReport

NOTE = "mlflow.note.content"  # MLflow's tag of a run's description
_VERDICT = "\n\nVerdict: "


def described(verified: VerificationReport, evaluation: EvaluationReport) -> str:
    """Description of a new version in Markdown."""
    metric = verified.metric
    interval = verified.test_metrics.get(metric)
    lines = []
    if interval is not None:
        figures = (
            f"**{metric} {interval['value']:.3f}** "
            f"({interval['low']:.3f} to {interval['high']:.3f}) on the test split"
        )
        baseline = evaluation.baseline
        if baseline and metric in baseline.metrics:
            figures += f"; {baseline.name} {baseline.metrics[metric]['value']:.3f}"
        lines.append(f"{figures}.")
    lines.append(f"Ships {verified.shipped}.")
    return " ".join(lines) + f"{_VERDICT}not judged yet."


def add_verdict(client: MlflowClient, version: ModelVersion, decision: Decision) -> None:
    """Put a decision into the descriptions of the version and its run, in place of an earlier one.

    The decision stands in the ledger; if MLflow refuses the descriptions, that is only told.
    """
    from mlflow.exceptions import MlflowException

    try:
        current = client.get_model_version(version.name, version.version)
        before = (current.description or "").partition(_VERDICT)[0]
        text = (
            f"{before}{_VERDICT}**{decision.outcome}** on {decision.time[:10]} by {decision.who}: "
            f"{decision.reason}"
        ).strip()[:5000]
        client.update_model_version(version.name, version.version, description=text)
        client.set_tag(run_id_of(version), NOTE, text)
    except MlflowException as error:
        reason = " ".join(str(error).split())[:200]
        LINES.warning("version %s: MLflow rejected its description: %s", version.version, reason)


def origin_tags(trigger: str, commit: str) -> Mapping[str, str]:
    """MLflow's tags of who started a run, and from what."""
    tags = {
        "mlflow.user": user_name(),
        "mlflow.source.name": "ratchet retrain" if trigger else "ratchet train",
        "mlflow.source.type": "JOB" if trigger else "LOCAL",
    }
    return tags if commit in ("", "none") else tags | {"mlflow.source.git.commit": commit}
