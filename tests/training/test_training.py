"""The training loop: a killed run resumes to the same result, and divergence is an error."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from tiny import LABELS, tiny_rows
from tiny_chat import make_chat_base, make_plain_base

from tasks.core.errors import ParamsError, TrainingError
from tasks.core.files import sha256_file
from tasks.core.progress import silent
from tasks.core.seeds import seed_everything
from tasks.encoding.batching import inference_batches, training_batches
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import load_tokenizer
from tasks.params.finetuning import FinetuneParams
from tasks.problems import load_problem
from tasks.training.inputs import TrainingInputs, TrainingState
from tasks.training.loop import FROZEN, Trainer
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.architecture import freeze, frozen_depth
from tasks.training.networks.device import in_bfloat16
from tasks.training.resume_point import BEST, prepare_work_dir

PROBLEM = load_problem("text-classification")


def setting(
    base: Path, work: Path, *, rows: int = 192, shuffle_labels: bool = False, **params: object
) -> TrainingInputs:
    tokenizer = load_tokenizer(base, 32)
    tables = []
    for seed in (1, 2):
        columns = tiny_rows(rows, seed)
        if shuffle_labels:
            columns["label"] = list(np.random.default_rng(seed).permutation(columns["label"]))
        features = encode_rows(PROBLEM.encoding, tokenizer, columns, LABELS)
        tables.append(pa.table({"row": range(rows), **features}))
    defaults = {"epochs": 5, "learning_rate": 5e-3, "batch_size": 16, "dropout": 0.1}
    return TrainingInputs(
        PROBLEM.objective,
        PROBLEM.encoding,
        PROBLEM.scoring,
        LABELS,
        train=tables[0],
        validation=tables[1].to_pydict(),
        pad_token_id=0,
        params=FinetuneParams.model_validate(defaults | params),
        class_weights=None,
        seed=7,
        device="cpu",
        work=work,
    )


def train(
    inputs: TrainingInputs, base: Path, stop_after: int | None = None, frozen: int = 0
) -> TrainingState:
    class Killed(BaseException):
        pass

    def report(step: int, metrics: Mapping[str, float]) -> None:
        if stop_after is not None and step >= stop_after:
            raise Killed

    prepare_work_dir(inputs.work, "same inputs")
    seed_everything(inputs.seed)
    model = PROBLEM.objective.load_model(base, LABELS, inputs.params.dropout)
    freeze(model, embeddings=False, layers=frozen)
    try:
        return Trainer(Tuning(model), inputs, report).run()
    except Killed:
        return TrainingState()


@pytest.fixture(scope="module")
def uninterrupted(
    base_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, TrainingState]:
    inputs = setting(base_dir, tmp_path_factory.mktemp("whole") / "work")
    progress = train(inputs, base_dir)
    return sha256_file(inputs.work / BEST), progress


def test_it_learns(uninterrupted: tuple[str, TrainingState]) -> None:
    _, progress = uninterrupted
    assert progress.best_score > 0.9
    assert progress.curve[-1]["loss"] < progress.curve[0]["loss"] / 2
    assert progress.step == 60


@pytest.mark.parametrize("kills", [(1,), (17,), (13, 14, 50), (59,), (60,)])
def test_a_run_killed_anywhere_ends_like_one_that_was_not(
    base_dir: Path, tmp_path: Path, uninterrupted: tuple[str, TrainingState], kills: tuple[int, ...]
) -> None:
    inputs = setting(base_dir, tmp_path / "work")
    for step in kills:
        train(inputs, base_dir, stop_after=step)
    progress = train(inputs, base_dir)
    weights, whole = uninterrupted
    assert sha256_file(inputs.work / BEST) == weights
    assert progress == whole


def test_checkpoints_take_a_small_share_of_the_time_and_change_nothing(
    base_dir: Path,
    tmp_path: Path,
    uninterrupted: tuple[str, TrainingState],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()  # a checkpoint takes as long as three steps
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    checkpoints: list[object] = []
    save = torch.save

    def counted(*arguments: Any) -> None:
        checkpoints.append(arguments)
        save(*arguments)

    monkeypatch.setattr(torch, "save", counted)
    inputs = setting(base_dir, tmp_path / "work")
    train(inputs, base_dir)
    assert len(checkpoints) == 2  # of twenty: one at the start, for tiny runs, and one at the end
    assert sha256_file(inputs.work / BEST) == uninterrupted[0]


def test_bfloat16_learns_too_and_the_same_each_time(
    base_dir: Path, tmp_path: Path, uninterrupted: tuple[str, TrainingState]
) -> None:
    once, killed = (
        setting(base_dir, tmp_path / name, precision="bf16") for name in ("once", "killed")
    )
    assert train(once, base_dir).best_score > 0.9
    train(killed, base_dir, stop_after=17)
    train(killed, base_dir)
    weights = sha256_file(once.work / BEST)
    assert sha256_file(killed.work / BEST) == weights
    assert weights != uninterrupted[0]
    assert {tensor.dtype for tensor in load_file(once.work / BEST).values()} == {torch.float32}


def test_a_processor_computes_in_full_precision_unless_told() -> None:
    in_half = [in_bfloat16(precision, "cpu") for precision in ("auto", "fp32", "bf16")]
    assert in_half == [False, False, True]


def test_a_completed_run_is_not_redone(base_dir: Path, tmp_path: Path) -> None:
    inputs = setting(base_dir, tmp_path / "work", epochs=1)
    first = train(inputs, base_dir)
    steps: list[int] = []
    seed_everything(inputs.seed)
    tuning = Tuning(PROBLEM.objective.load_model(base_dir, LABELS))
    again = Trainer(tuning, inputs, lambda step, metrics: steps.append(step)).run()
    assert steps == []
    assert again == first


def test_other_inputs_never_resume(tmp_path: Path) -> None:
    prepare_work_dir(tmp_path / "work", "one")
    (tmp_path / "work" / "last").mkdir()
    prepare_work_dir(tmp_path / "work", "one")
    assert (tmp_path / "work" / "last").exists()
    prepare_work_dir(tmp_path / "work", "two")
    assert not (tmp_path / "work" / "last").exists()


def test_shuffled_labels_score_at_chance(base_dir: Path, tmp_path: Path) -> None:
    inputs = setting(base_dir, tmp_path / "work", rows=240, shuffle_labels=True, epochs=3)
    assert train(inputs, base_dir).evaluations[-1]["accuracy"] < 0.45


def test_accumulated_parts_make_the_same_step(base_dir: Path, tmp_path: Path) -> None:
    losses = []
    for parts in (1, 4):
        work = tmp_path / str(parts)
        inputs = setting(base_dir, work, epochs=1, dropout=0.0, accumulation=parts)
        losses.append([point["loss"] for point in train(inputs, base_dir).curve])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_loss_that_diverges_stops_with_a_remedy(base_dir: Path, tmp_path: Path) -> None:
    inputs = setting(base_dir, tmp_path / "work")
    seed_everything(0)
    model = PROBLEM.objective.load_model(base_dir, LABELS)
    next(model.parameters()).data[:] = float("nan")
    prepare_work_dir(inputs.work, "x")
    with pytest.raises(TrainingError, match="nan at step 1") as caught:
        Trainer(Tuning(model), inputs, silent).run()
    assert "learning_rate" in caught.value.remedy


def test_early_stopping_keeps_the_best(base_dir: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    inputs = setting(base_dir, work, epochs=50, early_stopping_patience=2, evaluations_per_epoch=1)
    progress = train(inputs, base_dir)
    assert progress.stopped_early
    scores = {int(scored["step"]): scored["macro_f1"] for scored in progress.evaluations}
    assert scores[progress.best_step] == max(scores.values()) == progress.best_score
    assert len([step for step in scores if step > progress.best_step]) == 2


def test_frozen_parts_do_not_move(base_dir: Path) -> None:
    model = PROBLEM.objective.load_model(base_dir, LABELS)
    freeze(model, embeddings=False, layers=1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any("embeddings" in name or "layer.0." in name for name in trained)
    assert any("layer.1." in name for name in trained)
    with pytest.raises(ParamsError, match="has 2"):
        freeze(model, embeddings=False, layers=3)


def test_all_that_works_below_a_frozen_layer_is_frozen_with_it(tmp_path: Path) -> None:
    for make in (make_plain_base, make_chat_base):
        model = load_problem("chat").objective.load_model(make(tmp_path / make.__name__), ())
        freeze(model, embeddings=True, layers=0)
        freeze(model, embeddings=False, layers=1)
        assert frozen_depth(model) == 1
        trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
        assert not any(".wpe." in name for name in trained)
        model.requires_grad_(True)
        assert frozen_depth(model) == 0


@pytest.mark.parametrize("layers", [1, 2])
def test_frozen_layers_read_from_disk_learn_as_frozen_layers_that_are_computed(
    base_dir: Path, tmp_path: Path, layers: int
) -> None:
    losses = {}
    for megabytes in (0, 100):
        inputs = setting(base_dir, tmp_path / str(megabytes), frozen_cache_mb=megabytes)
        progress = train(inputs, base_dir, frozen=layers)
        losses[megabytes] = [point["loss"] for point in progress.curve]
        assert (inputs.work / FROZEN / "index.npz").is_file() == bool(megabytes)
    epoch = len(losses[0]) // 5
    assert losses[100][:epoch] == losses[0][:epoch]
    np.testing.assert_allclose(losses[100], losses[0], rtol=1e-3)


@pytest.mark.parametrize("stop_after", [5, 17, 40])
def test_a_killed_run_with_frozen_layers_ends_like_one_that_was_not(
    base_dir: Path, tmp_path: Path, stop_after: int
) -> None:
    whole, killed = (setting(base_dir, tmp_path / name) for name in ("whole", "killed"))
    train(whole, base_dir, frozen=1)
    train(killed, base_dir, stop_after, frozen=1)
    train(killed, base_dir, frozen=1)
    assert sha256_file(killed.work / BEST) == sha256_file(whole.work / BEST)


@pytest.mark.parametrize(("rows", "fits"), [(200, True), (1500, False)])
def test_frozen_layers_take_no_more_disk_than_they_may(
    base_dir: Path, tmp_path: Path, rows: int, fits: bool
) -> None:
    work = tmp_path / "work"
    inputs = setting(base_dir, work, rows=rows, frozen_cache_mb=1, epochs=2, batch_size=64)
    tokens = sum(map(len, inputs.train["input_ids"].to_pylist()))
    width = PROBLEM.objective.load_model(base_dir, LABELS).config.hidden_size
    assert (tokens * width * 4 <= 1e6) == fits
    train(inputs, base_dir, frozen=1)
    assert (inputs.work / FROZEN).exists() == fits


def test_every_row_is_in_one_batch_and_batches_are_of_one_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 5000)
    batches = training_batches(lengths, 32, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(5000))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.05 * lengths.sum()
    other_epoch = training_batches(lengths, 32, seed=1, epoch=1)
    assert any(a.tolist() != b.tolist() for a, b in zip(batches, other_epoch, strict=True))


def test_inference_batches_hold_every_row_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 500)
    batches = list(inference_batches(lengths, max_tokens=1000, max_rows=16))
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert all(len(batch) <= 16 and len(batch) * lengths[batch].max() <= 1000 for batch in batches)
    assert [len(batch) for batch in inference_batches(np.array([5000]), 1000, 16)] == [1]
