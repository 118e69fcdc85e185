"""Whether code that a stage can reach has changed while its declared version has not.

    python .ci/stage_code.py            list what has changed; exit code 1 if anything has
    python .ci/stage_code.py --record   after versions were raised (tasks/pipeline.py,
                                        `stage_versions` of a problem type)
    python .ci/stage_code.py --record --same-results
                                        after a change that leaves every stage's results as they are

It compares syntax trees without docstrings, comments, annotations, messages of errors and log
calls: none of these change a result.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / ".ci" / "stage_code.json"
LOGS = frozenset(("debug", "info", "warning", "error", "exception", "log", "print"))
sys.path.insert(0, str(ROOT))

from tasks.pipeline import STAGES, code_version  # noqa: E402, the checkout's own
from tasks.problems import module_name, problem_names  # noqa: E402


def current() -> dict[str, Any]:
    """Digests of files, and of each stage of each problem type: (version, what it can reach)."""
    reach = {
        f"{stage.name} of {problem}": _reached(stage, problem)
        for stage in STAGES
        for problem in problem_names()
    }
    stages = {
        name: [version, _sha256(sorted(map(digest, files)))]
        for name, (version, files) in reach.items()
    }
    files = {
        file.relative_to(ROOT).as_posix(): digest(file)
        for file in set().union(*(files for _, files in reach.values()))
    }
    return {"files": dict(sorted(files.items())), "stages": stages}


def _reached(stage: Any, problem: str) -> tuple[str, frozenset[Path]]:
    modules = [stage.module, *([module_name(problem)] if "problem" in stage.params else [])]
    return code_version(stage, problem), frozenset().union(*map(imported_files, modules))


def changes(recorded: dict[str, Any], found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(changed files, stages that reach one of them and still have the recorded version)."""
    before, after = recorded["files"], found["files"]
    files = sorted(
        file for file in before.keys() | after.keys() if before.get(file) != after.get(file)
    )
    known = recorded["stages"]
    return files, [
        name
        for name, now in found["stages"].items()
        if name in known and now[0] == known[name][0] and now[1] != known[name][1]
    ]


@cache
def imported_files(module: str) -> frozenset[Path]:
    """The module's file, and transitively our files that it imports, with their templates."""
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        stem = ROOT.joinpath(*name.split("."))
        file = next(
            (file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()),
            None,
        )
        if file is None or name.split(".")[0] != "tasks" or name in found:
            continue
        found[name] = file
        pending += _imports(_tree(file))
    templates = {
        template for file in found.values() for template in file.parent.glob(f"{file.stem}.*.j2")
    }
    return frozenset({*found.values(), *templates})


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif (
            isinstance(node, ast.ImportFrom) and node.module
        ):  # `from a.b import c`: c may be a module or a name in a.b
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


@cache
def digest(file: Path) -> str:
    """Of what of the file can change a result."""
    return _sha256(file.read_text(encoding="utf-8") if file.suffix != ".py" else plain(_tree(file)))


def plain(node: Any) -> Any:
    """A syntax tree as lists, the same under every version of Python that parses it alike."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (
        (name, value)
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("ctx", "kind")
    )
    return [type(node).__name__, *([name, plain(value)] for name, value in fields)]


@cache
def _tree(file: Path) -> ast.AST:
    return _Stripped().visit(ast.parse(file.read_text(encoding="utf-8")))  # type: ignore[no-any-return]


def strip(source: str) -> Any:
    """`plain` of a source's text."""
    return plain(_Stripped().visit(ast.parse(source)))


class _Stripped(ast.NodeTransformer):
    """Without what changes no result."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            del body[0]  # type: ignore[index]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        return super().generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if types else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        return (
            None
            if isinstance(call, ast.Call) and _name(call.func) in LOGS
            else self.generic_visit(node)
        )

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _name(node.func).endswith("Error"):
            return ast.Call(node.func, [], [])
        return self.generic_visit(node)


def _name(function: ast.expr) -> str:
    return (
        function.id
        if isinstance(function, ast.Name)
        else function.attr
        if isinstance(function, ast.Attribute)
        else ""
    )


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:16]


def main() -> int:
    """Exit code: 1 where somebody has to say whether results change."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write .ci/stage_code.json")
    parser.add_argument(
        "--same-results",
        action="store_true",
        help="no result of a stage differs, though its code does",
    )
    arguments = parser.parse_args()
    found = current()
    recorded = (
        json.loads(RECORD.read_text(encoding="utf-8"))
        if RECORD.is_file()
        else {"files": {}, "stages": {}}
    )
    files, stages = changes(recorded, found)
    if stages and not (arguments.record and arguments.same_results):
        print(
            f"changed: {', '.join(files)}\nwith no new version: {', '.join(stages)}\n{__doc__}",
            file=sys.stderr,
        )
        return 1
    if arguments.record:
        RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    if found != recorded:
        print(
            f"changed: {', '.join(files) or 'declared versions'}\n"
            "not recorded yet: python .ci/stage_code.py --record",
            file=sys.stderr,
        )
    return int(found != recorded)


if __name__ == "__main__":
    sys.exit(main())
