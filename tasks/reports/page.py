"""Render self-contained HTML pages from Jinja templates; all but our own plots is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.reports.plots import metric_title

MAX_CELL = 300  # characters of a text in a table cell


@dataclass(frozen=True)
class Plot:
    """A plot as an <svg> element; `alt` says in words what it shows."""

    alt: str
    svg: str
    title: str = ""


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Render a template of this directory; an undefined value is an error, not an empty string."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    filters: dict[str, Callable[..., Any]] = {
        "interval": interval,
        "signed": lambda value: f"{value:+z.3f}",
        "number": number,
        "percent": lambda share: f"{share:.1%}",
        "words": metric_title,
        "megabytes": lambda size: "–" if size is None else f"{size / 1e6:,.1f} MB",
        "tables": tables,
        "fields": fields,
    }
    environment.filters.update(filters)
    return environment.get_template(template).render(values)


def number(value: object) -> str:
    """A table cell: integers with separators, floats rounded, long texts cut at MAX_CELL."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    text = str(value)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def interval(measured: Mapping[str, float]) -> str:
    """A value with its interval, as in '0.742 (0.721–0.763)'."""
    return f"{measured['value']:.3f} ({measured['low']:.3f}–{measured['high']:.3f})"


def tables(details: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The details that a table can show: lists of mappings."""
    return {
        name: value
        for name, value in details.items()
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value)
    }


def fields(row: Mapping[str, Any] | None) -> str:
    """A row of data or a prediction on one line; a single field shows only its value."""
    if row is None:
        return ""
    values = list(row.values())
    if len(row) == 1:
        return number(values[0])
    return ", ".join(f"{name}: {number(value)}" for name, value in row.items())
