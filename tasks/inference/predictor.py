"""Predictions of a bundle: the single inference path of verify, predict, compare and serve.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import BundleError
from tasks.encoding.token_files import load_tokenizer
from tasks.inference.bundle import MODEL, REMEDY, BundleInfo, open_bundle
from tasks.inference.generation import answer
from tasks.inference.session import OnnxModel

if TYPE_CHECKING:
    from tasks.core.arrays import Columns, Features, Floats
    from tasks.inference.decoder import PredictingProblem


class Predictor:
    """A checked bundle, loaded and ready to predict.

    A row's outputs do not depend on its batch (to 1e-4) where activation ranges are fixed: fp32 and
    the static recipes. A dynamic recipe takes its ranges from the batch, and ships only if that
    moves no probability by more than 0.01.
    """

    def __init__(self, bundle: Path | BundleInfo, problem: PredictingProblem) -> None:
        self.info = bundle if isinstance(bundle, BundleInfo) else open_bundle(bundle)
        settings = self.info.settings
        if settings.problem != problem.name:
            raise BundleError(
                f"{self.info.directory}: is a bundle of the problem '{settings.problem}', "
                f"asked to serve '{problem.name}'.",
                "Load it with its own problem type.",
            )
        self.problem = problem
        try:
            self.tokenizer = load_tokenizer(self.info.read, settings.max_length)
        except ValueError as error:
            raise BundleError(
                f"{self.info.directory}: its tokenizer.json cannot be read: {str(error)[:300]}",
                REMEDY,
            ) from None
        self.model = OnnxModel(
            lambda: self.info.read(MODEL) or b"",
            settings.output_name,
            settings.threads,
            self.info.directory,
        )
        if mismatches := self._mismatches():
            raise BundleError(
                f"{self.info.directory}: its files do not match: {'; '.join(mismatches)}.",
                REMEDY,
            )

    def _mismatches(self) -> list[str]:
        """Disagreements of config.json with the model and the tokenizer."""
        settings, shape = self.info.settings, self.model.output_shape
        if shape is None:
            return [f"the model has no output '{settings.output_name}'"]
        mismatches = []
        labels = len(self.problem.decoding.output_labels(settings.labels))
        width = shape[-1] if shape else None
        if labels and isinstance(width, int) and width != labels:
            mismatches.append(f"config.json has labels for {labels} outputs, the model has {width}")
        if settings.bias and len(settings.bias) != (width if isinstance(width, int) else labels):
            mismatches.append(
                f"config.json has {len(settings.bias)} biases, the model has {width} outputs"
            )
        if settings.pad_token_id and self.tokenizer.id_to_token(settings.pad_token_id) is None:
            mismatches.append(f"the tokenizer has no token {settings.pad_token_id} for padding")
        return mismatches

    def outputs(self, rows: Columns) -> Floats:
        """Raw outputs, one per row in the rows' order along the first axis."""
        return self.outputs_of_features(self.problem.encoding.encode(self.tokenizer, rows))

    def outputs_of_features(self, features: Features) -> Floats:
        """Raw outputs of rows that are already tokenized."""
        return self.model.outputs(features, self.problem.encoding, self.info.settings.pad_token_id)

    def predict(self, rows: Columns) -> list[dict[str, Any]]:
        """Predictions as users see them, one per row; probabilities are temperature-scaled."""
        decoder, settings = self.problem.decoding, self.info.settings
        outputs = self.outputs(rows)
        if not len(outputs):
            return []
        predictions = decoder.decode(outputs, rows, self.info.labels, settings.calibration)
        for prediction in predictions:
            decoder.name_tokens(prediction, self.tokenizer)
        for prediction, turns in zip(predictions, decoder.prompts(rows), strict=False):
            if turns:
                prediction["answer"] = answer(
                    self.tokenizer, self.model, turns, settings.max_length
                )
        return predictions
