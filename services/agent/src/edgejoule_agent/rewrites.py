"""Forms of a Q/DQ graph that x86 kernels are made for.

TensorRT wants activations as s8 with zero point 0. ``rewrite_u8`` makes them u8 with zero point 128 at the
same scale, arithmetically identical: ``clip(round(x/s), -128, 127) + 128 = clip(round(x/s) + 128, 0, 255)``, and
dequantizing takes the 128 away again. QuantizeLinear on a constant weight is computed here, once.
``drop_repeats``, ``drop_upper_clips``, ``spell_out_hard_sigmoid`` and ``halve_weights`` keep the arithmetic too;
``narrow_weights`` does not.
"""

from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from edgejoule_agent.errors import ModelError
from edgejoule_agent.optional import require

ZERO_POINT = "edgejoule_zero_point_u8"
# operators that pass values on unchanged
MOVING = ("Concat", "Reshape", "Transpose", "Slice", "Split", "Unsqueeze", "Squeeze", "Flatten", "MaxPool", "Identity")


def rewrite_u8(model: Any) -> Any:
    """A copy of a Q/DQ ModelProto (opset >= 13) with s8 activations as u8 and constant weights quantized.

    Raises:
        ModelError: a quantizer is not symmetric, or a quantized tensor feeds something else than DequantizeLinear.
    """
    onnx = require("onnx", "onnxruntime")
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    constants = _constants(onnx, graph)
    readers: Dict[str, Any] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    folded = []
    for node in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        if len(node.input) < 3:
            continue  # without a zero point the output is u8 already
        zero_point = constants.get(node.input[2])
        if zero_point is None or zero_point.dtype != np.int8:
            continue
        if np.any(zero_point):
            raise ModelError(f"{node.name}: zero point {zero_point.flat[0]} is not 0; quantize symmetrically")
        quantized = node.output[0]
        for reader in readers.get(quantized, ()):
            if reader.op_type != "DequantizeLinear":
                raise ModelError(
                    f"{node.name}: its int8 output feeds {reader.op_type}; only DequantizeLinear may read it"
                )
        if node.input[0] in constants:
            weight = _quantize(constants[node.input[0]], constants[node.input[1]], _axis(node))
            graph.initializer.append(onnx.numpy_helper.from_array(weight, quantized))
            # a zero point of its own: ONNX Runtime's exact u8 weights (x64quantprecision) fail on a shared one
            graph.initializer.append(onnx.numpy_helper.from_array(zero_point, quantized + "_zero_point"))
            for reader in readers.get(quantized, ()):
                reader.input[2] = quantized + "_zero_point"
            folded.append(node)
        else:
            for quantizer in [node, *readers.get(quantized, [])]:
                quantizer.input[2] = ZERO_POINT
    for node in folded:
        graph.node.remove(node)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(128, dtype=np.uint8), ZERO_POINT))
    _drop_unread(graph)
    del graph.value_info[:]
    graph.value_info.extend(onnx.shape_inference.infer_shapes(rewritten).graph.value_info)
    return rewritten


def quantize_biases(model: Any) -> Any:
    """A copy of a graph from ``rewrite_u8`` whose convolutions between quantizers have biases in int32.

    Their step is that of the sums that they are added to, the input's times the weight's; so they are off by half a
    step at most. ONNX Runtime's QLinearConv takes no other, and releases before 1.21 leave a convolution with a float
    bias in float32; later ones make the same int32 themselves (their ``WeightBiasQuantization``). TensorRT reads no
    quantized biases, so the graph that everything starts from has none.
    """
    onnx = require("onnx", "onnxruntime")
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    constants = _constants(onnx, graph)
    makers = {output: node for node in graph.node for output in node.output}
    readers: Dict[str, Any] = {output.name: ["the caller"] for output in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    nodes = []
    for node in list(graph.node):
        step = _step_of_sums(node, makers, constants) if node.op_type == "Conv" and len(node.input) == 3 else None
        if step is not None and node.input[2] in constants and readers[node.output[0]] == ["QuantizeLinear"]:
            limits, name = np.iinfo(np.int32), node.output[0] + "/bias"
            bias = np.clip(np.rint(constants[node.input[2]] / step), limits.min, limits.max).astype(np.int32)
            for part, value in (("int32", bias), ("step", step)):
                graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}/{part}"))
            inputs = [name + "/int32", name + "/step"]
            nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [name], name=name + "/dequantize", axis=0))
            node.input[2] = name
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    return quantized


def narrow_weights(model: Any) -> Any:
    """A copy of a Q/DQ ModelProto (opset >= 13) whose convolutions have weights of 7 bits, -64..63.

    Not the same arithmetic: half as many steps. But u8 times such a weight cannot saturate the 16-bit sums of
    x86 without VNNI (see ``halve_weights``), at no cost in speed. The steps are made anew from the
    float weights, whose range stays. Depthwise convolutions are not summed over neighbours and keep 8 bits.
    """
    onnx = require("onnx", "onnxruntime")
    narrowed = onnx.ModelProto()
    narrowed.CopyFrom(model)
    graph = narrowed.graph
    constants = _constants(onnx, graph)
    makers = {output: node for node in graph.node for output in node.output}
    for convolution in [node for node in graph.node if node.op_type == "Conv"]:
        dequantizer = makers.get(convolution.input[1])
        if dequantizer is None or dequantizer.op_type != "DequantizeLinear":
            continue
        quantizer = makers.get(dequantizer.input[0])
        if quantizer is None or quantizer.input[0] not in constants:
            continue
        weight = constants[quantizer.input[0]]
        if weight.shape[1] == 1:
            continue
        scale = constants[quantizer.input[1]] * np.float32(127.0 / 63.0)
        steps = scale.reshape([-1] + [1] * (weight.ndim - 1)) if scale.ndim else scale
        values = np.clip(weight, -64 * steps, 63 * steps).astype(np.float32)
        for place, value in ((0, values), (1, scale)):
            name = "{}/7_bits/{}".format(quantizer.name, place)
            graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            quantizer.input[place] = name
        dequantizer.input[1] = quantizer.input[1]
    _drop_unread(graph)
    return narrowed


def halve_weights(model: Any) -> Any:
    """A copy of a graph from ``rewrite_u8`` that no 16-bit intermediate can saturate.

    x86 without VNNI multiplies u8 by s8 and adds neighbours in 16 bits (vpmaddubsw): 2 x 255 x 127 is over
    32,767 and is cut off. Here every convolution over more than one input channel becomes the sum of two,
    whose int8 weights are the halves of the old, at most 64: 2 x 255 x 64 = 32,640. The sum is the same, at twice the
    multiplications. Depthwise convolutions are not summed over neighbours and stay.
    """
    onnx = require("onnx", "onnxruntime")
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    dequantizers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in list(graph.node):
        dequantizer = dequantizers.get(node.input[1]) if node.op_type == "Conv" else None
        if dequantizer is None or dequantizer.input[0] not in weights:
            nodes.append(node)
            continue
        weight = onnx.numpy_helper.to_array(weights[dequantizer.input[0]]).astype(np.int16)
        if weight.shape[1] == 1:
            nodes.append(node)
            continue
        low = weight // 2
        parts: List[str] = []
        for part, values in (("low", low), ("high", weight - low)):
            name = f"{node.name}/{part}"
            graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.int8), name + "/weight"))
            dequantize, convolve = onnx.NodeProto(), onnx.NodeProto()
            dequantize.CopyFrom(dequantizer)
            convolve.CopyFrom(node)
            dequantize.name, convolve.name = name + "/DequantizeLinear", name + "/Conv"
            dequantize.input[0], dequantize.output[0] = name + "/weight", name + "/dequantized"
            convolve.input[1], convolve.output[0] = dequantize.output[0], name + "/sum"
            if parts:
                del convolve.input[2:]  # the bias is added once
            parts.append(convolve.output[0])
            nodes += [dequantize, convolve]
        nodes.append(onnx.helper.make_node("Add", parts, [node.output[0]], name=node.name + "/whole"))
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    return halved


def drop_repeats(model: Any) -> Any:
    """A copy of a Q/DQ ModelProto without the pairs behind a Concat whose inputs are all on that scale already.

    Quantizing twice at one scale is the same as once: round(s * k / s) = k. TensorRT likes the pair there, to know
    that it may concatenate in 8 bits; OpenVINO runs it as an operator that changes nothing.
    """
    onnx = require("onnx", "onnxruntime")
    reduced = onnx.ModelProto()
    reduced.CopyFrom(model)
    graph = reduced.graph
    constants = _constants(onnx, graph)
    makers = {output: node for node in graph.node for output in node.output}
    renamed: Dict[str, str] = {}
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        quantizer = makers.get(node.input[0])
        source = makers.get(quantizer.input[0]) if quantizer is not None else None
        if source is None or source.op_type != "Concat" or _scale(node, constants) is None:
            continue
        if _grid(source, makers, constants) == _scale(node, constants):
            renamed[node.output[0]] = source.output[0]
            graph.node.remove(node)
            graph.node.remove(quantizer)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    _drop_unread(graph)
    return reduced


def drop_upper_clips(model: Any) -> Any:
    """A copy of a symmetric Q/DQ ModelProto in which a Clip to 0..c is a Relu where the quantizer behind it stops at c.

    What is above c is stored as 127 either way. ReLU6 networks get a twentieth faster on OpenVINO by it.
    """
    onnx = require("onnx", "onnxruntime")
    reduced = onnx.ModelProto()
    reduced.CopyFrom(model)
    graph = reduced.graph
    constants = _constants(onnx, graph)
    readers: Dict[str, Any] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}
    for node in [node for node in graph.node if node.op_type == "Clip"]:
        low, high = (constants.get(name) for name in [*node.input[1:], "", ""][:2])
        if low is None or high is None or float(low) != 0 or node.output[0] in outputs:
            continue
        if all(_stops_at(reader, float(high), constants) for reader in readers.get(node.output[0], ())):
            node.op_type = "Relu"
            del node.input[1:]
    _drop_unread(graph)
    return reduced


def spell_out_hard_sigmoid(model: Any) -> Any:
    """A copy of a ModelProto whose HardSigmoid(x), with a slope of 1/6, is written min(max(x + 3, 0), 6) / 6.

    OpenVINO knows its fast HSigmoid and HSwish by this form only; the operator HardSigmoid it runs element by element,
    apart from the convolution before it. MobileNetV3 takes a fifth less time in float, a third less in INT8.
    """
    onnx = require("onnx", "onnxruntime")
    spelled = onnx.ModelProto()
    spelled.CopyFrom(model)
    graph = spelled.graph
    nodes = []
    for node in graph.node:
        slope = {attribute.name: attribute.f for attribute in node.attribute}
        if (
            node.op_type != "HardSigmoid"
            or abs(slope.get("alpha", 0.2) - 1 / 6) > 1e-6
            or abs(slope.get("beta", 0.5) - 0.5) > 1e-6
        ):
            nodes.append(node)
            continue
        name, source, result = node.name or node.output[0], node.input[0], node.output[0]
        for part, value in (("three", 3.0), ("zero", 0.0), ("six", 6.0), ("sixth", 1 / 6)):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name + "/" + part))
        shifted, clipped = name + "/shifted", name + "/clipped"
        nodes += [
            onnx.helper.make_node("Add", [source, name + "/three"], [shifted], name=name + "/Add"),
            onnx.helper.make_node("Clip", [shifted, name + "/zero", name + "/six"], [clipped], name=name + "/Clip"),
            onnx.helper.make_node("Mul", [clipped, name + "/sixth"], [result], name=name + "/Mul"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    return spelled


def _step_of_sums(node: Any, makers: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    """One step of what a convolution adds up, float32[C] or a scalar; None where it does not multiply 8-bit values."""
    steps = []
    for name in node.input[:2]:
        dequantizer = makers.get(name)
        if dequantizer is None or dequantizer.op_type != "DequantizeLinear":
            return None
        steps.append(constants.get(dequantizer.input[1]))
    if steps[0] is None or steps[1] is None or steps[0].size != 1:
        return None
    return np.asarray(steps[0].reshape(()) * steps[1], np.float32)


def _stops_at(reader: Any, value: float, constants: Mapping[str, Any]) -> bool:
    """Whether ``reader`` quantizes to s8 with zero point 0, and stores ``value`` as its largest step or beyond."""
    if reader.op_type != "QuantizeLinear" or len(reader.input) < 3:
        return False
    scale, zero_point = _scale(reader, constants), constants.get(reader.input[2])
    if scale is None or zero_point is None or zero_point.dtype != np.int8 or np.any(zero_point):
        return False
    return bool(np.rint(np.float32(value) / np.float32(scale)) >= 127)


def _grid(node: Any, makers: Mapping[str, Any], constants: Mapping[str, Any]) -> Optional[float]:
    """The one scale on whose grid all that ``node`` gives lies, if there is one."""
    if node is None:
        return None
    if node.op_type == "DequantizeLinear":
        return _scale(node, constants)
    if node.op_type not in MOVING:
        return None
    sources = node.input if node.op_type == "Concat" else node.input[:1]
    grids = {_grid(makers.get(name), makers, constants) for name in sources}
    return grids.pop() if len(grids) == 1 else None


def _scale(node: Any, constants: Mapping[str, Any]) -> Optional[float]:
    """A quantizer's scale, if it has one for the whole tensor."""
    scale = constants.get(node.input[1])
    return float(scale.reshape(-1)[0]) if scale is not None and scale.size == 1 else None


def _quantize(values: Any, scale: Any, axis: int) -> Any:
    """QuantizeLinear to int8 with zero point 0: division and rounding in float32, half to even."""
    if scale.ndim:
        scale = scale.reshape([-1 if dimension == axis else 1 for dimension in range(values.ndim)])
    return np.clip(np.rint(values / scale), -128, 127).astype(np.int8)


def _axis(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _constants(onnx: Any, graph: Any) -> Dict[str, Any]:
    """Name to value of every initializer and Constant, also behind Identity."""
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _drop_unread(graph: Any) -> None:
    """Remove the initializers, constants and their dequantizers that nothing reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        idle = [
            node
            for node in graph.node
            if node.op_type in ("Constant", "Identity", "DequantizeLinear") and node.output[0] not in read
        ]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            break
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
