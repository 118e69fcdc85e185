"""Contrastive steps: the loss against a plain loop, the batches, and a training that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_matrix import Killed, killed_after_two_steps, train

from tasks.core.errors import DataError, ParamsError
from tasks.core.files import read_json, sha256_file
from tasks.encoding.batching import paired_batches, training_batches
from tasks.params.finetuning import FinetuneParams
from tasks.training.contrastive import TEMPERATURE, require_pairs, supervised_contrastive

CONTRASTIVE: dict[str, Any] = {"pooling": "mean", "head_start": "solved", "loss": "contrastive"}


def naive(vectors: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Equation 2 of the paper, an anchor and a positive at a time."""
    unit = [vector / vector.norm() for vector in vectors]
    anchors = []
    for i, anchor in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        positives = [j for j in others if classes[j] == classes[i]]
        scale = sum(torch.exp(anchor @ unit[a] / TEMPERATURE) for a in others)
        shares = [torch.log(torch.exp(anchor @ unit[p] / TEMPERATURE) / scale) for p in positives]
        if shares:
            anchors.append(-sum(shares) / len(shares))
    return sum(anchors) / len(anchors)  # type: ignore[return-value]


def loss(vectors: torch.Tensor, classes: list[int]) -> torch.Tensor:
    targets = torch.tensor(classes)
    return supervised_contrastive(vectors, targets, label_smoothing=0.0, class_weights=None)


@pytest.mark.parametrize("classes", [[0, 0, 1, 1], [0, 1, 0, 2, 0, 1], [3, 3]])
def test_it_is_the_papers_loss_and_has_its_gradient(classes: list[int]) -> None:
    torch.manual_seed(1)
    vectors = torch.randn(len(classes), 5, dtype=torch.float64, requires_grad=True)
    ours, wanted = loss(vectors, classes), naive(vectors, classes)
    torch.testing.assert_close(ours, wanted)
    gradients = [torch.autograd.grad(one, vectors)[0] for one in (ours, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("classes", [[0], [0, 1, 2]])
def test_a_batch_without_a_pair_teaches_nothing(classes: list[int]) -> None:
    vectors = torch.randn(len(classes), 5, requires_grad=True)
    nothing = loss(vectors, classes)
    assert float(nothing.detach()) == 0
    assert not torch.autograd.grad(nothing, vectors)[0].any()


def test_rows_without_any_pair_are_told() -> None:
    require_pairs(np.array([0, 1, 1]))
    for classes in ([0, 1, 2], []):
        with pytest.raises(DataError, match="no label has two training rows"):
            require_pairs(np.array(classes, np.int64))


def test_batches_hold_every_row_once_beside_another_of_its_class() -> None:
    classes = np.array([0] * 9 + [1] * 5 + [2] * 2 + [3], np.int64)
    lengths = np.arange(len(classes)) % 7 + 3
    seen = set()
    for epoch in range(4):
        batches = paired_batches(lengths, classes, 8, seed=0, epoch=epoch)
        order = np.concatenate(batches)
        assert sorted(order) == list(range(len(classes)))
        assert len(batches) == len(training_batches(lengths, 8, seed=0, epoch=epoch))
        for batch in batches:
            beside = classes[batch]
            # a pair may be parted at the edges
            for place in range(1, len(batch) - 1):
                assert beside[place] in (beside[place - 1], beside[place + 1], 3)
        seen.add(tuple(order))
        again = paired_batches(lengths, classes, 8, seed=0, epoch=epoch)
        assert all((one == other).all() for one, other in zip(batches, again, strict=True))
    assert len(seen) == 4


def test_batches_are_of_similar_lengths() -> None:
    draw = np.random.default_rng(0)
    lengths, classes = draw.integers(3, 60, 2000), draw.integers(0, 20, 2000)

    def padded(batches: list[Any]) -> int:
        return sum(int(lengths[batch].max()) * len(batch) for batch in batches)

    alike = paired_batches(lengths, classes, 32, seed=0, epoch=0)
    mixed = [np.concatenate(alike)[i::63] for i in range(63)]
    # a pair is as long as its longer row
    assert padded(alike) < 1.5 * lengths.sum() < padded(mixed)


@pytest.mark.parametrize("problem", ["text-classification", "text-pair"])
def test_the_body_is_trained_the_head_is_solved_and_a_kill_changes_nothing(
    problem: str, tmp_path: Path
) -> None:
    train(problem, "full", tmp_path / "whole", **CONTRASTIVE)
    with pytest.raises(Killed):
        train(problem, "full", tmp_path / "killed", killed_after_two_steps, **CONTRASTIVE)
    train(problem, "full", tmp_path / "killed", **CONTRASTIVE)
    weights = [
        sha256_file(tmp_path / name / "checkpoint" / "model.safetensors")
        for name in ("whole", "killed")
    ]
    assert weights[0] == weights[1]
    facts = read_json(tmp_path / "whole" / "training.json")
    assert len(facts["evaluations"]) == 1
    assert facts["best_step"] == facts["steps"] > 0


def test_adapters_learn_by_comparison_too(tmp_path: Path) -> None:
    train("text-classification", "lora", tmp_path, **CONTRASTIVE)
    assert read_json(tmp_path / "training.json")["steps"] > 0


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"head_start": "random"}, "head_start"),
        ({"method": "frozen"}, "loss"),
        ({"freeze_layers": "all"}, "loss"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"early_stopping_patience": 2}, "early_stopping_patience"),
    ],
)
def test_what_would_do_nothing_is_refused(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=f"`{key}`"):
        FinetuneParams.model_validate(CONTRASTIVE | changed)


@pytest.mark.parametrize("problem", ["multi-label-classification", "token-classification", "chat"])
def test_rows_of_several_labels_or_none_cannot_be_compared(problem: str, tmp_path: Path) -> None:
    values = CONTRASTIVE | {"pooling": "own"}
    with pytest.raises(ParamsError, match=r"finetune\.(loss|head_start)"):
        train(problem, "full", tmp_path, **values)
