"""Outputs of a loaded checkpoint for the rows of a split, or for rows that were changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import TrainingError
from tasks.core.progress import Report
from tasks.core.ragged import is_finite, stack_rows
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import TokensInfo, load_tokenizer, read_features
from tasks.training.networks.torch_outputs import predict_torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Columns, Features, Floats
    from tasks.encoding.encoder import Encoder


@dataclass(frozen=True)
class SplitOutputs:
    """Raw outputs of a split's rows, their features, and what is right."""

    features: Features
    outputs: Floats
    references: Array


class TorchPredictor:
    """A loaded model that computes outputs of features or of rows."""

    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str],
        tokens: Path,
        device: str,
        model: PreTrainedModel,
    ) -> None:
        info = TokensInfo.read(tokens)
        self.encoder, self.labels, self.tokens, self.device = encoder, labels, tokens, device
        self.pad_token_id = info.pad_token_id
        self.tokenizer = load_tokenizer(tokens / "tokenizer", info.max_length)
        self.model = model.to(device).eval()  # type: ignore[arg-type]  # decorator hides self
        # outputs by features: rows that tokenize alike are computed once
        self.known: dict[str, Array] = {}

    def outputs(self, features: Features, report: Report, progress: tuple[float, float]) -> Floats:
        """Outputs in the rows' order; progress goes from the first share to the second."""
        low, high = progress

        def scaled(step: int, metrics: Mapping[str, float]) -> None:
            report(1, {"progress": low + (high - low) * metrics["progress"]})

        outputs = predict_torch(
            self.model, self.encoder, features, self.pad_token_id, self.device, report=scaled
        )
        if not is_finite(outputs):
            raise TrainingError(
                "models/checkpoint: its outputs are not finite; the training must have diverged.",
                "Lower finetune.learning_rate or finetune.max_grad_norm, "
                "then run `ratchet train` again.",
            )
        self.known.update(zip(_keys(features), outputs, strict=True))
        return outputs

    def outputs_of_split(
        self, split: str, report: Report, progress: tuple[float, float]
    ) -> SplitOutputs:
        """Outputs of a tokenized split."""
        features = read_features(self.tokens / f"{split}.arrow")
        outputs = self.outputs(features, report, progress)
        return SplitOutputs(features, outputs, self.encoder.references(features))

    def outputs_of_rows(
        self, row_sets: Sequence[Columns], report: Report, progress: tuple[float, float]
    ) -> list[Floats]:
        """Outputs of each set of rows; rows already known are not computed again."""
        encoded = [
            encode_rows(self.encoder, self.tokenizer, rows, self.labels) for rows in row_sets
        ]
        missing: dict[str, tuple[Features, int]] = {}
        for features in encoded:
            for row, key in enumerate(_keys(features)):
                if key not in self.known:
                    missing[key] = (features, row)
        if missing:
            names = _inputs(next(iter(missing.values()))[0])
            batch = {
                name: [features[name][row] for features, row in missing.values()] for name in names
            }
            self.outputs(batch, report, progress)
        return [stack_rows([self.known[key] for key in _keys(features)]) for features in encoded]


def _inputs(features: Features) -> list[str]:
    return sorted(set(features) - {"row", "truncated", "references"})


def _keys(features: Features) -> list[str]:
    columns = [features[name] for name in _inputs(features)]
    return [repr(values) for values in zip(*columns, strict=True)]
