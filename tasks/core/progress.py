"""Progress reports and log lines of a running stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

# lines for people, such as warnings: the caller of the stage decides where they go; without a
# handler, Python prints warnings to stderr
LINES = logging.getLogger("ratchet")
LINES.setLevel(logging.INFO)


class Report(Protocol):
    """Callback through which a stage reports a step's metrics; the stage does not know who listens.

    The metric `progress`, in [0, 1], is the share of the stage's work done; the others are specific
    to the stage.
    """

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receive the metrics of one step."""


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """A Report that ignores everything."""
