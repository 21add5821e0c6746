"""What a build tries, and the work its children do: run a candidate, and race those that ran.

The functions here are called in child processes (see ``isolate``), so that a runtime that crashes on one
model is one candidate that failed.
"""

import contextlib
import functools
import importlib
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

import numpy as np

from edgejoule_agent import rewrites
from edgejoule_agent.engines import Deferred, Engine, onnxruntime_engine, open_engine, openvino_engine
from edgejoule_agent.errors import EngineError
from edgejoule_agent.isolate import Progress

RACE_ROUNDS = 10
RACE_WARMUPS = 1  # after each change of engine, to fill the caches again
RACE_INFERENCES = 3


class Candidate(NamedTuple):
    """One way to run a model: a runtime, its options, and what is done to the graph first.

    ``rewrite`` puts the graph in another form of the same arithmetic; ``change`` before it changes the arithmetic,
    so such a candidate is held to the reference of the changed graph, and ``ran_as`` says what it is.
    """

    name: str
    runtime: str
    options: Dict[str, str]
    rewrite: Callable[[Any], Any]
    ran_as: str
    change: Optional[Callable[[Any], Any]] = None


def as_it_is(model: Any) -> Any:
    """No rewrite."""
    return model


def u8_biases(model: Any) -> Any:
    """u8 activations, and biases as ONNX Runtime's kernels take them."""
    return rewrites.quantize_biases(rewrites.rewrite_u8(model))


def u8_once(model: Any) -> Any:
    """u8 activations, none quantized twice at one scale, activation functions as OpenVINO's kernels take them in."""
    fused = rewrites.spell_out_hard_sigmoid(rewrites.drop_upper_clips(model))
    return rewrites.rewrite_u8(rewrites.drop_repeats(fused))


def u8_halves(model: Any) -> Any:
    """u8 activations, and weights in two halves that cannot saturate 16 bits."""
    return rewrites.halve_weights(u8_once(model))


def candidates(precision: str) -> List[List[Candidate]]:
    """Per runtime, the ways to run ``precision``, quickest first; one is tried when those before gave wrong numbers."""
    full, half = openvino_engine.FULL_PRECISION, openvino_engine.HALF_PRECISION
    narrow, exact, spelled = rewrites.narrow_weights, onnxruntime_engine.EXACT_U8, rewrites.spell_out_hard_sigmoid
    return {
        "fp32": [
            [Candidate("onnxruntime", "onnxruntime", {}, as_it_is, "fp32")],
            [Candidate("openvino", "openvino", full, spelled, "fp32")],
        ],
        "fp16": [[Candidate("openvino", "openvino", half, spelled, "fp16")]],
        "int8": [
            [
                Candidate("onnxruntime, u8 activations", "onnxruntime", {}, u8_biases, "int8+fp32"),
                Candidate("onnxruntime, u8 activations and weights", "onnxruntime", exact, u8_biases, "int8+fp32"),
            ],
            [
                Candidate("openvino, u8 activations", "openvino", full, u8_once, "int8+fp32"),
                Candidate("openvino, u8 activations, 7-bit weights", "openvino", full, u8_once, "int8w7+fp32", narrow),
                Candidate("openvino, u8 activations, weights in halves", "openvino", full, u8_halves, "int8+fp32"),
            ],
        ],
    }[precision]


def run_candidate(request: Mapping[str, Any], progress: Progress) -> Dict[str, Any]:
    """In a child: infer each input and save the outputs; count the MACs that run in INT8.

    ``request``: as for ``infer_all``, and macs (by node).
    """
    infer_all(request, progress)
    with open(request["engine"], "rb") as file:
        content = file.read()
    module = importlib.import_module(f"edgejoule_agent.engines.{request['runtime']}_engine")
    return {"int8_macs": module.int8_macs(content, request["options"], request["macs"])}


def infer_all(request: Mapping[str, Any], progress: Progress) -> None:
    """In a child: infer each input and save the outputs.

    ``request``: engine (file), runtime, options, threads, inputs (npy float32[K,B,3,H,W]),
    outputs (npz to write: boxes, scores).
    """
    with open(request["engine"], "rb") as file:
        content = file.read()
    inputs = np.load(request["inputs"], mmap_mode="r")
    boxes, scores = [], []
    with open_engine(request["runtime"], content, request["options"], request["threads"]) as engine:
        for index, images in enumerate(inputs):
            found = engine.infer(np.ascontiguousarray(images))
            boxes.append(found[0].copy())
            scores.append(found[1].copy())
            progress(index + 1, len(inputs), "images")
    if boxes[0].shape[1] != scores[0].shape[1]:
        raise EngineError(f"{boxes[0].shape[1]} boxes but scores for {scores[0].shape[1]}; export the model again")
    np.savez(request["outputs"], boxes=np.concatenate(boxes), scores=np.concatenate(scores))


def race(request: Mapping[str, Any], progress: Progress) -> List[float]:
    """In a child: least latencies in ms of several engines, in turns, so that a slow moment meets all alike.

    What else runs on the host only adds time, so the least says best which engine is faster, also on a busy one.

    ``request``: engines (list of {engine, runtime, options}), threads, inputs (npy).
    """
    images = np.array(np.load(request["inputs"], mmap_mode="r")[0])  # a read-only one some runtime copies, timed
    times_ms: List[List[float]] = [[] for _ in request["engines"]]
    with contextlib.ExitStack() as stack:  # each is opened by its first inference, which is not timed
        engines = [
            stack.enter_context(Deferred(functools.partial(_open, each, request["threads"])))
            for each in request["engines"]
        ]
        for turn in range(RACE_ROUNDS):
            for engine, samples in zip(engines, times_ms):
                for number in range(RACE_WARMUPS + RACE_INFERENCES):
                    start = time.perf_counter()
                    engine.infer(images)
                    if number >= RACE_WARMUPS:
                        samples.append(1e3 * (time.perf_counter() - start))
            progress(turn + 1, RACE_ROUNDS, "rounds")
    return [min(samples) for samples in times_ms]


def _open(asked: Mapping[str, Any], threads: int) -> Engine:
    with open(asked["engine"], "rb") as file:
        return open_engine(asked["runtime"], file.read(), asked["options"], threads)
