"""Simulated kills in this process: a call that never returns, before its work or after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest


class Killed(BaseException):
    """Stands for a kill: none of our code catches it."""


@contextmanager
def killed_at(owner: Any, name: str, when: str) -> Iterator[None]:
    """The body must die in a function of a module, or a method of a class, named `name`.

    when  'before' or 'after' the function's work
    """
    real = getattr(owner, name)

    def killed(*arguments: Any, **named: Any) -> None:
        if when == "after":
            real(*arguments, **named)
        raise Killed

    with mock.patch.object(owner, name, killed), pytest.raises(Killed):
        yield
