"""Adapter-only checkpoints, continuing from a champion, and running out of memory.

The tests run the whole fine-tuning stage.
"""

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
from tasks.training.loop import Trainer
from tasks.training.methods.adapter_files import WEIGHTS
from tasks.training.methods.checkpoints import ADAPTER, load_checkpoint
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.torch_outputs import predict_torch
from tasks.training.networks.weights import load_trained
from tasks.training.resume_point import BEST, prepare_work_dir

PROBLEM = load_problem("text-classification")
SIZES = {"rank": 4, "virtual_tokens": 4, "bottleneck": 8}


@pytest.fixture(scope="module")
def tokens() -> Path:
    def make(directory: Path) -> None:
        make_tokens(directory / "tokens")
        replace(TokensInfo.read(directory / "tokens"), max_length=32).write(
            directory / "tokens"
        )  # leaves places for virtual tokens

    return made_once("adapter-tokens", make) / "tokens"


def run(
    base: Path, tokens: Path, out: Path, start: Path | None = None, **params: Any
) -> dict[str, Any]:
    given = {"epochs": 0.3, "learning_rate": 1e-2, "sizes": SIZES, "dropout": 0.0, **params}
    finetune_model(
        tokens, out / "checkpoint", out / "training.json", start=start, problem=PROBLEM.name,
        labels=LABELS, base_model=BaseModelParams(path=str(base)),
        finetune=FinetuneParams.model_validate(given), seed=7, device="cpu",
        root=out, cache=out, work=out / "work", report=silent,
    )  # fmt: skip
    found: dict[str, Any] = read_json(out / "training.json")
    return found


def outputs(checkpoint: Path, tokens: Path) -> Any:
    model = load_checkpoint(PROBLEM.objective, checkpoint, LABELS)
    return predict_torch(model, PROBLEM.encoding, read_features(tokens / "validation.arrow"), 0)


def test_an_adapter_is_small_and_goes_on_where_it_stopped(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    facts = run(base_dir, tokens, tmp_path / "first", method="lora")
    adapter = tmp_path / "first" / "checkpoint" / ADAPTER
    assert (adapter / WEIGHTS).stat().st_size < (base_dir / "model.safetensors").stat().st_size / 3
    assert read_json(adapter / "adapter.json")["base_sha256"] == sha256_file(
        base_dir / "model.safetensors"
    )
    assert facts["method"] == "lora"
    assert facts["trained_parameters"] < facts["parameters"] / 3
    assert facts["seconds_per_epoch"] > 0
    assert facts["peak_memory_mb"] > 10
    # a learning rate of next to nothing: what comes out is what went in
    run(
        base_dir,
        tokens,
        tmp_path / "again",
        method="lora",
        adapter=str(adapter),
        learning_rate=1e-12,
    )
    first, again = (outputs(tmp_path / name / "checkpoint", tokens) for name in ("first", "again"))
    assert abs(first - again).max() < 1e-4


def test_an_adapter_on_another_base_is_an_error(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    run(base_dir, tokens, tmp_path / "first", method="lora")
    adapter = str(tmp_path / "first" / "checkpoint" / ADAPTER)
    other = tmp_path / "other"
    shutil.copytree(base_dir, other)
    model: Any = PROBLEM.objective.load_model(base_dir, LABELS).base_model
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7] += 1
    model.save_pretrained(other)
    with pytest.raises(ParamsError, match="made on another base model") as caught:
        run(other, tokens, tmp_path / "second", method="lora", adapter=adapter)
    assert "base_model" in caught.value.remedy
    refused: list[tuple[dict[str, Any], str]] = [
        ({"method": "rslora"}, "method: 'lora', not 'rslora'"),
        ({"sizes": SIZES | {"rank": 2}}, "sizes.rank: 4, not 2"),
    ]
    for params, says in refused:
        with pytest.raises(ParamsError, match=says):
            run(
                base_dir,
                tokens,
                tmp_path / "third",
                adapter=adapter,
                **{"method": "lora", **params},
            )
    with pytest.raises(SourceError, match=r"adapter\.json"):
        run(base_dir, tokens, tmp_path / "fourth", method="lora", adapter=str(tmp_path))


def test_full_fine_tuning_makes_no_adapter(base_dir: Path, tokens: Path, tmp_path: Path) -> None:
    run(base_dir, tokens, tmp_path, epochs=0.1)
    made = {file.name for file in (tmp_path / "checkpoint").iterdir()}
    tokenizer = {file.name for file in (tokens / "tokenizer").iterdir()}
    assert made == {"config.json", "model.safetensors"} | tokenizer


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
    facts = run(
        base_dir,
        tokens,
        tmp_path / "next",
        start,
        method=method,
        start_from="champion",
        learning_rate=1e-12,
        epochs=0.1,
    )
    assert facts["start"]["checkpoint_sha256"] == sha256_file(
        start / "checkpoint" / "model.safetensors"
    )
    assert (
        abs(
            outputs(start / "checkpoint", tokens)
            - outputs(tmp_path / "next" / "checkpoint", tokens)
        ).max()
        < 1e-4
    )
    pinned = read_json(tmp_path / "next" / "checkpoint" / ADAPTER / "adapter.json")["base_sha256"]
    assert pinned == facts["start"]["checkpoint_sha256"]
    if method != "lora":
        with pytest.raises(ParamsError, match=f"the champion was trained with {method}"):
            run(base_dir, tokens, tmp_path / "other", start, method="full", start_from="champion")


def test_gradient_checkpointing_changes_nothing_but_memory(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    for method in ("full", "lora", "prefix-tuning"):
        plain, saving = (
            run(
                base_dir,
                tokens,
                tmp_path / f"{method}-{on}",
                method=method,
                freeze_embeddings=True,
                gradient_checkpointing=on,
            )
            for on in (False, True)
        )
        assert [point["loss"] for point in plain["curve"]] == pytest.approx(
            [point["loss"] for point in saving["curve"]], rel=1e-4
        )


def test_adalora_ends_with_its_budget(base_dir: Path, tokens: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run(base_dir, tokens, tmp_path, method="adalora", epochs=1)
    weights = load_file(tmp_path / "checkpoint" / ADAPTER / WEIGHTS)
    left = [int((weight != 0).sum()) for name, weight in weights.items() if "lora_E" in name]
    assert sum(left) == 4 * len(left)
    assert sum(weight.numel() for name, weight in weights.items() if "lora_E" in name) == 6 * len(
        left
    )


def narrow(model: Any, rows: int) -> Any:
    """A model whose machine has memory for so many rows at a time, and says so in torch's words."""
    forward = model.forward

    def within_memory(input_ids: torch.Tensor, **inputs: torch.Tensor) -> Any:
        if model.training and len(input_ids) > rows:
            torch.rand(1)  # what was drawn before the failure must not count
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 9 bytes."
            )
        return forward(input_ids=input_ids, **inputs)

    model.forward = within_memory
    return model


def narrow_run(
    base: Path, tokens: Path, work: Path, rows: int, stop_after: int | None = None, **params: Any
) -> tuple[Trainer, Path]:
    import pyarrow as pa

    def report(step: int, metrics: Mapping[str, float]) -> None:
        if stop_after is not None and step >= stop_after and "loss" in metrics:
            raise KeyboardInterrupt

    train = pa.table(read_features(tokens / "train.arrow")).slice(0, 64)
    validation = read_features(tokens / "test.arrow")
    finetune = FinetuneParams.model_validate(
        {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.1, **params}
    )
    setting = TrainingInputs(
        PROBLEM.objective,
        PROBLEM.encoding,
        PROBLEM.scoring,
        LABELS,
        train,
        validation,
        0,
        finetune,
        None,
        7,
        "cpu",
        work,
    )
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
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run_with(model, tokens, tmp_path / "work")


def run_with(model: Any, tokens: Path, work: Path) -> None:
    import pyarrow as pa

    train = pa.table(read_features(tokens / "train.arrow")).slice(0, 16)
    setting = TrainingInputs(
        PROBLEM.objective,
        PROBLEM.encoding,
        PROBLEM.scoring,
        LABELS,
        train,
        read_features(tokens / "test.arrow"),
        0,
        FinetuneParams(),
        None,
        7,
        "cpu",
        work,
    )
    Trainer(Tuning(model), setting, silent).run()


def test_weights_of_another_method_are_not_taken(
    base_dir: Path, tokens: Path, tmp_path: Path
) -> None:
    _, best = narrow_run(base_dir, tokens, tmp_path / "work", rows=16, epochs=1)
    model = PROBLEM.objective.load_model(base_dir, LABELS)
    model.classifier.requires_grad_(False)
    with pytest.raises(TrainingError, match="its weights are not those"):
        load_trained(model, best)
