"""Real workspaces for tests: a git and DVC repository, tiny data, a tiny base model, the real command line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from forked import fork_ratchet
from shared import prefect_server
from tiny import tiny_rows

STAGES = [
    "ingest",
    "validate",
    "split",
    "tokenize",
    "finetune",
    "evaluate",
    "export",
    "verify",
    "report",
]
ROWS = 400
FAST = (
    "finetune.epochs=6", "finetune.learning_rate=0.005", "finetune.head_learning_rate=null", "finetune.batch_size=16",
    "tokenize.max_length=32",
    "evaluate.bootstrap_resamples=100", "verify.timing_rows=16", "verify.max_metric_loss=0.05", "export.calibration_rows=32",
    "export.recipes=[int8-dynamic]", "device=cpu",
)  # fmt: skip


def write_csv(path: Path, rows: dict[str, list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))


def clean_environment() -> dict[str, str]:
    """This process's environment without addresses of anybody's servers, so that a test uses its own stores."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))
    }
    return ours | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "160",
    }


def run(
    directory: Path, *command: str, code: int | None = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=directory,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return checked(done, code)


def checked(
    done: subprocess.CompletedProcess[str], code: int | None
) -> subprocess.CompletedProcess[str]:
    assert code is None or done.returncode == code, (
        f"{' '.join(done.args)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def ratchet(
    directory: Path, *arguments: str, code: int | None = 0, server: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command; with the test run's Prefect server, or from scratch and without one, as somebody new to it has it."""
    if not server:
        return run(directory, "ratchet", *arguments, code=code, **environment)
    environment = {"PREFECT_API_URL": prefect_server()} | environment
    if environment.keys() <= {
        "PREFECT_API_URL",
        "MLFLOW_TRACKING_URI",
    }:  # others may be read as libraries are imported
        return checked(fork_ratchet(directory, arguments, clean_environment() | environment), code)
    return run(directory, "ratchet", *arguments, code=code, **environment)


def ratchet_json(
    directory: Path, *arguments: str, code: int = 0, server: bool = True, **environment: str
) -> Any:
    return json.loads(
        ratchet(directory, *arguments, "--json", code=code, server=server, **environment).stdout
    )


KILLED = 9
KILLED_AS_IT_ANSWERS = """
import os, sys
from flows.cli import lifecycle as lifecycle_cli
lifecycle_cli.print_json = lambda value: os._exit(9)
from flows.cli.main import main
sys.argv = ["ratchet", *sys.argv[1:], "--json"]
main()
"""


def killed_as_it_answers(root: Path, *arguments: str, code: int | None = KILLED) -> int:
    """A command whose effect is done and which dies before it says so; its exit code."""
    return run(
        root,
        sys.executable,
        "-c",
        KILLED_AS_IT_ANSWERS,
        *arguments,
        code=code,
        PREFECT_API_URL=prefect_server(),
    ).returncode


def git(directory: Path, *arguments: str) -> str:
    identity = (
        "-c",
        "user.name=Test",
        "-c",
        "user.email=test@example.org",
        "-c",
        "commit.gpgsign=false",
    )
    return run(directory, "git", *identity, *arguments).stdout.strip()


def make_workspace(root: Path, base: Path, rows: int = ROWS) -> None:
    """`ratchet init` on a CSV file in a new git repository, values set for speed, all committed."""
    root.mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    write_csv(root / "reviews.csv", tiny_rows(rows))
    shutil.copytree(base, root / "base")
    ratchet(
        root,
        "init",
        ".",
        "--yes",
        "--data",
        "reviews.csv",
        "--base-model",
        "base",
        "--model-name",
        "tiny",
    )
    from tasks.params.schema import save_overrides

    save_overrides(root / "params.yaml", FAST)
    run(root, sys.executable, "-m", "tasks", "dvc-yaml")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "A workspace")


def add_own_modules(root: Path) -> None:
    """Modules of the user's own, of the same names as Ratchet's, that must never be imported."""
    (root / "tasks.py").write_text('raise SystemExit("my own tasks")\n', encoding="utf-8")
    for package in ("flows", "models", "serving", "applications"):
        (root / package).mkdir(exist_ok=True)
        own = root / package / "__init__.py"
        own.write_text(f'raise SystemExit("my own {package}")\n', encoding="utf-8")


def copy_workspace(template: Path, root: Path) -> Path:
    """A copy with its stores, which shares nothing with the template."""
    shutil.copytree(template, root, symlinks=True)
    return root


def states(result: dict[str, Any]) -> dict[str, str]:
    """How each stage came to be clean, of `ratchet train --json`."""
    return {stage["name"]: stage["state"] for stage in result["stages"]}
