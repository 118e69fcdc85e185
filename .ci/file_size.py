"""Fail on a source file too long to read in one sitting, or on a large committed file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MOST_LINES = 400
MOST_BYTES = 500_000


def main() -> int:
    """Exit code 1 if a tracked file is too large."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    files = [Path(name) for name in names if name and Path(name).is_file()]
    large = [
        f"{file}: {file.stat().st_size} bytes, at most {MOST_BYTES}"
        for file in files
        if file.stat().st_size > MOST_BYTES
    ]
    for file in files:
        if file.suffix == ".py" and file.parts[0] in (
            "applications",
            "flows",
            "tasks",
            "benchmarks",
        ):
            lines = file.read_text(encoding="utf-8").count("\n")
            if lines > MOST_LINES:
                large.append(f"{file}: {lines} lines, at most {MOST_LINES}")
    print("\n".join(large), file=sys.stderr)
    return bool(large)


if __name__ == "__main__":
    sys.exit(main())
