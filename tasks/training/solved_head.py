"""Solve a classifier's output layer instead of training it step by step.

For a frozen body this is the best head there is. As the start of a fine-tuning it keeps the body
from being distorted by the gradients of a random head (LP-FT, Kumar et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import ParamsError
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import take
from tasks.reports.stage_reports import SelfTrainingReport
from tasks.training.networks.label_transfer import label_axes
from tasks.training.networks.torch_outputs import predict_torch
from tasks.training.self_training import label_certain

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Features, Floats
    from tasks.training.inputs import TrainingInputs
    from tasks.training.logistic import Weights

MOST_ROWS = 20_000
LEVEL = 0.05  # of the test that lets unlabelled rows take part


@dataclass(frozen=True)
class SolvedHead:
    """What a head was solved on.

    features       the labelled rows, or MOST_ROWS of them
    vectors        what the output layer reads of them, (rows, width)
    self_training  None without unlabelled rows
    """

    features: Features
    vectors: Floats
    self_training: SelfTrainingReport | None


def solve_head(model: PreTrainedModel, inputs: TrainingInputs) -> SolvedHead:
    """Set the output layer's weights and biases to the solution on the training rows.

    The model is left on its device. With unlabelled rows, the certain ones take part if the
    validation rows show that they help.
    """
    import torch

    layer, features = output_layer(model), sampled(inputs.train, inputs.seed)
    references, outputs = inputs.encoder.references(features), len(layer.weight)
    told: SelfTrainingReport | None = None
    if inputs.unlabelled is None:
        (vectors,) = embedded(model, inputs, features)
        head = _solve(inputs, vectors, references, outputs)
    else:
        pool = sampled(inputs.unlabelled, inputs.seed)
        vectors, unlabelled, held_out = embedded(model, inputs, features, pool, inputs.validation)
        head, told = _better(inputs, (vectors, references), unlabelled, held_out, outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head[0]))
        layer.bias.copy_(torch.from_numpy(head[1]))
    return SolvedHead(features, vectors, told)


def embedded(model: PreTrainedModel, inputs: TrainingInputs, *rows: Features) -> tuple[Floats, ...]:
    """What the output layer reads of each set of rows: (rows, width)."""
    body: Any = model
    home = model.device
    body.to(inputs.device)
    with head_inputs_as_outputs(model, output_layer(model)):
        vectors = tuple(
            predict_torch(model, inputs.encoder, features, inputs.pad_token_id, inputs.device)
            for features in rows
        )
    body.to(home)
    return vectors


def _solve(inputs: TrainingInputs, vectors: Floats, references: Array, outputs: int) -> Weights:
    solver = inputs.objective.solve_head
    assert solver is not None
    return solver(vectors, references, outputs, inputs.class_weights, inputs.seed)


def _better(
    inputs: TrainingInputs,
    labelled: tuple[Floats, Array],
    unlabelled: Floats,
    validation: Floats,
    outputs: int,
) -> tuple[Weights, SelfTrainingReport]:
    """The head solved with or without unlabelled rows.

    They are used only if the validation rows show that they help: the metric is better, and more
    rows are right only with them than only without, by McNemar's exact test.
    labelled  (vectors, classes)
    """
    from scipy.stats import binomtest

    vectors, references = labelled
    alone = _solve(inputs, vectors, references, outputs)
    rows, classes = label_certain(vectors, references, unlabelled, outputs)
    certain = np.concatenate([vectors, unlabelled[rows]]), np.concatenate([references, classes])
    taught = _solve(inputs, *certain, outputs)
    scores = [validation @ weights.T + biases for weights, biases in (alone, taught)]
    before, after = (inputs.validate(of_head)[inputs.metric] for of_head in scores)
    answers = inputs.encoder.references(inputs.validation)
    right = [inputs.metrics.correct(of_head, answers) for of_head in scores]
    gained, lost = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    is_better = inputs.metrics.metric_signs[inputs.metric] * (after - before) > 0
    shown = gained > 0 and binomtest(gained, gained + lost, alternative="greater").pvalue <= LEVEL
    helps = is_better and shown
    result = SelfTrainingReport(
        rows=len(unlabelled), used=len(rows) if helps else 0,
        metric=inputs.metric, before=before, after=after, gained=gained, lost=lost,
    )  # fmt: skip
    return taught if helps else alone, result


def sampled(table: pa.Table, seed: int, most: int = MOST_ROWS) -> Features:
    """All rows, or `most` of them, in their order."""
    rows = np.random.default_rng(seed).permutation(len(table))[:most]
    return take(table, np.sort(rows))


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The linear layer with an output for each label.

    Raises ParamsError if the architecture's own head has none with biases.
    """
    names = [name for name in label_axes(model) if name.endswith(".weight")]
    layers: list[Any] = [model.get_submodule(name.removesuffix(".weight")) for name in names]
    if len(layers) != 1 or layers[0].bias is None:
        raise ParamsError(
            f"finetune.head_start: the head of {type(model).__name__} does not end in one linear "
            "layer with biases, so it cannot be solved.",
            "Set finetune.pooling to mean, cls or last, or finetune.head_start to random.",
        )
    found: nn.Linear = layers[0]
    return found


@contextmanager
def head_inputs_as_outputs(model: PreTrainedModel, layer: nn.Linear) -> Iterator[None]:
    """Context in which the model returns what `layer`, its output layer, reads: (rows, width)."""
    read: dict[str, torch.Tensor] = {}
    hooks = (
        layer.register_forward_pre_hook(
            lambda module, inputs: read.__setitem__(OUTPUT_NAME, inputs[0])
        ),
        # the model's own output is left out: what was read takes its place
        model.register_forward_hook(lambda module, inputs, outputs: read),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
