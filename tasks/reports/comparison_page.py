"""Render the comparison of two models as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.reports.page import Plot, render_page
from tasks.reports.plots import differences_figure, metric_title, reliability_figure, to_svg

SPEED = {
    "batch 1 p50, ms": "latency_ms_p50",
    "batch 1 p95, ms": "latency_ms_p95",
    "batch 32, rows/s": "throughput",
    "size, bytes": "size_bytes",
}


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """The page of a result of `flows.lifecycle.comparing.compare`."""
    judged = [entry for entry in comparison["slices"] if entry["judged"]]
    first, second = comparison["models"]
    values = {
        **comparison,
        "plots": {
            "metrics": _metrics_plot(comparison),
            "reliability": list(_reliability_plots(comparison)),
            "slices": list(_slice_plots(judged)),
        },
        "tables": {
            "metrics": [
                {"metric": metric_title(name), **_cells(difference)}
                for name, difference in comparison["metrics"].items()
            ],
            "slices": [_slice_row(entry) for entry in judged],
            "speed": [
                {"measured": name, "A": first[key], "B": second[key]} for name, key in SPEED.items()
            ],
            "changes": [
                {"setting": key, "A": str(value_a), "B": str(value_b)}
                for changes in (comparison["params"], comparison["lineage"])
                for key, (value_a, value_b) in changes.items()
            ],
        },
    }
    return render_page("comparison.html.j2", values)


def _metrics_plot(comparison: Mapping[str, Any]) -> Plot:
    by_title = {metric_title(name): entry for name, entry in comparison["metrics"].items()}
    values = ", ".join(f"{title} {entry['value']:+z.3f}" for title, entry in by_title.items())
    return Plot(
        f"A minus B for every metric, with intervals: {values}.",
        to_svg(differences_figure("A minus B", by_title)),
    )


def _reliability_plots(comparison: Mapping[str, Any]) -> Iterator[Plot]:
    models = zip("AB", comparison["models"], strict=True)
    series = {name: model["details"].get("reliability") for name, model in models}
    if all(series.values()):
        yield Plot(
            "Accuracy against confidence of both models.",
            to_svg(reliability_figure(series)),
            "Reliability",
        )


def _slice_plots(judged: list[Mapping[str, Any]]) -> Iterator[Plot]:
    for column in dict.fromkeys(entry["column"] for entry in judged):
        differences = {
            f"{entry['value']} ({entry['rows']:,})": entry["difference"]
            for entry in judged
            if entry["column"] == column
        }
        yield Plot(
            f"A minus B of accuracy by {column}, with intervals; the table holds the numbers.",
            to_svg(differences_figure(column, differences)),
        )


def _slice_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    cells = {key: value for key, value in _cells(entry["difference"]).items() if key != "p"}
    return {
        "slice": f"{entry['column']}={entry['value']}",
        "rows": entry["rows"],
        **cells,
        "p of a fall": entry["fall_p_adjusted"],
    }


def _cells(difference: Mapping[str, float]) -> dict[str, Any]:
    return {
        "A": difference["first"],
        "B": difference["second"],
        "A - B": f"{difference['value']:+z.4f}",
        "95% interval": f"{difference['low']:+z.4f} to {difference['high']:+z.4f}",
        "p": difference["p_value"],
    }
