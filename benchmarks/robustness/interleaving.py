"""Processes that take turns at every call of MLflow's client, in an order drawn from a seed.

Each may be paused there for a long time, or killed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

KILL = 0.015  # at each call, before or after it
PAUSE = 0.08
LONGEST_PAUSE = 60  # turns of the others


class Killed(BaseException):
    """Stands for a kill: none of our code catches it."""


class Player:
    """One process, played by a thread: its calls wait for their turn."""

    def __init__(self, work: Callable[[Any], None], client: Any) -> None:
        self._work, self._client = work, client
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._killed = False
        self.ended, self.paused = False, 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self, *, kill: bool) -> None:
        """Let it continue to its next call, or kill it where it is."""
        self._killed = kill
        self._turn.release()
        self._done.acquire()

    def __getattr__(self, name: str) -> Any:
        """A method of MLflow's client that takes a turn before and after each call."""
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._wait()
            answer = method(*arguments, **named)
            self._wait()
            return answer

        return call

    def _wait(self) -> None:
        self._done.release()
        self._turn.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._work(self)
        except Killed:
            pass
        except BaseException as error:  # the campaign reports it
            self.error = error
        self.ended = True
        self._done.release()


def play(players: list[Player], draw: random.Random, *, kills: bool) -> None:
    """Run all players to their ends, one at a time."""
    while running := [player for player in players if not player.ended]:
        for player in running:
            player.paused = max(0, player.paused - 1)
        player = draw.choice([player for player in running if not player.paused] or running)
        player.step(kill=kills and draw.random() < KILL)
        if draw.random() < PAUSE:
            player.paused = draw.randrange(LONGEST_PAUSE)
