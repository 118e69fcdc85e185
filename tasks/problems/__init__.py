"""Problem types, one file each; a file here is found, listed and tested without being registered anywhere."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from tasks.core.errors import ParamsError, did_you_mean
from tasks.problems.base import Problem

__all__ = ["Problem", "load_problem", "module_name", "problem_names"]

SHARED = frozenset(
    {"base", "unlabelled", "token_guesses"}
)  # files here that hold no problem type, but what types share


def problem_names() -> list[str]:
    """Names as params.yaml spells them, e.g. 'text-classification'; imports none of them."""
    return sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(__path__)
        if module.name not in SHARED
    )


def module_name(name: str) -> str:
    """The module that holds a problem type; ParamsError where there is none."""
    if name not in problem_names():
        known = ", ".join(problem_names())
        raise ParamsError(
            f"problem: unknown problem type '{name}'.{did_you_mean(name, problem_names())}",
            f"Known: {known}.",
        )
    return f"{__name__}.{name.replace('-', '_')}"


def load_problem(name: str) -> Problem:
    """The problem type of that name; ParamsError where there is none."""
    module = importlib.import_module(module_name(name))
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Problem)
        and kind.__module__ == module.__name__
        and not inspect.isabstract(kind)
    ]
    if len(found) != 1:
        raise TypeError(
            f"{module.__name__} must define exactly one Problem, it defines {len(found)}"
        )
    return found[0]()
