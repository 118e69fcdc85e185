"""Retries for network calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_with_retries(
    call: Callable[[], T], is_transient: Callable[[BaseException], bool], attempts: int
) -> T:
    """Call with exponential backoff (from half a second, doubling, plus jitter, at most 8 s).

    may_pass   whether an error may go away, so that the call is worth retrying
    Raises the error of the last attempt.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

    return Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential_jitter(multiplier=0.5, max=8),
        retry=retry_if_exception(is_transient),
        reraise=True,
    )(call)
