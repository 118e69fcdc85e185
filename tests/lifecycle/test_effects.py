"""A command killed before it answered, and repeated, prints what it did and does it only once."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from shared import made_once
from workspaces import copy_workspace, killed_as_it_answers, ratchet, ratchet_json

from flows.lifecycle.effects import NO_KEY, answering
from tasks.core.errors import GateError, PipelineError, RegistryError
from tasks.params.schema import save_overrides
from tasks.params.workspace import Workspace


@pytest.fixture(scope="session")
def three_champions(two_versions: Path) -> Path:
    """Versions 1, 2 and again 1 were champion; copy it, do not change it."""

    def make(directory: Path) -> None:
        root = copy_workspace(two_versions, directory / "reviews")
        for version in ("1", "2", "1"):
            result = ratchet_json(root, "promote", version, "--force", "--reason", "as told")
            assert result["champion"] == int(version)

    return made_once("three-champions", make) / "reviews"


@pytest.fixture
def workspace(three_champions: Path, tmp_path: Path) -> Path:
    return copy_workspace(three_champions, tmp_path / "reviews")


def moves(root: Path) -> list[tuple[str, int]]:
    """Moves since the fixture's three."""
    made = [decision for decision in ratchet_json(root, "history") if decision["move"]]
    return [(decision["outcome"], decision["version"]) for decision in made[3:]]


def test_a_rollback_killed_as_it_answers_goes_back_once(workspace: Path) -> None:
    killed_as_it_answers(workspace, "rollback", "--reason", "customers complain")
    answer = ratchet_json(workspace, "rollback")
    assert (answer["state"], answer["version"], answer["champion"]) == ("rolled back", 2, 2)
    assert answer["decision"]["reason"] == "customers complain"
    assert moves(workspace) == [("rolled back", 2)]
    # the repeat has answered, so this is a new rollback
    assert ratchet_json(workspace, "rollback")["champion"] == 1
    assert moves(workspace) == [("rolled back", 2), ("rolled back", 1)]


def test_a_repeated_rollback_does_not_take_back_what_was_promoted_since(workspace: Path) -> None:
    killed_as_it_answers(workspace, "rollback")
    assert ratchet_json(workspace, "promote", "1", "--force", "--reason", "since")["champion"] == 1
    output = ratchet(workspace, "rollback").stdout
    assert "made version 2 champion again" in output
    assert "since then version 1 has become champion" in output
    assert moves(workspace) == [("rolled back", 2), ("promoted", 1)]


def test_a_promotion_killed_as_it_answers_is_told_with_its_decision(workspace: Path) -> None:
    command = ("promote", "2", "--force", "--reason", "as told")
    killed_as_it_answers(workspace, *command)
    answer = ratchet_json(workspace, *command)
    assert (answer["state"], answer["champion"], answer["decision"]["move"]) == ("promoted", 2, 4)
    assert moves(workspace) == [("promoted", 2)]
    assert ratchet_json(workspace, *command)["state"] == "unchanged"


def test_a_refusal_killed_as_it_answers_spends_no_second_look(workspace: Path) -> None:
    save_overrides(workspace / "params.yaml", ["promotion.min_value=1.01"])
    killed_as_it_answers(workspace, "promote", "2")
    before = ratchet_json(workspace, "history")
    answer = json.loads(ratchet(workspace, "promote", "2", "--json", code=2).stdout)
    assert answer["decision"] == before[-1]
    assert ratchet_json(workspace, "history") == before
    save_overrides(workspace / "params.yaml", ["promotion.min_value=null"])
    ratchet(workspace, "promote", "2", code=None)
    # other gates, another judgement
    assert len(ratchet_json(workspace, "history")) == len(before) + 1


def test_a_retraining_killed_as_it_answers_is_told(trained: Path) -> None:
    overrides = ["promotion.max_latency_ratio=null", "promotion.resamples=1000"]
    save_overrides(trained / "params.yaml", overrides)
    killed_as_it_answers(trained, "retrain")
    (decision,) = ratchet_json(trained, "history")
    answer = ratchet_json(trained, "retrain")
    assert (answer["state"], answer["version"]) == ("trained", 1)
    assert answer["promotion"]["decision"] == decision
    assert ratchet_json(trained, "retrain")["state"] == "idle"


def key_of(root: Path, asked: dict[str, Any], ending: BaseException | None = None) -> str:
    """The key of a command that answers, or raises `ending` before it does."""
    with (
        suppress(KeyboardInterrupt, typer.Exit, PipelineError),
        answering(Workspace(root), "rollback") as effect,
    ):
        key = effect.begin(asked)
        if ending is not None:
            raise ending
    return key


def test_a_key_is_kept_until_its_answer_was_given(tmp_path: Path) -> None:
    killed = key_of(tmp_path, {"to": None}, KeyboardInterrupt())
    assert key_of(tmp_path, {"to": None}, KeyboardInterrupt()) == killed
    assert key_of(tmp_path, {"to": None}) == killed  # the repeat, which answers
    assert key_of(tmp_path, {"to": None}) != killed
    refused = key_of(tmp_path, {"to": 1}, typer.Exit(2))  # its reasons were printed
    assert key_of(tmp_path, {"to": 1}) != refused
    refused = key_of(tmp_path, {"to": 1}, GateError("another promotion was faster"))
    assert key_of(tmp_path, {"to": 1}) != refused  # it is judged again
    unknown = key_of(tmp_path, {"to": 1}, RegistryError("no answer"))
    assert key_of(tmp_path, {"to": 1}) == unknown
    other = key_of(tmp_path, {"to": 1}, KeyboardInterrupt())
    assert key_of(tmp_path, {"to": 2}) != other
    assert NO_KEY.begin({"to": 1}) != NO_KEY.begin({"to": 1})
