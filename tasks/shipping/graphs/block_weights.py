"""Weight-only block quantization, for causal models.

Without tensor-wide activation ranges, a token's output does not depend on its neighbours' ranges.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.files import atomic_path
from tasks.shipping.graphs.embeddings import quantize_embeddings

if TYPE_CHECKING:
    import onnx

BLOCK = 32  # weights per scale
COMPUTE_INT8 = 4  # onnxruntime's accuracy level: int8 activations too, per block of each token


def quantize_weights(graph: onnx.ModelProto, target: Path, *, bits: int) -> None:
    """Write the graph with MatMul weights in 4 or 8 bits and embeddings in 8."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    with _unlogged():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        from onnxruntime.quantization.onnx_model import ONNXModel

        model = ONNXModel(copy)
        model.replace_gemm_with_matmul()  # GPT-2's layers are traced as Gemm
        quantizer = MatMulNBitsQuantizer(
            model.model,
            bits=bits,
            block_size=BLOCK,
            is_symmetric=False,
            accuracy_level=COMPUTE_INT8,
        )
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    quantize_embeddings(quantized)
    with atomic_path(target) as new:
        onnx.save(quantized, new)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Undo the quantizer module's set-up of the root logger, and silence its line per operator."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    logger = logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
