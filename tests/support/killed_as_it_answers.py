"""`ratchet` that takes effect but dies before it prints its result: COMMAND... --json."""

from __future__ import annotations

import os

from faults import KILLED

from flows.cli import lifecycle as lifecycle_cli
from flows.cli.main import main

if __name__ == "__main__":
    lifecycle_cli.print_json = lambda value: os._exit(KILLED)  # type: ignore[attr-defined]
    main()
