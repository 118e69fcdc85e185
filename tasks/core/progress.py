"""What a long stage says while it works."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

# lines for people, such as a warning: whoever drives the stage decides where they go; Python prints warnings that nobody takes
LINES = logging.getLogger("ratchet")
LINES.setLevel(logging.INFO)


class Report(Protocol):
    """Called by a stage with a step number and numbers of that step; the stage knows nothing of who listens.

    The metric `progress`, in [0, 1], is the share of the stage's work that is done; the others are its own.
    """

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take one step's numbers."""


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """Report to nobody."""
