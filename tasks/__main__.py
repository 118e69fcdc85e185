"""`python -m tasks STAGE` runs one stage, as `ratchet stage` in dvc.yaml does.

`python -m tasks dvc-yaml [--check]` renders dvc.yaml, or checks that it is up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.core.errors import PipelineError, as_storage_error
from tasks.core.memory import collect_rarely
from tasks.core.progress import Report
from tasks.core.quiet import quiet_libraries
from tasks.params.workspace import Workspace
from tasks.pipeline import (
    STAGES,
    check_params,
    code_version,
    find_stage,
    render_dvc_yaml,
    run_stage,
    write_dvc_yaml,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 success, 1 a bug or a stale dvc.yaml, 2 a user error.

    argv  arguments to parse in place of sys.argv[1:]
    """
    parser = argparse.ArgumentParser(prog="python -m tasks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for stage in STAGES:
        command = commands.add_parser(stage.name, help=f"make {', '.join(stage.outs.values())}")
        command.add_argument("--code", help="code version that dvc.yaml was rendered with")
    dvc_yaml = commands.add_parser("dvc-yaml", help="render dvc.yaml")
    dvc_yaml.add_argument(
        "--check", action="store_true", help="fail if dvc.yaml is stale; write nothing"
    )
    arguments = parser.parse_args(argv)
    quiet_libraries()
    collect_rarely()
    try:
        workspace = Workspace.find(Path.cwd())
        if arguments.command == "dvc-yaml":
            return _check(workspace) if arguments.check else _render(workspace)
        stage = find_stage(arguments.command)
        params = check_params(workspace.params(), workspace.root)
        installed = code_version(stage, params.problem)
        if arguments.code not in (None, installed):
            raise PipelineError(
                f"dvc.yaml wants version {arguments.code} of {stage.name}'s code, "
                f"this Ratchet has {installed}.",
                "Run `python -m tasks dvc-yaml`, then `dvc repro` again.",
            )
        with _progress_bar(stage.name) as report:
            run_stage(stage, workspace, params, report)
    except PipelineError as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        storage_error = as_storage_error(error)
        if storage_error is None:
            raise
        print(f"{arguments.command}: {storage_error}", file=sys.stderr)
        return 2
    return 0


def _check(workspace: Workspace) -> int:
    target = workspace.root / "dvc.yaml"
    if target.is_file() and target.read_text(encoding="utf-8") == render_dvc_yaml(workspace):
        return 0
    print("dvc.yaml is stale. Run `python -m tasks dvc-yaml`.", file=sys.stderr)
    return 1


def _render(workspace: Workspace) -> int:
    print("dvc.yaml written" if write_dvc_yaml(workspace) else "dvc.yaml is up to date")
    return 0


@contextmanager
def _progress_bar(stage: str) -> Iterator[Report]:
    """A bar on standard error while the stage runs; none where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(stage, total=1.0)

        def report(step: int, metrics: Mapping[str, float]) -> None:
            note = f"  loss {metrics['loss']:.3f}" if "loss" in metrics else ""
            completed = metrics.get("progress", 0.0)
            bar.update(task, completed=completed, description=f"{stage}{note}")

        yield report


if __name__ == "__main__":
    sys.exit(main())
