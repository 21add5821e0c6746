"""Checks on an exported ONNX graph that no runtime here would make, but a board's TensorRT 8.2 depends on.

Each rule is a generator of violations, each one clause that begins with the node it is about. ``check`` runs
them all and raises once with everything found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from edgejoule.errors import ModelError

OPSET = 13  # the newest that TensorRT 8.2 reads
INPUT, OUTPUTS = "image", ("boxes", "scores")
METADATA_KEY = "edgejoule"
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_MOVING = ("Reshape", "Transpose", "Slice", "Split", "MaxPool", "Identity", "Flatten", "Squeeze", "Unsqueeze", "Pad")
_TYPE_NAMES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.INT8: "INT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT32",  # TensorRT reads 64-bit integers as 32-bit ones
    TensorProto.BOOL: "BOOL",
}
_RESIZE_LIMITS = {  # attribute -> what TensorRT 8.2 takes
    "mode": ("nearest", "linear"),
    "coordinate_transformation_mode": (
        "half_pixel",
        "pytorch_half_pixel",
        "tf_half_pixel_for_nn",
        "asymmetric",
        "align_corners",
    ),
    "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
}


class Graph:
    """An ONNX graph with its edges looked up."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants: dict[str, NDArray[np.generic]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        for node in self.nodes:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(_attribute(node, "value").t)

    def of_type(self, *op_types: str) -> Iterator[NodeProto]:
        return (node for node in self.nodes if node.op_type in op_types)

    def made_by(self, name: str, op_type: str) -> NodeProto | None:
        """The node that makes tensor ``name``, if it is of that type."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == op_type else None

    def quantized_weight(self, name: str) -> bool:
        """Whether tensor ``name`` is an initializer behind Q/DQ."""
        dequantize = self.made_by(name, "DequantizeLinear")
        quantize = self.made_by(dequantize.input[0], "QuantizeLinear") if dequantize else None
        return quantize is not None and quantize.input[0] in self.constants

    def scale(self, node: NodeProto) -> float:
        """The scale of a per-tensor quantizer; NaN when it is not one constant."""
        value = self.constants.get(node.input[1])
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else float("nan")


def check(model: onnx.ModelProto) -> None:
    """Check an exported graph, float or quantized.

    Raises:
        ModelError: naming every violation, and its node.
    """
    if found := violations(model):
        raise ModelError(f"The exported graph breaks {len(found)} rule(s): " + "; ".join(found) + ".")


def violations(model: onnx.ModelProto) -> list[str]:
    """Everything that is wrong with the graph, in words."""
    graph = Graph(model)
    return [violation for rule in RULES for violation in rule(graph)]


def keeps_the_contract(graph: Graph) -> Iterator[str]:
    """One float32 input ``image``, float32 outputs ``boxes`` and ``scores``, and the manifest inside."""
    inputs = [value for value in graph.model.graph.input if value.name not in graph.constants]
    for kind, values, names in (("inputs", inputs, (INPUT,)), ("outputs", graph.model.graph.output, OUTPUTS)):
        if (given := tuple(value.name for value in values)) != names:
            yield f"the graph's {kind} are {', '.join(given)}, not {', '.join(names)}"
        for value in values:
            if value.type.tensor_type.elem_type != TensorProto.FLOAT:
                yield f"{value.name} is not float32"
    if METADATA_KEY not in {entry.key for entry in graph.model.metadata_props}:
        yield f"there is no {METADATA_KEY!r} entry in the metadata"


def has_the_opset_of_boards(graph: Graph) -> Iterator[str]:
    for opset in graph.model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield f"the operator domain {opset.domain} is not ONNX's own"
        elif opset.version != OPSET:
            yield f"the opset is {opset.version}, not {OPSET}"


def has_only_ops_of_tensorrt(graph: Graph) -> Iterator[str]:
    """Every operator is known to TensorRT 8.2, in the type it has here, within the limits of its parser."""
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for node in graph.nodes:
        if node.op_type not in _tensorrt_types():
            yield f"{_named(node)} is not an operator of TensorRT 8.2"
            continue
        allowed = _tensorrt_types()[node.op_type]
        element = types.get(node.input[0]) if node.input else None
        if element is not None and _TYPE_NAMES.get(element) not in allowed:
            given = TensorProto.DataType.Name(element).lower()
            yield f"{_named(node)} has {given} input, and TensorRT 8.2 takes {', '.join(allowed)}"
        if node.op_type == "MaxPool" and len(node.output) > 1:
            yield f"{_named(node)} gives indices, which TensorRT 8.2 does not"
        if node.op_type == "Resize":
            for attribute in node.attribute:
                limits = _RESIZE_LIMITS.get(attribute.name)
                if limits and attribute.s.decode() not in limits:
                    yield f"{_named(node)} has {attribute.name} {attribute.s.decode()}, unknown to TensorRT 8.2"


def has_constant_weights(graph: Graph) -> Iterator[str]:
    """A convolution's weight is an initializer, directly or behind Q/DQ."""
    for node in graph.of_type("Conv"):
        if node.input[1] not in graph.constants and not graph.quantized_weight(node.input[1]):
            yield f"{_named(node)} has a weight that is not an initializer"


def has_float_biases(graph: Graph) -> Iterator[str]:
    for node in graph.of_type("Conv", "Gemm"):
        if len(node.input) > 2 and node.input[2] not in graph.constants:
            yield f"{_named(node)} has a bias that is not a plain initializer; it must have no Q/DQ"


def is_symmetric(graph: Graph) -> Iterator[str]:
    """Zero points are int8 and 0; scales are positive constants."""
    for node in graph.of_type("QuantizeLinear", "DequantizeLinear"):
        zero_point = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None or zero_point.dtype != np.int8 or zero_point.any():
            yield f"{_named(node)} has a zero point that is not int8 0"
        scale = graph.constants.get(node.input[1])
        steps = None if scale is None else scale.astype(np.float64)
        if steps is None or not np.all(np.isfinite(steps) & (steps > 0)):
            yield f"{_named(node)} has a scale that is not a positive constant"


def has_scales_per_channel_only_on_weights(graph: Graph) -> Iterator[str]:
    """Weights have a scale for each slice of axis 0; activations have one."""
    for node in graph.of_type("QuantizeLinear", "DequantizeLinear"):
        scale = graph.constants.get(node.input[1])
        if scale is None or scale.size == 1:
            continue
        source = node if node.op_type == "QuantizeLinear" else graph.made_by(node.input[0], "QuantizeLinear")
        weight = graph.constants.get(source.input[0] if source else node.input[0])
        if weight is None:
            yield f"{_named(node)} has a scale per channel on an activation"
        elif _axis(node) != 0 or len(scale) != len(weight):
            yield f"{_named(node)} has its {scale.size} scales on axis {_axis(node)}, not 0"


def quantizes_in_pairs(graph: Graph) -> Iterator[str]:
    """What is quantized is dequantized at once, and a weighted layer has both operands in 8 bits or none."""
    for node in graph.of_type("QuantizeLinear"):
        for reader in graph.readers.get(node.output[0], []):
            if reader.op_type != "DequantizeLinear":
                yield f"{_named(node)} is read by {_named(reader)}, not by a DequantizeLinear"
            elif list(reader.input[1:]) != list(node.input[1:]) and graph.scale(node) != graph.scale(reader):
                yield f"{_named(reader)} has another scale than {_named(node)} before it"
    for node in graph.of_type(*_WEIGHTED):
        data = graph.made_by(node.input[0], "DequantizeLinear") is not None
        if data != graph.quantized_weight(_behind_transpose(graph, node.input[1])):
            yield f"{_named(node)} has only its {'input' if data else 'weight'} in 8 bits"


def has_one_scale_around_concat(graph: Graph) -> Iterator[str]:
    """A concatenation that is 8-bit after is 8-bit before, at one scale, through all that only moves values."""
    for node in graph.of_type("Concat"):
        after = _scales_after(graph, node.output[0])
        if not after:
            continue
        before = [_scales_before(graph, name) for name in node.input]
        for name, scales in zip(node.input, before, strict=True):
            if not scales:
                yield f"{_named(node)} is quantized after, but its input {name} is not"
        if len(scales := after.union(*before)) > 1:
            yield f"{_named(node)} has {len(scales)} scales around it: {', '.join(f'{s:.6g}' for s in sorted(scales))}"


def leaves_decoding_in_float(graph: Graph) -> Iterator[str]:
    """A quantizer whose values reach no weighted layer stands in the decoding of boxes or scores."""
    reaches: set[str] = set()  # tensors from which a weighted layer is reached
    for node in reversed(graph.nodes):
        if node.op_type in _WEIGHTED or any(name in reaches for name in node.output):
            reaches.update(node.input)
    for node in graph.of_type("QuantizeLinear"):
        if node.output[0] not in reaches:
            yield f"{_named(node)} quantizes decoding: no weighted layer comes after it"


RULES: tuple[Callable[[Graph], Iterator[str]], ...] = (
    keeps_the_contract,
    has_the_opset_of_boards,
    has_only_ops_of_tensorrt,
    has_constant_weights,
    has_float_biases,
    is_symmetric,
    has_scales_per_channel_only_on_weights,
    quantizes_in_pairs,
    has_one_scale_around_concat,
    leaves_decoding_in_float,
)


def _scales_before(graph: Graph, name: str) -> set[float]:
    """Scales of the dequantizers that tensor ``name`` comes from, looking through what only moves values."""
    node = graph.producer.get(name)
    if node is None:
        return set()
    if node.op_type == "DequantizeLinear":
        return {graph.scale(node)}
    if node.op_type == "Concat":
        return set().union(*(_scales_before(graph, source) for source in node.input))
    return _scales_before(graph, node.input[0]) if _moves(node) else set()


def _scales_after(graph: Graph, name: str) -> set[float]:
    """Scales of the quantizers that tensor ``name`` goes to, looking through what only moves values."""
    found = set()
    for node in graph.readers.get(name, []):
        if node.op_type == "QuantizeLinear":
            found.add(graph.scale(node))
        elif _moves(node) or node.op_type == "Concat":
            found.update(*(_scales_after(graph, output) for output in node.output))
    return found


def _moves(node: NodeProto) -> bool:
    if node.op_type == "Resize":
        return all(a.s == b"nearest" for a in node.attribute if a.name == "mode")
    return node.op_type in _MOVING


def _behind_transpose(graph: Graph, name: str) -> str:
    transpose = graph.made_by(name, "Transpose")  # how the exporter writes a linear layer
    return transpose.input[0] if transpose else name


def _named(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]}"


def _attribute(node: NodeProto, name: str) -> onnx.AttributeProto:
    return next(attribute for attribute in node.attribute if attribute.name == name)


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


@cache
def _tensorrt_types() -> dict[str, list[str]]:
    text = files("edgejoule_trainer.quantize").joinpath("tensorrt_8_2_ops.json").read_text(encoding="utf-8")
    types: dict[str, str] = json.loads(text)["types"]
    return {op_type: names.split(", ") for op_type, names in types.items()}
