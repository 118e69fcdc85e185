"""LoRA fine-tuning of a chat model, in tokens per second: ours beside transformers' Trainer.

python -m benchmarks.chat         # SmolLM2-135M-Instruct on small talk
python -m benchmarks.chat --quick

Both see the same dialogues, eight per batch, learn only the assistant's tokens, and train the same
LoRA weights. Ours packs the dialogues; the Trainer pads them, and padding is not counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import BenchmarkSection, alternate, ratios, run_alone

BATCH = 8
OURS, TRAINER = "ours", "Trainer's defaults, padded to the longest"
BFLOAT16 = "ours in bfloat16"  # finetune.precision: bf16
MODULE = "benchmarks.chat"


def measure(quick: bool) -> BenchmarkSection:
    """Steps of each in turns."""
    from benchmarks.material import computes_bfloat16, default_workspace

    rounds, steps = (2, 1) if quick else (5, 3)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "tokenize", example="chat")
        common = {"root": str(workspace.root), "steps": steps}
        variants = (OURS, *([BFLOAT16] if computes_bfloat16() else []), TRAINER)
        found = alternate(MODULE, {name: common | {"variant": name} for name in variants}, rounds)
    rates = {
        name: [turn["tokens"] / turn["seconds"] for turn in turns] for name, turns in found.items()
    }
    rows = [
        [name, f"{np.median(rates[name]):.0f}", ratios(rates[TRAINER], rates[name])]
        for name in rates
    ]
    return BenchmarkSection(
        "Chat: fine-tuning", ("variant", "tokens/s", "over Trainer's"), rows, ["Wanted: 2x."]
    )


def serve(root: str, variant: str, steps: int) -> None:
    """A variant's own process."""
    from benchmarks.material import epoch_batches, some_batches
    from tasks.encoding.token_files import read_tokens, token_lengths
    from tasks.shipping.workers import answer_questions

    makers: dict[str, Callable[[Path], Any]] = {
        OURS: ours,
        BFLOAT16: partial(ours, precision="bf16"),
        TRAINER: trainer,
    }
    train, every = makers[variant](Path(root)), epoch_batches(Path(root), BATCH)
    lengths = token_lengths(read_tokens(Path(root) / "data" / "tokens" / "train.arrow"))

    def turn(number: int) -> dict[str, Any]:
        batches = some_batches(every, 1 if number < 0 else steps, number + 1)
        started = time.perf_counter()
        train(batches)
        return {
            "tokens": int(lengths[np.concatenate(batches)].sum()),
            "seconds": time.perf_counter() - started,
        }

    answer_questions({"turn": turn})


def ours(root: Path, precision: str = "auto") -> Callable[[Sequence[np.ndarray]], None]:
    """The training loop's own steps."""
    from benchmarks.material import training_steps

    return training_steps(root, "finetune.epochs=100", f"finetune.precision={precision}")


def trainer(root: Path) -> Callable[[Sequence[np.ndarray]], None]:
    """transformers' Trainer as it comes, with peft's LoRA of the same rank on the same layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq
    from transformers import Trainer as Loop

    from benchmarks.material import trainer_arguments
    from tasks.data.sources.fetching import resolve_model
    from tasks.encoding.dialogue_encoding import next_tokens
    from tasks.encoding.token_files import read_tokens
    from tasks.params.workspace import Workspace, cache_dir

    params = Workspace(root).params()
    base, sizes = resolve_model(params.base_model, root, cache_dir()), params.finetune.sizes
    adapter = LoraConfig(
        r=sizes.rank, lora_alpha=sizes.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, use_safetensors=True), adapter
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    features = read_tokens(root / "data" / "tokens" / "train.arrow").to_pydict()
    # ours stand where a token is guessed, transformers moves them there itself
    labels = [
        [-100, *(wanted if wanted >= 0 else -100 for wanted in row[:-1])]
        for row in next_tokens(features)
    ]
    arguments = trainer_arguments(root, per_device_train_batch_size=BATCH)

    def run(batches: Sequence[np.ndarray]) -> None:
        ids, rows = features["input_ids"], np.concatenate(batches)
        data = [
            {"input_ids": ids[row], "attention_mask": [1] * len(ids[row]), "labels": labels[row]}
            for row in rows
        ]
        Loop(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        ).train()

    return run


if __name__ == "__main__":
    run_alone(__doc__ or "", measure, serve)
