"""Tables that only Gather reads, in 8 bits with one scale a row, or in 4 with one for each BLOCK numbers of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Floats
from tasks.shipping.graphs.constants import constants, replace_nodes

if TYPE_CHECKING:
    import onnx

MIN_SIZE = 4096  # numbers; smaller tables are left as they are
BLOCK = 32  # a power of 2 from 16 on, as onnxruntime's GatherBlockQuantized wants it
_ZERO = 8  # the step that stands for 0 where 4 bits are without sign


def quantize_embeddings(model: onnx.ModelProto, bits: int = 8) -> None:
    """In place. Tables whose rows are no whole number of blocks stay at 8 bits."""
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
        made, constant = quantize(name, weights[name], node.input[1], node.output[0])
        nodes += made
        tensors |= constant
    replace_nodes(model, nodes, tensors)


def symmetric_scales(values: Floats, axis: int, most: int = 127) -> Floats:
    """The size of a step for which whole numbers from -most to most hold all values along the axis, which is kept."""
    scales: Floats = np.maximum(np.abs(values).max(axis, keepdims=True), 1e-8).astype(
        np.float32
    ) / np.float32(most)
    return scales


def round_rows(table: Floats) -> Floats:
    """A table as 4 bits hold it, (rows, width); as it is where `quantize_embeddings` leaves it in more."""
    if table.shape[1] % BLOCK or table.size < MIN_SIZE:
        return table
    steps, scales = _steps(table)
    rounded: Floats = (steps * scales).reshape(table.shape)
    return rounded


def _steps(table: Floats) -> tuple[Floats, Floats]:
    """(rows, blocks, BLOCK) whole numbers from -7 to 7, and (rows, blocks, 1) their scales."""
    blocks = table.reshape(len(table), -1, BLOCK)
    scales = symmetric_scales(blocks, axis=-1, most=7)
    return np.rint(blocks / scales), scales


def _in_4_bits(
    name: str, table: Floats, rows: str, output: str
) -> tuple[list[onnx.NodeProto], Mapping[str, Any]]:
    from onnx import helper

    steps, scales = _steps(table)
    whole = (steps + _ZERO).astype(np.uint8).reshape(table.shape)
    packed, scale = f"{name}_int4", f"{name}_scale"
    node = helper.make_node(
        "GatherBlockQuantized", [packed, rows, scale], [output],
        domain="com.microsoft", bits=4, block_size=BLOCK, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    return [node], {packed: whole[:, ::2] | whole[:, 1::2] << 4, scale: scales[..., 0]}


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
