"""Masked language modelling: an encoder goes on learning a language, or a domain's, from texts without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Array, Columns, Features, Floats
from tasks.data.quality.checks import Check
from tasks.data.tables.column_guesses import small_valued, texts
from tasks.encoding.masking import Vocabulary, draw_masks, mask_row
from tasks.encoding.padding import encode_texts
from tasks.encoding.windows import NO_WORD
from tasks.inference.calibration import Calibration
from tasks.problems.base import Guessed
from tasks.problems.token_guesses import TokenGuesses
from tasks.scoring.tokens import GUESSES, LIKELIHOOD, keep_places, losses_figure, perplexity

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.inference.predictor import Predictor
    from tasks.params.schema import ValidateParams


class MaskedLM(TokenGuesses):
    """Texts without labels: some of their tokens are hidden, the model says which they are. Its checkpoint is a base for other problems.

    For judging a text's masks rest on its token ids alone; for training they are drawn anew each time.
    """

    name = "masked-lm"
    draws_inputs = True
    columns = {"text": "the text"}
    text_columns = ("text",)
    metric_signs = {"masked_accuracy": 1, "log_loss": -1, "perplexity": -1}
    metric = "masked_accuracy"
    finetune_defaults = {
        "epochs": 3,
        "learning_rate": 5e-5,
        "head_learning_rate": None,
        "batch_size": 16,
    }

    def guess_columns(self, rows: Columns) -> Guessed | None:
        text = next(iter(texts(rows)), None)
        return {"text": text} if text else None

    def is_meant(self, rows: Columns) -> bool:
        """Not where a column may hold labels."""
        return not small_valued(rows)

    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        return []

    def encode(self, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]) -> Features:
        vocabulary, encoded = Vocabulary.of(tokenizer), encode_texts(tokenizer, [rows["text"]])
        masked = [mask_row(ids, vocabulary) for ids in encoded["input_ids"]]
        features: Features = {
            **encoded,
            "input_ids": [ids for ids, _, _ in masked],
            "places": [places for _, places, _ in masked],
            "maskable": [
                [int(token not in vocabulary.special) for token in ids]
                for ids in encoded["input_ids"]
            ],
            "vocabulary": [[vocabulary.mask, vocabulary.size]] * len(masked),
        }
        if any(token != NO_WORD for _, _, right in masked for token in right):
            features["references"] = [right for _, _, right in masked]
        return features

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        input_ids, references = draw_masks(features, pad_token_id)
        return {**self.collate(features, pad_token_id), "input_ids": input_ids}, references

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        return keep_places(outputs, features)

    def load_model(
        self, directory: Path, labels: Sequence[str], dropout: float | None = None
    ) -> PreTrainedModel:
        from transformers import AutoModelForMaskedLM

        from tasks.training.networks.pretrained import load_pretrained

        return load_pretrained(AutoModelForMaskedLM, directory, dropout)

    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        return {"Log-loss of masked tokens": losses_figure(evaluation["details"])}

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        """Of a text with mask tokens the likeliest for each, by their ids; of any other the perplexity of what was hidden from it."""
        predictions = []
        for places in outputs:
            asked, known = (np.nan_to_num(some).any(-1) for some in (places[:, 2:], places[:, :2]))
            fills = [
                {"mask": number, "token": int(token), "score": float(np.exp(likelihood))}
                for number, place in enumerate(places[asked])
                for token, likelihood in zip(
                    place[2 : 2 + GUESSES], place[2 + GUESSES :], strict=True
                )
            ]
            predictions.append(
                {"perplexity": perplexity(places[known, LIKELIHOOD]), "fills": fills}
            )
        return predictions

    def predict(self, predictor: Predictor, rows: Columns) -> list[dict[str, Any]]:
        """`decode`'s predictions with tokens in place of their ids."""
        predictions = super().predict(predictor, rows)
        for prediction in predictions:
            for fill in prediction["fills"]:
                fill["token"] = predictor.tokenizer.decode(
                    [fill["token"]], skip_special_tokens=False
                ).strip()
        return predictions

    def say(self, prediction: Mapping[str, Any]) -> str:
        if prediction["perplexity"] is not None:
            return f"perplexity {prediction['perplexity']:.1f}"
        return (
            ", ".join(f"{fill['token']} {fill['score']:.3f}" for fill in prediction["fills"])
            or "nothing to guess"
        )

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        return {"perplexity": 12.0, "fills": [{"mask": 0, "token": "bank", "score": 0.5}]}

    def example(self) -> dict[str, list[Any]]:
        return {
            "text": ["The [MASK] was clean and the staff were kind.", "It broke after two [MASK]."]
        }
