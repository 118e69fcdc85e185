"""A bundle's predictions: the one inference path of verify, predict, compare and serve. Imports neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import BundleError
from tasks.encoding.token_files import load_tokenizer
from tasks.inference.bundle import MODEL, REMEDY, BundleInfo, open_bundle
from tasks.inference.session import OnnxModel

if TYPE_CHECKING:
    from tasks.core.arrays import Columns, Features, Floats
    from tasks.problems.base import Problem


class Predictor:
    """A checked bundle, loaded and ready.

    The same row gives the same outputs whatever it is batched with, to 1e-4, where activation ranges are fixed (fp32 and the
    static recipes); a dynamic recipe takes its ranges from the batch, and ships only if that moves no probability by over 0.01.
    """

    def __init__(self, bundle: Path | BundleInfo, problem: Problem) -> None:
        self.info = bundle if isinstance(bundle, BundleInfo) else open_bundle(bundle)
        settings = self.info.settings
        if settings.problem != problem.name:
            raise BundleError(
                f"{self.info.directory}: is a bundle of the problem '{settings.problem}', asked to serve '{problem.name}'.",
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
        if wrong := self._misfits():
            raise BundleError(
                f"{self.info.directory}: its files do not belong together: {'; '.join(wrong)}.",
                REMEDY,
            )

    def _misfits(self) -> list[str]:
        """What config.json says that the model or the tokenizer does not have."""
        settings, shape = self.info.settings, self.model.output_shape
        if shape is None:
            return [f"the model has no output '{settings.output_name}'"]
        wrong = []
        names = len(self.problem.output_labels(settings.labels))
        width = shape[-1] if shape else None
        if names and isinstance(width, int) and width != names:
            wrong.append(f"config.json has labels for {names} outputs, the model has {width}")
        if settings.bias and len(settings.bias) != (width if isinstance(width, int) else names):
            wrong.append(
                f"config.json has {len(settings.bias)} biases, the model has {width} outputs"
            )
        if settings.pad_token_id and self.tokenizer.id_to_token(settings.pad_token_id) is None:
            wrong.append(f"the tokenizer has no token {settings.pad_token_id}, which pads")
        return wrong

    def outputs(self, rows: Columns) -> Floats:
        """Raw outputs in the rows' order, first axis the rows."""
        # answers are not needed, and a label that the bundle does not know must not stop a prediction
        inputs = {
            name: values for name, values in rows.items() if name not in self.problem.answer_columns
        }
        return self.outputs_of_features(
            self.problem.encode(self.tokenizer, inputs, self.info.labels)
        )

    def outputs_of_features(self, features: Features) -> Floats:
        """Raw outputs of rows that are tokenized already."""
        return self.model.outputs(features, self.problem, self.info.settings.pad_token_id)

    def predict(self, rows: Columns) -> list[dict[str, Any]]:
        """Predictions as users see them, one a row; probabilities are temperature-scaled."""
        return self.problem.predict(self, rows)
