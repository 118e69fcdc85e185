"""Work on the side whose failure is raised where its result is used."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
JOIN_S = 10.0


def in_background(work: Callable[[], T]) -> Future[T]:
    """Start `work` on a thread that is waited for a moment at most: a run that fails early ends soon, unlike with an executor."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    # an interpreter that ends while a thread is within a library's import can crash: give it a moment
    atexit.register(thread.join, JOIN_S)
    return future
