"""What one campaign tried, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tally:
    """One campaign's outcome.

    what      what was tried, such as 'tables read'
    tried     how many
    must_not  what must never happen, such as 'a row lost without a word'
    failures  one line a failure: the input, the outcome, the expected outcome
    """

    what: str
    tried: int
    must_not: str
    failures: Sequence[str] = field(default=())
