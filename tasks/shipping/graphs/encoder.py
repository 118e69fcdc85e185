"""A torch model as an ONNX graph that onnxruntime runs fast."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx
    from transformers import PretrainedConfig, PreTrainedModel

# what `onnxruntime.transformers` fuses as "bert": attention, bias + GELU, skip + layer norm
FUSED_TYPES = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "mpnet"}
)


def trace_model(
    model: PreTrainedModel,
    example: Mapping[str, npt.NDArray[np.int64]],
    output_name: str,
    opset: int,
) -> onnx.ModelProto:
    """The model's graph with dynamic batch and length, as the legacy exporter traces it (its graphs fuse, and it takes seconds).

    example  one padded batch, (rows, longest) each
    """
    import onnx
    import torch

    names = list(example)

    class Outputs(torch.nn.Module):
        """The wanted output alone, inputs by position as tracing wants them."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True)))[output_name]
            return outputs

    buffer: Any = io.BytesIO()  # taken, though its type does not say so
    axes = {name: {0: "batch", 1: "length"} for name in names}
    tensors = tuple(torch.from_numpy(values) for values in example.values())
    with torch.inference_mode(), warnings.catch_warnings():
        # the exporter is deprecated, not gone; and whether tracing lost something, the parity check after it finds out
        warnings.simplefilter("ignore")
        outputs = Outputs().eval()
        of_tokens = outputs(*tensors).ndim > 2  # else one vector a row
        torch.onnx.export(
            outputs,
            tensors,
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=names,
            output_names=[output_name],
            dynamic_axes={
                **axes,
                output_name: {0: "batch", 1: "length"} if of_tokens else {0: "batch"},
            },
        )
    return onnx.load_from_string(buffer.getvalue())


def fuse_graph(
    graph: onnx.ModelProto, config: PretrainedConfig, *, split_heads: bool
) -> onnx.ModelProto:
    """The graph with attention, GELU and layer norm as single operators; a copy, unfused where the architecture is not known.

    config       the Hugging Face configuration
    split_heads  leave the query, key and value products outside of the attention operator, where each can be quantized
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    if getattr(config, "model_type", "") in FUSED_TYPES:
        copy = _fuse(copy, config, split_heads)
    # quantizers ask for a pre-processing step that fails on fused graphs, and look for this mark of it
    copy.metadata_props.append(
        onnx.StringStringEntryProto(key="onnx.quant.pre_process", value="onnxruntime.quant")
    )
    return copy


def _fuse(graph: onnx.ModelProto, config: PretrainedConfig, split_heads: bool) -> onnx.ModelProto:
    import onnx
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.use_multi_head_attention = split_heads
    options.enable_embed_layer_norm = False  # a plain Gather can be quantized row by row
    # onnxruntime adds and normalizes on the CPU faster one after the other: what ships answers 1.25 times as many texts a second
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    with quiet("onnxruntime.transformers", "fusion_base", "onnx_model"):
        fused = optimizer.optimize_model(
            graph,
            "bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
            optimization_options=options,
        )
        fused.topological_sort()
    model: onnx.ModelProto = fused.model
    if not any(
        known.domain == "com.microsoft" for known in model.opset_import
    ):  # shape inference asks for it
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Hold back what libraries log of their inner steps."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
