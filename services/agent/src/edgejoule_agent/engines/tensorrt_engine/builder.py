"""From ONNX to a TensorRT engine file, in a child process: ``build_engine`` is called through ``isolate.run``.

Arguments and returns that the table of names does not tell are in docs/reference/tensorrt.md, with their pages.
"""

import os
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set

from edgejoule_agent import boards
from edgejoule_agent.engines.tensorrt_engine import cuda, releases
from edgejoule_agent.engines.tensorrt_engine.log import collector, deserialize, failure, start
from edgejoule_agent.errors import UnsupportedError
from edgejoule_agent.isolate import Progress

WORKSPACE_BYTES = 10**9  # "1 GB max": the paper, Table 5
LEAST_WORKSPACE_BYTES = WORKSPACE_BYTES // 16
AVERAGING_ITERATIONS = 1000  # the paper, section 3.3, where the least number of iterations is 1
FEWER_ITERATIONS = 8  # trtexec's own, when so many would take too long


class Way(NamedTuple):
    """How one build is asked for: what the network may run in, and how types are held."""

    precision: str
    typed: bool  # the graph's types are kept (strong typing), else flags allow precisions (weak typing)
    half: bool  # float16 beside float32, by flag or by the graph's types


def ways(release: releases.Release, precision: str, fast: Iterable[str]) -> List[Way]:
    """What to ask of a release for a precision, the best first; the next is for when decoding was not in float32.

    INT8 comes with float16 for the rest where flags can ask for it: that is what its users run. A strongly typed Q/DQ
    graph of opset 13 cannot say so (its scales would have to be float16, which ONNX allows from opset 19 on), so
    there the rest stays float32.
    """
    if precision == "fp32":
        return [Way(precision, not release.weakly_typed, False)]
    if precision == "fp16":
        by_flag = [Way(precision, False, True)] if release.weakly_typed else []
        return by_flag + ([Way(precision, True, True)] if release.can_be_typed else [])
    by_flag = [Way(precision, False, "fp16" in fast), Way(precision, False, False)] if release.weakly_typed else []
    return list(dict.fromkeys(by_flag)) or [Way(precision, True, False)]


def capabilities(request: Mapping[str, Any], progress: Progress) -> Dict[str, Any]:
    """In a child: TensorRT's version, the GPU's SM, and which of fp16 and int8 it has fast arithmetic for.

    The builder is asked where it can tell; 11 cannot, so there the SM decides.
    """
    trt, release = releases.load()
    sm = cuda.load().compute_capability()
    if release.tells_fast_precisions:
        builder = start(trt, "Builder", collector(trt))
        answers = {"fp16": builder.platform_has_fast_fp16, "int8": builder.platform_has_fast_int8}
        fast = [name for name, answer in answers.items() if answer]
        told_by = "TensorRT's platform_has_fast_fp16 and platform_has_fast_int8"
    else:
        fast, told_by = list(boards.fast_precisions_of(sm)), "the compute capability"
    return {"version": trt.__version__, "sm": list(sm), "fast": fast, "told_by": told_by}


def check_precision(precision: str, found: Mapping[str, Any]) -> None:
    """Refuse what the GPU has no arithmetic for, before anything is built.

    Args:
        found: from ``capabilities``.

    Raises:
        UnsupportedError: it has none.
    """
    if precision == "fp32" or precision in found["fast"]:
        return
    sm = ".".join(map(str, found["sm"]))
    other = "fp16" if "fp16" in found["fast"] else "fp32"
    raise UnsupportedError(
        f"{precision} does not run here: this GPU (SM {sm}) has no fast {precision} by {found['told_by']} "
        f"(TensorRT {found['version']}); the same weights run at {other}"
    )


def build_engine(request: Mapping[str, Any], progress: Progress) -> Dict[str, Any]:
    """In a child: write the engine, and the inspector's JSON beside it.

    ``request``: onnx (file), engine and layers (files to write), precision, typed, half (see ``Way``), workspace_bytes,
    averaging_iterations, timing_cache (file; need not be there; "" for none), nodes (names of the graph's nodes),
    decode (those of them to hold in float32).

    Returns:
        options (what was set, for the record) and warnings (what TensorRT said about precision constraints).

    Raises:
        UnsupportedError: the release or the GPU lacks something in the graph.
        OutOfMemoryError: memory was short.
        EngineError: anything else that TensorRT refuses.
    """
    trt, release = releases.load()
    way = Way(request["precision"], request["typed"], request["half"])
    log = collector(trt)
    builder = start(trt, "Builder", log)
    network = builder.create_network(_creation_flags(trt, release, way))
    parser = trt.OnnxParser(network, log)
    with open(request["onnx"], "rb") as file:
        parsed = parser.parse(file.read())
    if not parsed:
        raise _refused(trt, parser, log)
    progress(1, 4, "stages of the build")

    config = builder.create_builder_config()
    flags = _configure(trt, release, config, way, request)
    cached = _use_timing_cache(config, request["timing_cache"])
    if not way.typed and (way.half or way.precision == "int8"):
        _hold_in_float32(trt, network, set(request["decode"]), set(request["nodes"]))
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise failure(f"TensorRT {trt.__version__} did not build the engine", log.lines)
    progress(2, 4, "stages of the build")

    content = bytes(content)
    _write(request["engine"], content)
    _keep_timing_cache(config, request["timing_cache"])
    progress(3, 4, "stages of the build")
    runtime = start(trt, "Runtime", log)
    engine = deserialize(trt, runtime, content, log)
    inspector = engine.create_engine_inspector()
    layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    _write(request["layers"], layers.encode("utf-8"))
    progress(4, 4, "stages of the build")
    options = {
        "workspace_mb": f"{request['workspace_bytes'] / 1e6:.0f}",
        "avg_timing_iterations": str(request["averaging_iterations"]),
        "builder_flags": " ".join(flags),
        "typing": "strong" if way.typed else "weak",
        "timing_cache": "used" if cached else "new" if request["timing_cache"] else "none",
    }
    disobeyed = [line.text for line in log.lines if "obeys the requested constraints" in line.text]  # issue 2407
    return {"options": options, "warnings": disobeyed}


def workspaces(largest_bytes: int) -> List[int]:
    """Workspaces to try, from the largest down by halves.

    >>> workspaces(250_000_000), workspaces(10_000_000)
    ([250000000, 125000000, 62500000], [10000000])
    """
    sizes = [largest_bytes]
    while sizes[-1] // 2 >= LEAST_WORKSPACE_BYTES:
        sizes.append(sizes[-1] // 2)
    return sizes


def affordable_workspaces(limit_bytes: int, needed_bytes: int, largest_bytes: int) -> List[int]:
    """Those of them that fit beside what the build needs anyway.

    >>> affordable_workspaces(limit_bytes=700_000_000, needed_bytes=300_000_000, largest_bytes=WORKSPACE_BYTES)
    [250000000, 125000000, 62500000]
    """
    return [size for size in workspaces(largest_bytes) if needed_bytes + size <= limit_bytes]


def _creation_flags(trt: Any, release: releases.Release, way: Way) -> int:
    names = releases.TYPED if way.typed else release.network
    flags = 0
    for name in names:
        flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    return flags


def _configure(trt: Any, release: releases.Release, config: Any, way: Way, request: Mapping[str, Any]) -> List[str]:
    """Set everything but the timing cache; returns the names of the flags that stand."""
    if release.workspace == releases.OLD:
        config.max_workspace_size = request["workspace_bytes"]
    else:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace_bytes"])
    config.avg_timing_iterations = request["averaging_iterations"]
    if release.min_timing_iterations:
        config.min_timing_iterations = 1
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of mantissa are not FP32
    flags = []
    if not way.typed:
        flags += ["INT8"] if way.precision == "int8" else []
        flags += ["FP16"] if way.half else []
        flags += ["OBEY_PRECISION_CONSTRAINTS"] if flags else []
    for name in flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    return flags


def _hold_in_float32(trt: Any, network: Any, wanted: Set[str], nodes: Set[str]) -> None:
    """Ask for float32 in the layers of these ONNX nodes, and for float32 results.

    As trtexec does (samples/common/sampleEngines.cpp, setLayerPrecisions), layers on shapes or whole numbers are left
    alone: TensorRT does not take it for them.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if _onnx_node(layer.name, nodes) not in wanted:
            continue
        results = [layer.get_output(place) for place in range(layer.num_outputs)]
        if any(result.is_shape_tensor or result.dtype != trt.DataType.FLOAT for result in results):
            continue
        layer.precision = trt.DataType.FLOAT
        for place in range(layer.num_outputs):
            layer.set_output_type(place, trt.DataType.FLOAT)


def _onnx_node(layer_name: str, nodes: Set[str]) -> str:
    """The ONNX node that a layer was made from: of its name, less a number where one node makes several layers."""
    return layer_name if layer_name in nodes else layer_name.rpartition("_")[0]


def _refused(trt: Any, parser: Any, log: Any) -> Exception:
    """The error for a graph that the parser does not take."""
    told = [parser.get_error(index) for index in range(parser.num_errors)]
    words = "; ".join(f"node {error.node()}: {error.desc()}" for error in told[:3])
    lacking = (trt.ErrorCode.UNSUPPORTED_NODE, trt.ErrorCode.UNSUPPORTED_GRAPH)
    what = f"TensorRT {trt.__version__} does not take this graph ({words or 'no reason given'})"
    if any(error.code() in lacking for error in told):
        return UnsupportedError(what)
    return failure(what, log.lines)


def _use_timing_cache(config: Any, path: str) -> bool:
    """Attach the cache in the file, or an empty one; returns whether the file's was taken."""
    content = b""
    if path and os.path.exists(path):
        with open(path, "rb") as file:
            content = file.read()
    for each in [content, b""] if content else [b""]:
        cache: Optional[Any] = config.create_timing_cache(each)
        if cache is not None and config.set_timing_cache(cache, False):
            return bool(each)
    return False


def _keep_timing_cache(config: Any, path: str) -> None:
    cache = config.get_timing_cache() if path else None
    if cache is not None:
        _write(path, bytes(cache.serialize()))


def _write(path: str, content: bytes) -> None:
    """Whole or not at all: another build may read it."""
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)
