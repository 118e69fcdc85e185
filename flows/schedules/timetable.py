"""When retraining starts: reads and checks the options of `ratchet schedule`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tasks.core.errors import ParamsError, did_you_mean


@dataclass(frozen=True)
class Plan:
    """When runs start; exactly one of `cron`, `every` and `event` is set."""

    cron: str | None = None
    timezone: str = "UTC"
    every: timedelta | None = None
    event: str | None = None

    def __str__(self) -> str:
        if self.cron:
            return f"cron {self.cron} ({self.timezone})"
        return f"every {self.every}" if self.every else f"on event {self.event}"


def read_plan(
    cron: str | None, every: str | None, on_event: str | None, timezone: str | None
) -> Plan:
    """Read and check the options of `ratchet schedule`."""
    options = {"--cron": cron, "--every": every, "--on-event": on_event}
    set_options = [name for name, value in options.items() if value is not None]
    if len(set_options) != 1:
        problem = (
            " and ".join(set_options) + " together"
            if set_options
            else "neither --cron, --every nor --on-event"
        )
        raise ParamsError(
            f"schedule: {problem}; wanted one of them.",
            'For example: ratchet schedule --cron "0 3 * * *" --timezone Europe/Berlin',
        )
    if timezone is not None and cron is None:
        raise ParamsError(
            f"--timezone {timezone}: goes with --cron only; {set_options[0]} has no time of day.",
            "Leave it out, or give a --cron expression.",
        )
    if cron is not None:
        _check_timezone(timezone or "UTC")
        _check_cron(cron, timezone or "UTC")
        return Plan(cron=cron, timezone=timezone or "UTC")
    if every is not None:
        return Plan(every=_read_interval(every))
    if not on_event or not on_event.strip():
        raise ParamsError(
            "--on-event: an empty name.", "Name the Prefect event, for example data.updated."
        )
    return Plan(event=on_event)


def _check_timezone(name: str) -> None:
    from zoneinfo import available_timezones

    if name not in (known := available_timezones()):
        raise ParamsError(
            f"--timezone {name}: unknown.{did_you_mean(name, known)}",
            "Wanted: an IANA name such as Europe/Berlin.",
        )


def _check_cron(cron: str, timezone: str) -> None:
    import asyncio

    from prefect.server.schemas.schedules import CronSchedule

    try:
        # a valid expression may still match no date, such as 30 February
        asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(n=1))
    except ValueError:
        raise ParamsError(
            f"--cron '{cron}': not a cron expression, or it matches no date.",
            'Wanted: minute, hour, day, month, weekday; "0 3 * * *" is every night at three.',
        ) from None


def _read_interval(text: str) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    days, mark, time = text.strip().upper().rpartition("D")
    duration = f"P{days}{mark}{'T' + time if time else ''}"  # ISO 8601, where M after T is minutes
    try:
        every = TypeAdapter(timedelta).validate_python(duration)
    except ValidationError:
        every = timedelta(0)
    if not timedelta(seconds=1) <= every <= timedelta(days=366):
        raise ParamsError(
            f"--every {text}: not an interval between a second and a year.",
            "Wanted: for example 30m, 6h, 2d or 1d12h.",
        )
    return every
