"""An engine for a simulated board: what the board's GPU lacks is refused; what it has, ONNX Runtime computes here.

FP16 has no arithmetic in ONNX Runtime on a CPU. There the weights are rounded to it and the sums are float32, and
``ran_as`` says so. INT8 is INT8, in ONNX Runtime's own kernels.
"""

import os
import tempfile
from typing import Any, Dict, List

import numpy as np

from edgejoule_agent import build as host_build
from edgejoule_agent.candidates import Candidate, as_it_is, candidates
from edgejoule_agent.contract import read_model
from edgejoule_agent.isolate import Progress
from edgejoule_agent.optional import require
from edgejoule_agent.simulation import device, roofline
from edgejoule_agent.simulation.running import declared

FP16_LARGEST = 65504.0


def build(
    onnx_path: Any, precision: str, threads: int, shards: List[Any], engine_path: Any, progress: Progress, board: str
) -> Dict[str, Any]:
    """As ``build.build``, for the simulated board called ``board``. There is but one runtime, so nothing is raced.

    Raises:
        UnsupportedError: the board's GPU has no arithmetic for ``precision``.
        ModelError, EngineError: as there.
    """
    device.refuse(precision, board)
    model, manifest = read_model(onnx_path)
    host_build.check_quantized(model, precision, onnx_path)
    gpu = declared(board).gpu
    latency_ms = 1e3 * roofline.latency_s(roofline.layers_of(model), gpu, precision, gpu.top_hz)
    with tempfile.TemporaryDirectory() as folder:
        host_build.write_inputs(folder, manifest, shards, host_build.NOISE[precision], host_build.batch_of(model))
        results = host_build.try_all([ways(precision)], model, precision, threads, folder, progress)
        told = {result.candidate.name: latency_ms for result in results if result.ran}
        chosen, _ = host_build.choose(results, told, precision)
        with open(chosen.path, "rb") as source, open(str(engine_path), "wb") as target:
            target.write(source.read())
    no_share = f"precision {precision} has no INT8"
    if chosen.int8_share is not None:
        no_share = f"the board is simulated: {chosen.int8_share:.0%} of the MACs is ONNX Runtime's share, on this host"
    return {
        "precision": precision,
        "ran_as": chosen.candidate.ran_as,
        "hardware": device.hardware_class(board),
        "options": chosen.candidate.options,
        "batch": host_build.batch_of(model),
        "size_bytes": os.path.getsize(str(engine_path)),
        "int8_share": None,
        "compute_shares": None,
        "reformat_layers": None,
        "candidates": [
            {
                "runtime": f"simulated, {result.candidate.name}",
                "correct": result.correct,
                "reason": result.reason,
                "latency_ms": told.get(result.candidate.name),
            }
            for result in results
        ],
        "chosen_because": f"simulated: {latency_ms:.2f} ms by the roofline at {gpu.top_hz / 1e6:.0f} MHz, "
        f"and {chosen.candidate.name} for the numbers",
        "model": manifest,
        "simulated": True,
        "absent": {
            **dict.fromkeys(("reformat_layers", "compute_shares"), "the board is simulated"),
            "int8_share": no_share,
        },
    }


def ways(precision: str) -> List[Candidate]:
    """How ONNX Runtime may run a precision here, the best first."""
    if precision == "fp16":
        return [
            Candidate("onnxruntime, fp16 weights", "onnxruntime", {}, as_it_is, "fp16 weights in fp32", halve_precision)
        ]
    return candidates(precision)[0]


def halve_precision(model: Any) -> Any:
    """A copy of a ModelProto whose float32 constants are rounded to float16, and clipped to what that can hold."""
    onnx = require("onnx", "onnxruntime")
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    for tensor in rounded.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value = np.clip(onnx.numpy_helper.to_array(tensor), -FP16_LARGEST, FP16_LARGEST)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16).astype(np.float32), tensor.name))
    return rounded
