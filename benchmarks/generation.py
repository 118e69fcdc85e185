"""Tokens per second of a chat model at batch size 1: each ONNX recipe beside PyTorch's `generate`.

python -m benchmarks.generation         # SmolLM2-135M-Instruct
python -m benchmarks.generation --quick # shorter answers

It also checks whether they give the same answers, which are greedy and never end early. The time
runs from the question to the last token and includes reading the question.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import BenchmarkSection, alternate, ratios, run_alone

TORCH = "PyTorch fp32, generate"
RECIPES = ("int8-dynamic", "int8-weights", "int4-weights")
PROMPTS = (
    "Good morning! How are you today?", "What is a good name for a cat?", "Name three fruits.",
    "Why is the sky blue?", "I had a bad day at work.", "How do I boil an egg?",
    "Tell me a very short story.", "What should I read next?",
)  # fmt: skip
ROOM = 512  # tokens
MODULE = "benchmarks.generation"


def measure(quick: bool) -> BenchmarkSection:
    """A question a round to each variant."""
    rounds, tokens = (2, 8) if quick else (4, 48)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = export(base_model(), Path(scratch))
        settings = {name: {"graph": str(graph), "tokens": tokens} for name, graph in graphs.items()}
        found = alternate(MODULE, {TORCH: {"graph": "", "tokens": tokens}} | settings, rounds)
        sizes = {name: graph.stat().st_size for name, graph in graphs.items()}
    sizes[TORCH] = (base_model() / "model.safetensors").stat().st_size
    rates = {name: [tokens / turn["seconds"] for turn in turns] for name, turns in found.items()}
    rows = []
    for name, turns in found.items():
        speed = [f"{np.median(rates[name]):.1f}", ratios(rates[TORCH], rates[name])]
        rows.append([name, f"{sizes[name] / 1e6:.0f}", *speed, f"{same(turns, found[TORCH]):.0%}"])
    note = (
        f"Answers of {tokens} tokens to {rounds} questions. Wanted of int8 or int4: 3x. "
        "`generate` has to be kept from ending early, and says something else where an answer "
        "would end: from there on no other variant says the same."
    )
    header = ("variant", "MB", "tokens/s", "over PyTorch", "tokens as PyTorch's, from the first on")
    return BenchmarkSection(
        "Chat: writing",
        header,
        rows,
        [note],
        {name: float(np.median(values)) for name, values in rates.items()},
        "tokens/s",
    )


def same(turns: list[dict[str, Any]], others: list[dict[str, Any]]) -> float:
    """The share of tokens up to the first that differs."""
    counts = [
        sum(
            1
            for _ in takewhile(
                lambda pair: pair[0] == pair[1], zip(one["ids"], other["ids"], strict=True)
            )
        )
        for one, other in zip(turns, others, strict=True)
    ]
    return sum(counts) / sum(len(turn["ids"]) for turn in turns)


def base_model() -> Path:
    """SmolLM2's directory, downloaded and converted once."""
    from tasks.data.sources.fetching import resolve_model
    from tasks.params.schema import BaseModelParams
    from tasks.params.workspace import cache_dir
    from tasks.problems.chat import SMOLLM2

    return resolve_model(BaseModelParams.model_validate(SMOLLM2), Path.cwd(), cache_dir())


def export(model: Path, scratch: Path) -> dict[str, Path]:
    """The graph of each recipe, fp32 among them."""
    from tasks.encoding.encoder import OUTPUT_NAME, encode_rows
    from tasks.encoding.token_files import load_tokenizer
    from tasks.export import RECIPES as BUILD
    from tasks.export import Material, _fp32
    from tasks.problems import load_problem
    from tasks.shipping.graphs.decoder import trace_causal

    kind = load_problem("chat")
    network = kind.objective.load_model(model, ()).eval()
    example = kind.encoding.collate(
        encode_rows(kind.encoding, load_tokenizer(model, ROOM), kind.decoding.example(), ()), 0
    )
    material = Material(trace_causal(network, example, OUTPUT_NAME, 17), network.config, [], 0)
    graphs = {}
    for name, build in {"fp32": _fp32, **{name: BUILD[name] for name in RECIPES}}.items():
        graphs[name] = scratch / f"{name}.onnx"
        build(material, graphs[name])
    return graphs


def serve(graph: str, tokens: int) -> None:
    """A variant's own process."""
    import torch

    from tasks.encoding.dialogue_encoding import DialogueEncoder
    from tasks.encoding.token_files import load_tokenizer
    from tasks.inference.session import OnnxModel, physical_cores
    from tasks.problems import load_problem
    from tasks.shipping.decoding_speed import onnx_writer
    from tasks.shipping.workers import answer_questions

    encoder = DialogueEncoder(load_tokenizer(base_model(), ROOM), reserve=tokens)
    torch.set_num_threads(physical_cores())
    if graph:
        write = onnx_writer(OnnxModel(Path(graph), "logits", physical_cores()))
    else:
        network = load_problem("chat").objective.load_model(base_model(), ()).eval()

        def write(ids: Sequence[int], count: int) -> list[int]:
            with torch.inference_mode():
                given = torch.tensor([ids])
                written: list[int] = network.generate(
                    given,
                    attention_mask=torch.ones_like(given),
                    max_new_tokens=count,
                    min_new_tokens=count,
                    do_sample=False,
                )[0, len(ids) :].tolist()
            return written

    def turn(number: int) -> dict[str, object]:
        ids = encoder.encode(
            [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}]
        ).input_ids
        started = time.perf_counter()
        said = write(ids, tokens)
        return {"seconds": time.perf_counter() - started, "ids": said}

    answer_questions({"turn": turn})


if __name__ == "__main__":
    run_alone(__doc__ or "", measure, serve)
