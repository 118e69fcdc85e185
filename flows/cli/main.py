"""The `ratchet` command: starts fast, because heavy imports happen where they are used."""

from __future__ import annotations

from typing import NoReturn

from flows.cli import adapt as adapt_cli  # noqa: F401, importing registers the command
from flows.cli import chat as chat_cli  # noqa: F401
from flows.cli import demo as demo_cli  # noqa: F401
from flows.cli import everyday as basic_cli  # noqa: F401
from flows.cli import lifecycle as lifecycle_cli  # noqa: F401
from flows.cli import predict as predict_cli  # noqa: F401
from flows.cli import rank as rank_cli  # noqa: F401
from flows.cli import schedule as schedule_cli  # noqa: F401
from flows.cli import stage as stage_cli  # noqa: F401
from flows.cli import ui as ui_cli  # noqa: F401
from flows.cli.console import run_app
from tasks.core.memory import collect_rarely


def main() -> NoReturn:
    """Entry point."""
    collect_rarely()
    run_app()
