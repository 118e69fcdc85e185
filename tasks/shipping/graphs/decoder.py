"""A causal model as an ONNX graph that can go on from what it has read: keys and values come in, and go out longer.

Inputs beside the model's own are `past_key_values.LAYER.key` and `.value`, (rows, heads, tokens before, width), with no token before
where a text begins; `attention_mask` covers those too. Outputs are the model's, and `present.LAYER.key` and `.value`: what comes in next.
Other tools know the same names.
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
BEFORE = 2  # tokens that the traced example has read before


def cache_names(prefix: str, layers: int) -> list[str]:
    """The names of a cache's tensors, in order."""
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in PARTS]


def trace_causal(
    model: PreTrainedModel,
    example: Mapping[str, npt.NDArray[np.int64]],
    output_name: str,
    opset: int,
) -> onnx.ModelProto:
    """The graph with dynamic batch, length and length before, as the legacy exporter traces it.

    example  one padded batch, (rows, longest) each: `input_ids` and `attention_mask`; longer than BEFORE
    """
    import onnx
    import torch
    from transformers import DynamicCache

    class Outputs(torch.nn.Module):
        """Inputs and outputs by position, as tracing wants them."""

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

    buffer: Any = io.BytesIO()  # taken, though its type does not say so
    ids, mask = (torch.from_numpy(example[name]) for name in ("input_ids", "attention_mask"))
    with torch.inference_mode(), warnings.catch_warnings():
        # the exporter is deprecated, not gone; and whether tracing lost something, the parity check after it finds out
        warnings.simplefilter("ignore")
        past = _tensors(
            model(input_ids=ids[:, :BEFORE], attention_mask=mask[:, :BEFORE], use_cache=True)
        )
        layers = len(past) // 2
        names = ["input_ids", "attention_mask", *cache_names(PAST, layers)]
        found = [output_name, *cache_names(PRESENT, layers)]
        axes = {
            name: {0: "batch", 2: "before" if name.startswith(PAST) else "total"}
            for name in (*names[2:], *found[1:])
        }
        torch.onnx.export(
            Outputs().eval(),
            (ids[:, BEFORE:], mask, *past),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=names,
            output_names=found,
            dynamic_axes={
                **axes,
                **{name: {0: "batch", 1: "length"} for name in ("input_ids", output_name)},
                "attention_mask": {0: "batch", 1: "total"},
            },
        )
    return onnx.load_from_string(buffer.getvalue())


def _tensors(outputs: Any) -> list[torch.Tensor]:
    """Keys and values of every layer, in the order of `cache_names`."""
    return [
        tensor
        for layer in outputs["past_key_values"].layers
        for tensor in (layer.keys, layer.values)
    ]
