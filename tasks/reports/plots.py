"""Plots as SVG in the text colour of the surrounding page, readable on light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tasks.reports.stage_reports import Interval, SliceReport

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

INK = "#010203"  # placeholder for the page's text colour
BLUE, ORANGE, GREY = "#3d85c6", "#e07b39", "#8b9098"
# labels up to which a confusion matrix shows numbers, and names; most bars in a plot
MAX_ANNOTATED, MAX_NAMED, MAX_BARS = 12, 40, 25
_NAMES = {"mcc": "MCC", "ece": "ECE", "log_loss": "log-loss", "chrf": "chrF", "rouge_l": "ROUGE-L"}
_STYLE: dict[RcKeyType, Any] = {
    "text.parse_math": False,  # a label may hold a dollar sign
    "svg.fonttype": "none", "svg.hashsalt": "ratchet", "font.size": 10, "axes.titlesize": 11,
    "axes.spines.top": False, "axes.spines.right": False,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "legend.labelcolor": INK,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "legend.frameon": False,
    "grid.color": GREY, "grid.alpha": 0.3, "axes.grid": True, "axes.axisbelow": True,
}  # fmt: skip
_Parameters = ParamSpec("_Parameters")


def styled(draw: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    """Draw in our style, independent of matplotlib's global settings."""

    @wraps(draw)
    def drawn(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def metric_title(name: str) -> str:
    """A metric's display name: 'macro F1' for 'macro_f1'."""
    return _NAMES.get(name, re.sub(r"\bf1\b", "F1", name.replace("_", " ")))


def shorten(text: str, length: int = 28) -> str:
    """One line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element: reproducible bytes, and no URLs."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # text is drawn in the page's fonts, not in matplotlib's, which lack most scripts
        for message in ("Glyph .* missing", "Matplotlib currently does not support .* natively"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        figure.savefig(
            buffer, format="svg", bbox_inches="tight", pad_inches=0.1, metadata={"Date": None}
        )
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", svg)  # not needed inside HTML
    return svg.replace(INK, "currentColor").strip()


@styled
def confusion_figure(confusion: npt.NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Confusion matrix shaded by share of the actual label's rows, with counts if there is room."""
    count = len(labels)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    size = float(np.clip(0.85 * count, 3.2, 7))
    figure = Figure(figsize=(size + 1, size))
    axes = figure.subplots()
    ink = mpl.colors.to_rgb(BLUE)
    shades = LinearSegmentedColormap.from_list("shades", [(*ink, 0.03), (*ink, 1.0)])
    image = axes.imshow(shares, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    axes.set(xlabel="predicted", ylabel="actual")
    if count <= MAX_NAMED:
        names = [shorten(label, 20) for label in labels]
        axes.set_xticks(range(count), names)
        axes.set_yticks(range(count), names)
        axes.tick_params(labelsize=9 if count <= MAX_ANNOTATED else 7)
        if max(map(len, names)) * count > 40:
            for name in axes.get_xticklabels():
                name.set(rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set(xlabel=f"predicted (label number, of {count})", ylabel="actual (label number)")
    if count <= MAX_ANNOTATED:
        for row, column in np.ndindex(count, count):
            share = shares[row, column]
            text = f"{confusion[row, column]:,}" + (f"\n{share:.0%}" if count <= 8 else "")
            color = "white" if share > 0.6 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    bar = figure.colorbar(
        image, ax=axes, fraction=0.045, pad=0.03, format=lambda share, _: f"{share:.0%}"
    )
    bar.outline.set_visible(False)
    return figure


@styled
def reliability_figure(series: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Accuracy against confidence by bin, above the rows per bin; one or two series, by name."""
    figure = Figure(figsize=(4.6, 4.4))
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    colors = (ORANGE, BLUE) if len(series) > 1 else (BLUE,)
    for (name, bins), color in zip(series.items(), colors, strict=True):
        points = zip(*((entry["confidence"], entry["accuracy"]) for entry in bins), strict=True)
        axes.plot(*points, marker="o", markersize=4, linewidth=1.5, color=color, label=name)
        middles = [(entry["low"] + entry["high"]) / 2 for entry in bins]
        widths = [entry["high"] - entry["low"] for entry in bins]
        counts.bar(middles, [entry["rows"] for entry in bins], widths, color=color, alpha=0.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
    counts.set(xlabel="confidence", ylabel="rows")
    return figure


@styled
def precision_recall_figure(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Precision over recall by split name, with the chosen point (see scoring/thresholds.py)."""
    figure = Figure(figsize=(4.6, 3.9))
    axes = figure.subplots()
    colors = (ORANGE, BLUE) if len(curves) > 1 else (BLUE,)
    for (name, entry), color in zip(curves.items(), colors, strict=True):
        points = zip(*((p["recall"], p["precision"]) for p in entry["curve"]), strict=True)
        label = f"{name}, average precision {entry['average_precision']:.3f}"
        axes.plot(*points, color=color, linewidth=1.5, label=label)
        axes.plot(entry["recall"], entry["precision"], "o", color=color, markersize=7)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="recall", ylabel="precision")
    axes.set_title(f"dots mark the threshold, {entry['threshold']:.3f}", fontsize=10)
    axes.legend(loc="lower left", fontsize=9)
    return figure


@styled
def scores_figure(entries: Sequence[Mapping[str, Any]]) -> Figure:
    """Precision, recall and F1 of each label that has rows, lowest F1 first, at most MAX_BARS.

    entries   {label, precision, recall, f1, support}, at least one of them with rows
    """
    present = [entry for entry in entries if entry["support"]]
    shown = sorted(present, key=lambda entry: float(entry["f1"]))[:MAX_BARS]
    positions = np.arange(len(shown))
    figure = Figure(figsize=(4.8, 0.9 + 0.28 * len(shown)))
    axes = figure.subplots()
    axes.barh(positions, [entry["f1"] for entry in shown], color=BLUE, alpha=0.35, label="F1")
    for name, mark, color in (("precision", ">", ORANGE), ("recall", "o", BLUE)):
        values = [entry[name] for entry in shown]
        axes.plot(values, positions, mark, color=color, markersize=5, label=name)
    names = [f"{shorten(entry['label'])} ({entry['support']:,})" for entry in shown]
    axes.set_yticks(positions, names)
    axes.set(xlim=(0, 1.02), ylim=(len(shown) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
    return figure


@styled
def differences_figure(title: str, differences: Mapping[str, Mapping[str, float]]) -> Figure:
    """Paired differences by name with their intervals, around zero; the lowest MAX_BARS."""
    shown = list(differences.items())
    if len(shown) > MAX_BARS:
        shown = sorted(shown, key=lambda entry: entry[1]["value"])[:MAX_BARS]
        title += f", lowest {MAX_BARS} of {len(differences)}"
    values = np.asarray([[entry[key] for key in ("value", "low", "high")] for _, entry in shown])
    positions = np.arange(len(values))
    figure = Figure(figsize=(4.6, 0.9 + 0.3 * len(values)))
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    spread = [values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]
    axes.errorbar(
        values[:, 0], positions, xerr=spread,
        fmt="o", color=BLUE, markersize=5, capsize=3, linewidth=1.3,
    )  # fmt: skip
    axes.set_yticks(positions, [shorten(name) for name, _ in shown])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_title(title)
    return figure


@styled
def learning_figure(
    curve: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, float]], metric: str
) -> Figure:
    """Training loss, validation metric and learning rate, each over the steps."""
    figure = Figure(figsize=(11.5, 2.8))
    loss, score, rate = figure.subplots(1, 3, width_ratios=[4, 4, 3])
    figure.subplots_adjust(wspace=0.3)
    steps = [point["step"] for point in curve]
    losses = [point["loss"] for point in curve]
    loss.plot(steps, losses, color=BLUE, linewidth=1.2, label="training")
    validation = [
        (entry["step"], entry["log_loss"]) for entry in evaluations if "log_loss" in entry
    ]
    if validation:
        points = zip(*validation, strict=True)
        loss.plot(*points, color=ORANGE, marker="o", markersize=5, label="validation")
        loss.legend(loc="upper right", fontsize=9)
    loss.set(title="loss")
    scores = [(entry["step"], entry[metric]) for entry in evaluations]
    score.plot(*zip(*scores, strict=True), color=ORANGE, marker="o", markersize=5)
    score.set(title=f"validation {metric_title(metric)}", xlim=(0, max(steps) * 1.08))
    score.margins(y=0.25)
    if len(scores) <= MAX_ANNOTATED:
        for step, value in scores:
            score.annotate(
                f"{value:.3f}", (step, value),
                xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8,
            )  # fmt: skip
    rate.plot(steps, [point["learning_rate"] for point in curve], color=GREY, linewidth=1.3)
    rate.set(title="learning rate", ylim=(0, None))
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}" if value else "0")
    for axes in (loss, score, rate):
        axes.set_xlabel("step")
    return figure


@styled
def slices_figure(
    column: str,
    slices: Sequence[SliceReport],
    metric: str,
    overall: Interval | None,
) -> Figure:
    """Each slice's metric with its interval, over that of the test split; the lowest MAX_BARS.

    slices   at least one, all judged
    overall  the test split's metric with its interval
    """
    shown = list(slices)
    title = f"{metric_title(metric)} by {shorten(column)}"
    if len(shown) > MAX_BARS:
        shown = sorted(shown, key=lambda entry: entry.metrics[metric]["value"])[:MAX_BARS]
        title += f", lowest {MAX_BARS} of {len(slices)}"
    intervals = [entry.metrics[metric] for entry in shown]
    values = np.asarray([[one["value"], one["low"], one["high"]] for one in intervals])
    positions = np.arange(len(shown))
    figure = Figure(figsize=(4.3, 0.8 + 0.3 * len(shown)))
    axes = figure.subplots()
    if overall is not None:
        axes.axvspan(overall["low"], overall["high"], color=GREY, alpha=0.18, linewidth=0)
        axes.axvline(overall["value"], color=GREY, linewidth=1, linestyle="--")
    spread = [values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]
    axes.errorbar(
        values[:, 0], positions, xerr=spread,
        fmt="o", color=BLUE, markersize=5, capsize=3, linewidth=1.3,
    )  # fmt: skip
    names = [f"{shorten(entry.value)} ({entry.rows:,})" for entry in shown]
    axes.set_yticks(positions, names)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_title(title)
    return figure


@dataclass(frozen=True)
class RecipePoint:
    """A recipe in `recipes_figure`."""

    name: str
    metric: float
    latency_ms_p50: float
    size_bytes: int
    ships: bool = False


@styled
def recipes_figure(points: Sequence[RecipePoint], metric: str) -> Figure:
    """Validation metric against the latency of one row; the shipped recipe's point is filled."""
    figure = Figure(figsize=(5.4, 3.4))
    axes = figure.subplots()
    for number, point in enumerate(points):
        color, ships = mpl.colormaps["tab10"](number % 10), point.ships
        label = f"{point.name}, {point.size_bytes / 1e6:.0f} MB{' (ships)' if ships else ''}"
        axes.scatter(
            point.latency_ms_p50, point.metric, s=110 if ships else 55, label=label,
            marker="osD^vP*X"[number % 8], edgecolors=[color],
            facecolors=[color] if ships else "none", linewidths=1.8,
        )  # fmt: skip
    axes.set(
        xlabel="latency of one row, p50 (ms)",
        ylabel=f"validation {metric_title(metric)}",
        xlim=(0, None),
    )
    axes.margins(y=0.2)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), labelspacing=0.9)
    return figure


@styled
def counts_figure(counts: Mapping[str, int]) -> Figure:
    """Rows per label, most frequent first; of many labels, only the most and the least frequent."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if len(ordered) > MAX_BARS:
        half = MAX_BARS // 2
        ordered = [*ordered[:half], (f"({len(ordered) - 2 * half} more)", 0), *ordered[-half:]]
    figure = Figure(figsize=(4.8, 0.8 + 0.28 * len(ordered)))
    axes = figure.subplots()
    bars = axes.barh(range(len(ordered)), [count for _, count in ordered], color=BLUE)
    numbers = [f"{count:,}" if count else "" for _, count in ordered]
    axes.bar_label(bars, labels=numbers, padding=4, fontsize=9)
    axes.set_yticks(range(len(ordered)), [shorten(label) for label, _ in ordered])
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.margins(x=0.18)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(visible=False, axis="y")
    axes.set_title("rows per label")
    return figure


@styled
def histogram_figure(
    edges: Sequence[float], counts: Sequence[int], measured: str, counted: str
) -> Figure:
    """Histogram of counts between consecutive edges (one more than counts)."""
    figure = Figure(figsize=(4.8, 2.9))
    axes: Axes = figure.subplots()
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel=measured, ylabel=counted)
    axes.grid(visible=False, axis="x")
    return figure


@styled
def lengths_figure(lengths: npt.NDArray[np.int64], cut_at: int | None) -> Figure:
    """Histogram of the training texts' lengths in tokens, with the truncation length if any."""
    figure = Figure(figsize=(4.8, 2.9))
    axes: Axes = figure.subplots()
    axes.hist(lengths, bins=min(40, max(int(np.ptp(lengths)), 1)), color=BLUE)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if cut_at is not None:
        label = f"cut at {cut_at:,}"
        axes.axvline(cut_at, color=ORANGE, linestyle="--", linewidth=1.2, label=label)
        axes.legend()
    axes.set(xlabel="tokens per text", ylabel="rows", title="length of the training texts")
    axes.grid(visible=False, axis="x")
    return figure
