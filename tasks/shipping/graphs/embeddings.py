"""Quantize embedding tables: 8 bits with a scale per row, or 4 bits with a scale per BLOCK values.

An embedding table is a matrix that only Gather reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Floats
from tasks.shipping.graphs.constants import constants, replace_nodes

if TYPE_CHECKING:
    import onnx

MIN_SIZE = 4096  # values; smaller tables stay fp32
BLOCK = 32  # onnxruntime's GatherBlockQuantized requires a power of 2, at least 16
_ZERO = 8  # zero point of unsigned 4-bit values


def quantize_embeddings(model: onnx.ModelProto, bits: int = 8) -> None:
    """Quantize in place; tables whose width is not a multiple of BLOCK get 8 bits in any case."""
    weights = {
        name: table
        for name, table in constants(model).items()
        if table.ndim == 2 and table.dtype == np.float32
    }
    kept = {output.name for output in model.graph.output}
    for node in model.graph.node:
        by_row = node.op_type == "Gather" and not any(
            attribute.name == "axis" and attribute.i for attribute in node.attribute
        )
        kept |= set(node.input[1 if by_row else 0 :])
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, Any] = {}
    for node in model.graph.node:
        name = node.input[0] if node.op_type == "Gather" else ""
        if name not in weights or name in kept or weights[name].size < MIN_SIZE:
            nodes.append(node)
            continue
        quantize = _in_4_bits if bits == 4 and weights[name].shape[1] % BLOCK == 0 else _in_8_bits
        quantized, constant = quantize(name, weights[name], node.input[1], node.output[0])
        nodes += quantized
        tensors |= constant
    replace_nodes(model, nodes, tensors)


def symmetric_scales(values: Floats, axis: int, most: int = 127) -> Floats:
    """Scales that map the values along the axis to integers in [-most, most]; the axis is kept."""
    largest = np.maximum(np.abs(values).max(axis, keepdims=True), 1e-8)
    scales: Floats = largest.astype(np.float32) / np.float32(most)
    return scales


def round_rows(table: Floats) -> Floats:
    """The table rounded to 4 bits, (rows, width); unchanged if `quantize_embeddings` uses more."""
    if table.shape[1] % BLOCK or table.size < MIN_SIZE:
        return table
    steps, scales = _steps(table)
    rounded: Floats = (steps * scales).reshape(table.shape)
    return rounded


def _steps(table: Floats) -> tuple[Floats, Floats]:
    """Integers in [-7, 7], (rows, blocks, BLOCK), and their scales, (rows, blocks, 1)."""
    blocks = table.reshape(len(table), -1, BLOCK)
    scales = symmetric_scales(blocks, axis=-1, most=7)
    return np.rint(blocks / scales), scales


def _in_4_bits(
    name: str, table: Floats, rows: str, output: str
) -> tuple[list[onnx.NodeProto], Mapping[str, Any]]:
    from onnx import helper

    steps, scales = _steps(table)
    unsigned = (steps + _ZERO).astype(np.uint8).reshape(table.shape)
    packed, scale = f"{name}_int4", f"{name}_scale"
    node = helper.make_node(
        "GatherBlockQuantized", [packed, rows, scale], [output],
        domain="com.microsoft", bits=4, block_size=BLOCK, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    return [node], {packed: unsigned[:, ::2] | unsigned[:, 1::2] << 4, scale: scales[..., 0]}


def _in_8_bits(
    name: str, table: Floats, rows: str, output: str
) -> tuple[list[onnx.NodeProto], Mapping[str, Any]]:
    from onnx import TensorProto, helper

    scales = symmetric_scales(table, axis=1)
    tensors = {f"{name}_int8": np.rint(table / scales).astype(np.int8), f"{name}_scale": scales}
    nodes = [
        helper.make_node("Gather", [f"{name}_int8", rows], [f"{output}_int8"]),
        helper.make_node("Cast", [f"{output}_int8"], [f"{output}_steps"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scale", rows], [f"{output}_scale"]),
        helper.make_node("Mul", [f"{output}_steps", f"{output}_scale"], [output]),
    ]
    return nodes, tensors
