"""Kills in this process: a call that ends everything, before it did its work or after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@contextmanager
def killed_at(owner: Any, name: str, when: str) -> Iterator[None]:
    """What is run meanwhile has to die in a function of a module, or in a method of a class, `before` or `after` its work."""
    real = getattr(owner, name)

    def killed(*arguments: Any, **named: Any) -> None:
        if when == "after":
            real(*arguments, **named)
        raise Killed

    with mock.patch.object(owner, name, killed), pytest.raises(Killed):
        yield
