"""Background work whose failure is raised where its result is used."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
JOIN_S = 10.0


def in_background(work: Callable[[], T]) -> Future[T]:
    """Run `work` on a daemon thread.

    At exit Python waits at most JOIN_S for it, unlike for an executor: a failed run ends soon.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    # an interpreter that exits while a thread is importing a library can crash: wait a moment
    atexit.register(thread.join, JOIN_S)
    return future
