"""A team's stores: MLflow's and Prefect's servers on PostgreSQL, DVC with a second remote.

Both ask for a login, as those of deploy/ do.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from postgres import Postgres
from servers import Server, mlflow_server, prefect_server, task_states
from tampered import flip
from workspaces import STAGES, clean_environment, git, ratchet_json, run, states

from tasks.core.files import sha256_file
from tasks.lifecycle.registry import CONTENT_KEY

MLFLOW_LOGIN = ("admin", "a password of MLflow's")
PREFECT_LOGIN = ("ratchet", "a password of Prefect's")
CACHED = dict.fromkeys(STAGES, "cached")
# identical bytes on machines of one type; the other outs hold durations
REPRODUCIBLE = {
    "data/raw",
    "data/valid",
    "data/splits",
    "data/tokens",
    "models/checkpoint",
    "reports/evaluation.json",
    "models/bundle",
}


@dataclass(frozen=True)
class Stores:
    """A team's servers; `mlflow_database` is the address of MLflow's database."""

    mlflow: Server
    prefect: Server
    mlflow_database: str

    @property
    def environment(self) -> dict[str, Any]:
        return {
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "MLFLOW_TRACKING_USERNAME": MLFLOW_LOGIN[0],
            "MLFLOW_TRACKING_PASSWORD": MLFLOW_LOGIN[1],
            "PREFECT_API_URL": f"{self.prefect.url}/api",
            "PREFECT_API_AUTH_STRING": ":".join(PREFECT_LOGIN),
        }


@pytest.fixture(scope="module")
def stores(
    postgres: Postgres, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stores]:
    database = postgres.make_database()
    home = tmp_path_factory.mktemp("mlflow")
    mlflow = mlflow_server(
        home,
        f"postgresql+psycopg2://{database}",
        "--app-name=basic-auth",
        MLFLOW_AUTH_CONFIG_PATH=str(auth_configuration(home, postgres.make_database())),
        MLFLOW_AUTH_ADMIN_PASSWORD=MLFLOW_LOGIN[1],
        MLFLOW_FLASK_SERVER_SECRET_KEY="a key",
    )
    prefect = prefect_server(
        tmp_path_factory.mktemp("prefect"),
        PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://{postgres.make_database()}",
        PREFECT_SERVER_API_AUTH_STRING=":".join(PREFECT_LOGIN),
    )
    try:
        mlflow.start()
        prefect.start()
        request.getfixturevalue("template")  # made while they start
        mlflow.wait("/health")
        prefect.wait("/api/health")
        yield Stores(mlflow, prefect, f"postgresql://{database}")
    finally:
        mlflow.kill()
        prefect.kill()


def auth_configuration(home: Path, database: str) -> Path:
    """deploy/mlflow-auth.ini with another database."""
    ini = (Path(__file__).parents[2] / "deploy" / "mlflow-auth.ini").read_text()
    address = f"database_uri = postgresql+psycopg2://{database}"
    (home / "auth.ini").write_text(re.sub("^database_uri = .*$", address, ini, flags=re.MULTILINE))
    return home / "auth.ini"


@pytest.fixture(scope="module")
def shared(template: Path, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace whose model is version 1 in the team's MLflow.

    It has no registry or artifacts of its own. Copy it, do not change it.
    """
    root = copied(template, tmp_path_factory.mktemp("shared"))
    result = ratchet_json(root, "train", **stores.environment)
    assert (states(result), result["version"]) == (CACHED, 1)
    shutil.rmtree(root / ".ratchet" / "mlartifacts")
    (root / ".ratchet" / "mlflow.db").unlink()
    return root


def copied(workspace: Path, parent: Path) -> Path:
    return shutil.copytree(workspace, parent / "reviews", symlinks=True)


def start_training(root: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ratchet", "train", "--json", *arguments],
        cwd=root,
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def versions(server: Server) -> dict[int, dict[str, str]]:
    """Tags of each version on the MLflow server."""
    url = f"{server.url}/api/2.0/mlflow/model-versions/search"
    answer = httpx.get(url, params={"filter": "name = 'tiny'"}, auth=MLFLOW_LOGIN).json()
    return {
        int(version["version"]): {tag["key"]: tag["value"] for tag in version["tags"]}
        for version in answer["model_versions"]
    }


def finished_run(server: Server, run_id: str) -> list[Any]:
    """The run's state and times, and every point of its loss curve."""
    url, asked = f"{server.url}/api/2.0/mlflow", {"run_id": run_id}
    with httpx.Client(auth=MLFLOW_LOGIN) as client:
        info = client.get(f"{url}/runs/get", params=asked).json()["run"]["info"]
        asked |= {"metric_key": "loss"}
        history = client.get(f"{url}/metrics/get-history", params=asked).json()["metrics"]
    assert info["status"] == "FINISHED"
    assert len(history) > 10
    return [info, *history]


def test_nobody_reads_or_writes_without_a_login_and_the_message_says_what_is_missing(
    shared: Path, stores: Stores
) -> None:
    assert httpx.get(f"{stores.mlflow.url}/api/2.0/mlflow/experiments/search").status_code == 401
    assert httpx.post(f"{stores.prefect.url}/api/flows/filter", json={}).status_code == 401
    for variable in ("MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING"):
        wrong = stores.environment | {variable: "ratchet:wrong"}
        done = run(shared, "ratchet", "train", code=2, **wrong)
        assert "Traceback" not in done.stderr
        assert variable in done.stderr
        assert "wrong" not in done.stderr


def test_two_machines_that_register_one_model_at_once_on_postgresql_make_one_version(
    template: Path, stores: Stores, postgres: Postgres, tmp_path: Path
) -> None:
    uri = f"postgresql+psycopg2://{postgres.make_database()}"
    environment = stores.environment | {"MLFLOW_TRACKING_URI": uri}
    roots = [copied(template, tmp_path / name) for name in ("one", "other")]
    status = ratchet_json(roots[0], "status", **environment)  # this makes MLflow's tables
    assert status["model"]["versions"] == []
    processes = [start_training(root, **environment) for root in roots]
    outputs = [process.communicate(timeout=200) for process in processes]
    results = [json.loads(out) for out, _ in outputs]
    assert [result.get("error") for result in results] == [None, None], outputs
    assert len({(result["version"], result["content_key"]) for result in results}) == 1
    again = ratchet_json(roots[1], "train", **environment)
    assert (again["state"], again["version"]) == ("cached", results[0]["version"])
    (version,) = ratchet_json(roots[0], "status", **environment)["model"]["versions"]
    assert (version["version"], version["aliases"]) == (results[0]["version"], ["challenger"])
    # without MLflow's server, artifacts stay on the disk of the machine that made the version
    maker = roots[[result["state"] for result in results].index("trained")]
    assert ratchet_json(maker, "predict", "a good day", **environment)[0]["predicted_label"]


def test_the_bundle_comes_through_the_server_where_the_disk_has_none(
    shared: Path, stores: Stores, tmp_path: Path
) -> None:
    root = copied(shared, tmp_path)
    shutil.rmtree(root / "models")
    command = ("predict", "a good day", "--alias", "challenger")
    answer = ratchet_json(root, *command, **stores.environment)
    (copy,) = (root / ".ratchet" / "downloads").glob("*/bundle/model.onnx")
    flip(copy)  # a damaged copy is downloaded again
    assert ratchet_json(root, *command, **stores.environment) == answer


@pytest.mark.usefixtures("shared")
def test_a_version_names_its_prefect_run_on_postgresql_which_says_how_each_stage_came_to_be_clean(
    stores: Stores,
) -> None:
    flow_run_id = versions(stores.mlflow)[1]["prefect.flow_run_id"]
    for _ in range(40):  # Prefect's client sends states with a delay
        shown = task_states(stores.environment["PREFECT_API_URL"], flow_run_id, PREFECT_LOGIN)
        if len(shown) > len(STAGES):
            break
        time.sleep(0.25)
    assert shown == dict.fromkeys(STAGES, "Cached") | {"register": "Completed"}


def test_a_server_killed_while_it_registers_costs_one_message_and_a_repeat(
    shared: Path, stores: Stores, tmp_path: Path
) -> None:
    root = copied(shared, tmp_path)
    overrides = ("-S", "evaluate.min_slice_rows=5")  # another content key
    # the test does not wait for a restart
    environment = stores.environment | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    before = versions(stores.mlflow)
    process = start_training(root, *overrides, **environment)
    wait_for_a_new_row(stores.mlflow_database, "logged_models")  # the model is being logged
    stores.mlflow.kill()
    out, err = process.communicate(timeout=200)
    stores.mlflow.start()
    assert process.returncode == 2, err
    error = json.loads(out)["error"]
    assert error["type"] == "RegistryError"
    assert "no answer: " in error["message"]
    assert "Traceback" not in err
    stores.mlflow.wait("/health")
    result = ratchet_json(root, "train", *overrides, **environment)
    after = versions(stores.mlflow)
    content_key = result["content_key"]
    same_key = [number for number, tags in after.items() if tags[CONTENT_KEY] == content_key]
    assert same_key == [result["version"]]
    assert after.keys() - before.keys() == {result["version"]}


def wait_for_a_new_row(database: str, table: str) -> None:
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        counts: set[int] = set()
        for _ in range(2000):
            cursor.execute(f"SELECT count(*) FROM {table}")
            counts.add(cursor.fetchone()[0])
            if len(counts) > 1:
                return
            time.sleep(0.05)
    raise AssertionError(f"{table} did not grow")


def test_a_clone_pulls_everything_from_a_second_remote_and_reproduces_the_model(
    shared: Path, stores: Stores, tmp_path: Path
) -> None:
    root, clone = copied(shared, tmp_path), tmp_path / "clone"
    run(root, "dvc", "remote", "add", "second", str(tmp_path / "second"))
    run(root, "dvc", "push", "-r", "second", "--run-cache")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Train; a second remote")
    git(tmp_path, "clone", "-q", str(root), str(clone))
    run(clone, "dvc", "pull", "-r", "second", "--run-cache")
    assert "up to date" in run(clone, "dvc", "status").stdout
    assert "Running stage" not in run(clone, "dvc", "repro").stdout
    before = versions(stores.mlflow)
    cached = ratchet_json(clone, "train", **stores.environment)
    assert (states(cached), cached["version"]) == (CACHED, 1)
    registered = finished_run(stores.mlflow, cached["mlflow_run_id"])

    for made in ("data", "reports", "models", ".dvc/cache"):
        shutil.rmtree(clone / made)
    again = ratchet_json(clone, "train", "--force", **stores.environment)
    assert states(again) == dict.fromkeys(STAGES, "ran")
    assert again["content_key"] == cached["content_key"]
    assert versions(stores.mlflow) == before
    assert finished_run(stores.mlflow, again["mlflow_run_id"]) == registered
    # the outs that differ from the commit's dvc.lock
    modified = json.loads(run(clone, "dvc", "diff", "--json").stdout)["modified"]
    differing = {out["path"].rstrip("/") for out in modified}
    assert not differing & REPRODUCIBLE
    assert "reports/training.json" in differing  # it holds seconds: the stage did run again
    weights = "models/checkpoint/model.safetensors"
    assert sha256_file(clone / weights) == sha256_file(root / weights)
