"""A graph for one image, made one for several: the same weights and the same scales, bit for bit.

Nothing is exported or quantized again. An operator's result has as many images as its input, but for a Reshape, whose
shape is a constant that says all of it: there the 1 in front becomes the batch. Then every tensor that comes from the
image must have the shape it had, with the batch in front, or the graph is refused: so none mixes images.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgejoule.errors import ModelError
from edgejoule_agent.macs import shapes_of
from edgejoule_trainer.quantize.lint import INPUT


def rebatch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of ``model``, a graph under the engine contract for one image, that takes ``batch`` images at once.

    Raises:
        ModelError: the graph is not for one image, or a tensor of it does not keep its images apart.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]  # else what it and the outputs say would be believed, and not inferred
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    from_image, shapes = {INPUT: None}, set()  # in the graph's order
    for node in graph.node:
        if from_image.keys() & node.input:
            from_image |= dict.fromkeys(filter(None, node.output))
            if node.op_type == "Reshape":
                shapes.add(node.input[1])
    for tensor in graph.initializer:
        if tensor.name in shapes and (shape := numpy_helper.to_array(tensor))[0] == 1:
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate([[batch], shape[1:]]), tensor.name))
    before, after = shapes_of(model), shapes_of(made)
    for name in from_image:
        was, now = before.get(name, ()), after.get(name, ())
        if was[:1] != (1,) or now != (batch, *was[1:]):
            raise ModelError(
                f"tensor {name!r} has shape {list(was)} for one image and {list(now)} for {batch}, which is not "
                f"{batch} times the former; export the model again, for one image, or leave batch out"
            )
    graph.value_info.extend(model.graph.value_info)
    for value, single in zip(graph.output, model.graph.output, strict=True):
        value.CopyFrom(single)
    for value in (*graph.value_info, *graph.output):
        if value.name in from_image:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return made
