"""The `ratchet` command: thin, and quick to answer, for everything heavy is imported where it is used."""

from __future__ import annotations

from typing import NoReturn

from flows.cli import adapt as adapt_cli  # noqa: F401, their commands join the app
from flows.cli import chat as chat_cli  # noqa: F401, their commands join the app
from flows.cli import demo as demo_cli  # noqa: F401, their commands join the app
from flows.cli import everyday as basic_cli  # noqa: F401, their commands join the app
from flows.cli import lifecycle as lifecycle_cli  # noqa: F401, their commands join the app
from flows.cli import rank as rank_cli  # noqa: F401, their commands join the app
from flows.cli import schedule as schedule_cli  # noqa: F401, their commands join the app
from flows.cli import stage as stage_cli  # noqa: F401, their commands join the app
from flows.cli import ui as ui_cli  # noqa: F401, their commands join the app
from flows.cli.console import run_app
from tasks.core.memory import collect_rarely


def main() -> NoReturn:
    """Entry point."""
    collect_rarely()
    run_app()
