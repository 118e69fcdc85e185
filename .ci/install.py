"""Install the checkout with its pinned packages into a virtual environment, and show how far it is.

    python .ci/install.py VENV

The packages are those of constraints.txt. Byte code is compiled on all cores afterwards, which
takes a third of the time that pip takes for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Exit with pip's code if it fails; its messages were printed."""
    python = Path(sys.argv[1]).absolute() / "bin" / "python"
    options = "--no-compile --disable-pip-version-check --no-input"
    command = [str(python), "-m", "pip", "install", *options.split(), "-c", "constraints.txt"]
    with subprocess.Popen(
        [*command, "-e", ".[dev]"], cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        show(pip.stdout)
    if pip.returncode:
        sys.exit(pip.returncode)
    print("  compiling", flush=True)
    # some packages ship files that are not meant to compile
    compileall = [str(python), "-m", "compileall", "-q", "-j", "0", str(python.parents[1] / "lib")]
    subprocess.run(compileall, capture_output=True, check=False)


def show(lines: Iterable[str]) -> None:
    """Print pip's progress: on a terminal one line that counts, else a line every half a minute."""
    found, started, is_installing = 0, time.monotonic(), False
    last = started
    is_terminal = sys.stdout.isatty()
    for line in lines:
        found += line.startswith("Collecting ")
        if line.startswith("Installing collected packages"):
            is_installing = True
            print("\r" * is_terminal + f"  installing {found} packages", flush=True)
        elif not is_installing and (is_terminal or time.monotonic() - last > 30):
            last = time.monotonic()
            print(f"  collected {found} packages", end="\r" if is_terminal else "\n", flush=True)
    print(f"  {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    main()
