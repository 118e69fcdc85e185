"""The report: one page that holds everything, with nothing to load from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.files import read_json, write_text
from tasks.core.progress import Report
from tasks.data.quality.row_account import Account
from tasks.encoding.token_files import TokensInfo, read_tokens, token_lengths
from tasks.problems import load_problem
from tasks.reports.page import Plot, render_page
from tasks.reports.plots import (
    counts_figure,
    learning_figure,
    lengths_figure,
    metric_title,
    recipes_figure,
    slices_figure,
    to_svg,
)

if TYPE_CHECKING:
    from tasks.problems.base import Problem


def write_report(
    validation_report: Path,
    splits: Path,
    tokens: Path,
    training_report: Path,
    evaluation_report: Path,
    verification_report: Path,
    page: Path,
    *,
    problem: str,
    labels: Sequence[str],
    model_name: str,
    report: Report,
) -> None:
    """Write the page from what the stages before found; the same findings make the same bytes."""
    kind = load_problem(problem)
    validation, split = read_json(validation_report), read_json(splits / "split.json")
    training, evaluation, verification = map(
        read_json, (training_report, evaluation_report, verification_report)
    )
    info = TokensInfo.read(tokens)
    report(1, {"progress": 0.2})
    lengths = token_lengths(read_tokens(tokens / "train.arrow"))
    cut_at = info.max_length if info.truncated.get("train") else None
    lengths_plot = Plot(
        "Histogram of the training texts' lengths in tokens.",
        to_svg(lengths_figure(lengths, cut_at)),
    )
    text = render_page(
        "page.html.j2",
        {
            "model_name": model_name,
            "problem": kind,
            "labels": labels,
            "validation": validation,
            "account": Account.read(splits).plain(),
            "split": split,
            "tokens": info,
            "longest": int(lengths.max()),
            "training": training,
            "evaluation": evaluation,
            "verification": verification,
            "plots": {
                "learning": list(learning_plots(training, kind)),
                "problem": list(problem_plots(kind, evaluation)),
                "slices": list(slice_plots(kind, evaluation)),
                "recipes": list(recipe_plots(verification)),
                "data": [*class_plots(split), lengths_plot],
            },
        },
    )
    write_text(page, text)
    report(2, {"progress": 1.0})


def learning_plots(training: Mapping[str, Any], problem: Problem) -> Iterator[Plot]:
    """The loss and the validation metric over the steps; nothing for a run that took no step."""
    curve, evaluations = training["curve"], training["evaluations"]
    if curve and evaluations:
        alt = (
            f"Training loss from {curve[0]['loss']:.3f} to {curve[-1]['loss']:.3f} over {curve[-1]['step']} steps; "
            f"validation {metric_title(problem.metric)} ends at {evaluations[-1][problem.metric]:.3f}."
        )
        yield Plot(alt, to_svg(learning_figure(curve, evaluations, problem.metric)))


def problem_plots(problem: Problem, evaluation: Mapping[str, Any]) -> Iterator[Plot]:
    """Whatever the problem type draws of its details."""
    for title, figure in problem.figures(evaluation).items():
        yield Plot(
            f"{title} of the test split; the tables hold its numbers.", to_svg(figure), title
        )


def slice_plots(problem: Problem, evaluation: Mapping[str, Any]) -> Iterator[Plot]:
    """One plot for each column that has judged slices."""
    judged = [part for part in evaluation["slices"] if part["judged"]]
    for column in dict.fromkeys(part["column"] for part in judged):
        parts = [part for part in judged if part["column"] == column]
        measured = parts[0]["metrics"]
        metric = problem.metric if problem.metric in measured else next(iter(measured))
        lowest = min(parts, key=lambda part: part["metrics"][metric]["value"])
        alt = f"{metric_title(metric)} by {column} with intervals; lowest is {lowest['value']} at {lowest['metrics'][metric]['value']:.3f}."
        yield Plot(
            alt, to_svg(slices_figure(column, parts, metric, evaluation["metrics"].get(metric)))
        )


def recipe_plots(verification: Mapping[str, Any]) -> Iterator[Plot]:
    """Accuracy against latency of PyTorch and of every candidate that could be measured."""
    measured = [
        {"name": entry["recipe"], "ships": entry["recipe"] == verification["shipped"], **entry}
        for entry in verification["candidates"]
        if entry["metric"] is not None
    ]
    points = [{"name": "PyTorch", "ships": False, **verification["checkpoint"]}, *measured]
    spread = ", ".join(
        f"{point['name']} {point['metric']:.3f} at {point['latency_ms_p50']:.1f} ms"
        for point in points
    )
    yield Plot(
        f"Validation metric against latency: {spread}.",
        to_svg(recipes_figure(points, verification["metric"])),
    )


def class_plots(split: Mapping[str, Any]) -> Iterator[Plot]:
    """How many rows each label has; nothing for a problem without labels."""
    classes = split.get("classes")
    if classes:
        counts = {label: int(shares["all"]["rows"]) for label, shares in classes.items()}
        spread = np.asarray(list(counts.values()))
        yield Plot(
            f"Rows of each of {len(counts)} labels, from {spread.min():,} to {spread.max():,}.",
            to_svg(counts_figure(counts)),
        )
