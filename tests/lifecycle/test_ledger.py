"""The ledger and the alias agree, whoever races and wherever a process dies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deaths import Killed, killed_at
from postgres import Postgres
from sqlalchemy import create_engine, text
from workspaces import clean_environment

from tasks.core.errors import GateError
from tasks.lifecycle.alias import WRITING, read_alias
from tasks.lifecycle.decisions import Decision, Outcome
from tasks.lifecycle.ledger import ChampionHistory, Ledger, champion_history
from tasks.lifecycle.registry import CHAMPION, connect

NAME = "tiny"
STEPS = (
    "set_model_version_tag",
    "create_experiment",
    "set_registered_model_alias",
    "delete_experiment",
)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables and three versions of a model, made once."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    add_versions(f"sqlite:///{file}", file.parent)
    return file


def add_versions(uri: str, store: Path) -> None:
    client, _ = connect(uri, store, NAME)
    client.create_registered_model(NAME)
    for number in (1, 2, 3):
        client.create_model_version(NAME, source=(store / f"bundle-{number}").as_uri())


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def open_ledger(uri: str, tmp_path: Path) -> Callable[[], Ledger]:
    return lambda: Ledger(connect(uri, tmp_path, NAME)[0], NAME, tmp_path / "ledger.jsonl")


def promoted(version: int, previous: int | None) -> Decision:
    return Decision("promoted", version, previous, "tested", high_water=version)


def test_moves_and_refusals_are_kept_in_order(
    open_ledger: Callable[[], Ledger], tmp_path: Path
) -> None:
    ledger = open_ledger()
    assert ledger.decisions() == []
    ledger.move(promoted(1, None))
    ledger.record(
        Decision(
            "refused",
            2,
            1,
            "failed: parity",
            gates=[{"name": "parity", "status": "failed", "reason": "…"}],
        )
    )
    ledger.move(promoted(3, 1))
    found = open_ledger().decisions()
    assert [(d.outcome, d.version, d.previous, d.move) for d in found] == [
        ("promoted", 1, None, 1), ("refused", 2, 1, None), ("promoted", 3, 1, 2),
    ]  # fmt: skip
    assert found[1].gates[0]["status"] == "failed"
    assert ledger.champion() == 3
    assert all(d.who and d.time for d in found)
    (tmp_path / "ledger.jsonl").unlink()  # another workspace has only the registry
    assert open_ledger().decisions() == found


def test_a_line_torn_by_a_crash_loses_no_decision(
    open_ledger: Callable[[], Ledger], tmp_path: Path
) -> None:
    open_ledger().move(promoted(1, None))
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    open_ledger().record(Decision("refused", 2, 1, "no"))
    assert [d.version for d in open_ledger().decisions()] == [1, 2]
    assert json.loads(file.read_text(encoding="utf-8").splitlines()[-1])["version"] == 2


def test_a_decision_against_another_champion_moves_nothing(
    open_ledger: Callable[[], Ledger],
) -> None:
    ledger = open_ledger()
    ledger.move(promoted(1, None))
    with pytest.raises(GateError, match="version 1 now"):
        ledger.move(promoted(2, None))
    assert ledger.champion() == 1
    assert [d.version for d in ledger.decisions()] == [1]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_champion_and_a_repeat_completes_it(
    open_ledger: Callable[[], Ledger], step: str, when: str
) -> None:
    from mlflow import MlflowClient

    open_ledger().move(promoted(1, None))
    with killed_at(MlflowClient, step, when):
        open_ledger().move(promoted(2, 1))
    assert open_ledger().champion() in (1, 2)
    found = open_ledger().decisions()  # whoever looks next completes what was claimed
    champion = open_ledger().champion()
    assert champion == [d for d in found if d.move][-1].version
    if champion == 1:
        open_ledger().move(promoted(2, 1))
    assert open_ledger().champion() == 2
    assert [(d.version, d.move) for d in open_ledger().decisions()] == [(1, 1), (2, 2)]


class Paused:
    """MLflow's client, whose next write of the alias waits: the rest happens first."""

    def __init__(
        self, patch: pytest.MonkeyPatch, meanwhile: Callable[[], object], *, killed: bool
    ) -> None:
        from mlflow import MlflowClient

        self.real = MlflowClient.set_registered_model_alias

        def paused(client: Any, *arguments: Any) -> None:
            patch.setattr(MlflowClient, "set_registered_model_alias", self.real)
            meanwhile()
            self.real(client, *arguments)
            if killed:
                raise Killed

        patch.setattr(MlflowClient, "set_registered_model_alias", paused)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "goes on"])
def test_a_paused_helper_does_not_undo_a_later_move(
    open_ledger: Callable[[], Ledger],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    killed: bool,
) -> None:
    crash_before_the_alias(open_ledger)  # of the move to version 2

    def meanwhile() -> None:
        assert open_ledger().champion() == 2
        open_ledger().move(promoted(3, 2))

    Paused(monkeypatch, meanwhile, killed=killed)
    with pytest.raises(Killed) if killed else nullcontext():
        open_ledger().decisions()  # it helps the move to version 2, and wakes when 3 is champion
    ledger = open_ledger()
    assert ledger.champion() == 3
    assert read_alias(ledger.client, NAME).version == 3
    assert [(d.version, d.previous, d.move) for d in ledger.decisions()] == [
        (1, None, 1),
        (2, 1, 2),
        (3, 2, 3),
    ]
    assert (
        "put back to version 3" in capsys.readouterr().err
    ) == killed  # only where it was put right by somebody else


def test_no_move_is_judged_against_what_a_paused_helper_wrote(
    open_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_the_alias(open_ledger)
    Paused(
        monkeypatch, lambda: open_ledger().move(promoted(3, open_ledger().champion())), killed=True
    )
    with pytest.raises(Killed):
        open_ledger().decisions()
    assert read_alias(open_ledger().client, NAME).version == 2  # as it was written last
    with pytest.raises(GateError, match="version 3 now"):
        open_ledger().move(promoted(1, 2))
    assert open_ledger().champion() == 3


def test_an_alias_that_a_person_moved_stays(open_ledger: Callable[[], Ledger]) -> None:
    ledger = open_ledger()
    ledger.move(promoted(1, None))
    ledger.move(promoted(2, 1))
    for version in ("1", "3"):  # an earlier champion, and one that never was
        ledger.client.set_registered_model_alias(NAME, CHAMPION, version)
        assert open_ledger().champion() == int(version)
    assert [d.version for d in open_ledger().decisions()] == [1, 2]
    ledger.client.delete_registered_model_alias(NAME, CHAMPION)
    assert open_ledger().champion() is None


def test_announcements_of_writes_are_taken_away(
    open_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    def announced() -> list[str]:
        return [
            key
            for key in open_ledger().client.get_registered_model(NAME).tags
            if key.startswith(WRITING)
        ]

    crash_before_the_alias(open_ledger)
    assert len(announced()) == 1
    monkeypatch.setattr("tasks.lifecycle.alias.LONGEST_PAUSE", timedelta(0))
    assert open_ledger().champion() == 2
    assert announced() == []


def test_a_move_whose_claim_was_removed_for_good_is_not_made_twice(
    open_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """`mlflow gc` frees the claim's name while a promotion that read the old champion is paused."""
    open_ledger().move(promoted(1, None))
    slow = open_ledger()
    real = slow._claim

    def paused(decision: Decision) -> bool:
        open_ledger().move(promoted(2, 1))
        with create_engine(uri).begin() as connection:
            connection.execute(text("DELETE FROM experiment_tags WHERE value != ''"))
            connection.execute(text("DELETE FROM experiments WHERE lifecycle_stage = 'deleted'"))
        return real(decision)

    monkeypatch.setattr(slow, "_claim", paused)
    with pytest.raises(GateError, match="at the same time"):
        slow.move(promoted(3, 1))
    assert open_ledger().champion() == 2
    assert [(d.version, d.move) for d in open_ledger().decisions()] == [(1, 1), (2, 2)]


def test_the_same_decision_twice_is_one_move(open_ledger: Callable[[], Ledger]) -> None:
    open_ledger().move(promoted(1, None))
    decision = promoted(2, 1)
    assert open_ledger().move(decision) == open_ledger().move(decision)
    open_ledger().move(promoted(3, 2))
    assert open_ledger().move(decision).move == 2
    assert open_ledger().champion() == 3


def crash_before_the_alias(open_ledger: Callable[[], Ledger]) -> None:
    """Version 1 is champion; the move to version 2 is claimed, and its process killed."""
    from mlflow import MlflowClient

    open_ledger().move(promoted(1, None))
    with killed_at(MlflowClient, "set_registered_model_alias", "before"):
        open_ledger().move(promoted(2, 1))


RACER = """
import sys, time, pathlib
from tasks.core.errors import GateError
from tasks.lifecycle.registry import connect
from tasks.lifecycle.ledger import Decision, Ledger
uri, version, store = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
ledger = Ledger(connect(uri, store, "tiny")[0], "tiny", store / "ledger.jsonl")
assert ledger.champion() == 1
(store / f"ready-{version}").touch()
while not (store / "go").exists():
    time.sleep(0.001)
try:
    ledger.move(Decision("promoted", version, 1, "raced", high_water=version))
except GateError as error:
    print("lost", error.message)
else:
    print("won")
"""


def race(uri: str, store: Path) -> list[str]:
    """Two processes that promote different versions at the same time; what each says."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, uri, str(version), str(store)],
            env=clean_environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE, text=True,
        )
        for version in (2, 3)
    ]  # fmt: skip
    while not all((store / f"ready-{version}").exists() for version in (2, 3)):
        assert all(racer.poll() is None for racer in racers)
        time.sleep(0.05)
    (store / "go").touch()
    return [racer.communicate(timeout=120)[0].split(" ")[0].strip() for racer in racers]


def assert_one_wins(uri: str, store: Path) -> None:
    ledger = Ledger(connect(uri, store, NAME)[0], NAME, store / "ledger.jsonl")
    ledger.move(promoted(1, None))
    said = race(uri, store)
    assert sorted(said) == ["lost", "won"]
    winner = (2, 3)[said.index("won")]
    assert ledger.champion() == winner
    assert [(d.version, d.move) for d in ledger.decisions()] == [(1, 1), (winner, 2)]


def test_of_two_promotions_at_once_exactly_one_wins(uri: str, tmp_path: Path) -> None:
    assert_one_wins(uri, tmp_path)


def test_of_two_promotions_at_once_on_postgresql_exactly_one_wins(
    postgres: Postgres, tmp_path: Path
) -> None:
    uri = f"postgresql+psycopg2://{postgres.make_database()}"
    add_versions(uri, tmp_path)
    assert_one_wins(uri, tmp_path)


def test_the_claims_are_hidden_from_the_list_of_experiments(
    open_ledger: Callable[[], Ledger],
) -> None:
    ledger = open_ledger()
    ledger.move(promoted(1, None))
    assert {experiment.name for experiment in ledger.client.search_experiments()} == {
        "Default",
        NAME,
    }
    assert int(ledger.client.get_model_version_by_alias(NAME, CHAMPION).version) == 1


def moves(*steps: tuple[Outcome, int]) -> ChampionHistory:
    return champion_history(
        [
            Decision(outcome, version, None, "", move=i)
            for i, (outcome, version) in enumerate(steps, 1)
        ]
    )


def test_a_rollback_goes_to_the_champion_before_not_to_the_number_before() -> None:
    assert moves(("promoted", 1), ("promoted", 5), ("promoted", 3)).champions == [1, 5, 3]
    once = moves(("promoted", 1), ("promoted", 5), ("promoted", 3), ("rolled back", 5))
    assert (once.champions, once.rolled_back) == ([1, 5], {3})
    twice = moves(
        ("promoted", 1), ("promoted", 5), ("promoted", 3), ("rolled back", 5), ("rolled back", 1)
    )
    assert (twice.champions, twice.rolled_back) == ([1], {3, 5})
    far = moves(("promoted", 1), ("promoted", 5), ("promoted", 3), ("rolled back", 1))
    assert (far.champions, far.rolled_back) == ([1], {3, 5})


def test_a_claim_that_the_client_had_to_send_twice_is_its_own(
    open_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server makes the claim and dies; MLflow's client resends it and learns that it exists."""
    from mlflow import MlflowClient

    real = MlflowClient.create_experiment

    def twice(self: Any, *arguments: Any, **named: Any) -> Any:
        real(self, *arguments, **named)
        return real(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_experiment", twice)
    open_ledger().move(promoted(1, None))
    assert open_ledger().champion() == 1
    assert [d.version for d in open_ledger().decisions()] == [1]


def test_a_champion_that_came_back_is_gone_back_from_one_step() -> None:
    back = moves(
        ("promoted", 1), ("promoted", 2), ("promoted", 1), ("promoted", 3), ("rolled back", 1)
    )
    assert (back.champions, back.rolled_back) == ([1, 2, 1], {3})


def test_a_version_that_is_promoted_again_is_no_longer_rolled_back() -> None:
    again = moves(("promoted", 1), ("promoted", 2), ("rolled back", 1), ("promoted", 2))
    assert (again.champions, again.rolled_back) == ([1, 2], set())
