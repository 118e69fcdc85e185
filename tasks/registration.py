"""Register the bundle in MLflow: one run and one model version per content key.

An effect, and idempotent: another attempt, also after a kill, only completes what is missing.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import read_json
from tasks.core.progress import LINES
from tasks.lifecycle.descriptions import NOTE, described, origin_tags
from tasks.lifecycle.registered_files import has_bundle, logged_model_of
from tasks.lifecycle.registry import (
    BUNDLE_SHA256,
    CHALLENGER,
    CHAMPION,
    CONTENT_KEY,
    DATA_HASH,
    claim_run,
    connect,
    find_version,
    keep_one_run,
    keep_one_version,
    mlflow_errors,
    require_active,
    run_id_of,
)
from tasks.lifecycle.version_report import version_report
from tasks.params.schema import Params
from tasks.problems import load_problem
from tasks.reports.stage_reports import EvaluationReport, TrainingReport, VerificationReport

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REQUIREMENTS = (
    "jinja2",
    "mlflow",
    "numpy",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "pydantic",
    "scipy",
    "tokenizers",
)
# sections of params.yaml about what is done with a model, not about the model
NOT_OF_THE_MODEL = ("promotion", "retrain", "notify")


@dataclass(frozen=True)
class Registered:
    """A model version, and whether this call created it."""

    name: str
    version: int
    mlflow_run_id: str
    content_key: str
    created: bool


def register_model(
    root: Path,
    store: Path,
    uri: str,
    params: Params,
    values: Mapping[str, Any],
    content_key: str,
    tags: Mapping[str, str],
) -> Registered:
    """Register the workspace's bundle under its content key and point `challenger` at it.

    values   params.yaml as this run had it, to be logged
    tags     lineage, for the run and the version
    The same key always yields one version, even if the first attempt was killed: each step reuses
    what is there already.
    Raises RegistryError when MLflow is unreachable or refuses.
    """
    client, experiment_id = connect(uri, store, params.model_name)
    require_active(client, experiment_id, uri)
    with mlflow_errors(uri):
        version, created = find_version(client, params.model_name, content_key, tags), False
        if version is None:
            run_id = claim_run(client, experiment_id, content_key, params.model_name).info.run_id
            _log_run(client, run_id, root, params, values, tags)
            new_version = _create_version(
                client, experiment_id, run_id, root, params, {CONTENT_KEY: content_key, **tags}
            )
            version = keep_one_version(client, params.model_name, content_key)
            created = version.version == new_version.version
            _log_page(client, version)
        if not created:
            _put_back_files(client, version, root, params)
        run_id = run_id_of(version)
        keep_one_run(client, experiment_id, content_key, run_id)
        if client.get_run(run_id).info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED", version.creation_timestamp)
        client.set_tag(run_id, "ratchet.version", str(version.version))
        client.update_run(run_id, name=f"{params.model_name} v{version.version}")
        if CHALLENGER not in version.aliases:
            client.set_registered_model_alias(params.model_name, CHALLENGER, version.version)
    return Registered(
        params.model_name, int(version.version), run_id_of(version), content_key, created
    )


def _log_page(client: MlflowClient, version: ModelVersion) -> None:
    """Log the report with the version's identity, beside the stage's own, which has none."""
    from mlflow.exceptions import MlflowException

    champion = None
    with suppress(MlflowException):  # nothing was promoted yet
        champion = client.get_model_version_by_alias(version.name, CHAMPION)
    page = version_report(client, version, champion)
    client.log_text(run_id_of(version), page, "report.html")


def _log_run(
    client: MlflowClient,
    run_id: str,
    root: Path,
    params: Params,
    values: Mapping[str, Any],
    tags: Mapping[str, str],
) -> None:
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    logged = client.get_run(run_id).data
    of_the_model = {key: value for key, value in values.items() if key not in NOT_OF_THE_MODEL}
    flat = {key: text for key, text in _flatten(of_the_model).items() if key not in logged.params}
    origin = origin_tags(tags.get("ratchet.trigger", ""), tags.get("ratchet.git_commit", ""))
    client.log_batch(
        run_id,
        params=[Param(key, text[:6000]) for key, text in flat.items()][:1000],
        tags=[RunTag(*tag) for tag in (*tags.items(), *origin.items(), (NOTE, _description(root)))],
    )
    metrics = [Metric(name, value, 0, 0) for name, value in _headline(root).items()]
    if "loss" not in logged.metrics:  # restored from the cache, so the curves were not logged live
        metrics += _curves(TrainingReport.read(root / "reports" / "training.json"))
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    for path in ("reports", "params.yaml", "dvc.lock", "dvc.yaml"):
        client.log_artifact(run_id, str(root / path))
    with mlflow.start_run(run_id=run_id):
        mlflow.log_input(_dataset(root, params, tags), context="training")
        client.set_terminated(run_id, "RUNNING")


def _description(root: Path) -> str:
    verification = VerificationReport.read(root / "reports" / "verification.json")
    return described(verification, EvaluationReport.read(root / "reports" / "evaluation.json"))


def _headline(root: Path) -> dict[str, float]:
    """The run's metrics: quality as test_, its intervals as ci_, size and speed as perf_.

    The problem's metric is first: MLflow's page of a comparison opens on the first.
    """
    verification = VerificationReport.read(root / "reports" / "verification.json")
    quality = verification.test_metrics
    numbers = {
        f"{'test' if name in quality else 'perf'}_{name}": value
        for name, value in read_json(root / "reports" / "metrics.json").items()
        if isinstance(value, int | float)
    }
    for name, interval in quality.items():
        numbers |= {f"ci_{name}_low": interval["low"], f"ci_{name}_high": interval["high"]}
    evaluation = EvaluationReport.read(root / "reports" / "evaluation.json")
    if baseline := evaluation.baseline:
        numbers |= {
            f"plain_{name}": interval["value"] for name, interval in baseline.metrics.items()
        }
    answers = evaluation.answers or {"metrics": {}}
    for when, metrics in answers["metrics"].items():
        numbers |= {f"answers_{when}_{name}": value for name, value in metrics.items()}
    main = f"test_{verification.metric}"
    return {name: numbers[name] for name in (main,) if name in numbers} | numbers


def _curves(training: TrainingReport) -> list[Any]:
    from mlflow.entities import Metric

    points = [(point, "") for point in training.curve] + [
        (point, "validation_") for point in training.evaluations
    ]
    return [
        Metric(name if name == "epoch" else prefix + name, value, 0, int(point["step"]))
        for point, prefix in points
        for name, value in point.items()
        if name != "step" and not (name == "epoch" and prefix)
    ]


def _dataset(root: Path, params: Params, tags: Mapping[str, str]) -> Any:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    sources = read_json(root / "data" / "raw" / "sources.json")
    if not sources:
        return None
    urls = str([source.url for source in params.ingest.sources])
    source = CodeDatasetSource({"sources": urls, "dvc_data_hash": tags[DATA_HASH]})
    return MetaDataset(  # type: ignore[abstract]  # MLflow omits `profile`
        source, name=f"{params.model_name}-data", digest=tags[DATA_HASH][:32]
    )


def _create_version(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    root: Path,
    params: Params,
    tags: Mapping[str, str],
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    model_id = _logged_model(client, experiment_id, run_id) or _log_model(run_id, root, params)
    try:
        client.create_registered_model(
            params.model_name, description=f"{params.problem}, fine-tuned by Ratchet"
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        params.model_name,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags=dict(tags),
        description=_description(root),
        model_id=model_id,
    )


def _logged_model(client: MlflowClient, experiment_id: str, run_id: str) -> str | None:
    """Id of a model that an earlier attempt logged completely, if any."""
    from mlflow.entities import LoggedModelStatus

    models = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    ready = (model.model_id for model in models if model.status == LoggedModelStatus.READY)
    return next(ready, None)


def _put_back_files(
    client: MlflowClient, version: ModelVersion, root: Path, params: Params
) -> None:
    """Upload the version's files again if the registry lost them and the workspace has the same."""
    import mlflow

    from tasks.inference.bundle import MANIFEST, open_bundle

    bundle = open_bundle(root / "models" / "bundle")
    if bundle.sha256 != version.tags.get(BUNDLE_SHA256):
        return
    if has_bundle(client, version, [*bundle.files, MANIFEST]):
        return
    with tempfile.TemporaryDirectory() as scratch, _quiet_pandas():
        path = Path(scratch) / "model"
        mlflow.pyfunc.save_model(path=str(path), **_pyfunc(root, params))
        client.log_model_artifacts(logged_model_of(version), str(path))
    LINES.info("register   the files of version %s were damaged or gone: put back", version.version)


def _log_model(run_id: str, root: Path, params: Params) -> str:
    import mlflow

    with mlflow.start_run(run_id=run_id), _quiet_pandas():
        model = mlflow.pyfunc.log_model(name="model", **_pyfunc(root, params))
    return str(model.model_id)


@contextmanager
def _quiet_pandas() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of pandas warns
        yield


def _pyfunc(root: Path, params: Params) -> dict[str, Any]:
    """What MLflow stores of the model, as arguments of its log_model and save_model."""
    import pandas as pd
    from mlflow.models import infer_signature

    from tasks.inference.bundle import PYFUNC_SHA256, open_bundle
    from tasks.inference.prediction_names import named
    from tasks.inference.predictor import Predictor

    package = Path(__file__).resolve().parent
    problem = load_problem(params.problem)
    example = problem.decoding.example()
    complete = problem.decoding.prediction_example(params.labels)
    bundle = open_bundle(root / "models" / "bundle")
    predictions = [complete] if complete else Predictor(bundle, problem).predict(example)
    outputs = pd.DataFrame([named(prediction) for prediction in predictions])
    frame = pd.DataFrame(example)
    return {
        "python_model": str(package / "serving.py"),
        "artifacts": {"bundle": bundle.directory.as_uri()},
        "model_config": {PYFUNC_SHA256: bundle.sha256},
        "code_paths": [str(package)],
        "signature": infer_signature(frame, outputs),
        "input_example": frame,
        "pip_requirements": _pinned(REQUIREMENTS),
    }


def _pinned(names: tuple[str, ...]) -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in names]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
