"""TensorRT speaks through a logger: its lines are kept, and a failure is told apart by them."""

from typing import Any, List

from edgejoule_agent import errors
from edgejoule_agent.errors import AgentError, EngineError

KEPT_LINES = 200

# texts of TensorRT's and CUDA's errors, lower case, with where they were seen
OUT_OF_MEMORY = (
    "outofmemory",  # "Error Code 2: OutOfMemory (no further information)", NVIDIA/TensorRT issue 2643
    "out of memory",  # "Cuda Error in allocate: 2 (out of memory)", issue 840
    "cudaerrormemoryallocation",  # the name of CUDA error 2
    "insufficient memory",  # "Skipping tactic ... due to insufficient memory", issue 2643
    "memory is insufficient",  # "Device memory is insufficient to use tactic", NVIDIA-AI-IOT/torch2trt issue 706
)
UNSUPPORTED = (
    "require hardware with int8 support",  # Q/DQ on hardware without, Error Code 9, issue 3399
    "no importer registered for op",  # onnx-tensorrt, ModelImporter.cpp
    "unsupported_node",  # the parser's ErrorCode
    "unsupported_graph",
)
# warnings: the engine is made in spite of them
FATAL = ("INTERNAL_ERROR", "ERROR")


class Line:
    """One line, and whether TensorRT calls it an error."""

    def __init__(self, text: str, is_error: bool) -> None:
        self.text, self.is_error = text, is_error


def collector(trt: Any) -> Any:
    """An ILogger that keeps warnings and errors in ``lines``."""

    class Collector(trt.ILogger):  # type: ignore[misc]  # there is no class to derive from before the import
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: List[Line] = []

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.WARNING):
                self.lines.append(Line(msg, severity.name in FATAL))
                del self.lines[:-KEPT_LINES]

    return Collector()


def failure(what: str, lines: List[Line]) -> AgentError:
    """The error for something that TensorRT did not do, told by what it said.

    Memory that was short shows in warnings, too: every tactic is skipped for it, and the error is only that none is
    left.
    """
    said = [line.text for line in lines if line.is_error] or [line.text for line in lines]
    reason = " | ".join(" ".join(text.split()) for text in said[-3:])[:600] or "TensorRT gave no reason"
    fatal = " ".join(line.text for line in lines if line.is_error).lower()
    everything = " ".join(line.text for line in lines).lower()
    if any(text in fatal for text in UNSUPPORTED):
        return errors.UnsupportedError(f"{what}: {reason}")
    starved = "could not find any implementation" in fatal and any(text in everything for text in OUT_OF_MEMORY)
    if starved or any(text in fatal for text in OUT_OF_MEMORY):
        return errors.OutOfMemoryError(f"{what}: {reason}; free memory, or take a smaller model")
    return EngineError(f"{what}: {reason}")


def start(trt: Any, what: str, log: Any) -> Any:
    """``trt.Builder`` or ``trt.Runtime``; pybind11 tells a null pointer as a TypeError (no GPU, no driver)."""
    try:
        return getattr(trt, what)(log)
    except TypeError as error:
        raise failure(f"TensorRT {trt.__version__} does not start here ({error})", log.lines) from error


def deserialize(trt: Any, runtime: Any, content: bytes, log: Any) -> Any:
    """An ICudaEngine from an engine file's bytes.

    Raises:
        EngineError: it was built by another release or for another GPU (TensorRT says which), or is no engine.
        OutOfMemoryError: it does not fit.
    """
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise failure(f"TensorRT {trt.__version__} does not load this engine; build it on this device", log.lines)
    return engine
