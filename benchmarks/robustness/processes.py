"""Histories of real processes at one registry: random signals stop, continue and kill them."""

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
KILL, PAUSE, GO_ON = 0.04, 0.15, 0.3  # at each moment, of each process at work


class CampaignWorker:
    """A forked process that attempts what it is told; the parent never opens the registry."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.wish: Wish | None = None
        self.stopped = False

    def ask(self, wish: Wish, place: HistoryModel, who: str) -> None:
        """Have it attempt a wish; the answer comes through the pipe."""
        self.wish = wish
        wish.answers.append("")
        self.pipe.send(("attempt", place, wish, who))

    def signal(self, number: signal.Signals) -> None:
        """Stop it, continue it or kill it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)
        self.stopped = number == signal.SIGSTOP

    def close(self) -> None:
        """Kill it and take its exit."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection) -> None:
    while True:
        what, place, *rest = pipe.recv()
        try:
            if what == "check":
                pipe.send(check(place, rest[0]))
            elif what == "make":
                pipe.send(place.make())
            else:
                client, experiment = place.connect()
                wish, who = rest
                pipe.send(attempt(place, wish, who, client, experiment))
        except Exception as error:  # a database that is busy for too long, most of all
            pipe.send(f"error {type(error).__name__}: {' '.join(str(error).split())[:300]}")


@contextmanager
def workers() -> Iterator[list[CampaignWorker]]:
    """Processes for many histories; those that are killed are replaced."""
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # imported once, before they are forked

    found = [CampaignWorker() for _ in range(PROCESSES)]
    try:
        yield found
    finally:
        for worker in found:
            worker.close()


def with_signals(team: list[CampaignWorker], place: HistoryModel, seed: int) -> list[str]:
    """The rules that one history broke."""
    draw = random.Random(seed)
    _answer(team[0], ("make", place))
    wanted = wishes(draw, draw.randint(4, 8))
    errors = _play(team, place, list(wanted), draw, kills=True)
    errors += _play(
        team,
        place,
        [wish for wish in wanted if "done" not in wish.answers and wish.answers[-1] == ""],
        draw,
        kills=False,
    )
    return [*_answer(team[0], ("check", place, wanted)), *["ended"] * bool(errors)]


def _play(
    team: list[CampaignWorker],
    place: HistoryModel,
    open_wishes: list[Wish],
    draw: random.Random,
    *,
    kills: bool,
) -> list[str]:
    """Every wish attempted once; the errors that are no busy database's."""
    errors = []
    while open_wishes or any(worker.wish for worker in team):
        for number, worker in enumerate(team):
            if worker.wish is None and open_wishes:
                worker.ask(open_wishes.pop(0), place, str(number % 2))
        for pipe in wait([worker.pipe for worker in team if worker.wish], timeout=MOMENT_S):
            worker = next(worker for worker in team if worker.pipe is pipe)
            assert worker.wish is not None
            answer = worker.pipe.recv()
            if not answer.startswith("error"):
                worker.wish.answers[-1] = answer
            elif not any(
                words in answer
                for words in (
                    "locked",
                    "OperationalError",
                    "Deadlock",
                    "UniqueViolation",
                    "UNIQUE constraint",
                )
            ):
                errors.append(answer)
            worker.wish = None
        if kills:
            _disturb(team, draw)
    for worker in team:
        if worker.stopped:
            worker.signal(signal.SIGCONT)
    return errors


def _disturb(team: list[CampaignWorker], draw: random.Random) -> None:
    """Signals to those at work; whoever is at rest goes on."""
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
