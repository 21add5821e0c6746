"""ONNX Runtime on the CPU."""

import os
import tempfile
from typing import Any, Mapping, Tuple

from edgejoule_agent.engines import Engine
from edgejoule_agent.errors import EngineError
from edgejoule_agent.optional import require

OPTIMIZATION = "graph_optimization_level"  # beside ONNX Runtime's own session configuration keys
UNOPTIMIZED = {OPTIMIZATION: "none"}  # the numerics oracle: Q/DQ in float32, node by node
EXACT_U8 = {"session.x64quantprecision": "1"}  # u8 weights: no 16-bit saturation on x86 without VNNI
INT8_OPERATORS = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")


class OnnxRuntimeEngine(Engine):
    """An ONNX Runtime session with the engine contract's names."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def infer(self, image: Any) -> Tuple[Any, Any]:
        boxes, scores = self._session.run(("boxes", "scores"), {"image": image})
        return boxes, scores

    def close(self) -> None:
        self._session = None


def open_engine(content: bytes, options: Mapping[str, str], threads: int) -> OnnxRuntimeEngine:
    """A session from an ONNX file's bytes.

    Args:
        options: session configuration entries; ``graph_optimization_level`` may be all (default), extended or none.
    """
    return OnnxRuntimeEngine(session(content, options, threads))


def session(content: bytes, options: Mapping[str, str], threads: int, save_optimized: str = "") -> Any:
    """The bare InferenceSession; ``save_optimized`` names a file for the graph as it is executed."""
    ort = require("onnxruntime", "onnxruntime")
    levels = {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }
    configured = ort.SessionOptions()
    configured.intra_op_num_threads = threads
    configured.inter_op_num_threads = 1
    configured.log_severity_level = 4  # fatal: errors come as exceptions, warnings are about graph style
    configured.graph_optimization_level = levels[options.get(OPTIMIZATION, "all")]
    configured.optimized_model_filepath = save_optimized
    for key, value in options.items():
        if key != OPTIMIZATION:
            configured.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(content, configured, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes share no base but Exception
        raise EngineError(f"onnxruntime {ort.__version__} does not take this model: {first_line(error)}") from error


def optimized(content: bytes, options: Mapping[str, str]) -> Any:
    """The executed graph as a ModelProto: fused, but not yet laid out for the processor, so names are kept."""
    onnx = require("onnx", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "optimized.onnx")
        session(content, dict(options, **{OPTIMIZATION: "extended"}), 1, save_optimized=path)
        return onnx.load(path)


def int8_macs(content: bytes, options: Mapping[str, str], macs: Mapping[str, int]) -> int:
    """Of ``macs`` (by node), those that the optimized graph runs in INT8."""
    nodes = optimized(content, options).graph.node
    return sum(macs.get(node.name, 0) for node in nodes if node.op_type in INT8_OPERATORS)


def computes_float16() -> bool:
    """Whether a float16 convolution stays one; where it has no kernel, ONNX Runtime casts to float32 around it."""
    onnx = require("onnx", "onnxruntime")
    half = onnx.TensorProto.FLOAT16
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "one convolution",
        [onnx.helper.make_tensor_value_info("x", half, [1, 1, 4, 4])],
        [onnx.helper.make_tensor_value_info("y", half, [1, 1, 4, 4])],
        [onnx.helper.make_tensor("w", half, [1, 1, 1, 1], [1.0])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    return all(node.op_type != "Cast" for node in optimized(model.SerializeToString(), {}).graph.node)


def first_line(error: BaseException) -> str:
    """A runtime's message without its trace."""
    return str(error).strip().split("\n")[0]
