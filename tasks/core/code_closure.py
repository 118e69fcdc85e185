"""Which of our source files a module's behaviour rests on, read from its text without importing it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = "tasks"
CODE_ROOT = Path(__file__).resolve().parent.parent.parent


def module_file(module: str) -> Path | None:
    """The file of one of our modules or packages; None for anybody else's."""
    if module.split(".")[0] != PACKAGE:
        return None
    stem = CODE_ROOT.joinpath(*module.split("."))
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


@cache
def imported_files(module: str) -> frozenset[Path]:
    """The module's file and, transitively, those of ours that it imports, lazily or not."""
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        file = module_file(name)
        if file is None or name in found:
            continue
        found[name] = file
        pending += _imports(file)
    # a template is part of the module whose name it bears
    templates = {template for file in found.values() for template in file.parent.glob(f"{file.stem}.*.j2")}
    # an empty package file says nothing, and its path is noise
    return frozenset(file for file in {*found.values(), *templates} if file.stat().st_size > 1)


@cache
def _imports(file: Path) -> tuple[str, ...]:
    names: list[str] = []
    pending: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue  # types only: nothing of it runs
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from a.b import c`: c may be a module or a name in a.b
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        # an import is a statement, and expressions hold none
        pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case)]
    return tuple(names)
