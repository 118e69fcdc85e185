"""Faults injected into `ratchet` commands, which are then repeated, and damage to stored files.

A fault hits a write, flush or rename of train, register, promote or rollback: a kill before or
after it, or an error from the system. After the repeat, each key has one version and one run, the
alias matches the ledger's last entry, and the requested action has happened once. Each try is a
fork without Prefect, which itself has no effect to test; promotions skip judging, which changes
nothing.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.robustness.damages import DAMAGES
from benchmarks.robustness.forks import Done, find_tests, fork, import_all
from benchmarks.robustness.tally import Tally

FAULTS = ("kill", "killed-after", "EIO", "ENOSPC")
# Each command's arguments, number of fault points, and the versions and moves that it makes.
# Version 2 is champion before each, and version 1 was champion before version 2.
COMMANDS: Mapping[str, tuple[tuple[str, ...], int, int, int]] = {
    "train": (("train", "-S", "finetune.epochs=1"), 12, 1, 0),
    "register": (("train", "-S", "finetune.epochs=4"), 28, 1, 0),
    "promote": (("promote", "1", "--force", "--reason", "as told"), 30, 0, 1),
    "rollback": (("rollback",), 30, 0, 1),
}


@dataclass(frozen=True)
class Bench:
    """A workspace restored before each try, always at the path that MLflow's addresses contain."""

    root: Path
    kept: Path

    def fresh(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.kept, self.root, symlinks=True)


def campaign(quick: bool) -> list[Tally]:
    """100 faults and every damage; a few of each where it is to be quick."""
    faults = 0
    faulty: list[str] = []
    with bench() as place:
        for name, (_, points, _, _) in COMMANDS.items():
            wrong = fail_at_points(place, name, 2 if quick else points)
            faults, faulty = faults + (2 if quick else points), [*faulty, *wrong]
        names = list(DAMAGES)[:: 16 if quick else 1]
        damaged = [f"{name}: {harm}" for name in names if (harm := damage(place, name))]
    return [
        Tally(
            "kills, EIO and ENOSPC at a write, flush or rename",
            faults,
            "a version or move lost or doubled, a traceback",
            faulty,
        ),
        Tally(
            "damaged files", len(names), "a traceback, or damage neither repaired nor told", damaged
        ),
    ]


def fail_at_points(place: Bench, name: str, points: int) -> list[str]:
    """What went wrong at points spread evenly over a command's writes."""
    command, _, made, moves = COMMANDS[name]
    counter, wrong = place.kept.parent / "events", []
    counter.unlink(missing_ok=True)
    place.fresh()
    once = fork(place.root, (*command, "--json"), f"{counter}:0:none")
    assert once.code == 0, once.err
    total = counter.stat().st_size
    for point in range(points):
        number, fault = 1 + point * total // points, FAULTS[point % len(FAULTS)]
        place.fresh()
        runs = [
            fork(place.root, (*command, "--json"), told)
            for told in (f"{counter}:{number}:{fault}", "")
        ]
        if found := in_runs(runs) or in_registry(place.root, runs[-1], made, moves):
            wrong.append(f"{name}, {fault} at write {number} of {total}: {found}")
    return wrong


def in_runs(runs: list[Done]) -> str:
    """What is wrong with the ends of a command and its repeat; empty: nothing."""
    for done in runs:
        if "Traceback" in done.err:
            return f"a traceback: {done.err.strip().splitlines()[-1]}"
    return (
        ""
        if runs[-1].code == 0
        else f"the repeat ends in {runs[-1].code}: {(runs[-1].out + runs[-1].err)[-300:]}"
    )


def in_registry(root: Path, last: Done, made: int, moves: int) -> str:
    """What is not as it would be had the command been run once; empty: nothing."""
    with closing(sqlite3.connect(root / ".ratchet" / "mlflow.db")) as database:
        keys = database.execute(
            "SELECT t.value FROM model_versions v JOIN model_version_tags t "
            "ON t.version = v.version AND t.key = 'ratchet.content_key' "
            "WHERE v.current_stage != 'Deleted_Internal'"
        ).fetchall()
        runs = database.execute(
            "SELECT t.value FROM runs r JOIN tags t "
            "ON t.run_uuid = r.run_uuid AND t.key = 'ratchet.content_key' "
            "WHERE r.lifecycle_stage = 'active'"
        ).fetchall()
        tags = database.execute(
            "SELECT value FROM model_version_tags WHERE key LIKE 'ratchet.decision.%'"
        ).fetchall()
        champion = database.execute(
            "SELECT version FROM registered_model_aliases WHERE alias = 'champion'"
        ).fetchall()
    moved = sorted(
        (decision for (text,) in tags if (decision := json.loads(text))["settled"]),
        key=lambda decision: int(decision["move"]),
    )
    if len(keys) != 2 + made or len(set(keys)) != len(keys) or sorted(runs) != sorted(keys):
        return f"versions of {len(set(keys))} keys: {len(keys)}, runs: {len(runs)}"
    if [decision["move"] for decision in moved] != list(range(1, 3 + moves)):
        return f"moves {[(decision['move'], decision['version']) for decision in moved]}"
    if champion != [(moved[-1]["version"],)]:
        return f"champion {champion}, by the ledger {moved[-1]['version']}"
    if moves and json.loads(last.out)["decision"]["id"] != moved[-1]["id"]:
        return "the answer names another decision than the one that was taken"
    return ""


def damage(place: Bench, name: str) -> str:
    """What `ratchet status` and `ratchet train` get wrong about damage; empty: nothing."""
    path, damages, outcome = DAMAGES[name]
    for command in ("status", "train"):
        place.fresh()
        damages(place.root / path)
        done = fork(place.root, (command, "--json"))
        if "Traceback" in done.err or done.code not in (0, 2):
            return f"{command} ends in {done.code}: {done.err[-200:]}"
        if command == "train" and done.code != {"repaired": 0, "told": 2}[outcome]:
            return f"wanted {outcome}, it ends in {done.code}: {(done.out + done.err)[-200:]}"
    return ""


@contextmanager
def bench() -> Iterator[Bench]:
    """A tiny workspace like those of the tests, with three trained versions.

    Two are registered and have both been champion; the third is not registered.
    """
    find_tests()
    os.environ["OMP_NUM_THREADS"] = "1"  # read as torch is imported
    import_all()
    gc.freeze()  # or every fork would go through, and so copy, all of it
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "reviews"
        _make_workspace(root)
        elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/elsewhere.db"}
        for command, environment in (
            (("train",), {}),
            (("promote", "1", "--force", "--reason", "first"), {}),
            (("train", "-S", "finetune.epochs=5"), {}),
            (("promote", "2", "--force", "--reason", "second"), {}),
            (("train", "-S", "finetune.epochs=4"), elsewhere), (("train",), {}),
        ):  # fmt: skip
            done = fork(root, command, **environment)
            assert done.code == 0, done.err
        yield Bench(root, Path(shutil.copytree(root, Path(scratch) / "kept", symlinks=True)))


def _make_workspace(root: Path) -> None:
    """tests.workspaces.make_workspace without a Prefect server."""
    from tiny import make_base, tiny_rows
    from workspaces import FAST, ROWS, git, write_csv

    from tasks.params.schema import save_overrides

    (root / "base").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    write_csv(root / "reviews.csv", tiny_rows(ROWS))
    maker = get_context("fork").Process(
        target=make_base, args=(root / "base",)
    )  # torch's threads would not survive a fork
    maker.start()
    maker.join()
    done = fork(
        root,
        (
            "init",
            ".",
            "--yes",
            "--data",
            "reviews.csv",
            "--base-model",
            "base",
            "--model-name",
            "tiny",
        ),
    )
    assert done.code == 0, done.err
    save_overrides(root / "params.yaml", FAST)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "A workspace")
