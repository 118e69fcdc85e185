"""A registered version is used exactly as registered or not at all, however it is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from tampered import flip
from workspaces import ratchet

from applications.prediction import load_predictor
from flows.lifecycle.contestants import Registry
from flows.lifecycle.trigger_answers import _load
from flows.promotion import try_bundle
from tasks.comparison import all_labels, check_labels, known_labels, read_test_rows, score_bundles
from tasks.core.errors import BundleError
from tasks.core.files import read_json, sha256_file, write_json
from tasks.core.progress import silent
from tasks.inference.bundle import Limits, open_bundle, write_manifest
from tasks.lifecycle.registry import BUNDLE_SHA256
from tasks.params.workspace import Workspace

TEXT = "a bad awful film"


@pytest.fixture
def registry(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    workspace = Workspace(trained)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.default_tracking_uri)
    mlflow.set_tracking_uri(workspace.default_tracking_uri)
    return Registry(workspace)


def remake(bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the settings, and the manifest with them: the bundle is consistent in itself."""
    config, manifest = read_json(bundle / "config.json"), read_json(bundle / "manifest.json")
    edit(config["ratchet"])
    write_json(bundle / "config.json", config)
    max_length, labels = manifest["limits"]["max_length"], tuple(manifest["limits"]["labels"])
    limits = Limits(max_length=max_length, labels=labels)
    write_manifest(bundle, recipe=manifest["recipe"], metrics=manifest["metrics"], limits=limits)


def reverse_labels(bundle: Path) -> None:
    remake(bundle, lambda settings: settings["labels"].reverse())


OPEN: dict[str, Callable[[Registry], Any]] = {
    "predict": lambda registry: load_predictor(
        registry.workspace, bundle=None, alias=None, version=1
    ),
    "predict by alias": lambda registry: load_predictor(
        registry.workspace, bundle=None, alias="challenger", version=None
    ),
    "compare": lambda registry: registry.find("1").open(),
    "promote and rollback": lambda registry: try_bundle(registry.find("1")),
    "retrain": lambda registry: _load(registry.find("1")),
    "pyfunc": lambda registry: mlflow.pyfunc.load_model(f"models:/{registry.name}/1"),
}


@pytest.mark.parametrize("way", OPEN)
def test_a_bundle_made_anew_is_refused(registry: Registry, way: str) -> None:
    assert OPEN[way](registry) is not None or way == "promote and rollback"
    reverse_labels(registry.find("1").directory)
    with pytest.raises(BundleError, match="is not the bundle that was registered"):
        OPEN[way](registry)


# MLflow does not tell a pyfunc which version it is
@pytest.mark.parametrize("way", [way for way in OPEN if way != "pyfunc"])
def test_a_version_without_its_hash_is_refused(registry: Registry, way: str) -> None:
    registry.client.delete_model_version_tag(registry.name, "1", BUNDLE_SHA256)
    gone = r"tiny version 1: its tag ratchet\.bundle_sha256 is gone"
    with pytest.raises(BundleError, match=gone):
        OPEN[way](registry)


def test_a_pyfunc_takes_the_hash_that_it_is_given(registry: Registry) -> None:
    registered = sha256_file(registry.find("1").directory / "manifest.json")
    uri = f"models:/{registry.name}/1"
    model = mlflow.pyfunc.load_model(uri, model_config={"bundle_sha256": registered})
    assert "negative" in model.predict(pd.DataFrame({"text": [TEXT]})).iloc[0].tolist()
    with pytest.raises(BundleError, match="is not the bundle that was registered"):
        mlflow.pyfunc.load_model(uri, model_config={"bundle_sha256": "0" * 64})


def test_a_scoring_process_opens_only_the_bundle_that_was_checked(registry: Registry) -> None:
    """It runs in a process of its own, which refuses a bundle that was replaced meanwhile."""
    root, params = registry.workspace.root, registry.workspace.params()
    info, file = registry.find("1").open(), root / "data" / "splits" / "test.parquet"
    rows = read_test_rows(file, params.problem, params.labels, ())
    reverse_labels(info.directory)
    with pytest.raises(BundleError, match="is not the bundle that was registered"):
        score_bundles({"first": info}, file, rows, 0, silent)


def test_a_bundle_whose_labels_have_an_older_form_is_compared_by_what_they_mean(
    trained: Path, tmp_path: Path
) -> None:
    forms = {"older": ["True", "1.0", "False"], "newer": ["false", "1", "true"]}
    opened = {}
    for name, labels in forms.items():
        bundle = Path(shutil.copytree(trained / "models" / "bundle", tmp_path / name))
        remake(bundle, lambda settings, labels=labels: settings.update(labels=labels))
        opened[name] = open_bundle(bundle)
    check_labels(opened["older"], opened["newer"])
    assert set(known_labels(opened["older"])) == set(opened["newer"].labels)
    assert set(all_labels((), [*opened.values()])) == set(opened["newer"].labels)
    assert opened["older"].labels[0] == "True"  # its answers stay as they were


def test_settings_that_would_take_the_machine_down_end_in_one_message(
    trained: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(trained / "models" / "bundle", tmp_path / "bundle"))
    remake(bundle, lambda settings: settings.update(threads=10_000))
    done = ratchet(trained, "predict", "--bundle", str(bundle), TEXT, "--json", code=2)
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "BundleError"
    wrong = "ratchet.threads: Input should be less than or equal to 256, found '10000'"
    assert wrong in error["message"]
    assert "Traceback" not in done.stderr


def test_a_flipped_bit_ends_in_one_message(trained: Path, registry: Registry) -> None:
    flip(registry.find("1").directory / "model.onnx")
    done = ratchet(trained, "predict", TEXT, code=2)
    assert "model.onnx: altered" in done.stderr
    assert "Traceback" not in done.stderr
