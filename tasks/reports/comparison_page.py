"""A comparison of two models as one self-contained page."""

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


def render_comparison(found: Mapping[str, Any]) -> str:
    """The page of what `flows.lifecycle.comparing.compare` found."""
    judged = [part for part in found["slices"] if part["judged"]]
    values = {
        **found,
        "plots": {
            "metrics": _metrics_plot(found),
            "reliability": list(_reliability_plots(found)),
            "slices": list(_slice_plots(judged)),
        },
        "tables": {
            "metrics": [
                {"metric": metric_title(name), **_cells(difference)}
                for name, difference in found["metrics"].items()
            ],
            "slices": [_slice_row(part) for part in judged],
            "speed": [
                {"measured": name, "A": found["models"][0][key], "B": found["models"][1][key]}
                for name, key in SPEED.items()
            ],
            "changes": [
                {"what": key, "A": str(ours), "B": str(theirs)}
                for changes in (found["params"], found["lineage"])
                for key, (ours, theirs) in changes.items()
            ],
        },
    }
    return render_page("comparison.html.j2", values)


def _metrics_plot(found: Mapping[str, Any]) -> Plot:
    named = {metric_title(name): difference for name, difference in found["metrics"].items()}
    words = ", ".join(f"{name} {difference['value']:+.3f}" for name, difference in named.items())
    return Plot(
        f"A minus B of every metric with intervals: {words}.",
        to_svg(differences_figure("A minus B", named)),
    )


def _reliability_plots(found: Mapping[str, Any]) -> Iterator[Plot]:
    series = {
        name: model["details"].get("reliability")
        for name, model in zip("AB", found["models"], strict=True)
    }
    if all(series.values()):
        yield Plot(
            "Accuracy against confidence of both models.",
            to_svg(reliability_figure(series)),
            "Reliability",
        )


def _slice_plots(judged: list[Mapping[str, Any]]) -> Iterator[Plot]:
    for column in dict.fromkeys(part["column"] for part in judged):
        named = {
            f"{part['value']} ({part['rows']:,})": part["difference"]
            for part in judged
            if part["column"] == column
        }
        yield Plot(
            f"A minus B of accuracy by {column}, with intervals; the table holds the numbers.",
            to_svg(differences_figure(column, named)),
        )


def _slice_row(part: Mapping[str, Any]) -> dict[str, Any]:
    cells = {key: value for key, value in _cells(part["difference"]).items() if key != "p"}
    return {
        "slice": f"{part['column']}={part['value']}",
        "rows": part["rows"],
        **cells,
        "p of a fall": part["fall_p_adjusted"],
    }


def _cells(difference: Mapping[str, float]) -> dict[str, Any]:
    return {
        "A": difference["first"], "B": difference["second"], "A - B": f"{difference['value']:+.4f}",
        "95% interval": f"{difference['low']:+.4f} to {difference['high']:+.4f}", "p": difference["p_value"],
    }  # fmt: skip
