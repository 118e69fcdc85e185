"""Real workspaces for tests: git, DVC and the real command line; tiny data and base model."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from faults import KILLED
from forked import fork_ratchet
from shared import prefect_server
from tiny import tiny_rows

DATA_STAGES = ["ingest", "validate", "split", "tokenize"]
STAGES = [*DATA_STAGES, "finetune", "evaluate", "export", "verify", "report"]
ROWS = 400
FAST = (
    "finetune.epochs=6",
    "finetune.learning_rate=0.005",
    "finetune.head_learning_rate=null",
    "finetune.batch_size=16",
    "tokenize.max_length=32",
    "evaluate.bootstrap_resamples=100",
    "verify.timing_rows=16",
    "verify.max_metric_loss=0.05",
    "export.calibration_rows=32",
    "export.recipes=[int8-dynamic]",
    "device=cpu",
)

# variables that libraries read when they are used; a fork would miss one read at an import
READ_WHEN_USED = {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"}


# what libraries and the interpreter print around a message of ours
NOISE = re.compile(
    r"^Traceback |^  File \"|Warning: |^(WARNING|ERROR|INFO|DEBUG)\b|Exception ignored|atexit"
    r"|terminate called|core dumped|^[\w.]+(Error|Exception): ",
    re.MULTILINE,
)


def write_csv(path: Path, rows: dict[str, list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))


def clean_environment() -> dict[str, str]:
    """This process's environment without the addresses of servers: a test uses its own stores."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return inherited | {"PATH": path, "COLUMNS": "160"}


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
    shown = f"{' '.join(done.args)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert code is None or done.returncode == code, shown
    if done.args[0] == "ratchet" and done.returncode == 2:
        assert not NOISE.search(done.stderr), shown
    return done


def ratchet(
    directory: Path, *arguments: str, code: int | None = 0, server: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `ratchet` with the test run's Prefect server.

    server  False: in a fresh process and without a server, as a new user runs it
    """
    if not server:
        return run(directory, "ratchet", *arguments, code=code, **environment)
    if environment.keys() <= READ_WHEN_USED:
        return forked(directory, *arguments, code=code, environment=environment)
    environment = {"PREFECT_API_URL": prefect_server()} | environment
    return run(directory, "ratchet", *arguments, code=code, **environment)


def forked(
    directory: Path,
    *arguments: str,
    code: int | None = 0,
    script: Path | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `ratchet`, or a script in its place, in a fork, with the test run's Prefect server."""
    variables = clean_environment() | {"PREFECT_API_URL": prefect_server()} | (environment or {})
    return checked(fork_ratchet(directory, arguments, variables, script), code)


def ratchet_json(
    directory: Path, *arguments: str, code: int = 0, server: bool = True, **environment: str
) -> Any:
    done = ratchet(directory, *arguments, "--json", code=code, server=server, **environment)
    return json.loads(done.stdout)


KILLED_AS_IT_ANSWERS = Path(__file__).with_name("killed_as_it_answers.py")


def killed_as_it_answers(root: Path, *arguments: str, code: int | None = KILLED) -> int:
    """The exit code of a command that takes effect but dies before it prints its result."""
    done = forked(root, *arguments, "--json", code=code, script=KILLED_AS_IT_ANSWERS)
    return done.returncode


def git(directory: Path, *arguments: str) -> str:
    settings = ("user.name=Test", "user.email=test@example.org", "commit.gpgsign=false")
    options = [part for setting in settings for part in ("-c", setting)]
    return run(directory, "git", *options, *arguments).stdout.strip()


def make_workspace(root: Path, base: Path, rows: int = ROWS) -> None:
    """`ratchet init` on a CSV file in a new git repository, with FAST parameters; all committed."""
    root.mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    write_csv(root / "reviews.csv", tiny_rows(rows))
    shutil.copytree(base, root / "base")
    names = ("--data", "reviews.csv", "--base-model", "base", "--model-name", "tiny")
    ratchet(root, "init", ".", "--yes", *names)
    from tasks.params.schema import save_overrides

    save_overrides(root / "params.yaml", FAST)
    ratchet(root, "dvc-yaml")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "A workspace")


def add_own_modules(root: Path) -> None:
    """Add modules of the user's own with Ratchet's names, which must never be imported."""
    (root / "tasks.py").write_text('raise SystemExit("my own tasks")\n', encoding="utf-8")
    for package in ("flows", "models", "serving", "applications"):
        (root / package).mkdir(exist_ok=True)
        own = root / package / "__init__.py"
        own.write_text(f'raise SystemExit("my own {package}")\n', encoding="utf-8")


def copy_workspace(template: Path, root: Path) -> Path:
    """Copy a workspace with its stores; the copy shares nothing with the template."""
    shutil.copytree(template, root, symlinks=True)
    return root


def states(result: dict[str, Any]) -> dict[str, str]:
    """Stage -> its state, from the result of `ratchet train --json`."""
    return {stage["name"]: stage["state"] for stage in result["stages"]}
