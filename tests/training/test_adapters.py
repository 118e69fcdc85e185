"""The fine-tuning stage: adapters, continuing from a champion, running out of memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import make_tokens
from shared import made_once
from tiny import LABELS

from tasks.core.errors import ParamsError, SourceError, TrainingError
from tasks.core.files import read_json, sha256_file
from tasks.core.progress import silent
from tasks.core.seeds import seed_everything
from tasks.encoding.token_files import TokensInfo, read_features
from tasks.finetuning import finetune_model
from tasks.params.finetuning import FinetuneParams
from tasks.params.schema import BaseModelParams
from tasks.problems import load_problem
from tasks.training.inputs import TrainingInputs
from tasks.training.loop import BEST, Trainer, prepare_work_dir
from tasks.training.methods.adapter_files import WEIGHTS
from tasks.training.methods.checkpoints import ADAPTER, load_checkpoint
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.torch_outputs import predict_torch
from tasks.training.networks.weights import load_trained

PROBLEM = load_problem("text-classification")
SIZES = {"rank": 4, "virtual_tokens": 4, "bottleneck": 8}


@pytest.fixture(scope="module")
def tokens() -> Path:
    def make(directory: Path) -> None:
        make_tokens(directory / "tokens")
        # the base model has 64 positions; this leaves room for virtual tokens
        info = replace(TokensInfo.read(directory / "tokens"), max_length=32)
        info.write(directory / "tokens")

    return made_once("adapter-tokens", make) / "tokens"


def run(
    base: Path, tokens: Path, out: Path, start: Path | None = None, **params: Any
) -> dict[str, Any]:
    """Fine-tune into `out`; return the training report."""
    defaults = {"epochs": 0.3, "learning_rate": 1e-2, "sizes": SIZES, "dropout": 0.0}
    finetune_model(
        tokens,
        out / "checkpoint",
        out / "training.json",
        start=start,
        problem=PROBLEM.name,
        labels=LABELS,
        base_model=BaseModelParams(path=str(base)),
        finetune=FinetuneParams.model_validate({**defaults, **params}),
        seed=7,
        device="cpu",
        root=out,
        cache=out,
        work=out / "work",
        report=silent,
    )
    facts: dict[str, Any] = read_json(out / "training.json")
    return facts


def outputs(checkpoint: Path, tokens: Path) -> Any:
    model = load_checkpoint(PROBLEM.objective, checkpoint, LABELS)
    return predict_torch(model, PROBLEM.encoding, read_features(tokens / "validation.arrow"), 0)


def test_an_adapter_is_small_and_goes_on_where_it_stopped(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    facts = run(base_dir, tokens, tmp_path / "first", method="lora")
    adapter = tmp_path / "first" / "checkpoint" / ADAPTER
    base_weights = base_dir / "model.safetensors"
    assert (adapter / WEIGHTS).stat().st_size < base_weights.stat().st_size / 3
    assert read_json(adapter / "adapter.json")["base_sha256"] == sha256_file(base_weights)
    assert facts["method"] == "lora"
    assert facts["trained_parameters"] < facts["parameters"] / 3
    assert facts["seconds_per_epoch"] > 0
    assert facts["peak_memory_mb"] > 10
    # with a learning rate of almost zero, the outputs stay the same
    params: dict[str, Any] = {"method": "lora", "adapter": str(adapter), "learning_rate": 1e-12}
    run(base_dir, tokens, tmp_path / "again", **params)
    first, again = (outputs(tmp_path / name / "checkpoint", tokens) for name in ("first", "again"))
    assert abs(first - again).max() < 1e-4


def test_an_adapter_on_another_base_is_an_error(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    run(base_dir, tokens, tmp_path / "first", method="lora")
    adapter = str(tmp_path / "first" / "checkpoint" / ADAPTER)
    other = tmp_path / "other"
    shutil.copytree(base_dir, other)
    model = PROBLEM.objective.load_model(base_dir, LABELS).base_model
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7] += 1
    model.save_pretrained(other)
    with pytest.raises(ParamsError, match="made on another base model") as caught:
        run(other, tokens, tmp_path / "second", method="lora", adapter=adapter)
    assert "base_model" in caught.value.remedy
    cases: dict[str, dict[str, Any]] = {
        "method: 'lora', not 'rslora'": {"method": "rslora"},
        "sizes.rank: 4, not 2": {"method": "lora", "sizes": SIZES | {"rank": 2}},
    }
    for message, params in cases.items():
        with pytest.raises(ParamsError, match=message):
            run(base_dir, tokens, tmp_path / "third", adapter=adapter, **params)
    with pytest.raises(SourceError, match=r"adapter\.json"):
        run(base_dir, tokens, tmp_path / "fourth", method="lora", adapter=str(tmp_path))


def test_full_fine_tuning_makes_no_adapter(base_dir: Path, tokens: Path, tmp_path: Path) -> None:
    run(base_dir, tokens, tmp_path, epochs=0.1)
    files = {file.name for file in (tmp_path / "checkpoint").iterdir()}
    tokenizer = {file.name for file in (tokens / "tokenizer").iterdir()}
    assert files == {"config.json", "model.safetensors"} | tokenizer


@pytest.mark.parametrize(
    "method", ["prompt-tuning", "prefix-tuning", "p-tuning", "adapter", "lora"]
)
def test_a_champion_is_gone_on_from_with_what_could_not_be_merged(
    base_dir: Path, tokens: Path, tmp_path: Path, method: str
) -> None:
    run(base_dir, tokens, tmp_path / "first", method=method)
    start = tmp_path / "start"
    shutil.copytree(tmp_path / "first" / "checkpoint", start / "checkpoint")
    shutil.copytree(tokens, start / "tokens")
    params: dict[str, Any] = {"start_from": "champion", "learning_rate": 1e-12, "epochs": 0.1}
    facts = run(base_dir, tokens, tmp_path / "next", start, method=method, **params)
    start_sha256 = sha256_file(start / "checkpoint" / "model.safetensors")
    assert facts["start"]["checkpoint_sha256"] == start_sha256
    before = outputs(start / "checkpoint", tokens)
    after = outputs(tmp_path / "next" / "checkpoint", tokens)
    assert abs(before - after).max() < 1e-4
    pinned = read_json(tmp_path / "next" / "checkpoint" / ADAPTER / "adapter.json")["base_sha256"]
    assert pinned == facts["start"]["checkpoint_sha256"]
    if method != "lora":
        with pytest.raises(ParamsError, match=f"the champion was trained with {method}"):
            run(base_dir, tokens, tmp_path / "other", start, method="full", start_from="champion")


def test_gradient_checkpointing_changes_nothing_but_memory(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    for method in ("full", "lora", "prefix-tuning"):
        losses = []
        for on in (False, True):
            params: dict[str, Any] = {"freeze_embeddings": True, "gradient_checkpointing": on}
            facts = run(base_dir, tokens, tmp_path / f"{method}-{on}", method=method, **params)
            losses.append([point["loss"] for point in facts["curve"]])
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_adalora_ends_with_its_budget(base_dir: Path, tokens: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run(base_dir, tokens, tmp_path, method="adalora", epochs=1)
    weights = load_file(tmp_path / "checkpoint" / ADAPTER / WEIGHTS)
    singular_values = [weight for name, weight in weights.items() if "lora_E" in name]
    assert sum(int((values != 0).sum()) for values in singular_values) == 4 * len(singular_values)
    assert sum(values.numel() for values in singular_values) == 6 * len(singular_values)


def narrow(model: Any, rows: int) -> Any:
    """Make training on more than `rows` rows at a time fail with torch's out-of-memory error."""
    forward = model.forward
    message = (
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 9 bytes."
    )

    def within_memory(input_ids: torch.Tensor, **inputs: torch.Tensor) -> Any:
        if model.training and len(input_ids) > rows:
            torch.rand(1)  # numbers drawn before the failure must not matter
            raise RuntimeError(message)
        return forward(input_ids=input_ids, **inputs)

    model.forward = within_memory
    return model


def inputs_of(tokens: Path, rows: int, finetune: FinetuneParams, work: Path) -> TrainingInputs:
    import pyarrow as pa

    return TrainingInputs(
        PROBLEM.objective,
        PROBLEM.encoding,
        PROBLEM.scoring,
        LABELS,
        train=pa.table(read_features(tokens / "train.arrow")).slice(0, rows),
        validation=read_features(tokens / "test.arrow"),
        pad_token_id=0,
        params=finetune,
        class_weights=None,
        seed=7,
        device="cpu",
        work=work,
    )


def narrow_run(
    base: Path, tokens: Path, work: Path, rows: int, stop_after: int | None = None, **params: Any
) -> tuple[Trainer, Path]:
    """Train with memory for `rows` rows; a stopped run is resumed. (trainer, best weights)"""

    def report(step: int, metrics: Mapping[str, float]) -> None:
        if stop_after is not None and step >= stop_after and "loss" in metrics:
            raise KeyboardInterrupt

    defaults = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.1}
    finetune = FinetuneParams.model_validate({**defaults, **params})
    setting = inputs_of(tokens, 64, finetune, work)
    prepare_work_dir(work, "same inputs")
    seed_everything(7)
    model = PROBLEM.objective.load_model(base, LABELS, 0.1)
    trainer = Trainer(Tuning(narrow(model, rows)), setting, report)
    try:
        trainer.run()
    except KeyboardInterrupt:
        return narrow_run(base, tokens, work, rows, **params)
    return trainer, work / BEST


def test_memory_that_runs_out_halves_the_parts_and_keeps_the_batch(
    base_dir: Path, tokens: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, best = narrow_run(base_dir, tokens, tmp_path / "narrow", rows=5)
    assert trainer.progress.accumulation == 4
    assert trainer.progress.out_of_memory == [
        {"step": 1, "accumulation": 2},
        {"step": 1, "accumulation": 4},
    ]
    assert "out of memory at step 1: batches of 16 rows are computed in 4 parts" in caplog.text
    asked, same = narrow_run(base_dir, tokens, tmp_path / "asked", rows=5, accumulation=4)
    assert asked.progress.out_of_memory == []
    assert sha256_file(best) == sha256_file(same)
    assert trainer.progress.step == asked.progress.step == 8
    _, resumed = narrow_run(base_dir, tokens, tmp_path / "killed", rows=5, stop_after=3)
    assert sha256_file(resumed) == sha256_file(best)


def test_a_row_that_does_not_fit_alone_is_told_with_a_remedy(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="with a single row at a time") as caught:
        narrow_run(base_dir, tokens, tmp_path / "work", rows=0)
    assert "tokenize.max_length" in caught.value.remedy


def test_other_errors_are_not_taken_for_want_of_memory(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    model = PROBLEM.objective.load_model(base_dir, LABELS)
    model.classifier = torch.nn.Linear(7, 3)
    setting = inputs_of(tokens, 16, FinetuneParams(), tmp_path / "work")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Trainer(Tuning(model), setting, silent).run()


def test_weights_of_another_method_are_not_taken(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    _, best = narrow_run(base_dir, tokens, tmp_path / "work", rows=16, epochs=1)
    model = PROBLEM.objective.load_model(base_dir, LABELS)
    model.classifier.requires_grad_(False)
    with pytest.raises(TrainingError, match="its weights are not those"):
        load_trained(model, best)
