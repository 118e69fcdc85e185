"""Text pair scoring: two texts to a number, such as relevance, similarity or rating; it ranks.

Rows of one query (by default: of one first text) are ranked against each other, stay in one split,
and are drawn together where intervals are made. References are (score, query's id), (n, 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.core.arrays import Array, Bools, Columns, Floats, Indices
from tasks.data.quality.checks import Check
from tasks.data.row_format import Guessed
from tasks.data.tables.column_guesses import scores, text_pair
from tasks.problems.parts.absent import (
    as_they_are,
    check_no_label_tests,
    metrics_once,
    no_answers,
    no_calibration,
    no_calibration_loss,
    no_class_weights,
    no_labels,
    no_optional_parts,
    no_prompts,
    no_threshold_details,
    no_token_names,
)
from tasks.problems.parts.classes import all_outputs, load_classifier, start_as_drawn
from tasks.problems.parts.rows import Rows
from tasks.problems.parts.texts import TextEncoder
from tasks.problems.problem import InitDefaults, Problem
from tasks.scoring.behaviour import BehaviourTest, invariance_rows
from tasks.scoring.pairs import (
    METRICS,
    QUERY,
    SCORE,
    order_of_rows,
    query_number,
    ranked_right,
    score_details,
    score_metrics,
)
from tasks.training.networks.pooling import OWN

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel

    from tasks.inference.calibration import Calibration
    from tasks.params.schema import EvaluateParams, ValidateParams
    from tasks.reports.stage_reports import EvaluationReport
    from tasks.scoring.statistics.draws import Resampled
    from tasks.training.objective import HeadSolver, Loss

TEXTS = ("text_a", "text_b")
QUERY_NAMES = ("query", "query_id", "qid")
LARGE_SCORE = 10.0  # scores beyond it train slowly
STABLE_SHARE = 0.1  # of the range of scores: how far a small change of a text may move one


def guess_columns(rows: Columns) -> Guessed | None:
    """Two texts, a column of numbers, and a query where a column is named so."""
    pair = text_pair(rows)
    score = next((name for name in scores(rows) if name not in pair), None)
    if not pair or score is None:
        return None
    columns = {"text_a": pair[0], "text_b": pair[1], "score": score}
    queries = (name for name in rows if name.lower() in QUERY_NAMES)
    query = next((name for name in queries if name not in columns.values()), None)
    return columns | ({"query": query} if query else {})


def score_checks(validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
    """Checks of the scores and queries."""
    between = "expect_column_values_to_be_between"
    finite = {"column": "score", "min_value": -1e30, "max_value": 1e30}
    usual = {"column": "score", "min_value": -LARGE_SCORE, "max_value": LARGE_SCORE}
    checks = [
        Check("null_score", "expect_column_values_to_not_be_null", {"column": "score"},
              "quarantine", "the score is missing, or no number"),
        Check("finite_score", between, finite, "quarantine", "the score is not finite"),
        Check("null_query", "expect_column_values_to_not_be_null", {"column": "query"},
              "quarantine", "the query is missing"),
        Check("one_score", "expect_column_unique_value_count_to_be_between",
              {"column": "score", "min_value": 2}, "error",
              "two scores or more are needed to tell apart"),
        Check("score_scale", between, usual, "warn",
              f"the score is beyond ±{LARGE_SCORE:g}, which trains slowly:"
              " divide it in `ingest.query`"),
    ]  # fmt: skip
    if validate.score_range is None:
        return checks
    low, high = validate.score_range
    allowed = {"column": "score", "min_value": low, "max_value": high}
    says = f"the score is not from {low:g} to {high:g} (validate.score_range)"
    return [*checks, Check("score_range", between, allowed, "error", says)]


def answers_of(rows: Columns, labels: Sequence[str]) -> list[list[float]] | None:
    """(score, query's id) of each row."""
    if "score" not in rows:
        return None
    queries = rows.get("query", rows["text_a"])
    pairs = zip(rows["score"], queries, strict=True)
    return [[float(score), query_number(query)] for score, query in pairs]


def squared_error(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """Mean squared error of the score."""
    from torch.nn.functional import mse_loss

    return mse_loss(outputs[:, 0], targets[:, SCORE].to(outputs.dtype))


def ranking_loss(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """Negative log-likelihood of the order of every two rows (RankNet, Burges et al. 2005).

    Rows of different queries are compared too: a batch seldom holds two of one.
    """
    from torch.nn.functional import softplus

    wanted = targets[:, SCORE]
    better = wanted[:, None] > wanted[None, :]
    if not better.any():
        return outputs.sum() * 0
    return softplus(outputs[None, :, 0] - outputs[:, 0, None])[better].mean()


class ScoreObjective:
    """Regression, or ranking of pairs of rows."""

    losses: ClassVar[Mapping[str, Loss]] = {"regression": squared_error, "ranking": ranking_loss}
    labels_of = staticmethod(no_labels)
    start_head = staticmethod(start_as_drawn)
    pools: ClassVar[bool] = True
    solve_head: ClassVar[HeadSolver | None] = None
    skip_unused_outputs = staticmethod(all_outputs)
    class_weights = staticmethod(no_class_weights)

    def load_model(
        self,
        directory: Path,
        labels: Sequence[str],
        dropout: float | None = None,
        pooling: str = OWN,
    ) -> PreTrainedModel:
        return load_classifier(directory, ["score"], dropout, pooling, "regression")


@dataclass(frozen=True)
class ScoreScorer:
    """Scoring of one number a row, ranked within its query."""

    metric: str = "spearman"
    metric_signs: ClassVar[Mapping[str, int]] = METRICS
    label_metrics: tuple[str, ...] | None = None
    baseline_name: str = "cosine of TF-IDF"
    baseline_is_base: bool = False

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        return metrics_once(self.resampled_metrics(outputs, references, labels), len(outputs))

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        return score_metrics(outputs[:, 0], references)

    def clusters(self, references: Array) -> Indices | None:
        ids: Indices = np.unique(references[:, QUERY], return_inverse=True)[1].astype(np.int64)
        return ids

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return score_details(outputs[:, 0], references)

    threshold_details = staticmethod(no_threshold_details)
    fit_calibration = staticmethod(no_calibration)
    calibration_loss = staticmethod(no_calibration_loss)

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        """(share of neighbouring rows in the same order, largest difference over the range)."""
        same = order_of_rows(outputs[:, 0]) == order_of_rows(others[:, 0])
        spread = float(np.ptp(outputs))
        moved = float(np.abs(outputs - others).max())
        return float(same.mean()), moved / spread if spread else 0.0

    def correct(self, outputs: Floats, references: Array) -> Bools:
        """Rows on the right side of most rows that they are compared with."""
        return ranked_right(outputs[:, 0], references)

    align_labels = staticmethod(as_they_are)

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.tfidf_baseline import tfidf_cosine

        pairs, asked = ((rows["text_a"], rows["text_b"]) for rows in (train, test))
        return tfidf_cosine(pairs, train["score"], asked)

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        check_no_label_tests(evaluate)
        names, count = evaluate.behaviour.names, evaluate.behaviour.rows
        return [
            BehaviourTest(altered.name, "invariance", altered.after, _is_stable, altered.before)
            for altered in invariance_rows(rows, TEXTS, names, count, seed)
        ]

    compare_answers = staticmethod(no_answers)


def _is_stable(outputs: Floats, before: Floats | None) -> Bools:
    """Scores that moved by no more than a small part of the range of scores."""
    assert before is not None
    most = STABLE_SHARE * max(float(np.ptp(before)), 1e-6)
    stable: Bools = np.abs(outputs - before)[:, 0] <= most
    return stable


class ScoreDecoder:
    """The score of each pair."""

    has_kv_cache = False

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return ["score"]

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        return [{"score": float(score)} for score in calibration.apply(outputs)[:, 0]]

    name_tokens = staticmethod(no_token_names)
    prompts = staticmethod(no_prompts)

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        return []

    def describe(self, prediction: Mapping[str, Any]) -> str:
        return f"{prediction['score']:8.3f}"

    prediction_example = staticmethod(no_optional_parts)

    def example(self) -> dict[str, list[Any]]:
        return {
            "text_a": ["Where is the station?", "Where is the station?"],
            "text_b": ["Two streets from here.", "I like trains."],
        }


def figures(evaluation: EvaluationReport) -> dict[str, Figure]:
    """Errors of the scores, and ranks of each query's best row."""
    from tasks.reports.plots import histogram_figure

    details = evaluation.details
    plots = {
        "Errors of the score": histogram_figure(
            **details["errors"], measured="score predicted - given", counted="rows"
        )
    }
    if details["ranks"]:
        plots["Where the best comes"] = histogram_figure(
            **details["ranks"], measured="rank of the query's best", counted="queries"
        )
    return plots


PROBLEM = Problem(
    rows=Rows(
        name="text-pair-score",
        columns={
            "text_a": "the first text, such as a question or what a user liked",
            "text_b": "the second, such as an answer or an item",
            "score": "a number, higher for a better pair",
        },
        types={"score": "DOUBLE"},
        derived={"query": "text_a"},
        replaceable=("query",),
        text_columns=TEXTS,
        split_columns=("query",),
        guess_columns=guess_columns,
        expectations=score_checks,
    ),
    encoding=TextEncoder(TEXTS, answers_of, np.float64, width=2),
    objective=ScoreObjective(),
    scoring=ScoreScorer(),
    decoding=ScoreDecoder(),
    figures=figures,
    defaults=InitDefaults(
        finetune={"learning_rate": 1e-4, "head_learning_rate": None, "pooling": "own"}
    ),
)
