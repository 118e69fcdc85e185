"""A few histories of paused and killed processes.

`python -m benchmarks robustness` plays a thousand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from postgres import Postgres
from workspaces import clean_environment

from benchmarks.robustness.histories import HistoryModel, Wish, check, interleaved
from tasks.lifecycle.alias import read_alias
from tasks.lifecycle.decisions import Decision
from tasks.lifecycle.registry import CHAMPION, connect

SEEDS = range(10)
WITH_SIGNALS = """
import json, sys
from pathlib import Path
from benchmarks.robustness.histories import HistoryModel
from benchmarks.robustness.processes import with_signals, workers
uri, store = sys.argv[1], Path(sys.argv[2])
with workers() as team:
    models = [HistoryModel(uri, store, f"history-{seed}") for seed in range(3)]
    print(json.dumps([with_signals(team, model, seed) for seed, model in enumerate(models)]))
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> HistoryModel:
    store = tmp_path_factory.mktemp("histories")
    uri = f"sqlite:///{store}/mlflow.db"
    connect(uri, store, "first")
    return HistoryModel(uri, store, "")


@pytest.mark.parametrize("seed", SEEDS)
def test_an_interleaved_history_keeps_every_rule(registry: HistoryModel, seed: int) -> None:
    assert interleaved(HistoryModel(registry.uri, registry.store, f"history-{seed}"), seed) == []


def test_histories_of_stopped_and_killed_processes_on_postgresql_keep_every_rule(
    postgres: Postgres, tmp_path: Path
) -> None:
    uri = f"postgresql+psycopg2://{postgres.make_database()}"
    connect(uri, tmp_path, "first")
    done = subprocess.run(
        [sys.executable, "-c", WITH_SIGNALS, uri, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[], [], []]


def test_the_check_of_a_history_sees_what_it_is_for(registry: HistoryModel) -> None:
    model = HistoryModel(registry.uri, registry.store, "checked")
    model.make()
    client, _ = model.connect()
    ledger = model.ledger(client, "one")
    done = [Wish("promote", version, f"key-{version}", ["done"]) for version in (1, 2)]
    ledger.move(Decision("promoted", 1, None, "", id="key-1"))
    ledger.move(Decision("promoted", 2, 1, "", id="key-2"))
    assert check(model, done) == []
    assert check(model, [*done, Wish("promote", 3, "key-3", ["done"])]) == ["moves"]  # lost
    denied = Wish("roll back", None, "key-2", ["refused"])  # although it was made
    assert check(model, [*done, denied]) == ["moves"]
    client.set_registered_model_alias("checked", CHAMPION, "1")
    assert check(model, done) == ["alias"]
    client.set_registered_model_alias("checked", CHAMPION, "2")
    ledger.move(Decision("promoted", 3, read_alias(client, "checked").version, "", id="key-3"))
    tag = "ratchet.decision.key-3"
    decision = client.get_model_version("checked", "3").tags[tag]
    stale = decision.replace('"previous": 2', '"previous": 1')
    client.set_model_version_tag("checked", "3", tag, stale)
    assert check(model, done) == ["judged"]
