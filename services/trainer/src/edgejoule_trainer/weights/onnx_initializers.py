"""The constants of an ONNX file, read without running it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import GraphProto, TensorProto, numpy_helper
from torch import Tensor

from edgejoule.errors import WeightsError

MAX_BYTES = (2 << 30) - 1  # protobuf reads no more
_NUMBERS = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL),
        *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    }
)


def read(path: Path) -> dict[str, Tensor]:
    """The initializers of an ONNX graph and the values of its Constant nodes, by name, in their own types.

    Raises:
        WeightsError: the file cannot be read, is damaged or no ONNX graph, keeps tensors in other files, or holds a
            tensor that is not of plain numbers.
    """
    tensors: dict[str, Tensor] = {}
    for name, proto in _constants(_graph(path)):
        if name in tensors:
            raise WeightsError(f"{path} has two tensors named {name}; export it anew.")
        tensors[name] = _tensor(path, name, proto)
    if not tensors:
        raise WeightsError(f"{path} is an ONNX graph without one tensor; give an exported model with its weights.")
    return tensors


def _graph(path: Path) -> GraphProto:
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise WeightsError(f"The ONNX file {path} has {size} bytes; between 1 and {MAX_BYTES} are read.")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"The ONNX file {path} cannot be read: {error.strerror or error}.") from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError, which has no typed home
        raise WeightsError(f"{path} is damaged or not an ONNX file ({error}); export or fetch it again.") from error
    if not model.HasField("graph") or not model.opset_import:
        raise WeightsError(f"{path} is not an ONNX model: it has no graph or names no opset.")
    return model.graph


def _constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and node.output:
                    yield node.output[0], attribute.t


def _tensor(path: Path, name: str, proto: TensorProto) -> Tensor:
    if proto.data_location == TensorProto.EXTERNAL or proto.external_data:
        raise WeightsError(f"{path} keeps tensor {name} in another file; save the model with its weights in one file.")
    if proto.data_type not in _NUMBERS:
        known = proto.data_type in TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(proto.data_type).lower() if known else f"unknown type {proto.data_type}"
        raise WeightsError(
            f"{path} has tensor {name} of {kind}, not of plain numbers; export it in float32 or float16."
        )
    try:
        return torch.from_numpy(np.array(numpy_helper.to_array(proto)))
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        shape = "x".join(map(str, proto.dims)) or "scalar"
        raise WeightsError(f"{path} is damaged: tensor {name} does not hold what its shape {shape} needs.") from error
