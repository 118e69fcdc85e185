"""How fast a causal model writes: token by token at batch 1, each the likeliest, never ended early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.inference.generation import Reader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.inference.session import OnnxModel

Writer = Callable[[Sequence[int], int], list[int]]  # (a text's tokens, how many more) -> those
TOKENS = 16  # that are timed at a time


def onnx_writer(model: OnnxModel) -> Writer:
    """Of a graph that goes on from what it has read."""
    reader = Reader(model)

    def write(ids: Sequence[int], tokens: int) -> list[int]:
        said: list[int] = []
        for _ in range(tokens):
            said.append(int(reader.read([*ids, *said]).argmax()))
        return said

    return write


def torch_writer(network: PreTrainedModel) -> Writer:
    """Of the checkpoint; not its `generate`, which would not go on where an answer may end."""
    import torch

    def write(ids: Sequence[int], tokens: int) -> list[int]:
        said: list[int] = []
        past, new = None, list(ids)
        with torch.inference_mode():
            for _ in range(tokens):
                outputs = network(
                    input_ids=torch.tensor([new], device=network.device),
                    past_key_values=past,
                    use_cache=True,
                )
                past, new = outputs["past_key_values"], [int(outputs["logits"][0, -1].argmax())]
                said += new
        return said

    return write


def tokens_per_second(write: Writer, ids: Sequence[int], room: int) -> float:
    """Of one answer to the first half of a text, what is read of the text included.

    room  tokens that the model has room for
    """
    tokens = max(1, min(TOKENS, room // 2))
    started = time.perf_counter()
    write(ids[: max(1, min(len(ids), room) // 2)], tokens)
    return tokens / (time.perf_counter() - started)
