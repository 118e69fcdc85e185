"""Trace a torch encoder to ONNX and fuse its operators for onnxruntime."""

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
    """Trace the model with dynamic batch and length.

    The legacy exporter takes seconds, and its graphs can be fused.
    example  one padded batch, (rows, longest) each
    """
    import onnx
    import torch

    names = list(example)

    class Outputs(torch.nn.Module):
        """Positional inputs, as tracing needs them, and only the named output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True)))[output_name]
            return outputs

    buffer: Any = io.BytesIO()  # the exporter accepts it, though its annotation says a path
    axes = {name: {0: "batch", 1: "length"} for name in names}
    tensors = tuple(torch.from_numpy(values) for values in example.values())
    with torch.inference_mode(), warnings.catch_warnings():
        # the exporter is deprecated; the parity check later finds anything that tracing lost
        warnings.simplefilter("ignore")
        network = Outputs().eval()
        per_token = network(*tensors).ndim > 2  # else one vector per row
        torch.onnx.export(
            network,
            tensors,
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=names,
            output_names=[output_name],
            dynamic_axes={
                **axes,
                output_name: {0: "batch", 1: "length"} if per_token else {0: "batch"},
            },
        )
    return onnx.load_from_string(buffer.getvalue())


def fuse_graph(
    graph: onnx.ModelProto, config: PretrainedConfig, *, split_heads: bool
) -> onnx.ModelProto:
    """A copy with fused attention, GELU and layer norm; unfused if the architecture is unknown.

    config       the Hugging Face configuration
    split_heads  keep the query, key and value products outside the attention operator, so that
                 each can be quantized
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    if getattr(config, "model_type", "") in FUSED_TYPES:
        copy = _fuse(copy, config, split_heads)
    # the quantizers' pre-processing fails on fused graphs; this mark stops them asking for it
    mark = onnx.StringStringEntryProto(key="onnx.quant.pre_process", value="onnxruntime.quant")
    copy.metadata_props.append(mark)
    return copy


def _fuse(graph: onnx.ModelProto, config: PretrainedConfig, split_heads: bool) -> onnx.ModelProto:
    import onnx
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.use_multi_head_attention = split_heads
    options.enable_embed_layer_norm = False  # a plain Gather can be quantized row by row
    # on the CPU, separate add and layer norm give the shipped model 1.25 times the throughput
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
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        # shape inference needs it
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silence the named loggers below ERROR, and restore their levels afterwards."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
