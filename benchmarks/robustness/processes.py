"""Histories of real processes at one registry, which signals stop, continue and kill at random."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmarks.robustness.histories import HistoryModel, Wish, attempt, check, wishes

PROCESSES = 4
MOMENT_S = 0.02
KILL, PAUSE, GO_ON = 0.04, 0.15, 0.3  # probability at each moment, of each busy process
BUSY_DATABASE = ("locked", "OperationalError", "Deadlock", "UniqueViolation", "UNIQUE constraint")


class CampaignWorker:
    """A forked process that attempts wishes; only it opens the registry, never its parent."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.wish: Wish | None = None
        self.stopped = False

    def ask(self, wish: Wish, model: HistoryModel, who: str) -> None:
        """Have it attempt a wish; it answers through the pipe."""
        self.wish = wish
        wish.answers.append("")
        self.pipe.send(("attempt", model, wish, who))

    def signal(self, number: signal.Signals) -> None:
        """Stop, continue or kill it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)
        self.stopped = number == signal.SIGSTOP

    def close(self) -> None:
        """Kill it and reap it."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection) -> None:
    while True:
        what, model, *rest = pipe.recv()
        try:
            if what == "check":
                pipe.send(check(model, rest[0]))
            elif what == "make":
                pipe.send(model.make())
            else:
                client, experiment = model.connect()
                pipe.send(attempt(model, *rest, client, experiment))
        except Exception as error:  # most often a database that was busy for too long
            pipe.send(f"error {type(error).__name__}: {' '.join(str(error).split())[:300]}")


@contextmanager
def workers() -> Iterator[list[CampaignWorker]]:
    """Processes for many histories; a killed one is replaced."""
    # imported once, before the workers are forked
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    team = [CampaignWorker() for _ in range(PROCESSES)]
    try:
        yield team
    finally:
        for worker in team:
            worker.close()


def with_signals(team: list[CampaignWorker], model: HistoryModel, seed: int) -> list[str]:
    """Play one history with signals; returns the rules that it broke."""
    draw = random.Random(seed)
    _answer(team[0], ("make", model))
    wanted = wishes(draw, draw.randint(4, 8))
    errors = _play(team, model, list(wanted), draw, kills=True)
    killed = [wish for wish in wanted if "done" not in wish.answers and wish.answers[-1] == ""]
    errors += _play(team, model, killed, draw, kills=False)
    return [*_answer(team[0], ("check", model, wanted)), *["ended"] * bool(errors)]


def _play(
    team: list[CampaignWorker],
    model: HistoryModel,
    open_wishes: list[Wish],
    draw: random.Random,
    *,
    kills: bool,
) -> list[str]:
    """Attempt every wish once; returns the errors that a busy database does not explain."""
    errors = []
    while open_wishes or any(worker.wish for worker in team):
        for number, worker in enumerate(team):
            if worker.wish is None and open_wishes:
                worker.ask(open_wishes.pop(0), model, str(number % 2))
        for pipe in wait([worker.pipe for worker in team if worker.wish], timeout=MOMENT_S):
            worker = next(worker for worker in team if worker.pipe is pipe)
            assert worker.wish is not None
            answer = worker.pipe.recv()
            if not answer.startswith("error"):
                worker.wish.answers[-1] = answer
            elif not any(words in answer for words in BUSY_DATABASE):
                errors.append(answer)
            worker.wish = None
        if kills:
            _disturb(team, draw)
    for worker in team:
        if worker.stopped:
            worker.signal(signal.SIGCONT)
    return errors


def _disturb(team: list[CampaignWorker], draw: random.Random) -> None:
    """Send signals to busy workers at random; continue a stopped one that has no wish."""
    for number, worker in enumerate(team):
        chance = draw.random()
        if worker.stopped and (worker.wish is None or chance < GO_ON):
            worker.signal(signal.SIGCONT)
        elif worker.wish and chance < KILL:
            worker.close()
            team[number] = CampaignWorker()
        elif worker.wish and not worker.stopped and chance < KILL + PAUSE:
            worker.signal(signal.SIGSTOP)


def _answer(worker: CampaignWorker, question: tuple[Any, ...]) -> Any:
    worker.pipe.send(question)
    return worker.pipe.recv()
