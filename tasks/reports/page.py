"""Pages as HTML: a template each, everything escaped but our own plots, nothing to load from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.reports.plots import metric_title

MAX_CELL = 300  # characters of a text in a table


@dataclass(frozen=True)
class Plot:
    """A drawing: `alt` says in words what it shows, `svg` is an <svg> element."""

    alt: str
    svg: str
    title: str = ""


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """The page's text, of a template in this directory; an undefined value is an error, not an empty place."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "interval": interval,
        "signed": lambda value: f"{value:+.3f}",
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
    """A value of a table's cell: whole numbers as they are, others to three or four significant digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return (
            f"{value:,.0f}"
            if abs(value) >= 1000
            else f"{value:.3f}"
            if abs(value) >= 0.001 or value == 0
            else f"{value:.1e}"
        )
    text = str(value)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def interval(found: Mapping[str, float]) -> str:
    """'0.742 (0.721–0.763)'."""
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def tables(details: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Those details that are lists of mappings, which a table can show."""
    return {
        name: value
        for name, value in details.items()
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value)
    }


def fields(row: Mapping[str, Any] | None) -> str:
    """A row of data or a prediction in one line; of a single field, its value alone."""
    if row is None:
        return ""
    values = list(row.values())
    if len(row) == 1:
        return number(values[0])
    return ", ".join(f"{name}: {number(value)}" for name, value in row.items())
