"""From an ONNX file to a TensorRT engine of this device: build in a child, inspect, check the numbers.

The first way of asking (``builder.ways``) is taken whose engine decodes in float32 and gives the right numbers, not the
fastest of several: TensorRT has timed its kernels itself. Numbers are checked as on hosts, against ONNX Runtime; a
board without it gets its engine all the same, and the record says that nobody checked.
"""

import hashlib
import json
import os
import tempfile
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from edgejoule_agent import build as checks
from edgejoule_agent import host
from edgejoule_agent.candidates import Candidate, as_it_is
from edgejoule_agent.engines.tensorrt_engine import builder, graph, inspector, releases
from edgejoule_agent.errors import (
    AgentError,
    EngineError,
    HostError,
    OutOfMemoryError,
    TimeLimitError,
    UnsupportedError,
)
from edgejoule_agent.isolate import Progress, run
from edgejoule_agent.limits import estimate_bytes, floor_bytes, memory_limit_bytes
from edgejoule_agent.macs import macs_by_node

TASKS = "edgejoule_agent.engines.tensorrt_engine.builder"
ASK_LIMIT_S = 300.0  # loading TensorRT alone takes a Nano half a minute
BUILD_LIMIT_S = {builder.AVERAGING_ITERATIONS: 3 * 3600.0, builder.FEWER_ITERATIONS: 2 * 3600.0}
ALL_BUILDS_LIMIT_S = 7 * 3600.0  # one with many iterations, one with few, and one in the next way; see steps.build

Oracle = Tuple[Any, Mapping[str, float]]


class Allowance:
    """What the builds of one engine may take, in all ways together.

    Attributes:
        workspace_bytes, iterations: to ask for at most; less once that was too much, in the next way too.
    """

    def __init__(self, workspace_bytes: int = builder.WORKSPACE_BYTES, limit_s: float = ALL_BUILDS_LIMIT_S) -> None:
        self.workspace_bytes = workspace_bytes
        self.iterations = builder.AVERAGING_ITERATIONS
        self._limit_s, self._until_s = limit_s, time.monotonic() + limit_s

    def limit_s(self) -> float:
        """How long the next build may take.

        Raises:
            EngineError: there is no time left.
        """
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise EngineError(f"TensorRT built no engine in {self._limit_s / 3600:g} h; take a smaller model")
        return min(BUILD_LIMIT_S[self.iterations], left_s)


class Tried(NamedTuple):
    """One way and what came of it."""

    way: builder.Way
    error: Optional[AgentError]  # why there is no engine that may be used
    path: str
    options: Dict[str, str]
    found: Optional[inspector.Inspection]
    correct: Optional[bool]  # None: nothing here could check the numbers
    reason: str


def build(
    model: Any,
    manifest: Mapping[str, Any],
    precision: str,
    shards: List[Any],
    engine_path: Any,
    progress: Progress,
    workspace_mb: Optional[int] = None,
) -> Dict[str, Any]:
    """Write the engine file and return its EngineRecord; arguments and errors as of ``build.build``."""
    device = run(TASKS + ":capabilities", {}, progress, memory_limit_bytes(), ASK_LIMIT_S)
    builder.check_precision(precision, device)
    release = releases.release_of(device["version"])
    hardware = host.hardware_class("tensorrt")
    named = graph.name_nodes(model)
    ways = builder.ways(release, precision, device["fast"])
    with tempfile.TemporaryDirectory() as folder:
        noise = checks.NOISE["fp16" if ways[0].half else precision]
        checks.write_inputs(folder, manifest, shards, noise, checks.batch_of(model))
        oracle, unchecked = _oracle(named, noise, folder, progress)
        tried: List[Tried] = []
        allowance = Allowance(builder.WORKSPACE_BYTES if workspace_mb is None else workspace_mb * 10**6)
        for number, way in enumerate(ways):
            place = os.path.join(folder, str(number))
            os.mkdir(place)
            tried.append(_try(way, named, folder, place, hardware, oracle, unchecked, allowance, progress))
            if tried[-1].error is None:
                break
        chosen = tried[-1]
        if chosen.error is not None or chosen.found is None:
            raise _why_none(tried)
        latency_ms, untimed = _latency_ms(chosen, folder, progress)
        with open(chosen.path, "rb") as source, open(str(engine_path), "wb") as target:
            target.write(source.read())
    absent = {}
    int8_share = None
    if chosen.found.shares is None:
        absent["compute_shares"] = chosen.found.shares_absent
    if precision != "int8":
        absent["int8_share"] = f"precision {precision} has no INT8"
    elif chosen.found.shares is None:
        absent["int8_share"] = chosen.found.shares_absent
    else:
        int8_share = chosen.found.shares[inspector.INT8]
    return {
        "precision": precision,
        "ran_as": "+".join(chosen.found.precisions) or precision,
        "hardware": hardware,
        "options": chosen.options,
        "batch": checks.batch_of(model),
        "size_bytes": os.path.getsize(str(engine_path)),
        "int8_share": int8_share,
        "compute_shares": chosen.found.shares,
        "reformat_layers": chosen.found.reformat_layers,
        "candidates": [
            {
                "runtime": _name(each.way),
                "correct": each.correct if each.error is None else False,
                "reason": each.reason,
                "latency_ms": latency_ms if each is chosen else None,
            }
            for each in tried
        ],
        "chosen_because": _because(tried, device, latency_ms, untimed),
        "model": dict(manifest),
        "simulated": False,
        "absent": absent,
    }


def _try(
    way: builder.Way,
    named: Any,
    folder: str,
    place: str,
    hardware: Mapping[str, Any],
    oracle: Optional[Oracle],
    unchecked: str,
    allowance: Allowance,
    progress: Progress,
) -> Tried:
    """Build, inspect and check in one way; its failure is a result too."""
    failed = Tried(way, None, "", {}, None, None, "")
    try:
        typed = graph.typed_float16(named) if way.typed and way.half else named
        decode = graph.decode_nodes(typed)
        request: Dict[str, Any] = {
            "onnx": os.path.join(place, "model.onnx"),
            "engine": os.path.join(place, "engine"),
            "layers": os.path.join(place, "layers.json"),
            "precision": way.precision,
            "typed": way.typed,
            "half": way.half,
            "timing_cache": _timing_cache(hardware),
            "nodes": [node.name for node in typed.graph.node],
            "decode": decode,
        }
        with open(request["onnx"], "wb") as file:
            file.write(typed.SerializeToString(deterministic=True))
        built = build_within_limits(request, memory_limit_bytes(), allowance, progress)
        with open(request["layers"], encoding="utf-8") as text:
            layers = inspector.read_layers(text.read(), request["nodes"])
        found = inspector.inspect(layers, macs_by_node(typed), decode)
        _check_precisions(way, found, built["warnings"])
        options = dict(built["options"], decode=_told_of_decoding(found))
        tried = failed._replace(path=request["engine"], options=options, found=found, reason=unchecked)
        if oracle is None:
            return tried
        correct, reason = checks.compare(oracle, _outputs(request["engine"], folder, progress), way.precision)
        wrong = None if correct else EngineError(f"wrong numbers: {reason}")
        return tried._replace(correct=correct, reason=reason, error=wrong)
    except HostError:
        raise
    except AgentError as error:
        return failed._replace(error=error, reason=str(error))


def build_within_limits(
    request: Mapping[str, Any],
    limit_bytes: int,
    allowance: Allowance,
    progress: Progress,
    call: Callable[..., Dict[str, Any]] = run,
) -> Dict[str, Any]:
    """``builder.build_engine`` in children, with less workspace when memory is short, and with fewer averaging
    iterations when so many take too long.

    Raises:
        OutOfMemoryError: not even the smallest workspace fits.
        EngineError: it takes too long with few iterations too; trying again would take as long.
    """
    needed = estimate_bytes(request["onnx"])
    sizes = builder.affordable_workspaces(limit_bytes, needed, allowance.workspace_bytes)
    if not sizes:
        least = builder.workspaces(allowance.workspace_bytes)[-1]
        raise OutOfMemoryError(
            f"building takes at least {needed / 1e6:.0f} MB (by ONNX Runtime's use; TensorRT's was not measured), and "
            f"a workspace of {least / 1e6:.0f} MB or more, but {limit_bytes / 1e6:.0f} MB may be used; "
            "free memory, as by ending the desktop; swap is not counted, since a GPU's memory cannot be swapped out"
        )
    while True:
        limit_s = allowance.limit_s()

        def tell(passed_s: float, limit_s: float = limit_s) -> None:
            progress(passed_s, limit_s, "s of the time that TensorRT may take")

        asked = dict(request, workspace_bytes=sizes[0], averaging_iterations=allowance.iterations)
        try:
            return call(TASKS + ":build_engine", asked, _silent, limit_bytes, limit_s, tell, floor_bytes(limit_bytes))
        except OutOfMemoryError:
            if len(sizes) == 1:
                raise
            sizes = sizes[1:]
            allowance.workspace_bytes = sizes[0]
        except TimeLimitError as error:
            if allowance.iterations == builder.FEWER_ITERATIONS:
                raise EngineError(f"{error}, with few averaging iterations too; take a smaller model") from error
            allowance.iterations = builder.FEWER_ITERATIONS


def _silent(done: float, total: float, unit: str) -> None:
    pass


def _check_precisions(way: builder.Way, found: inspector.Inspection, warnings: List[str]) -> None:
    """Refuse an engine that is not what was asked for, as far as its layers tell.

    Raises:
        EngineError: boxes are decoded in less than float32.
        UnsupportedError: nothing runs in the precision.
    """
    if found.decode_wrong:
        said = f"; TensorRT said: {warnings[0]}" if warnings else ""
        raise EngineError(
            f"decoding is not in float32 though it was asked for, in {', '.join(found.decode_wrong[:3])} "
            f"({len(found.decode_wrong)} layers){said}; take fp32 with this release of TensorRT"
        )
    if found.shares is not None and not found.shares[way.precision]:
        raise UnsupportedError(
            f"TensorRT built an engine that runs none of this graph's MACs in {way.precision}: it found others faster"
        )


def _told_of_decoding(found: inspector.Inspection) -> str:
    if not found.decode_unknown:
        return "float32"
    return f"not told of {len(found.decode_unknown)} nodes such as {found.decode_unknown[0]}"


def _oracle(model: Any, noise: float, folder: str, progress: Progress) -> Tuple[Optional[Oracle], str]:
    """The reference's answer, or None and why nothing can be checked."""
    try:
        return checks.reference(model, noise, folder, progress), ""
    except (UnsupportedError, OutOfMemoryError, EngineError, TimeLimitError) as error:
        return None, f"unchecked: the reference does not run here ({error})"


def _outputs(engine: str, folder: str, progress: Progress) -> Dict[str, Any]:
    saved_path = os.path.join(folder, "outputs.npz")
    request = {
        "engine": engine,
        "runtime": "tensorrt",
        "options": {},
        "threads": 1,
        "inputs": os.path.join(folder, checks.CLEAN),
        "outputs": saved_path,
    }
    run("edgejoule_agent.candidates:infer_all", request, progress, memory_limit_bytes(), checks.TIME_LIMIT_S)
    with np.load(saved_path) as saved:
        return {name: saved[name] for name in ("boxes", "scores")}


def _latency_ms(chosen: Tried, folder: str, progress: Progress) -> Tuple[Optional[float], str]:
    """Of one inference, or None and why: a fault in timing it throws no engine away."""
    name = _name(chosen.way)
    candidate = Candidate(name, "tensorrt", {}, as_it_is, chosen.way.precision)
    result = checks.Result(candidate, chosen.path, os.path.getsize(chosen.path), True, "", True, None)
    try:
        return checks.race([result], 1, folder, progress)[name], ""
    except HostError:
        raise
    except AgentError as error:
        return None, f"was not timed ({error})"


def _timing_cache(hardware: Mapping[str, Any]) -> str:
    """The cache's file, one per hardware class and clocks, in the agent's folder; "" where that cannot be written.

    Which kernel is the fastest depends on the clocks: where memory is slow against the GPU it is another.
    """
    state = os.path.expanduser(os.environ.get("EDGEJOULE_AGENT_STATE") or "~/.edgejoule-agent")
    facts = host.environment()
    timed_at = [hardware, *(facts.get(name) for name in ("power_mode", "gpu_hz"))]
    name = hashlib.sha256(json.dumps(timed_at, sort_keys=True).encode("utf-8")).hexdigest()[:16]
    folder = os.path.join(state, "tensorrt-timing")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return ""
    return os.path.join(folder, name) if os.access(folder, os.W_OK) else ""


def _name(way: builder.Way) -> str:
    if way.precision == "fp32":
        return "tensorrt"
    rest = "" if way.precision == "fp16" else ", rest in float16" if way.half else ", rest in float32"
    return "tensorrt, types of the graph" + rest if way.typed else "tensorrt, precisions by flag" + rest


def _because(tried: List[Tried], device: Mapping[str, Any], latency_ms: Optional[float], untimed: str) -> str:
    chosen = tried[-1]
    took = untimed if latency_ms is None else f"takes {latency_ms:.2f} ms"
    words = [f"TensorRT {device['version']} is this device's runtime; {_name(chosen.way)} {took}"]
    words += [f"{_name(each.way)} is out: {each.reason}" for each in tried[:-1]]
    if chosen.correct is None:
        words.append(chosen.reason)
    return "; ".join(words)


def _why_none(tried: List[Tried]) -> AgentError:
    """The first way's kind of error, with what every way ended in."""
    first = tried[0].error or EngineError("")
    if len(tried) == 1:
        return first
    return type(first)("; ".join(f"{_name(each.way)}: {each.reason}" for each in tried))
