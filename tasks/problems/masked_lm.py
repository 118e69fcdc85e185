"""Masked language modelling: an encoder continues pretraining on texts without labels.

Some tokens are hidden and the model predicts them. The checkpoint is a base model for other types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Array, Columns, Features, Floats, Indices
from tasks.data.row_format import Guessed
from tasks.data.tables.column_guesses import maybe_labels, texts
from tasks.encoding.masking import Vocabulary, draw_masks, mask_row
from tasks.encoding.padding import encode_texts, pad_features, pad_rows
from tasks.encoding.windows import IGNORE_INDEX
from tasks.problems.parts.absent import no_prompts
from tasks.problems.parts.rows import Rows
from tasks.problems.parts.tokens import INFERENCE_TOKENS, TokenObjective, TokenScorer, loss_figure
from tasks.problems.problem import InitDefaults, Problem
from tasks.scoring.tokens import GUESSES, LIKELIHOOD, perplexity, reduce_masked

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.inference.calibration import Calibration


def guess_columns(rows: Columns) -> Guessed | None:
    """The first text."""
    text = next(iter(texts(rows)), None)
    return {"text": text} if text else None


class MaskedEncoder:
    """Masks of evaluation depend on a text's token ids alone; masks of training are drawn anew."""

    batch_tokens = INFERENCE_TOKENS
    random_inputs = True

    def encode(self, tokenizer: Tokenizer, rows: Columns) -> Features:
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
        if any(token != IGNORE_INDEX for _, _, hidden in masked for token in hidden):
            features["references"] = [hidden for _, _, hidden in masked]
        return features

    def encode_answers(self, rows: Columns, labels: Sequence[str]) -> Features:
        return {}

    def collate(self, features: Features, pad_token_id: int) -> dict[str, Indices]:
        return pad_features(features, pad_token_id)

    def references(self, features: Features) -> Array:
        return pad_rows(features["references"], IGNORE_INDEX)

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        input_ids, targets = draw_masks(features, pad_token_id)
        return {**self.collate(features, pad_token_id), "input_ids": input_ids}, targets

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        return reduce_masked(outputs, features)


class MaskedDecoder:
    """Likeliest tokens for a text's own masks; for other texts the perplexity of hidden tokens."""

    has_kv_cache = False

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return labels

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        predictions = []
        for positions in outputs:
            asked = np.nan_to_num(positions[:, 2:]).any(-1)
            known = np.nan_to_num(positions[:, :2]).any(-1)
            fills = [
                {
                    "mask": mask,
                    "token": int(token),
                    "score": float(np.exp(likelihood)),
                }
                for mask, guesses in enumerate(positions[asked])
                for token, likelihood in zip(
                    guesses[2 : 2 + GUESSES], guesses[2 + GUESSES :], strict=True
                )
            ]
            predictions.append(
                {"perplexity": perplexity(positions[known, LIKELIHOOD]), "fills": fills}
            )
        return predictions

    def name_tokens(self, prediction: dict[str, Any], tokenizer: Tokenizer) -> None:
        for fill in prediction["fills"]:
            fill["token"] = tokenizer.decode([fill["token"]], skip_special_tokens=False).strip()

    prompts = staticmethod(no_prompts)

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        return []

    def describe(self, prediction: Mapping[str, Any]) -> str:
        if prediction["perplexity"] is not None:
            return f"perplexity {prediction['perplexity']:.1f}"
        fills = (f"{fill['token']} {fill['score']:.3f}" for fill in prediction["fills"])
        return ", ".join(fills) or "nothing to guess"

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        return {"perplexity": 12.0, "fills": [{"mask": 0, "token": "bank", "score": 0.5}]}

    def example(self) -> dict[str, list[Any]]:
        return {
            "text": ["The [MASK] was clean and the staff were kind.", "It broke after two [MASK]."]
        }


PROBLEM = Problem(
    rows=Rows(
        name="masked-lm",
        columns={"text": "the text"},
        text_columns=("text",),
        guess_columns=guess_columns,
        # never the last resort: another column could hold labels, or be the text that is meant
        is_meant=lambda rows: len(texts(rows)) == 1 and not maybe_labels(rows),
        expectations=lambda validate, labels: [],
    ),
    encoding=MaskedEncoder(),
    objective=TokenObjective("AutoModelForMaskedLM"),
    scoring=TokenScorer("masked_accuracy"),
    decoding=MaskedDecoder(),
    figures=loss_figure("Log-loss of masked tokens"),
    defaults=InitDefaults(
        finetune={
            "epochs": 3,
            "learning_rate": 5e-5,
            "head_learning_rate": None,
            "batch_size": 16,
        }
    ),
)
