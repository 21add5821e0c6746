"""The ONNX graph as TensorRT gets it: every node named, box decoding found, and typed float16 where types must be.

All pure functions of a ModelProto.
"""

import re
from typing import Any, Dict, List, Set

import numpy as np

from edgejoule_agent.errors import ModelError
from edgejoule_agent.optional import require

# what detector heads end with; behind it begins decoding
WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
# operators that pass values on unchanged: in front of the first arithmetic they may as well be in half precision
MOVING = ("Concat", "Reshape", "Transpose", "Slice", "Split", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Gather")
LARGEST_HALF = 65504.0


def name_nodes(model: Any) -> Any:
    """A copy of a ModelProto whose nodes have names that are unique and hold only letters, digits and ``_/-.:``.

    TensorRT names its layers after the nodes and joins the names of fused ones by spaces, commas and brackets; a node
    without a name becomes ``node_of_`` its output (onnx-tensorrt, getNodeName).
    """
    onnx = require("onnx", "onnxruntime")
    named = onnx.ModelProto()
    named.CopyFrom(model)
    taken: Set[str] = set()
    for node in named.graph.node:
        wanted = re.sub(r"[^\w/.:-]", "_", node.name or "node_of_" + node.output[0], flags=re.ASCII)
        name, number = wanted, 1
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        taken.add(name)
        node.name = name
    return named


def decode_nodes(model: Any) -> List[str]:
    """Names of the nodes that must run in float32: arithmetic behind the last convolutions, and what comes after it.

    They turn raw head maps into boxes and scores. Half precision has 11 bits: a coordinate of 640 pixels would be
    known to half a pixel.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    behind: Set[str] = set()
    waiting = [output.name for output in graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.op_type in WEIGHTED or node.name in behind:
            continue
        behind.add(node.name)
        waiting.extend(node.input)
    found: Set[str] = set()
    for node in graph.node:  # sorted topologically, as ONNX wants it
        after = any(makers[name].name in found for name in node.input if name in makers)
        if node.name in behind and (after or node.op_type not in (*MOVING, "Constant")):
            found.add(node.name)
    return [node.name for node in graph.node if node.name in found]


def typed_float16(model: Any) -> Any:
    """A copy of a float32 ModelProto in which what lies between normalization and decoding is typed float16.

    For strongly typed networks, which compute in the types that the graph says. Inputs, outputs, the arithmetic in
    front of the first weighted nodes (0-255 with its mean taken off needs more than 11 bits) and ``decode_nodes``
    stay float32; Casts stand in between.

    Raises:
        ModelError: a weight is too large for float16, or the graph is quantized.
    """
    onnx = require("onnx", "onnxruntime")
    typed = name_nodes(model)
    graph = typed.graph
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        raise ModelError("a quantized graph cannot be typed float16; give the float one")
    _constants_to_initializers(onnx, graph)
    kinds = _element_types(onnx, typed)
    float32, float16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    full = set(decode_nodes(typed)) | _front(graph)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    now = dict(kinds)  # element types as the walk goes
    outputs = {output.name for output in graph.output}
    nodes: List[Any] = []
    made: Dict[Any, str] = {}  # (tensor, type) -> its name in that type

    def in_type(name: str, wanted: int) -> str:
        """The name of a float tensor in the wanted type, cast or converted when it is needed first."""
        if not name or kinds.get(name) != float32 or now[name] == wanted:
            return name
        if (name, wanted) not in made:
            cast = f"{name}/{'float16' if wanted == float16 else 'float32'}"
            if name in weights:
                graph.initializer.append(_half(onnx, weights[name], cast))
            else:
                nodes.append(onnx.helper.make_node("Cast", [name], [cast], name=cast + "/Cast", to=wanted))
            made[name, wanted] = cast
        return made[name, wanted]

    for node in list(graph.node):
        wanted = float32 if node.name in full or node.op_type in ("ConstantOfShape", "Range") else float16
        fixed = ("", *node.input[1:3]) if node.op_type == "Resize" else ()  # its scales are float32 by definition
        for place, name in enumerate(node.input):
            if name not in fixed:
                node.input[place] = in_type(name, wanted)
        nodes.append(node)
        for place, name in enumerate(node.output):
            if kinds.get(name) != float32 or wanted == float32:
                continue
            now[name] = float16
            if node.op_type == "Cast":
                next(attribute for attribute in node.attribute if attribute.name == "to").i = float16
            if name in outputs:
                node.output[place] = half = name + "/half"
                nodes.append(onnx.helper.make_node("Cast", [half], [name], name=name + "/Cast", to=float32))
                made[name, float16] = half
                now[name] = float32
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    del graph.value_info[:]
    graph.value_info.extend(onnx.shape_inference.infer_shapes(typed).graph.value_info)
    onnx.checker.check_model(typed)
    return typed


def _front(graph: Any) -> Set[str]:
    """Names of the nodes with no weighted node before them."""
    makers = {output: node.name for node in graph.node for output in node.output}
    front: Set[str] = set()
    for node in graph.node:
        if node.op_type not in WEIGHTED and all(makers[name] in front for name in node.input if name in makers):
            front.add(node.name)
    return front


def _constants_to_initializers(onnx: Any, graph: Any) -> None:
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)


def _element_types(onnx: Any, model: Any) -> Dict[str, int]:
    """TensorProto element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in list(graph.value_info) + list(graph.input) + list(graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    unknown = [name for node in graph.node for name in node.output if name and name not in found]
    if unknown:
        raise ModelError(f"the type of tensor {unknown[0]!r} cannot be inferred; export the model again")
    return found


def _half(onnx: Any, tensor: Any, name: str) -> Any:
    values = onnx.numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max()) if values.size else 0.0
    if largest > LARGEST_HALF:
        raise ModelError(f"tensor {tensor.name!r} holds {largest:.6g}, more than float16 can ({LARGEST_HALF:.0f})")
    return onnx.numpy_helper.from_array(values.astype(np.float16), name)


def _drop_unread(graph: Any) -> None:
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
