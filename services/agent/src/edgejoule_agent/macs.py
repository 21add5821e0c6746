"""Multiply-accumulates of an ONNX graph, node by node: the weights in the share of compute that runs in INT8."""

from typing import Any, Dict, Tuple

import numpy as np

from edgejoule_agent.optional import require


def shapes_of(model: Any) -> Dict[str, Tuple[int, ...]]:
    """Tensor name to shape, for a ModelProto with static shapes."""
    onnx = require("onnx", "onnxruntime")
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in list(graph.value_info) + list(graph.input) + list(graph.output):
        shapes[value.name] = tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    return shapes


def macs_by_node(model: Any) -> Dict[str, int]:
    """Node name to MACs of one inference, for Conv, Gemm and MatMul of a ModelProto with static shapes."""
    shapes = shapes_of(model)
    counted = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            per_output = int(np.prod(shapes[node.input[1]][1:], dtype=np.int64))
        elif node.op_type in ("Gemm", "MatMul"):
            per_output = shapes[node.input[0]][-1]
        else:
            continue
        counted[node.name] = per_output * int(np.prod(shapes[node.output[0]], dtype=np.int64))
    return counted
