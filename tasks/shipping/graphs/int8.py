"""Quantize fp32 ONNX graphs to int8, dynamic or static.

Dynamic takes activation ranges from each batch; static (QDQ) takes them from calibration rows.
Static is our own code instead of `onnxruntime.quantization` for three gains: MatMul outputs stay
fp32 (onnxruntime then runs each as one MatMulIntegerToFloat), embeddings get one scale per row, and
outlier channels are smoothed.
Weights are symmetric int8 with one scale per column, activations asymmetric uint8 with one scale
per tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Floats
from tasks.core.files import atomic_path
from tasks.shipping.graphs.constants import constants, replace_nodes
from tasks.shipping.graphs.embeddings import quantize_embeddings, symmetric_scales

if TYPE_CHECKING:
    import onnx

VECTORS_A_BATCH = 4  # activation vectors kept for calibration, per tensor
CLIPS = (1.0, 0.75)  # fractions of the full range to try


@dataclass
class Activation:
    """Calibration statistics of one activation tensor.

    vectors  (n, width) random sample
    largest  (width,) largest absolute value of each channel over all calibration rows
    """

    vectors: Floats
    largest: Floats


@dataclass(frozen=True)
class QuantizedInput:
    """Quantization of a MatMul input: divide by `smooth` (per channel) and `scale`, add `zero`."""

    scale: np.float32
    zero: np.uint8
    smooth: Floats | None

    def error(self, weight: Floats, vectors: Floats) -> float:
        """Relative squared error of the MatMul output in [0, 1], averaged over vectors.

        Relative, because the layer norm that follows treats each vector by itself, and some tokens
        are a hundred times larger than others.
        """
        smooth = np.float32(1) if self.smooth is None else self.smooth
        scaled = weight if self.smooth is None else weight * self.smooth[:, None]
        scales = symmetric_scales(scaled, axis=0)
        rounded_weight = np.rint(scaled / scales) * scales
        exact = vectors @ weight
        rounded = _round_trip(vectors / smooth, self.scale, self.zero) @ rounded_weight
        relative = np.square(rounded - exact).sum(1) / np.maximum(np.square(exact).sum(1), 1e-12)
        return float(np.minimum(relative, 1).mean())


def quantize_dynamic(graph: onnx.ModelProto, target: Path, *, per_channel: bool) -> None:
    """Write the graph with int8 MatMuls whose activation ranges come from each batch."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    with atomic_path(target) as new:
        quantize(
            graph,
            new,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            # for tensors whose type shape inference cannot see through a fused operator
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        model = onnx.load(new)
        quantize_embeddings(model)
        onnx.save(model, new)


def calibrate(
    graph: onnx.ModelProto, batches: Iterable[Mapping[str, Any]], seed: int
) -> dict[str, Activation]:
    """Input statistics of each MatMul with a constant, by name, over batches of model inputs."""
    import onnx
    import onnxruntime

    names = sorted({node.input[0] for node in constant_products(graph)})
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    draw = np.random.default_rng(seed)
    samples: dict[str, list[Floats]] = {name: [] for name in names}
    largest: dict[str, Floats] = {}
    for batch in batches:
        activations = session.run(names, dict(batch)) if names else []
        for name, values in zip(names, activations, strict=True):
            vectors = values.reshape(-1, values.shape[-1])
            size = min(VECTORS_A_BATCH, len(vectors))
            samples[name].append(vectors[draw.integers(len(vectors), size=size)])
            batch_largest = np.abs(vectors).max(0)
            largest[name] = np.maximum(largest.get(name, batch_largest), batch_largest)
    return {name: Activation(np.concatenate(samples[name]), largest[name]) for name in names}


def constant_products(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """MatMul nodes that multiply an activation by a constant matrix."""
    matrices = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) == 2}
    return [
        node
        for node in graph.graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices and node.input[0] not in matrices
    ]


def plan_inputs(
    graph: onnx.ModelProto, activations: Mapping[str, Activation]
) -> dict[str, QuantizedInput]:
    """The best quantization of each MatMul input, by name."""
    weights = constants(graph)
    readers: dict[str, list[Floats]] = {}
    for node in constant_products(graph):
        readers.setdefault(node.input[0], []).append(weights[node.input[1]])
    return {name: _plan_input(activations[name], matrices) for name, matrices in readers.items()}


def sensitive_products(
    graph: onnx.ModelProto,
    activations: Mapping[str, Activation],
    plan: Mapping[str, QuantizedInput],
    share: float,
) -> list[str]:
    """Output names of the MatMuls that int8 hurts most: largest `QuantizedInput.error`.

    share  of all MatMuls, rounded up
    """
    weights = constants(graph)
    inputs = {node.output[0]: node.input for node in constant_products(graph)}
    errors = {
        output: plan[name].error(weights[weight], activations[name].vectors)
        for output, (name, weight) in inputs.items()
    }
    count = int(np.ceil(share * len(errors)))
    return sorted(errors, key=errors.__getitem__, reverse=True)[:count]


def quantize_static(
    graph: onnx.ModelProto,
    target: Path,
    plan: Mapping[str, QuantizedInput],
    keep: Collection[str] = (),
    embedding_bits: int = 8,
) -> None:
    """Write the graph with int8 MatMuls in QDQ form and fixed activation ranges.

    keep  output names of MatMuls that stay fp32
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    weights = constants(model)
    products = {
        node.output[0]: node for node in constant_products(model) if node.output[0] not in keep
    }
    shared: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, Any] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.output[0] in products:
            nodes += _quantize_product(
                node, plan[node.input[0]], weights[node.input[1]], shared, tensors
            )
        nodes.append(node)
    replace_nodes(model, nodes, tensors)
    quantize_embeddings(model, embedding_bits)
    with atomic_path(target) as new:
        onnx.save(model, new)


def _plan_input(activation: Activation, matrices: Sequence[Floats]) -> QuantizedInput:
    """The smoothing and range with the least error on the calibration vectors."""
    vectors = activation.vectors
    rows = np.max([np.abs(matrix).max(1) for matrix in matrices], 0)
    options = [
        QuantizedInput(*_steps(vectors / (1 if smooth is None else smooth), clip), smooth)
        for smooth in (None, *_smoothings(activation.largest, rows))
        for clip in CLIPS
    ]
    return min(options, key=lambda option: sum(option.error(m, vectors) for m in matrices))


def _smoothings(activations: Floats, weights: Floats) -> Iterator[Floats]:
    """Candidate divisors per channel, so that outliers do not set the range.

    In return, the channel's weights are multiplied by the divisor.
    activations, weights  (channels,) largest absolute values
    """
    median = max(float(np.median(activations)), 1e-5)
    for times in (1, 2):  # outlier channels only: best after a GELU
        yield np.maximum(activations / (times * median), 1).astype(np.float32)
    # all channels, balanced against the weights (SmoothQuant, Xiao et al. 2022): best after a norm
    balanced = np.maximum(activations, 1e-5) ** 0.7 / np.maximum(weights, 1e-5) ** 0.3
    yield (balanced / np.exp(np.log(balanced).mean())).astype(np.float32)


def _steps(values: Floats, clip: float) -> tuple[np.float32, np.uint8]:
    """(scale, zero point) for the values' range times `clip`."""
    low, high = min(float(values.min()), 0.0) * clip, max(float(values.max()), 1e-6) * clip
    scale = np.float32((high - low) / 255)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def _round_trip(values: Floats, scale: np.float32, zero: np.uint8) -> Floats:
    shift = np.float32(zero)
    restored: Floats = (np.clip(np.rint(values / scale) + shift, 0, 255) - shift) * scale
    return restored


def _quantize_product(
    node: onnx.NodeProto,
    quantization: QuantizedInput,
    weight: Floats,
    shared: set[str],
    tensors: dict[str, Any],
) -> Iterator[onnx.NodeProto]:
    """Yield the QDQ nodes that precede a MatMul, and make it read them.

    shared   activations that have their QuantizeLinear, which serves all readers; added to
    tensors  constants by name; added to
    """
    from onnx import helper

    activation, output, smooth = node.input[0], node.output[0], quantization.smooth
    scale, zero = f"{activation}_scale", f"{activation}_zero"
    if activation not in shared:
        shared.add(activation)
        tensors[scale] = np.asarray(quantization.scale)
        tensors[zero] = np.asarray(quantization.zero)
        source = activation
        if smooth is not None:
            source = f"{activation}_smooth"
            tensors[f"{activation}_by"] = 1 / smooth
            yield helper.make_node("Mul", [activation, f"{activation}_by"], [source])
        yield helper.make_node("QuantizeLinear", [source, scale, zero], [f"{activation}_uint8"])
    yield helper.make_node(
        "DequantizeLinear", [f"{activation}_uint8", scale, zero], [f"{output}_input"]
    )
    scaled = weight if smooth is None else weight * smooth[:, None]
    scales = symmetric_scales(scaled, axis=0)
    # named after the output: one weight may be read through two activations
    tensors[f"{output}_weight_int8"] = np.rint(scaled / scales).astype(np.int8)
    tensors[f"{output}_weight_scale"] = scales[0]
    tensors[f"{output}_weight_zero"] = np.zeros(scales.shape[1], np.int8)
    parts = [f"{output}_weight_{part}" for part in ("int8", "scale", "zero")]
    yield helper.make_node("DequantizeLinear", parts, [f"{output}_weight"], axis=1)
    node.input[0], node.input[1] = f"{output}_input", f"{output}_weight"
