"""Text pair scoring: two texts to a number, such as relevance, similarity, click or rating; it ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Array, Columns, Features, Floats
from tasks.data.quality.checks import Check
from tasks.data.tables.column_guesses import scores, text_pair
from tasks.encoding.padding import encode_texts, pad_features
from tasks.inference.calibration import Calibration
from tasks.problems.base import BehaviourTest, Guessed
from tasks.problems.unlabelled import Unlabelled
from tasks.scoring.behaviour import invariance_rows
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
from tasks.scoring.statistics.draws import Resampled

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.params.schema import EvaluateParams, ValidateParams

USUAL = 10.0  # the largest score that trains well as it is
MOVED = 0.1  # of the range of scores: how far a small change of a text may move one


class TextPairScore(Unlabelled):
    """Two texts, a score. Rows of one query (without one: of one first text) are ranked among each other, stay in one split, and are
    drawn together where intervals are made.

    Of a row the references are (score, the query's number), (n, 2).
    """

    name = "text-pair-score"
    columns = {
        "text_a": "the first text, such as a question or what a user liked",
        "text_b": "the second, such as an answer or an item",
        "score": "a number, higher for a better pair",
    }
    types = {"score": "DOUBLE"}
    derived = {"query": "text_a"}
    replaceable = ("query",)
    text_columns = ("text_a", "text_b")
    split_columns = ("query",)
    answer_columns = ("score", "query")
    metric_signs = METRICS
    metric = "spearman"
    baseline_name = "cosine of TF-IDF"
    finetune_defaults = {"learning_rate": 1e-4, "head_learning_rate": None}

    def guess_columns(self, rows: Columns) -> Guessed | None:
        pair = text_pair(rows)
        score = next((name for name in scores(rows) if name not in pair), None)
        query = next(
            (
                name
                for name in rows
                if name.lower() in ("query", "query_id", "qid") and name not in (*pair, score)
            ),
            None,
        )
        if not pair or score is None:
            return None
        return {
            "text_a": pair[0],
            "text_b": pair[1],
            "score": score,
            **({"query": query} if query else {}),
        }

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return ["score"]

    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        between, given = "expect_column_values_to_be_between", validate.score_range
        checks = [
            Check("null_score", "expect_column_values_to_not_be_null", {"column": "score"}, "quarantine",
                  "the score is missing, or no number"),
            Check("finite_score", between, {"column": "score", "min_value": -1e30, "max_value": 1e30}, "quarantine",
                  "the score is not finite"),
            Check("null_query", "expect_column_values_to_not_be_null", {"column": "query"}, "quarantine", "the query is missing"),
            Check("one_score", "expect_column_unique_value_count_to_be_between", {"column": "score", "min_value": 2}, "error",
                  "two scores or more are needed to tell apart"),
            Check("score_scale", between, {"column": "score", "min_value": -USUAL, "max_value": USUAL}, "warn",
                  f"the score is beyond ±{USUAL:g}, which trains slowly: divide it in `ingest.query`"),
        ]  # fmt: skip
        if given is not None:
            low, high = given
            checks.append(Check("score_range", between, {"column": "score", "min_value": low, "max_value": high}, "error",
                                f"the score is not from {low:g} to {high:g} (validate.score_range)"))  # fmt: skip
        return checks

    def encode(self, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]) -> Features:
        features = encode_texts(tokenizer, [rows["text_a"], rows["text_b"]])
        if "score" in rows:
            queries = rows.get("query", rows["text_a"])
            features["references"] = [
                [float(score), query_number(query)]
                for score, query in zip(rows["score"], queries, strict=True)
            ]
        return features

    def collate(self, features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
        return pad_features(features, pad_token_id)

    def references(self, features: Features) -> Array:
        return np.asarray(features["references"], np.float64).reshape(-1, 2)

    def clusters(self, references: Array) -> npt.NDArray[np.int64]:
        clusters: npt.NDArray[np.int64] = np.unique(references[:, QUERY], return_inverse=True)[
            1
        ].astype(np.int64)
        return clusters

    def load_model(
        self, directory: Path, labels: Sequence[str], dropout: float | None = None
    ) -> PreTrainedModel:
        from transformers import AutoModelForSequenceClassification

        from tasks.training.networks.pretrained import load_pretrained

        return load_pretrained(
            AutoModelForSequenceClassification,
            directory,
            dropout,
            self.output_labels(labels),
            "regression",
        )

    def loss(
        self,
        outputs: torch.Tensor,
        references: torch.Tensor,
        *,
        label_smoothing: float,
        class_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        """Mean squared error of the score."""
        from torch.nn.functional import mse_loss

        return mse_loss(outputs[:, 0], references[:, SCORE].to(outputs.dtype))

    def ranking_loss(
        self,
        outputs: torch.Tensor,
        references: torch.Tensor,
        *,
        label_smoothing: float,
        class_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        """Of every two rows with different scores, how unlikely their order is (RankNet, Burges et al. 2005).

        Rows of different queries are compared as well: a batch seldom holds two of one.
        """
        from torch.nn.functional import softplus

        wanted = references[:, SCORE]
        better = wanted[:, None] > wanted[None, :]
        if not better.any():
            return outputs.sum() * 0
        return softplus(outputs[None, :, 0] - outputs[:, 0, None])[better].mean()

    def losses(self) -> dict[str, Callable[..., torch.Tensor]]:
        return {"regression": self.loss, "ranking": self.ranking_loss}

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        return score_metrics(outputs[:, 0], references)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return score_details(outputs[:, 0], references)

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        """(share of neighbouring rows that both put in the same order, largest difference of a score as a share of the scores' range)."""
        same = order_of_rows(outputs[:, 0]) == order_of_rows(others[:, 0])
        spread = float(np.ptp(outputs))
        return float(same.mean()), float(np.abs(outputs - others).max()) / spread if spread else 0.0

    def right(self, outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
        """Rows on the right side of most of those that they are compared with."""
        return ranked_right(outputs[:, 0], references)

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.tfidf_baseline import tfidf_cosine

        pairs, asked = ((rows["text_a"], rows["text_b"]) for rows in (train, test))
        return tfidf_cosine(pairs, train["score"], asked)

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        wanted = evaluate.behaviour
        return super().behaviour_tests(rows, labels, evaluate, seed) + [
            BehaviourTest(altered.name, "invariance", altered.after, _stays, altered.before)
            for altered in invariance_rows(rows, self.text_columns, wanted.names, wanted.rows, seed)
        ]

    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        from tasks.reports.plots import histogram_figure

        details = evaluation["details"]
        figures = {
            "Errors of the score": histogram_figure(
                **details["errors"], measured="score predicted - given", counted="rows"
            )
        }
        if details["ranks"]:
            ranks = histogram_figure(
                **details["ranks"], measured="rank of the query's best", counted="queries"
            )
            figures["Where the best comes"] = ranks
        return figures

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        return [{"score": float(score)} for score in calibration.apply(outputs)[:, 0]]

    def say(self, prediction: Mapping[str, Any]) -> str:
        return f"{prediction['score']:8.3f}"

    def example(self) -> dict[str, list[Any]]:
        return {
            "text_a": ["Where is the station?", "Where is the station?"],
            "text_b": ["Two streets from here.", "I like trains."],
        }


def _stays(outputs: Floats, others: Floats | None) -> npt.NDArray[np.bool_]:
    """Which scores moved by no more than a small part of the range that scores have."""
    assert others is not None
    stays: npt.NDArray[np.bool_] = np.abs(outputs - others)[:, 0] <= MOVED * max(
        float(np.ptp(others)), 1e-6
    )
    return stays
