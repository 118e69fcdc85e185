"""Export a causal model as an ONNX graph with a key/value cache.

Beside the model's own inputs it takes `past_key_values.LAYER.key` and `.value`, (rows, heads, past
tokens, width), with 0 past tokens at the start of a text; `attention_mask` covers the past too.
Beside the model's output it returns `present.LAYER.key` and `.value`, the next call's past.
Other tools use the same names.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.inference.cache_names import PAST, PRESENT

if TYPE_CHECKING:
    import onnx
    import torch
    from transformers import PreTrainedModel

PARTS = ("key", "value")
BEFORE = 2  # past tokens in the traced example


def cache_names(prefix: str, layers: int) -> list[str]:
    """Names of the cache tensors, in order."""
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in PARTS]


def trace_causal(
    model: PreTrainedModel,
    example: Mapping[str, npt.NDArray[np.int64]],
    output_name: str,
    opset: int,
) -> onnx.ModelProto:
    """Trace the model with the legacy exporter; batch, length and past length are dynamic.

    example  one padded batch of `input_ids` and `attention_mask`, (rows, longest) each, longest
             above BEFORE
    """
    import onnx
    import torch
    from transformers import DynamicCache

    class CachedOutputs(torch.nn.Module):
        """Positional inputs and outputs, as tracing needs them."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *past: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
            outputs = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                past_key_values=cache,
                use_cache=True,
            )
            return (outputs[output_name], *_tensors(outputs))

    buffer: Any = io.BytesIO()  # the exporter accepts it, though its annotation says a path
    ids, mask = (torch.from_numpy(example[name]) for name in ("input_ids", "attention_mask"))
    with torch.inference_mode(), warnings.catch_warnings():
        # the exporter is deprecated; the parity check later finds anything that tracing lost
        warnings.simplefilter("ignore")
        past = _tensors(
            model(input_ids=ids[:, :BEFORE], attention_mask=mask[:, :BEFORE], use_cache=True)
        )
        layers = len(past) // 2
        names = ["input_ids", "attention_mask", *cache_names(PAST, layers)]
        output_names = [output_name, *cache_names(PRESENT, layers)]
        axes = {
            name: {0: "batch", 2: "before" if name.startswith(PAST) else "total"}
            for name in (*names[2:], *output_names[1:])
        }
        torch.onnx.export(
            CachedOutputs().eval(),
            (ids[:, BEFORE:], mask, *past),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=names,
            output_names=output_names,
            dynamic_axes={
                **axes,
                **{name: {0: "batch", 1: "length"} for name in ("input_ids", output_name)},
                "attention_mask": {0: "batch", 1: "total"},
            },
        )
    return onnx.load_from_string(buffer.getvalue())


def _tensors(outputs: Any) -> list[torch.Tensor]:
    """Keys and values of each layer, in the order of `cache_names`."""
    return [
        tensor
        for layer in outputs["past_key_values"].layers
        for tensor in (layer.keys, layer.values)
    ]
