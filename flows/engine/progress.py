"""Stages' lines and progress on standard error: bars on a terminal, else plain lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from tasks.core.progress import LINES, Report, silent
from tasks.pipeline import STAGES

Listener = Callable[[str], Report]  # a stage's name -> receiver of its reports

# a context variable, because Prefect calls the flow and its parameters must be plain values
listener: ContextVar[Listener] = ContextVar("listener", default=lambda stage: silent)

FIRST_LINE, LINE_EVERY = 15.0, 60.0  # seconds, where there is no bar


@contextmanager
def terminal_progress() -> Iterator[None]:
    """Show the stages' progress while the block runs."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def listen(stage: str) -> Report:
            plain = plain_lines(stage, print_line)
            if stage not in tasks:
                shown = f"{stage:<9} {_place(stage)}".rstrip()
                tasks[stage] = bars.add_task(shown, total=1.0, note="")

            def report(step: int, metrics: Mapping[str, float]) -> None:
                if console.is_terminal:
                    bars.update(
                        tasks[stage], completed=metrics.get("progress", 0.0), note=_note(metrics)
                    )
                else:
                    plain(step, metrics)

            return report

        token = listener.set(listen)
        try:
            yield
        finally:
            listener.reset(token)


def show_lines() -> None:
    """Print the stages' lines on standard error from now on."""
    if not LINES.handlers:
        LINES.addHandler(_StandardError())
        LINES.propagate = False


def stage_line(name: str, state: str, seconds: float) -> None:
    """Log how a stage ended."""
    LINES.info("%-10s %-9s %8.1f s", name, state.capitalize(), seconds)


def print_line(line: str) -> None:
    """Print to standard error; standard output is for results."""
    print(line, file=sys.stderr, flush=True)


def prefect_prints() -> bool:
    """Whether Prefect's console prints a run's logs, as the user or `ratchet schedule` set it."""
    return logging.NOTSET < logging.getLogger("prefect").level <= logging.INFO


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if not prefect_prints():
            print_line(record.getMessage())


def _note(metrics: Mapping[str, float]) -> str:
    validated = [name for name in metrics if name.startswith("validation_")]
    names = ["loss", *validated[:1]]  # the metric that selects the checkpoint comes first
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names if name in metrics)


def plain_lines(stage: str, say: Callable[[str], object]) -> Report:
    """Report progress as a line after FIRST_LINE, then one every LINE_EVERY."""
    started = time.monotonic()
    due = started + FIRST_LINE

    def report(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal due
        now, share = time.monotonic(), metrics.get("progress", 0.0)
        if now < due:
            return
        due = now + LINE_EVERY
        left = f"{_seconds((now - started) * (1 - share) / share)} left" if 0 < share < 1 else ""
        parts = (f"{stage:<10}", _place(stage), f"{share:4.0%}", left, _note(metrics))
        say("  ".join(part for part in parts if part))

    return report


def _place(stage: str) -> str:
    """'stage 4 of 9'; '' for work that is no stage."""
    names = [known.name for known in STAGES]
    return f"stage {names.index(stage) + 1} of {len(names)}" if stage in names else ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
