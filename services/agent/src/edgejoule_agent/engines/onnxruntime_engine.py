"""ONNX Runtime on the CPU."""

from typing import Any, List, Mapping, Tuple

from edgejoule_agent.engines import Engine
from edgejoule_agent.errors import EngineError
from edgejoule_agent.optional import require

OPTIMIZATION = "graph_optimization_level"  # beside ONNX Runtime's own session configuration keys


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
        options: session configuration entries; ``graph_optimization_level`` may be ``all`` (default) or ``none``.
    """
    return OnnxRuntimeEngine(session(content, options, threads))


def session(content: bytes, options: Mapping[str, str], threads: int, save_optimized: str = "") -> Any:
    """The bare InferenceSession; ``save_optimized`` names a file for the graph as it is executed."""
    ort = require("onnxruntime", "onnxruntime")
    levels = {"all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL, "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL}
    configured = ort.SessionOptions()
    configured.intra_op_num_threads = threads
    configured.inter_op_num_threads = 1
    configured.log_severity_level = 4  # fatal: errors come as exceptions, warnings are about graph style
    configured.graph_optimization_level = levels[options.get(OPTIMIZATION, "all")]
    configured.optimized_model_filepath = save_optimized
    for key, value in options.items():
        if key != OPTIMIZATION:
            configured.add_session_config_entry(key, value)
    providers = ["CPUExecutionProvider"]  # type: List[str]
    try:
        return ort.InferenceSession(content, configured, providers=providers)
    except Exception as error:  # its classes share no base but Exception
        raise EngineError(f"onnxruntime {ort.__version__} does not take this model: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """A runtime's message without its trace."""
    return str(error).strip().split("\n")[0]
