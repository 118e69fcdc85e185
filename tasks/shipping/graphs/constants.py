"""Read and replace the constants (initializers) of an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The graph's constants by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def replace_nodes(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, Any]
) -> None:
    """Replace the graph's nodes in place, add constants, and drop constants nothing reads."""
    from onnx import numpy_helper

    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()
    )
    read = {name for node in nodes for name in node.input}
    read |= {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
