"""Registration: one version a content key, wherever an attempt was killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deaths import killed_at
from sqlalchemy import create_engine, text
from workspaces import copy_workspace, ratchet_json

from flows.engine.known_versions import KnownVersion
from flows.engine.training_run import is_transient
from tasks import registration
from tasks.core.errors import RegistryError
from tasks.lifecycle.registry import (
    CONTENT_KEY,
    claim_run,
    connect,
    keep_one_version,
    mlflow_errors,
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
    aliases = {int(v.version): v.aliases for v in versions(client, "tiny")}
    assert aliases == {1: [], 2: ["challenger"]}


@pytest.mark.parametrize(
    ("when", "function"),
    [
        ("after", "claim_run"),
        ("after", "_log_run"),
        ("before", "_log_model"),
        ("after", "_log_model"),
        ("after", "_create_version"),
    ],
)
def test_an_attempt_killed_half_way_is_completed_by_the_next(
    register: Callable[..., Registered], client: Any, function: str, when: str
) -> None:
    with killed_at(registration, function, when):
        register()
    assert register().version == 1
    (version,) = versions(client, "tiny")
    assert version.aliases == ["challenger"]
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert [run.data.tags[CONTENT_KEY] for run in runs] == [KEY]
    assert runs[0].info.status == "FINISHED"


def test_two_registrations_that_did_not_see_each_other_leave_the_first_version(
    register: Callable[..., Registered], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = register()
    # a second machine looked a moment earlier and found none
    monkeypatch.setattr(registration, "find_version", lambda *_: None)
    second = register()
    assert not second.created
    assert (second.version, second.mlflow_run_id) == (first.version, first.mlflow_run_id)
    assert [int(version.version) for version in versions(client, "tiny")] == [1]


def test_a_version_that_a_machine_left_which_died_is_removed_by_whoever_looks_next(
    register: Callable[..., Registered], client: Any, uri: str, tmp_path: Path
) -> None:
    first = register()

    def add_duplicate() -> None:
        """A machine looked before the first existed, and died before it removed one."""
        tags = {CONTENT_KEY: KEY}
        client.create_model_version("tiny", source="file:///elsewhere", tags=tags)

    def numbers() -> list[int]:
        return [int(version.version) for version in versions(client, "tiny")]

    add_duplicate()
    assert register().version == first.version
    assert numbers() == [first.version]
    add_duplicate()
    experiment_id = client.get_experiment_by_name("tiny").experiment_id
    known = KnownVersion(uri, tmp_path / "store", "tiny", KEY).ask(client, experiment_id, {})
    assert (known or {})["version"] == first.version
    assert numbers() == [first.version]


def test_of_two_versions_of_a_key_the_one_that_was_decided_about_stays(
    register: Callable[..., Registered], client: Any
) -> None:
    first = register()
    tags = {CONTENT_KEY: KEY}
    second = client.create_model_version("tiny", source="file:///elsewhere", tags=tags)
    client.set_registered_model_alias("tiny", "champion", second.version)
    assert keep_one_version(client, "tiny", KEY).version == second.version
    assert [version.aliases for version in versions(client, "tiny")] == [["champion"]]
    assert first.version != second.version


def test_attempts_at_one_key_share_a_run(uri: str, tmp_path: Path) -> None:
    """Several at once, one that was killed after it made a run, one whose run was deleted."""
    client, experiment_id = connect(uri, tmp_path / "store", "tiny")

    def run_ids() -> list[str]:
        runs = client.search_runs([experiment_id], f"tags.`{CONTENT_KEY}` = '{KEY}'")
        return [run.info.run_id for run in runs]

    def claim(_: object = None) -> Any:
        return claim_run(client, experiment_id, KEY, "tiny").info

    with ThreadPoolExecutor(4) as threads:
        claimed = {info.run_id for info in threads.map(claim, range(4))}
    assert list(claimed) == run_ids()
    client.create_run(experiment_id, tags={CONTENT_KEY: KEY}, start_time=0)
    assert [claim().run_id] == list(claimed) == run_ids()
    client.delete_run(run_ids()[0])
    again = claim()
    assert ([again.run_id], again.status) == (run_ids(), "RUNNING")
    assert again.run_id not in claimed
    names = {experiment.name for experiment in client.search_experiments()}
    assert names == {"Default", "other", "tiny"}


def test_the_run_holds_what_one_looks_for(register: Callable[..., Registered], client: Any) -> None:
    registered = register()
    run = client.get_run(registered.mlflow_run_id)
    assert run.data.params["finetune.learning_rate"] == "0.005"
    of_test = {"test_macro_f1", "test_macro_f1_low", "test_macro_f1_high"}
    assert of_test | {"loss", "validation_macro_f1"} <= set(run.data.metrics)
    assert len(client.get_metric_history(registered.mlflow_run_id, "loss")) > 10
    assert TAGS.items() <= run.data.tags.items()
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == "0123.dir"
    top = {artifact.path for artifact in client.list_artifacts(registered.mlflow_run_id)}
    assert {"reports", "params.yaml", "dvc.lock"} <= top
    version = client.get_model_version("tiny", str(registered.version))
    assert version.tags.items() >= TAGS.items()


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
    pickles = (".pkl", ".pickle", ".pt", ".bin", ".joblib")
    assert not [name for name in names if name.endswith(pickles)]


def test_first_uses_of_a_database_at_once_share_it(tmp_path: Path) -> None:
    uri, names = f"sqlite:///{tmp_path}/mlflow.db", ["one", "two", "three"]
    with ThreadPoolExecutor(len(names)) as threads:
        ids = threads.map(lambda name: connect(uri, tmp_path, name)[1], names)
        made = dict(zip(names, ids, strict=True))
    client, _ = connect(uri, tmp_path, "one")
    experiments = client.search_experiments()
    stored = {experiment.name: experiment.experiment_id for experiment in experiments}
    assert stored == made | {"Default": "0"}


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
    uri = f"sqlite:///{tmp_path}/rows.db"
    if scheme != "sqlite":
        uri = f"{scheme}://{request.getfixturevalue('postgres').make_database()}"
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
    unreachable = {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    answer = ratchet_json(root, "train", "-S", "finetune.epochs=3", code=2, **unreachable)
    assert answer["error"]["type"] == "RegistryError"
    assert not list((root / ".ratchet").glob("work/finetune/last"))


def test_what_stands_is_recalled_until_somebody_writes_to_the_registry(
    register: Callable[..., Registered], client: Any, uri: str, tmp_path: Path
) -> None:
    made = register()
    experiment_id = client.get_experiment_by_name("tiny").experiment_id
    known = KnownVersion(uri, tmp_path / "store", "tiny", KEY)
    assert known.recall() is None  # nobody asked yet
    answer = known.ask(client, experiment_id, {})
    assert answer == {"version": made.version, "run_id": made.mlflow_run_id}
    assert known.recall() == answer
    assert KnownVersion(uri, tmp_path / "store", "tiny", "e" * 64).recall() is None
    client.search_model_versions("name = 'tiny'")  # reading changes nothing
    assert known.recall() == answer
    client.delete_registered_model_alias("tiny", "challenger")
    assert known.recall() is None
    assert known.ask(client, experiment_id, {}) is None
    register()
    assert known.recall() is None
    assert known.ask(client, experiment_id, {}) == known.recall() == answer
    client.delete_model_version("tiny", str(made.version))
    assert known.recall() is None
    assert known.ask(client, experiment_id, {}) is None


def test_a_registry_elsewhere_is_asked_every_time(tmp_path: Path) -> None:
    assert KnownVersion("http://127.0.0.1:1", tmp_path, "tiny", KEY).recall() is None
