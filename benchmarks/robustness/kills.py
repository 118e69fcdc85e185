"""Faults at the writes of a command, which then runs again; and damaged files.

A fault hits one write, flush or rename of train, register, promote or rollback: a kill before or
after it, or an error of the operating system. Afterwards there is one version and one run a key,
the alias points at the ledger's last move, and the command has taken effect once. Each try is a
fork without Prefect (forks.py).
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
# Command -> arguments, number of points, new versions, new moves. Before it, version 2 is champion
# and version 1 was champion earlier.
COMMANDS: Mapping[str, tuple[tuple[str, ...], int, int, int]] = {
    "train": (("train", "-S", "finetune.epochs=1"), 12, 1, 0),
    "register": (("train", "-S", "finetune.epochs=4"), 28, 1, 0),
    "promote": (("promote", "1", "--force", "--reason", "as told"), 30, 0, 1),
    "rollback": (("rollback",), 30, 0, 1),
}


@dataclass(frozen=True)
class Bench:
    """A workspace that is restored before each try, always at the same path: MLflow stores it.

    kept  the copy that it is restored from
    """

    root: Path
    kept: Path

    def fresh(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.kept, self.root, symlinks=True)


def campaign(quick: bool) -> list[Tally]:
    """Faults at 100 points and every damage; a few of each if `quick`."""
    faults, faulty = 0, []
    with bench() as workspace:
        for name, (_, points, _, _) in COMMANDS.items():
            wrong = fail_at_points(workspace, name, 2 if quick else points)
            faults, faulty = faults + (2 if quick else points), [*faulty, *wrong]
        names = list(DAMAGES)[:: 16 if quick else 1]
        damaged = [f"{name}: {wrong}" for name in names if (wrong := damage(workspace, name))]
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


def fail_at_points(workspace: Bench, name: str, points: int) -> list[str]:
    """What went wrong at points spread evenly over a command's writes."""
    command, _, new_versions, moves = COMMANDS[name]
    counter, failures = workspace.kept.parent / "events", []
    counter.unlink(missing_ok=True)
    workspace.fresh()
    undisturbed = fork(workspace.root, (*command, "--json"), f"{counter}:0:none")
    assert undisturbed.code == 0, undisturbed.err
    total = counter.stat().st_size
    for point in range(points):
        number, fault = 1 + point * total // points, FAULTS[point % len(FAULTS)]
        workspace.fresh()
        runs = [
            fork(workspace.root, (*command, "--json"), armed)
            for armed in (f"{counter}:{number}:{fault}", "")
        ]
        wrong = in_runs(runs) or in_registry(workspace.root, runs[-1], new_versions, moves)
        if wrong:
            failures.append(f"{name}, {fault} at write {number} of {total}: {wrong}")
    return failures


def in_runs(runs: list[Done]) -> str:
    """What is wrong with how a command and its repeat ended; '' for nothing."""
    for done in runs:
        if "Traceback" in done.err:
            return f"a traceback: {done.err.strip().splitlines()[-1]}"
    repeat = runs[-1]
    if repeat.code == 0:
        return ""
    return f"the repeat ends in {repeat.code}: {(repeat.out + repeat.err)[-300:]}"


def in_registry(root: Path, last: Done, new_versions: int, moves: int) -> str:
    """What differs from a registry where the command ran once; '' for nothing."""
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
    count = len(keys)
    if count != 2 + new_versions or len(set(keys)) != count or sorted(runs) != sorted(keys):
        return f"versions of {len(set(keys))} keys: {count}, runs: {len(runs)}"
    if [decision["move"] for decision in moved] != list(range(1, 3 + moves)):
        return f"moves {[(decision['move'], decision['version']) for decision in moved]}"
    if champion != [(moved[-1]["version"],)]:
        return f"champion {champion}, by the ledger {moved[-1]['version']}"
    if moves and json.loads(last.out)["decision"]["id"] != moved[-1]["id"]:
        return "the answer names another decision than the one that was taken"
    return ""


def damage(workspace: Bench, name: str) -> str:
    """What is wrong with how `ratchet status` and `ratchet train` take a damage; '' for nothing."""
    path, inflict, outcome = DAMAGES[name]
    for command in ("status", "train"):
        workspace.fresh()
        inflict(workspace.root / path)
        done = fork(workspace.root, (command, "--json"))
        if "Traceback" in done.err or done.code not in (0, 2):
            return f"{command} ends in {done.code}: {done.err[-200:]}"
        if command == "train" and done.code != {"repaired": 0, "told": 2}[outcome]:
            return f"wanted {outcome}, it ends in {done.code}: {(done.out + done.err)[-200:]}"
    return ""


@contextmanager
def bench() -> Iterator[Bench]:
    """A tiny workspace, as the tests make it.

    Two versions were champion, one after the other; a third is trained but not registered.
    """
    find_tests()
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it on import
    import_all()
    gc.freeze()  # else a collection in a fork would touch, and so copy, every page
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "reviews"
        _make_workspace(root)
        elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/elsewhere.db"}
        for command, environment in (
            (("train",), {}),
            (("promote", "1", "--force", "--reason", "first"), {}),
            (("train", "-S", "finetune.epochs=5"), {}),
            (("promote", "2", "--force", "--reason", "second"), {}),
            (("train", "-S", "finetune.epochs=4"), elsewhere),
            (("train",), {}),
        ):
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
    # in another process: torch's threads would not survive a fork of this one
    maker = get_context("fork").Process(target=make_base, args=(root / "base",))
    maker.start()
    maker.join()
    names = ("--data", "reviews.csv", "--base-model", "base", "--model-name", "tiny")
    done = fork(root, ("init", ".", "--yes", *names))
    assert done.code == 0, done.err
    save_overrides(root / "params.yaml", FAST)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "A workspace")
