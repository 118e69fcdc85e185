"""The report of a registered version: its run's page, with what identifies the version."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import RegistryError
from tasks.lifecycle.registry import CONTENT_KEY, DATA_HASH, run_id_of
from tasks.reports.page import render_page
from tasks.reports.plots import metric_title

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PAGE = "reports/report.html"  # among the run's artifacts
MARK = "<!-- identity -->"  # in the page
# params that decide most of what a model is
KEY_PARAMS = (
    *("finetune.method", "finetune.epochs", "finetune.batch_size", "finetune.learning_rate"),
    *("finetune.head_learning_rate", "tokenize.max_length", "seed"),
)


def machine() -> str:
    """The machine's kind, without its name."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def version_report(
    client: MlflowClient, version: ModelVersion, champion: ModelVersion | None
) -> str:
    """The HTML page of a version.

    champion  shown beside it, unless it is the version itself
    Raises RegistryError if the version's run has no page.
    """
    run = client.get_run(run_id_of(version))
    beside = champion if champion and champion.version != version.version else None
    values = {
        "facts": _facts(version, run.data.params),
        "champion": beside.version if beside else None,
        "metrics": _beside(run.data.metrics, _metrics(client, beside)) if beside else [],
    }
    page = _page(client, version)
    return page.replace(MARK, render_page("identity.html.j2", values), 1)


def _page(client: MlflowClient, version: ModelVersion) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        artifacts = client.list_artifacts(run_id_of(version), "reports")
        if PAGE not in {artifact.path for artifact in artifacts}:
            raise RegistryError(
                f"{version.name} version {version.version}: its MLflow run has no {PAGE}.",
                "`ratchet train --force` makes a report of the present model.",
            )
        file = Path(client.download_artifacts(run_id_of(version), PAGE, scratch))
        return file.read_text(encoding="utf-8")


def _facts(version: ModelVersion, params: Mapping[str, str]) -> dict[str, str]:
    """What identifies the version, for people."""
    tags = version.tags
    made = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    commit = tags.get("ratchet.git_commit", "none")
    changed = ", with uncommitted changes" if tags.get("ratchet.git_dirty") == "true" else ""
    weights = _short(tags, "ratchet.base_model_sha256")
    settings = [f"{key} {params[key]}" for key in KEY_PARAMS if params.get(key, "None") != "None"]
    return {
        "Model": version.name,
        "Version": str(version.version),
        "Registered": f"{made:%Y-%m-%d %H:%M} UTC",
        "Commit": "none" if commit == "none" else f"{commit[:12]}{changed}",
        "Data": _short(tags, DATA_HASH),
        "Content key": _short(tags, CONTENT_KEY),
        "Base model": f"{tags.get('ratchet.base_model', '?')}, weights {weights}",
        "Parameters": ", ".join(settings),
        "Machine": tags.get("ratchet.machine", "not recorded"),
        "Ratchet": tags.get("ratchet.code_version", "not recorded"),
    }


def _short(tags: Mapping[str, str], name: str) -> str:
    return tags.get(name, "?")[:12]


def _metrics(client: MlflowClient, version: ModelVersion) -> Mapping[str, float]:
    metrics: Mapping[str, float] = client.get_run(run_id_of(version)).data.metrics
    return metrics


def _beside(own: Mapping[str, float], other: Mapping[str, float]) -> list[dict[str, Any]]:
    names = [
        name.removeprefix("test_")
        for name in own
        if name.startswith("test_") and name in other and _bounds(own, name[5:])
    ]
    return [
        {
            "metric": metric_title(name),
            "this version": _interval(own, name),
            "champion": _interval(other, name),
        }
        for name in names
    ]


def _interval(metrics: Mapping[str, float], name: str) -> str:
    bounds = _bounds(metrics, name)
    return f"{metrics[f'test_{name}']:.3f}" + (
        f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else ""
    )


def _bounds(metrics: Mapping[str, float], name: str) -> tuple[float, float] | None:
    """The metric's interval; runs of earlier releases named its bounds test_NAME_low and _high."""
    for prefix in ("ci", "test"):
        low, high = (metrics.get(f"{prefix}_{name}_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            return low, high
    return None
