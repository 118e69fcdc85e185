"""LoRA fine-tuning of a chat model, in tokens a second.

Our loop, which packs dialogues, against transformers' Trainer, which pads them.

python -m benchmarks.chat         # SmolLM2-135M-Instruct on small talk
python -m benchmarks.chat --quick

Both see the same dialogues, eight a batch, compute the loss on the assistant's tokens only, and
train the same LoRA weights. Padding tokens are not counted.
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
    """Time a few training steps of each variant, in turns."""
    from benchmarks.material import computes_bfloat16, default_workspace

    rounds, steps = (2, 1) if quick else (5, 3)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "tokenize", example="chat")
        common = {"root": str(workspace.root), "steps": steps}
        variants = (OURS, *([BFLOAT16] if computes_bfloat16() else []), TRAINER)
        settings = {name: common | {"variant": name} for name in variants}
        answers = alternate(MODULE, settings, rounds)
    rates = {
        name: [turn["tokens"] / turn["seconds"] for turn in turns]
        for name, turns in answers.items()
    }
    rows = [
        [name, f"{np.median(rates[name]):.0f}", ratios(rates[TRAINER], rates[name])]
        for name in rates
    ]
    header = ("variant", "tokens/s", "over Trainer's")
    return BenchmarkSection("Chat: fine-tuning", header, rows, ["Wanted: 2x."])


def serve(root: str, variant: str, steps: int) -> None:
    """Answer questions in one variant's own process."""
    from benchmarks.material import epoch_batches, some_batches
    from tasks.encoding.token_files import read_tokens, token_lengths
    from tasks.shipping.workers import answer_questions

    makers = {OURS: ours, BFLOAT16: partial(ours, precision="bf16"), TRAINER: trainer}
    train, all_batches = makers[variant](Path(root)), epoch_batches(Path(root), BATCH)
    lengths = token_lengths(read_tokens(Path(root) / "data" / "tokens" / "train.arrow"))

    def turn(number: int) -> dict[str, Any]:
        batches = some_batches(all_batches, 1 if number < 0 else steps, number + 1)
        started = time.perf_counter()
        train(batches)
        seconds = time.perf_counter() - started
        return {"tokens": int(lengths[np.concatenate(batches)].sum()), "seconds": seconds}

    answer_questions({"turn": turn})


def ours(root: Path, precision: str = "auto") -> Callable[[Sequence[np.ndarray]], None]:
    """The steps of our own training loop."""
    from benchmarks.material import training_steps

    return training_steps(root, "finetune.epochs=100", f"finetune.precision={precision}")


def trainer(root: Path) -> Callable[[Sequence[np.ndarray]], None]:
    """transformers' Trainer with its defaults; peft's LoRA of our rank on the same layers."""
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
    network = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True)
    model = get_peft_model(network, adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    features = read_tokens(root / "data" / "tokens" / "train.arrow").to_pydict()
    # our labels are already shifted by one token; transformers shifts them itself
    labels = [
        [-100, *(token if token >= 0 else -100 for token in row[:-1])]
        for row in next_tokens(features)
    ]
    arguments = trainer_arguments(root, per_device_train_batch_size=BATCH)

    def run(batches: Sequence[np.ndarray]) -> None:
        ids, rows = features["input_ids"], np.concatenate(batches)
        data = [
            {"input_ids": ids[row], "attention_mask": [1] * len(ids[row]), "labels": labels[row]}
            for row in rows
        ]
        collate = DataCollatorForSeq2Seq(tokenizer)
        Loop(model=model, args=arguments, train_dataset=data, data_collator=collate).train()

    return run


if __name__ == "__main__":
    run_alone(__doc__ or "", measure, serve)
