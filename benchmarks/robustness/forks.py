"""`ratchet` in forks of this process, without Prefect: a command takes one second, not ten.

Prefect itself has no effect to test. The command line, the workspace's lock, DVC and MLflow are the
real ones; promotions skip judging, which changes nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


def find_tests() -> None:
    """Make the tests' helpers known: tiny models and workspaces, faults, PostgreSQL."""
    tests = str(Path(__file__).resolve().parents[2] / "tests" / "support")
    if tests not in sys.path:
        sys.path.append(tests)


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def import_all() -> None:
    """Import once what every fork would."""
    from forked import MODULES

    for module in MODULES:
        import_module(module)


def fork(root: Path, arguments: tuple[str, ...], fault: str = "", **environment: str) -> Done:
    """Run a command in a workspace, with a fault of tests/support/faults.py."""
    with tempfile.TemporaryDirectory() as streams:
        out, err = Path(streams, "out"), Path(streams, "err")
        pid = os.fork()
        if pid == 0:
            _run(root, arguments, fault, {"OMP_NUM_THREADS": "1"} | environment, (out, err))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Done(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def _run(
    root: Path,
    arguments: tuple[str, ...],
    fault: str,
    environment: dict[str, str],
    streams: tuple[Path, Path],
) -> None:
    code = 1
    try:
        from faults import arm
        from forked import become
        from workspaces import clean_environment

        request: dict[str, Any] = {
            "environment": clean_environment() | environment,
            "directory": str(root),
            "command": ["ratchet", *arguments],
        }
        become(request | {"out": str(streams[0]), "err": str(streams[1])})
        from flows.cli.main import main

        _leave_out_prefect()
        if fault:
            arm(fault)
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _leave_out_prefect() -> None:
    from flows import launch, promotion
    from flows.engine.training_run import TrainingRun
    from flows.lifecycle.judgement import Judgement
    from tasks.pipeline import STAGES

    def train(workspace: Any, overrides: Any = (), *, force: bool = False) -> Any:
        with launch.workspace_lock(workspace), TrainingRun(workspace, overrides) as run:
            if found := run.finished_result():
                return found
            for stage in STAGES:
                run.stage(stage.name)
            return run.result(run.register("none"))

    def judge(
        place: Any, registry: Any, challenger: Any, champion: Any, decisions: Any
    ) -> Judgement:
        return Judgement(
            challenger.number, champion and champion.number, [], 1, {}, challenger.number
        )

    changes = {"judge_candidate": judge, "create_markdown_artifact": lambda *_, **__: None}
    changes |= {
        name: getattr(promotion, name).fn for name in ("promotion", "rollback_flow", "carry_out")
    }
    for name, value in changes.items():
        setattr(promotion, name, value)
    launch.train, launch.ensure_server = train, lambda workspace: None
