"""The `ratchet` command: thin, and quick to answer, for everything heavy is imported where it is used."""

from __future__ import annotations

from typing import NoReturn

from flows import adapt_cli, basic_cli, chat_cli, demo_cli, lifecycle_cli, rank_cli, schedule_cli, ui_cli  # noqa: F401, their commands join the app
from flows.console import run_app
from tasks.core.memory import collect_rarely


def main() -> NoReturn:
    """Entry point."""
    collect_rarely()
    run_app()
