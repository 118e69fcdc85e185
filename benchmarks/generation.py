"""Tokens a second of a chat model at batch 1, PyTorch beside every ONNX recipe, and whether they say the same, as a Markdown table.

    python benchmarks/generation.py MODEL              # a checkpoint's or a base model's directory; keep the machine quiet
    python benchmarks/generation.py MODEL --tokens 16  # shorter answers

Each variant has a process of its own; they answer in turns, so that a busy machine slows all of them alike. Answers are greedy and
not ended early. The time is from the question to the last token, what the variant reads of the question included.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

from tasks.core.quiet import quiet_libraries

RECIPES = ("int8-dynamic", "int8-weights", "int4-weights")
PROMPTS = (
    "Good morning! How are you today?", "What is a good name for a cat?", "Name three fruits.", "Why is the sky blue?",
    "I had a bad day at work.", "How do I boil an egg?", "Tell me a very short story.", "What should I read next?",
)  # fmt: skip
ROOM = 512  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    given = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        graphs = export(given.model.resolve(), Path(scratch))
        from tasks.core.workers import Worker

        setting = {"model": str(given.model.resolve()), "tokens": given.tokens}
        workers = {name: Worker("benchmarks.generation", setting | {"graph": graph and str(graph)}) for name, graph in graphs.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        print("| variant | size (MB) | tokens/s | tokens as PyTorch's, from the first on |\n| --- | --- | --- | --- |")
        found = {name: [] for name in graphs}
        for turn in range(len(PROMPTS)):
            for name, worker in workers.items() if turn % 2 else reversed(workers.items()):
                found[name].append(worker.ask(do="answer", prompt=PROMPTS[turn]))
        for name, answers in found.items():
            seconds, tokens = (sum(answer[key] for answer in answers) for key in ("seconds", "count"))
            same = sum(
                sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one["ids"], other["ids"], strict=True)))
                for one, other in zip(answers, found["pytorch"], strict=True)
            )
            size = (graphs[name] or given.model / "model.safetensors").stat().st_size / 1e6
            print(f"| {name} | {size:.0f} | {tokens / seconds:.1f} | {same / tokens:.1%} |")


def export(model: Path, scratch: Path) -> dict[str, Path | None]:
    """The graph of each variant; None for PyTorch."""
    from tasks.core.causal_graph import trace_causal
    from tasks.core.tokens import load_tokenizer
    from tasks.export import RECIPES as BUILD
    from tasks.export import Material, _fp32
    from tasks.problems import load_problem

    kind = load_problem("chat")
    network = kind.load_model(model, ()).eval()
    example = kind.collate(kind.encode(load_tokenizer(model, ROOM), kind.example(), ()), 0)
    material = Material(trace_causal(network, example, kind.output_name, 17), network.config, [], 0)
    graphs: dict[str, Path | None] = {"pytorch": None}
    for name, build in {"fp32": _fp32, **{name: BUILD[name] for name in RECIPES}}.items():
        graphs[name] = scratch / f"{name}.onnx"
        build(material, scratch / f"{name}.onnx")
    return graphs


def serve(model: str, graph: str | None, tokens: int) -> None:
    """A variant's own process."""
    import torch

    from tasks.core.decoding import onnx_writer, torch_writer
    from tasks.core.dialogue_encodings import DialogueEncoder
    from tasks.core.session import OnnxModel, physical_cores
    from tasks.core.tokens import load_tokenizer
    from tasks.core.workers import answer_questions
    from tasks.problems import load_problem

    encoder = DialogueEncoder(load_tokenizer(Path(model), ROOM), reserve=tokens)
    torch.set_num_threads(physical_cores())
    if graph:
        write = onnx_writer(OnnxModel(Path(graph), "logits", physical_cores()))
    else:
        write = torch_writer(load_problem("chat").load_model(Path(model), ()).eval())
    write([1, 2, 3], tokens)  # what is made on first use

    def answer(prompt: str) -> dict[str, object]:
        ids = encoder.encode([{"role": "user", "content": prompt}]).input_ids
        started = time.perf_counter()
        said = write(ids, tokens)
        return {"seconds": time.perf_counter() - started, "count": len(said), "ids": said}

    answer_questions({"answer": answer})


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        quiet_libraries()
        serve(**json.loads(sys.argv[1]))
    else:
        main()
