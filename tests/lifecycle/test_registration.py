"""Registration: one content key, one version, wherever an attempt was killed."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deaths import killed_at
from sqlalchemy import create_engine, text
from tampered import flip
from workspaces import copy_workspace, ratchet_json

from flows.engine.known_versions import KnownVersion
from flows.engine.training_run import is_transient
from tasks import registration
from tasks.core.errors import BundleError, RegistryError
from tasks.inference.bundle import open_bundle
from tasks.lifecycle.registered_files import download_bundle
from tasks.lifecycle.registry import (
    CONTENT_KEY,
    claim_run,
    connect,
    keep_one_version,
    mlflow_errors,
    run_id_of,
    versions,
)
from tasks.params.workspace import Workspace
from tasks.registration import Registered, register_model

KEY = "f" * 64
TAGS = {
    "ratchet.data_hash": "0123.dir",
    "ratchet.git_commit": "c0ffee",
    "ratchet.git_dirty": "false",
    "ratchet.recipe": "int8-dynamic",
}


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: their first use costs seconds."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    connect(f"sqlite:///{file}", file.parent, "other")
    return file


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    (tmp_path / "store").mkdir()
    shutil.copy(empty_database, tmp_path / "store" / "mlflow.db")
    return f"sqlite:///{tmp_path}/store/mlflow.db"


@pytest.fixture
def register(template: Path, tmp_path: Path, uri: str) -> Callable[..., Registered]:
    workspace = Workspace(template)
    params, values = workspace.params(), workspace.values()
    return lambda key=KEY: register_model(
        template, tmp_path / "store", uri, params, values, key, TAGS
    )


@pytest.fixture
def client(tmp_path: Path, uri: str) -> Any:
    return connect(uri, tmp_path / "store", "tiny")[0]


def test_the_same_key_twice_is_one_version(
    register: Callable[..., Registered], client: Any
) -> None:
    first, again = register(), register()
    assert (first.version, first.created) == (1, True)
    assert (again.version, again.created) == (1, False)
    other = register("e" * 64)
    assert other.version == 2
    assert {int(v.version): v.aliases for v in versions(client, "tiny")} == {
        1: [],
        2: ["challenger"],
    }


@pytest.mark.parametrize(
    ("when", "place"),
    [
        ("after", "claim_run"),
        ("after", "_log_run"),
        ("before", "_log_model"),
        ("after", "_log_model"),
        ("after", "_create_version"),
    ],
)
def test_an_attempt_killed_half_way_is_completed_by_the_next(
    register: Callable[..., Registered], client: Any, place: str, when: str
) -> None:
    with killed_at(registration, place, when):
        register()
    assert register().version == 1
    (version,) = versions(client, "tiny")
    assert version.aliases == ["challenger"]
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert [found.data.tags[CONTENT_KEY] for found in runs] == [KEY]
    assert runs[0].info.status == "FINISHED"


def test_two_registrations_that_did_not_see_each_other_leave_the_first_version(
    register: Callable[..., Registered], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = register()
    monkeypatch.setattr(
        registration, "find_version", lambda *_: None
    )  # what a second machine saw, a moment earlier
    second = register()
    assert (second.version, second.created, second.mlflow_run_id) == (
        first.version,
        False,
        first.mlflow_run_id,
    )
    assert [int(version.version) for version in versions(client, "tiny")] == [1]


def test_a_version_that_a_machine_left_which_died_is_removed_by_whoever_looks_next(
    register: Callable[..., Registered], client: Any, uri: str, tmp_path: Path
) -> None:
    first = register()

    def doubled() -> None:
        client.create_model_version("tiny", source="file:///elsewhere", tags={CONTENT_KEY: KEY})

    doubled()  # a machine had looked before the first was there, and died before it kept one
    assert (register().version, [int(v.version) for v in versions(client, "tiny")]) == (
        first.version,
        [first.version],
    )
    doubled()
    experiment_id = client.get_experiment_by_name("tiny").experiment_id
    said = KnownVersion(uri, tmp_path / "store", "tiny", KEY).ask(client, experiment_id, {})
    assert (said or {})["version"] == first.version
    assert [int(version.version) for version in versions(client, "tiny")] == [first.version]


def test_of_two_versions_of_a_key_the_one_that_was_decided_about_stays(
    register: Callable[..., Registered], client: Any
) -> None:
    first = register()
    second = client.create_model_version(
        "tiny", source="file:///elsewhere", tags={CONTENT_KEY: KEY}
    )
    client.set_registered_model_alias("tiny", "champion", second.version)
    assert keep_one_version(client, "tiny", KEY).version == second.version
    assert [version.aliases for version in versions(client, "tiny")] == [["champion"]]
    assert first.version != second.version


def test_attempts_at_one_key_share_a_run(uri: str, tmp_path: Path) -> None:
    """Two at once, one that was killed after it made a run, one whose run was deleted since."""
    client, experiment_id = connect(uri, tmp_path / "store", "tiny")

    def left() -> list[str]:
        return [
            run.info.run_id
            for run in client.search_runs([experiment_id], f"tags.`{CONTENT_KEY}` = '{KEY}'")
        ]

    with ThreadPoolExecutor(4) as threads:
        claimed = {
            run.info.run_id
            for run in threads.map(
                lambda _: claim_run(client, experiment_id, KEY, "tiny"), range(4)
            )
        }
    assert list(claimed) == left()
    client.create_run(experiment_id, tags={CONTENT_KEY: KEY}, start_time=0)
    assert [claim_run(client, experiment_id, KEY, "tiny").info.run_id] == list(claimed) == left()
    client.delete_run(left()[0])
    again = claim_run(client, experiment_id, KEY, "tiny").info
    assert ([again.run_id], again.status) == (left(), "RUNNING")
    assert again.run_id not in claimed
    assert {experiment.name for experiment in client.search_experiments()} == {
        "Default",
        "other",
        "tiny",
    }


def test_the_run_holds_what_one_looks_for(register: Callable[..., Registered], client: Any) -> None:
    registered = register()
    found = client.get_run(registered.mlflow_run_id)
    assert found.data.params["finetune.learning_rate"] == "0.005"
    assert {
        "test_macro_f1",
        "ci_macro_f1_low",
        "ci_macro_f1_high",
        "perf_latency_ms_p50",
        "perf_size_mb",
        "loss",
        "validation_macro_f1",
    } <= set(found.data.metrics)
    assert len(client.get_metric_history(registered.mlflow_run_id, "loss")) > 10
    assert not [name for name in found.data.metrics if name.startswith("test_latency")]
    assert TAGS.items() <= found.data.tags.items()
    assert found.info.run_name == f"tiny v{registered.version}"
    assert found.data.tags["mlflow.user"] == getpass.getuser()
    assert found.data.tags["mlflow.source.name"] == "ratchet train"
    assert found.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert {"finetune.epochs", "base_model.path"} <= set(found.data.params)
    sections = {name.partition(".")[0] for name in found.data.params}
    assert sections.isdisjoint({"promotion", "retrain", "notify"})
    (dataset,) = found.inputs.dataset_inputs
    assert dataset.dataset.digest == "0123.dir"
    top = {artifact.path for artifact in client.list_artifacts(registered.mlflow_run_id)}
    assert {"reports", "params.yaml", "dvc.lock"} <= top
    version = client.get_model_version("tiny", str(registered.version))
    assert version.tags.items() >= TAGS.items()
    assert version.description == found.data.tags["mlflow.note.content"]
    assert "**macro_f1 " in version.description
    assert version.description.endswith("Verdict: not judged yet.")
    # MLflow's page of a comparison opens on the first that was logged
    assert next(iter(found.data.metrics)) == "test_macro_f1"


@pytest.mark.parametrize("damage", ["gone", "model.onnx", "tokenizer.json"])
def test_files_that_the_registry_lost_are_put_back_if_they_are_the_same(
    template: Path, tmp_path: Path, uri: str, client: Any, damage: str
) -> None:
    import mlflow

    workspace = Workspace(template)
    sha256 = open_bundle(template / "models" / "bundle").sha256

    def register(tags: dict[str, str]) -> None:
        params, values = workspace.params(), workspace.values()
        register_model(template, tmp_path / "store", uri, params, values, KEY, TAGS | tags)

    tag = {"ratchet.bundle_sha256": sha256}
    register(tag)
    (version,) = versions(client, "tiny")
    directory = download_bundle(client, version, tmp_path)
    if damage == "gone":
        shutil.rmtree(tmp_path / "store" / "mlartifacts" / "models")
    else:
        flip(directory / damage)
    with pytest.raises(BundleError):
        open_bundle(directory, registered=sha256)
    register(tag)
    assert open_bundle(directory, registered=sha256).sha256 == sha256
    mlflow.set_tracking_uri(uri)
    answer = mlflow.pyfunc.load_model("models:/tiny/1").predict([{"text": "a good day"}])
    assert answer["predicted_label"][0]
    assert len(versions(client, "tiny")) == 1
    # another bundle never takes the place of the registered one
    client.set_model_version_tag("tiny", "1", "ratchet.bundle_sha256", "0" * 64)
    shutil.rmtree(directory)
    register(tag)
    assert not directory.exists()


def test_the_model_has_a_signature_and_no_pickle(
    register: Callable[..., Registered], uri: str, tmp_path: Path
) -> None:
    import mlflow

    register()
    mlflow.set_tracking_uri(uri)
    info = mlflow.models.get_model_info("models:/tiny@challenger")
    assert info.signature.inputs.input_names() == ["text"]
    assert "predicted_label" in info.signature.outputs.input_names()
    names = [
        path.name for path in (tmp_path / "store" / "mlartifacts").rglob("*") if path.is_file()
    ]
    assert "model.onnx" in names
    assert not [
        name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".bin", ".joblib"))
    ]


def test_first_uses_of_a_database_at_once_share_it(tmp_path: Path) -> None:
    uri, names = f"sqlite:///{tmp_path}/mlflow.db", ["one", "two", "three"]
    with ThreadPoolExecutor(len(names)) as threads:
        made = dict(
            zip(
                names, threads.map(lambda name: connect(uri, tmp_path, name)[1], names), strict=True
            )
        )
    client, _ = connect(uri, tmp_path, "one")
    assert {
        experiment.name: experiment.experiment_id for experiment in client.search_experiments()
    } == made | {"Default": "0"}


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2"])
def test_an_unreachable_registry_is_told_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as caught:
        connect(f"{scheme}://me:secret@127.0.0.1:9", tmp_path, "tiny")
    assert "127.0.0.1" in caught.value.message
    assert "refused" in caught.value.message
    assert "secret" not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in caught.value.remedy


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql+psycopg2"])
def test_a_row_that_another_machine_wrote_meanwhile_is_worth_a_retry_and_a_mistake_is_not(
    tmp_path: Path, request: pytest.FixtureRequest, scheme: str
) -> None:
    uri = (
        f"sqlite:///{tmp_path}/rows.db"
        if scheme == "sqlite"
        else f"{scheme}://{request.getfixturevalue('postgres').make_database()}"
    )
    engine = create_engine(uri)

    def execute(statement: str) -> None:
        with mlflow_errors(uri), engine.begin() as connection:
            connection.execute(text(statement))

    execute("CREATE TABLE keys (key TEXT PRIMARY KEY)")
    execute("INSERT INTO keys VALUES ('a')")
    with pytest.raises(RegistryError) as clash:
        execute("INSERT INTO keys VALUES ('a')")
    assert is_transient(clash.value)
    with pytest.raises(RegistryError) as mistake:
        execute("INSERT INTO elsewhere VALUES ('a')")
    assert not is_transient(mistake.value)


def test_a_database_without_its_driver_is_told(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="driver") as caught:
        connect("mysql+pymysql://me:secret@127.0.0.1:9/mlflow", tmp_path, "tiny")
    assert "secret" not in str(caught.value)


def test_the_flow_notices_an_unreachable_registry_before_it_trains(
    template: Path, tmp_path: Path
) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    error = ratchet_json(
        root,
        "train",
        "-S",
        "finetune.epochs=3",
        code=2,
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert error["error"]["type"] == "RegistryError"
    assert not list((root / ".ratchet").glob("work/finetune/last"))


def test_an_experiment_that_somebody_deleted_is_told_before_training(trained: Path) -> None:
    uri = Workspace(trained).default_tracking_uri
    client, experiment = connect(uri, Workspace(trained).store, "tiny")
    client.delete_experiment(experiment)
    assert ratchet_json(trained, "status")["model"]["versions"]
    error = ratchet_json(trained, "train", "-S", "seed=7", code=2)["error"]
    assert "the experiment 'tiny' was deleted" in error["message"]
    _, _, command = error["remedy"].partition("Restore it: ")
    binaries = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command, shell=True, check=True, env={**os.environ, **binaries})  # noqa: S602
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_what_stands_is_recalled_until_somebody_writes_to_the_registry(
    register: Callable[..., Registered], client: Any, uri: str, tmp_path: Path
) -> None:
    made = register()
    experiment_id = client.get_experiment_by_name("tiny").experiment_id
    champion_history = KnownVersion(uri, tmp_path / "store", "tiny", KEY)
    assert champion_history.recall() is None  # nobody asked yet
    said = champion_history.ask(client, experiment_id, {})
    assert said == {"version": made.version, "run_id": made.mlflow_run_id}
    assert champion_history.recall() == said
    assert KnownVersion(uri, tmp_path / "store", "tiny", "e" * 64).recall() is None
    client.search_model_versions("name = 'tiny'")  # reading changes nothing
    assert champion_history.recall() == said
    client.delete_registered_model_alias("tiny", "challenger")
    assert champion_history.recall() is None
    assert champion_history.ask(client, experiment_id, {}) is None
    register()
    assert champion_history.recall() is None
    assert champion_history.ask(client, experiment_id, {}) == champion_history.recall() == said
    client.delete_model_version("tiny", str(made.version))
    assert champion_history.recall() is None
    assert champion_history.ask(client, experiment_id, {}) is None


def test_a_version_without_a_run_is_refused_by_its_name(client: Any, tmp_path: Path) -> None:
    client.create_registered_model("tiny")
    client.create_model_version("tiny", source=tmp_path.as_uri())
    (version,) = versions(client, "tiny")
    with pytest.raises(RegistryError, match="tiny version 1: it has no MLflow run"):
        run_id_of(version)


def test_a_registry_elsewhere_is_asked_every_time(tmp_path: Path) -> None:
    assert KnownVersion("http://127.0.0.1:1", tmp_path, "tiny", KEY).recall() is None
