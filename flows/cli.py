"""The `ratchet` command: thin, and quick to answer, for everything heavy is imported where it is used."""

from __future__ import annotations

import gc
from typing import NoReturn

from flows import adapt_cli, basic_cli, chat_cli, demo_cli, lifecycle_cli, rank_cli, schedule_cli  # noqa: F401, their commands join the app
from flows.console import run_app


def main() -> NoReturn:
    """Entry point."""
    # imports make many objects and no garbage: a command with little to do is quicker by a ninth
    gc.set_threshold(100_000, 50, 50)
    run_app()
