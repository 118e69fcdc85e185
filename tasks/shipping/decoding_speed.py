"""Decoding speed of a causal model: greedy, batch size 1, never stopped early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.inference.generation import CachedDecoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.inference.session import OnnxModel

Writer = Callable[[Sequence[int], int], list[int]]  # (prompt ids, tokens to generate) -> new ids
TOKENS = 16  # generated per timing


def onnx_writer(model: OnnxModel) -> Writer:
    """Greedy decoding with an ONNX graph that keeps a key/value cache."""
    reader = CachedDecoder(model)

    def write(ids: Sequence[int], tokens: int) -> list[int]:
        generated: list[int] = []
        for _ in range(tokens):
            generated.append(int(reader.read([*ids, *generated]).argmax()))
        return generated

    return write


def torch_writer(network: PreTrainedModel) -> Writer:
    """Greedy decoding with the checkpoint; not `generate`, which stops at an end token."""
    import torch

    def write(ids: Sequence[int], tokens: int) -> list[int]:
        generated: list[int] = []
        past, new = None, list(ids)
        with torch.inference_mode():
            for _ in range(tokens):
                outputs = network(
                    input_ids=torch.tensor([new], device=network.device),
                    past_key_values=past,
                    use_cache=True,
                )
                past, new = outputs["past_key_values"], [int(outputs["logits"][0, -1].argmax())]
                generated += new
        return generated

    return write


def tokens_per_second(write: Writer, ids: Sequence[int], room: int) -> float:
    """Tokens generated per second, with half of a text as prompt; reading the prompt is timed too.

    room  tokens the model has room for
    """
    tokens = max(1, min(TOKENS, room // 2))
    started = time.perf_counter()
    write(ids[: max(1, min(len(ids), room) // 2)], tokens)
    return tokens / (time.perf_counter() - started)
