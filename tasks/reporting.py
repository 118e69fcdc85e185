"""The report: one self-contained HTML page that loads nothing from elsewhere."""

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
    RecipePoint,
    counts_figure,
    learning_figure,
    lengths_figure,
    metric_title,
    recipes_figure,
    slices_figure,
    to_svg,
)
from tasks.reports.stage_reports import (
    EvaluationReport,
    TrainingReport,
    ValidationReport,
    VerificationReport,
)

if TYPE_CHECKING:
    from tasks.problems import Problem


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
    """Write the page from the earlier stages' reports; equal reports give equal bytes."""
    problem_type = load_problem(problem)
    split = read_json(splits / "split.json")
    training = TrainingReport.read(training_report)
    evaluation = EvaluationReport.read(evaluation_report)
    verification = VerificationReport.read(verification_report)
    info = TokensInfo.read(tokens)
    report(1, {"progress": 0.2})
    lengths = token_lengths(read_tokens(tokens / "train.arrow"))
    cut_at = info.max_length if info.truncated.get("train") else None
    lengths_svg = to_svg(lengths_figure(lengths, cut_at))
    lengths_plot = Plot("Histogram of the training texts' lengths in tokens.", lengths_svg)
    text = render_page(
        "page.html.j2",
        {
            "model_name": model_name,
            "problem": problem_type,
            "labels": labels,
            "validation": ValidationReport.read(validation_report),
            "account": Account.read(splits).plain(),
            "split": split,
            "tokens": info,
            "longest": int(lengths.max()),
            "training": training,
            "evaluation": evaluation,
            "verification": verification,
            "plots": {
                "learning": list(learning_plots(training, problem_type)),
                "problem": list(problem_plots(problem_type, evaluation)),
                "slices": list(slice_plots(problem_type, evaluation)),
                "recipes": list(recipe_plots(verification)),
                "data": [*class_plots(split), lengths_plot],
            },
        },
    )
    write_text(page, text)
    report(2, {"progress": 1.0})


def learning_plots(training: TrainingReport, problem: Problem) -> Iterator[Plot]:
    """Loss and validation metric over the steps; nothing for a run that took no step."""
    curve, evaluations = training.curve, training.evaluations
    if curve and evaluations:
        first, last, metric = curve[0], curve[-1], problem.scoring.metric
        alt = (
            f"Training loss from {first['loss']:.3f} to {last['loss']:.3f} "
            f"over {last['step']} steps; "
            f"validation {metric_title(metric)} ends at {evaluations[-1][metric]:.3f}."
        )
        yield Plot(alt, to_svg(learning_figure(curve, evaluations, metric)))


def problem_plots(problem: Problem, evaluation: EvaluationReport) -> Iterator[Plot]:
    """Plots that the problem type draws of its evaluation details."""
    for title, figure in problem.figures(evaluation).items():
        alt = f"{title} of the test split; the tables hold its numbers."
        yield Plot(alt, to_svg(figure), title)


def slice_plots(problem: Problem, evaluation: EvaluationReport) -> Iterator[Plot]:
    """One plot per column that has judged slices."""
    judged = [entry for entry in evaluation.slices if entry.judged]
    for column in dict.fromkeys(entry.column for entry in judged):
        slices = [entry for entry in judged if entry.column == column]
        measured = slices[0].metrics
        metric = (
            problem.scoring.metric if problem.scoring.metric in measured else next(iter(measured))
        )
        lowest = min(slices, key=lambda entry: entry.metrics[metric]["value"])
        alt = (
            f"{metric_title(metric)} by {column} with intervals; lowest is {lowest.value} "
            f"at {lowest.metrics[metric]['value']:.3f}."
        )
        overall = evaluation.metrics.get(metric)
        yield Plot(alt, to_svg(slices_figure(column, slices, metric, overall)))


def recipe_plots(verification: VerificationReport) -> Iterator[Plot]:
    """Metric against latency, for PyTorch and every candidate that could be measured."""
    checkpoint = verification.checkpoint
    points = [
        RecipePoint("PyTorch", checkpoint.metric, checkpoint.latency_ms_p50, checkpoint.size_bytes)
    ]
    for entry in verification.candidates:
        if entry.metric is None or entry.latency_ms_p50 is None or entry.size_bytes is None:
            continue
        measured = entry.metric, entry.latency_ms_p50, entry.size_bytes
        points.append(RecipePoint(entry.recipe, *measured, entry.recipe == verification.shipped))
    spread = ", ".join(
        f"{point.name} {point.metric:.3f} at {point.latency_ms_p50:.1f} ms" for point in points
    )
    svg = to_svg(recipes_figure(points, verification.metric))
    yield Plot(f"Validation metric against latency: {spread}.", svg)


def class_plots(split: Mapping[str, Any]) -> Iterator[Plot]:
    """Rows per label; nothing for a problem without labels."""
    classes = split.get("classes")
    if classes:
        counts = {label: int(shares["all"]["rows"]) for label, shares in classes.items()}
        spread = np.asarray(list(counts.values()))
        alt = f"Rows of each of {len(counts)} labels, from {spread.min():,} to {spread.max():,}."
        yield Plot(alt, to_svg(counts_figure(counts)))
