"""Problem types, one file each, found by its name without being registered anywhere."""

from __future__ import annotations

import importlib
import pkgutil

from tasks.core.errors import ParamsError, did_you_mean
from tasks.problems.problem import Problem

__all__ = ["Problem", "load_problem", "module_name", "problem_names"]


def problem_names() -> list[str]:
    """Names as params.yaml spells them, e.g. 'text-classification'; imports none of them."""
    modules = (module for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return sorted(module.name.replace("_", "-") for module in modules if module.name != "problem")


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
    problem: Problem = importlib.import_module(module_name(name)).PROBLEM
    return problem
