"""From an ONNX file to an engine of this host: try the runtimes, refuse wrong numbers, take the fastest.

Where TensorRT is installed it is the runtime: see ``build_tensorrt``. The check of the numbers is the same.

What is right is decided by the reference: ONNX Runtime with every optimization off, which computes Q/DQ in float32,
node by node. A bound on the largest difference would be a bad gate, since a quantized network answers even to
noise of 1e-6 with flipped roundings that grow on their way. So the reference's own answer to such noise
is measured on the same images, and a candidate may differ by about as much as that. The noise enters with the image
and in every layer, as rounding does: what comes with the image alone often ends at the first quantizer, where whole
pixel values lie far from the edge between two steps.
"""

import os
import tempfile
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from edgejoule_agent import host, jetson
from edgejoule_agent.candidates import Candidate, as_it_is, candidates
from edgejoule_agent.contract import read_model
from edgejoule_agent.engines import onnxruntime_engine, openvino_engine
from edgejoule_agent.errors import EngineError, ModelError, UnsupportedError
from edgejoule_agent.isolate import Progress, run
from edgejoule_agent.limits import memory_limit_bytes
from edgejoule_agent.macs import macs_by_node
from edgejoule_agent.optional import require
from edgejoule_agent.preprocess import decode, prepare
from edgejoule_agent.shards import ShardReader

CHECK_IMAGES = 8
CLEAN, NOISY = "inputs.npy", "noisy.npy"
TIME_LIMIT_S = 900.0  # of one child
# standard deviation of the noise, as a share of 255 in the image and of a layer's largest bias in its biases: float32
# rounding; for fp16 half a unit in its last place
NOISE = {"fp32": 1e-6, "fp16": 2.0**-11, "int8": 1e-6}
MARGIN_DB = 3.0  # twice the noise's power: one draw of it differs from the next by less
# however little the reference answers to noise, this signal-to-error ratio is right: rounding in another order
# costs less, and a saturating INT8 kernel (15-31 dB) or BF16 in place of FP32 (30-45 dB) more
ENOUGH_DB = {"fp32": 80.0, "fp16": 40.0, "int8": 40.0}
MAINLY = 0.5  # an engine that runs a smaller share of its MACs in INT8 is taken only when there is no other


class Result(NamedTuple):
    """How one candidate did."""

    candidate: Candidate
    path: str
    size_bytes: int
    correct: bool
    reason: str
    ran: bool
    int8_share: Optional[float]


def build(
    onnx_path: Any,
    precision: str,
    threads: int,
    shards: List[Any],
    engine_path: Any,
    progress: Progress,
    workspace_mb: Optional[int] = None,
) -> Dict[str, Any]:
    """Write the engine file of the fastest correct candidate and return its EngineRecord.

    Args:
        onnx_path: a graph under the engine contract; with Q/DQ if and only if ``precision`` is ``int8``.
        shards: image shards to check the numbers on; seeded noise images when empty.
        workspace_mb: the largest workspace of TensorRT's builder, MB; the paper's when None.

    Raises:
        ModelError: the graph breaks the engine contract or does not fit the precision.
        UnsupportedError: no runtime here computes in ``precision``, or this is a Jetson without TensorRT's module.
        OutOfMemoryError: memory is short, with TensorRT's smallest workspace too.
        EngineError: every candidate fails or gives wrong numbers.
    """
    from edgejoule_agent import build_tensorrt  # which leans on the checks here

    model, manifest = read_model(onnx_path)
    check_quantized(model, precision, onnx_path)
    if jetson.has_module():
        return build_tensorrt.build(model, manifest, precision, shards, engine_path, progress, workspace_mb)
    if jetson.is_jetson():
        raise UnsupportedError(
            "this is a Jetson whose Python has no module tensorrt, and an engine of its processor is not what was "
            "asked for: see what edgejoule-agent --probe says of tensorrt"
        )
    _check_float16(precision)
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(folder, manifest, shards, NOISE[precision], batch_of(model))
        results = try_all(candidates(precision), model, precision, threads, folder, progress)
        latencies = race([result for result in results if result.ran], threads, folder, progress)
        chosen, because = choose(results, latencies, precision)
        with open(chosen.path, "rb") as source, open(str(engine_path), "wb") as target:
            target.write(source.read())
    absent = dict.fromkeys(("reformat_layers", "compute_shares"), f"{chosen.candidate.runtime} does not tell")
    if chosen.int8_share is None:
        absent["int8_share"] = f"precision {precision} has no INT8"
    return {
        "precision": precision,
        "ran_as": chosen.candidate.ran_as,
        "hardware": host.hardware_class(chosen.candidate.runtime),
        "options": chosen.candidate.options,
        "batch": batch_of(model),
        "size_bytes": chosen.size_bytes,
        "int8_share": chosen.int8_share,
        "compute_shares": None,
        "reformat_layers": None,
        "candidates": [
            {
                "runtime": result.candidate.name,
                "correct": result.correct,
                "reason": result.reason,
                "latency_ms": latencies.get(result.candidate.name),
            }
            for result in results
        ],
        "chosen_because": because,
        "model": manifest,
        "simulated": False,
        "absent": absent,
    }


def choose(results: List[Result], latencies: Mapping[str, float], precision: str) -> Tuple[Result, str]:
    """The fastest correct candidate and why, in words; for INT8 one that mainly runs in INT8, if there is any."""
    correct = [result for result in results if result.correct]
    if not correct:
        told = "; ".join(f"{result.candidate.name}: {result.reason}" for result in results)
        raise EngineError(f"no runtime gives right numbers at {precision}: {told}")
    eligible = correct
    if precision == "int8":
        eligible = [result for result in correct if (result.int8_share or 0) >= MAINLY]
        eligible = eligible or [result for result in correct if result.int8_share]
        if not eligible:
            raise UnsupportedError(_no_int8(correct))
    chosen = min(eligible, key=lambda result: latencies[result.candidate.name])
    words = [f"{chosen.candidate.name} takes {latencies[chosen.candidate.name]:.2f} ms"]
    for other in results:
        if other is chosen:
            continue
        if not other.correct:
            words.append(f"{other.candidate.name} is out: {other.reason}")
            continue
        speed = f"{other.candidate.name} takes {latencies[other.candidate.name]:.2f} ms"
        words.append(speed if other in eligible else f"{speed} but runs {other.int8_share:.0%} of its MACs in INT8")
    return chosen, "; ".join(words)


def signal_to_error_db(reference: Any, found: Any) -> float:
    """10 log10 of the reference's power over that of the difference; 300 where there is none.

    >>> signal_to_error_db(np.array([10.0, 0.0]), np.array([9.0, 0.0]))
    20.0
    """
    wanted = reference.astype(np.float64)
    error = float(((wanted - found) ** 2).sum())
    power = float((wanted**2).sum())
    return min(300.0, 10 * float(np.log10(power / error))) if error and power else 300.0 if not error else 0.0


def check_quantized(model: Any, precision: str, path: Any) -> None:
    """Refuse a graph that is quantized for a precision that is not, or the reverse. Raises ModelError."""
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if precision == "int8" and not quantized:
        raise ModelError(f"{path}: precision int8 was asked, but no QuantizeLinear is in the graph; quantize it first")
    if precision != "int8" and quantized:
        raise ModelError(f"{path}: precision {precision} was asked, but the graph is quantized; give the float one")


def _check_float16(precision: str) -> None:
    if precision == "fp16" and "FP16" not in _openvino_capabilities():
        raise UnsupportedError(_no_float16())


def _openvino_capabilities() -> List[str]:
    try:
        return openvino_engine.capabilities()
    except UnsupportedError:
        return []


def _no_float16() -> str:
    """Why fp16 does not run here, as the runtimes themselves answer."""
    here = host.hardware()
    known = ", ".join(_openvino_capabilities())
    openvino = f"reports {known} for this processor" if known else "is not installed"
    casts = not onnxruntime_engine.computes_float16()
    onnxruntime = "computes float16 convolutions in float32" if casts else "needs a graph typed float16"
    return f"fp16 does not run on {here['processor']}: OpenVINO {openvino}, and ONNX Runtime {onnxruntime}"


def _no_int8(results: List[Result]) -> str:
    """Why int8 does not run here, by what each runtime made of the graph, and what to do."""
    runtimes = list(dict.fromkeys(result.candidate.runtime for result in results))
    versions = " and ".join(f"{runtime} {host.installed_version(runtime)}" for runtime in runtimes)
    advice = "take fp32"
    if "openvino" not in runtimes:
        advice += "; on a host OpenVINO runs more graphs so: pip install 'edgejoule-agent[openvino]'"
    return f"no runtime here runs any of this graph in INT8: {versions} would compute its Q/DQ in float32; {advice}"


def disturb(model: Any, noise: float) -> Any:
    """A copy of a ModelProto whose convolutions' biases have noise of that share of the largest in each."""
    onnx = require("onnx", "onnxruntime")
    disturbed = onnx.ModelProto()
    disturbed.CopyFrom(model)
    random = np.random.RandomState(0)
    biases = {node.input[2] for node in disturbed.graph.node if node.op_type == "Conv" and len(node.input) > 2}
    for tensor in disturbed.graph.initializer:
        if tensor.name in biases:
            bias = onnx.numpy_helper.to_array(tensor)
            noisy = bias + noise * np.abs(bias).max() * random.standard_normal(bias.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(bias.dtype), tensor.name))
    return disturbed


def batch_of(model: Any) -> int:
    """How many images a graph under the engine contract takes at once."""
    image = next(value for value in model.graph.input if value.name == "image")
    return int(image.type.tensor_type.shape.dim[0].dim_value)


def write_inputs(folder: str, manifest: Mapping[str, Any], shards: List[Any], noise: float, batch: int) -> None:
    """Save prepared images, float32[K,batch,3,H,W], as CLEAN, and the same with noise as NOISY."""
    images = _real_images(manifest, shards) or _seeded_images(manifest)
    images = [images[place % len(images)] for place in range(len(images) + -len(images) % batch)]  # whole batches
    clean = np.concatenate(images)
    clean = clean.reshape((-1, batch, *clean.shape[1:]))
    random = np.random.RandomState(0)
    np.save(os.path.join(folder, CLEAN), clean)
    np.save(os.path.join(folder, NOISY), clean + (255 * noise * random.standard_normal(clean.shape)).astype(np.float32))


def _real_images(manifest: Mapping[str, Any], shards: List[Any]) -> List[Any]:
    images: List[Any] = []
    for shard in shards:
        if len(images) == CHECK_IMAGES:
            break
        with ShardReader(shard) as reader:
            for image_id in reader.ids[: CHECK_IMAGES - len(images)]:
                images.append(prepare(decode(reader.read(image_id)), manifest)[0])
    return images


def _seeded_images(manifest: Mapping[str, Any]) -> List[Any]:
    """Pictures of random coarse patches: noise without structure would excite little beyond the first layer."""
    random = np.random.RandomState(0)
    return [
        prepare(np.kron(random.randint(0, 256, (15, 20, 3)), np.ones((16, 16, 1))).astype(np.uint8), manifest)[0]
        for _ in range(CHECK_IMAGES)
    ]


def reference(model: Any, noise: float, folder: str, progress: Progress) -> Tuple[Any, Dict[str, float]]:
    """The reference's outputs on the clean images, and its signal-to-noise ratios under noise (the floor)."""
    oracle = Candidate("reference", "onnxruntime", onnxruntime_engine.UNOPTIMIZED, as_it_is, "fp32")
    clean = _run(oracle, model, folder, CLEAN, 1, progress)[0]
    for name, values in clean.items():
        if not np.isfinite(values).all():
            raise ModelError(f"the model's {name} hold NaN or infinity on ordinary images; check its weights")
    noisy = _run(oracle, disturb(model, noise), folder, NOISY, 1, progress)[0]
    return clean, {name: signal_to_error_db(clean[name], noisy[name]) for name in clean}


def try_all(
    runtimes: List[List[Candidate]], model: Any, precision: str, threads: int, folder: str, progress: Progress
) -> List[Result]:
    """Per runtime its ways, one after the other until one gives right numbers; what became of each."""
    results = []
    as_given = reference(model, NOISE[precision], folder, progress)
    for ways in runtimes:
        for way in ways:
            if way.change is None:
                result = _try(way, model, precision, threads, folder, as_given, progress)
            else:
                changed = way.change(model)
                oracle = reference(changed, NOISE[precision], folder, progress)
                result = _try(way, changed, precision, threads, folder, oracle, progress)
                cost = signal_to_error_db(as_given[0]["scores"], oracle[0]["scores"])
                result = result._replace(reason="{}; the change itself: scores {:.1f} dB".format(result.reason, cost))
            results.append(result)
            if result.correct or not result.ran:
                break
    return results


def _try(
    candidate: Candidate,
    model: Any,
    precision: str,
    threads: int,
    folder: str,
    oracle: Tuple[Any, Mapping[str, float]],
    progress: Progress,
) -> Result:
    """Run one candidate and compare it with the reference; its failure is a result too."""
    try:
        outputs, path, int8_share = _run(candidate, model, folder, CLEAN, threads, progress)
    except (EngineError, UnsupportedError) as error:
        return Result(candidate, "", 0, False, str(error), False, None)
    correct, reason = compare(oracle, outputs, precision)
    share = int8_share if precision == "int8" else None
    return Result(candidate, path, os.path.getsize(path), correct, reason, True, share)


def compare(oracle: Tuple[Any, Mapping[str, float]], outputs: Mapping[str, Any], precision: str) -> Tuple[bool, str]:
    """Whether outputs are right by the reference's outputs and floors, and the figures in words."""
    wanted, floor = oracle
    correct, words = True, []
    for name in ("boxes", "scores"):
        ratio = signal_to_error_db(wanted[name], outputs[name])
        needed = min(floor[name] - MARGIN_DB, ENOUGH_DB[precision])
        correct = correct and ratio >= needed
        words.append(f"{name} {ratio:.1f} dB from the reference (needed {needed:.1f})")
    return correct, ", ".join(words)


def _run(
    candidate: Candidate, model: Any, folder: str, inputs: str, threads: int, progress: Progress
) -> Tuple[Dict[str, Any], str, float]:
    """A candidate's outputs on a file of inputs, its engine file, and the share of MACs it runs in INT8."""
    rewritten = candidate.rewrite(model)
    path = os.path.join(folder, candidate.name + ".onnx")
    with open(path, "wb") as file:
        file.write(rewritten.SerializeToString(deterministic=True))
    macs = macs_by_node(rewritten)
    saved_path = os.path.join(folder, "outputs.npz")
    request = {
        "engine": path,
        "runtime": candidate.runtime,
        "options": candidate.options,
        "threads": threads,
        "macs": macs,
        "inputs": os.path.join(folder, inputs),
        "outputs": saved_path,
    }

    def tell(done: float, total: float, _: str) -> None:
        progress(done, total, f"images, {candidate.name}")

    found = run("edgejoule_agent.candidates:run_candidate", request, tell, memory_limit_bytes(), TIME_LIMIT_S)
    with np.load(saved_path) as saved:
        outputs = {name: saved[name] for name in ("boxes", "scores")}
    return outputs, path, found["int8_macs"] / max(1, sum(macs.values()))


def race(results: List[Result], threads: int, folder: str, progress: Progress) -> Dict[str, float]:
    """Least latency in ms by candidate, measured in turns."""
    if not results:
        return {}
    request = {
        "engines": [
            {"engine": result.path, "runtime": result.candidate.runtime, "options": result.candidate.options}
            for result in results
        ],
        "threads": threads,
        "inputs": os.path.join(folder, CLEAN),
    }

    def tell(done: float, total: float, _: str) -> None:
        progress(done, total, "rounds of the candidates")

    times = run("edgejoule_agent.candidates:race", request, tell, memory_limit_bytes(), TIME_LIMIT_S)
    return {result.candidate.name: time_ms for result, time_ms in zip(results, times)}
