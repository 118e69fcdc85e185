"""Calls over a network, made again where that may help."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def retried(call: Callable[[], T], may_pass: Callable[[BaseException], bool], attempts: int) -> T:
    """What the call returns; after half a second, then twice as long each time, it is made again where `may_pass` says so of its error.

    The last attempt's error is raised.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

    return Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential_jitter(multiplier=0.5, max=8),
        retry=retry_if_exception(may_pass),
        reraise=True,
    )(call)
