"""OpenVINO on the CPU."""

from typing import Any, List, Mapping, Tuple

import numpy as np

from edgejoule_agent.engines import Engine
from edgejoule_agent.errors import EngineError
from edgejoule_agent.optional import require

# its own default on recent CPUs is BF16, which is not FP32
FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
HALF_PRECISION = {"INFERENCE_PRECISION_HINT": "f16"}
LAYER_KEYS = ("layerType", "runtimePrecision", "originalLayersNames")
WEIGHTED_LAYERS = ("Convolution", "FullyConnected", "MatMul")


class OpenVinoEngine(Engine):
    """A compiled model and its one infer request."""

    def __init__(self, compiled: Any, tensor_of: Any) -> None:
        self._compiled = compiled
        self._tensor_of = tensor_of
        self._request = compiled.create_infer_request()
        self._boxes, self._scores = (self._request.get_tensor(name) for name in ("boxes", "scores"))

    def infer(self, image: Any) -> Tuple[Any, Any]:
        # handed to ``infer`` it would be looked at anew by every layer of its Python: .1 ms, 1.5 % of a small detector;
        # ``start_async`` would compute in another thread, on a colder core
        own = np.require(image, requirements=("C", "W"))  # copied only where it is read-only, as an input of a build is
        self._request.set_tensor("image", self._tensor_of(own, shared_memory=True))
        self._request.infer(share_outputs=True)
        self.execution_ms = self._request.latency
        return self._boxes.data, self._scores.data

    def close(self) -> None:
        self._boxes = self._scores = self._request = self._compiled = None


def open_engine(content: bytes, options: Mapping[str, str], threads: int) -> OpenVinoEngine:
    """A compiled model from an ONNX file's bytes.

    Args:
        options: OpenVINO properties, ``INFERENCE_PRECISION_HINT`` among them.
    """
    compiled = compile_model(content, options, threads)
    return OpenVinoEngine(compiled, require("openvino", "openvino").Tensor)


def compile_model(content: bytes, options: Mapping[str, str], threads: int) -> Any:
    """The CompiledModel for one stream at least latency."""
    openvino = require("openvino", "openvino")
    properties = dict(
        options,
        PERFORMANCE_HINT="LATENCY",
        NUM_STREAMS="1",
        INFERENCE_NUM_THREADS=str(threads),
        ENABLE_CPU_PINNING="NO",  # two engines pinned to the same core would halve each other
    )
    core = openvino.Core()
    try:
        return core.compile_model(core.read_model(content, b""), "CPU", properties)
    except Exception as error:  # RuntimeError or its pybind kin
        reason = " ".join(str(error).split())[:300]
        raise EngineError(f"openvino {openvino.__version__} does not take this model: {reason}") from error


def capabilities() -> List[str]:
    """What OpenVINO's CPU plugin says it can compute in on this processor: FP32, INT8, FP16, BF16, ..."""
    return [
        str(name) for name in require("openvino", "openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    ]


def int8_macs(content: bytes, options: Mapping[str, str], macs: Mapping[str, int]) -> int:
    """Of ``macs`` (by node), those that the compiled model runs in INT8, as its layers say."""
    found = 0
    for layer in compile_model(content, options, 1).get_runtime_model().get_ops():
        info = {key: layer.rt_info[key].astype(str) for key in LAYER_KEYS}
        if info["layerType"] in WEIGHTED_LAYERS and info["runtimePrecision"] in ("u8", "i8"):
            found += sum(macs.get(name, 0) for name in info["originalLayersNames"].split(","))
    return found
