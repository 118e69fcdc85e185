"""When retraining is to start: the options of `ratchet schedule`, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tasks.core.errors import ParamsError, did_you_mean


@dataclass(frozen=True)
class Plan:
    """When runs start; exactly one of `cron`, `every` and `event` is given."""

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
    """The options of `ratchet schedule`, checked."""
    given = [
        name
        for name, value in (("--cron", cron), ("--every", every), ("--on-event", on_event))
        if value is not None
    ]
    if len(given) != 1:
        found = (
            "neither --cron, --every nor --on-event"
            if not given
            else " and ".join(given) + " together"
        )
        raise ParamsError(
            f"schedule: {found}; wanted one of them.",
            'For example: ratchet schedule --cron "0 3 * * *" --timezone Europe/Berlin',
        )
    if timezone is not None and cron is None:
        raise ParamsError(
            f"--timezone {timezone}: goes with --cron; {given[0]} has no time of day.",
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
        asyncio.run(
            CronSchedule(cron=cron, timezone=timezone).get_dates(n=1)
        )  # 30 February is an expression, but no date
    except ValueError:
        raise ParamsError(
            f"--cron '{cron}': not a cron expression that ever comes to pass.",
            'Wanted: minute, hour, day, month, weekday; "0 3 * * *" is every night at three.',
        ) from None


def _read_interval(text: str) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    days, mark, time = text.strip().upper().rpartition("D")
    try:
        every = TypeAdapter(timedelta).validate_python(
            f"P{days}{mark}{'T' + time if time else ''}"
        )  # ISO 8601, where M after T is minutes
    except ValidationError:
        every = timedelta(0)
    if not timedelta(seconds=1) <= every <= timedelta(days=366):
        raise ParamsError(
            f"--every {text}: not an interval between a second and a year.",
            "Wanted: for example 30m, 6h, 2d or 1d12h.",
        )
    return every
