"""Called in child processes where the double of TensorRT can be imported."""

import numpy as np

from edgejoule_agent.engines import load, onnxruntime_engine, open_engine


def answers_as_onnxruntime(request, progress):
    """Whether a TensorRT engine, loaded by its record, gives what its ONNX file gives."""
    image = np.random.RandomState(5).randint(0, 256, (1, 3, 32, 48)).astype(np.float32)
    with open(request["onnx"], "rb") as file:
        content = file.read()
    with open_engine("onnxruntime", content, onnxruntime_engine.UNOPTIMIZED, 1) as reference:
        wanted = [part.copy() for part in reference.infer(image)]
    with load(request["engine"], request["record"], 1) as engine:
        return all(bool(np.allclose(a, b, atol=2e-3)) for a, b in zip(wanted, engine.infer(image)))
