"""One trial, in a process of its own: warm-up, timed inferences, energy, stages.

Called in a child (see ``isolate``). While inferences are timed nothing else happens in the process: garbage
collection is off, and progress is told between two inferences, at most twice a second.
"""

import gc
import re
import time
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from edgejoule_agent import contention, sensors
from edgejoule_agent.engines import Engine, load
from edgejoule_agent.errors import ShardError
from edgejoule_agent.isolate import Progress
from edgejoule_agent.postprocess import detect
from edgejoule_agent.preprocess import decode, prepare
from edgejoule_agent.shards import ShardReader

PROGRESS_S = 0.5


def trial(request: Mapping[str, Any], progress: Progress) -> Dict[str, Any]:
    """Measure one engine.

    ``request``: engine (file), engine_record, shard, threads, warmup_iterations, iterations, stage_images,
    idle_s (how long to watch the idle host, if its energy can be read), samples (npz to write).

    Returns:
        The measured part of a BenchmarkRecord, ``absent`` included.
    """
    record = request["engine_record"]
    with ShardReader(request["shard"]) as reader:
        if not reader.ids:
            raise ShardError(f"{request['shard']}: holds no image; give the evaluation set at least one per shard")
        first = prepare(decode(reader.read(reader.ids[0])), record["model"])[0]

    rapl = sensors.find_rapl()
    idle_power_w = _idle_power_w(rapl, request["idle_s"]) if rapl.packages else None
    start = time.perf_counter()
    engine = load(request["engine"], record, request["threads"])
    load_ms = 1e3 * (time.perf_counter() - start)
    with engine:
        _timed(engine, first, request["warmup_iterations"], progress, "warm-up inferences")
        throttles = sensors.throttle_counts()
        before, energy_before = contention.snapshot(), rapl.read_uj()
        latency_ms = _timed(engine, first, request["iterations"], progress, "inferences")
        energy_after, after = rapl.read_uj(), contention.snapshot()
        throttled = sensors.throttled(throttles, sensors.throttle_counts())
        peak_mb = memory_peak_mb()  # before the pictures of the stages, which are no part of the engine
        with ShardReader(request["shard"]) as reader:
            images = [decode(reader.read(image_id)) for image_id in reader.ids[: request["stage_images"]]]
        stages_ms = _stages(engine, images, record["model"], progress)
    with open(request["samples"], "wb") as file:
        np.savez(file, latency_ms=latency_ms)

    temperature_c, no_temperature = sensors.temperature_c()
    absent = {} if temperature_c is not None else {"temperature_c": no_temperature}
    power_w = energy_mj = None
    if rapl.packages:
        joules = rapl.joules_between(energy_before, energy_after)
        power_w = joules / (after.wall_s - before.wall_s)
        energy_mj = 1e3 * joules / request["iterations"]
    else:
        absent.update(dict.fromkeys(("power_w", "energy_mj", "idle_power_w"), rapl.absent))
    return {
        "latency_ms": summarize(latency_ms),
        "stages_ms": stages_ms,
        "load_ms": load_ms,
        "memory_peak_mb": peak_mb,
        "power_w": power_w,
        "energy_mj": energy_mj,
        "idle_power_w": idle_power_w,
        "temperature_c": temperature_c,
        "throttled": throttled,
        "contention": contention.between(before, after),
        "absent": absent,
    }


def summarize(latency_ms: Any) -> Dict[str, Any]:
    """A Latency record of one trial's samples, float64[n] in ms; ``std`` is the sample's (n - 1), 0 for one."""
    p50, p90, p99 = (float(value) for value in np.percentile(latency_ms, (50, 90, 99)))
    return {
        "mean": float(np.mean(latency_ms)),
        "std": float(np.std(latency_ms, ddof=1)) if len(latency_ms) > 1 else 0.0,
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "n": len(latency_ms),
        "trials": 1,
    }


def memory_peak_mb() -> float:
    """The most memory this process has held (1e6 bytes); getrusage would tell the parent's, inherited over fork."""
    with open("/proc/self/status", encoding="ascii") as file:
        found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
    if found is None:
        raise OSError("/proc/self/status has no VmHWM")
    return int(found.group(1)) * 1024 / 1e6


def _timed(engine: Engine, image: Any, iterations: int, progress: Progress, unit: str) -> Any:
    """Latencies of ``iterations`` inferences, float64[iterations] in ms, the clock around ``infer`` alone."""
    samples_ms = np.zeros(iterations, dtype=np.float64)
    clock = time.perf_counter
    told = clock()
    gc.collect()
    gc.disable()
    try:
        for number in range(iterations):
            start = clock()
            engine.infer(image)
            end = clock()
            samples_ms[number] = 1e3 * (end - start)
            if end - told > PROGRESS_S:
                progress(number + 1, iterations, unit)
                told = clock()
    finally:
        gc.enable()
    return samples_ms


def _stages(engine: Engine, images: List[Any], manifest: Mapping[str, Any], progress: Progress) -> Dict[str, float]:
    """Mean time per real image of resizing, inference and detections, ms; decoding the file is not counted."""
    totals = np.zeros(3)
    for number, image in enumerate(images):
        marks: Tuple[float, ...] = (time.perf_counter(),)
        tensor, frame = prepare(image, manifest)
        marks += (time.perf_counter(),)
        boxes, scores = engine.infer(tensor)
        marks += (time.perf_counter(),)
        detect(boxes, scores, frame, manifest)
        marks += (time.perf_counter(),)
        totals += np.diff(marks)
        progress(number + 1, len(images), "images through all stages")
    return dict(zip(("pre", "infer", "post"), (1e3 * totals / len(images)).tolist()))


def _idle_power_w(rapl: sensors.Rapl, seconds: float) -> float:
    before, start = rapl.read_uj(), time.perf_counter()
    time.sleep(seconds)
    after, end = rapl.read_uj(), time.perf_counter()
    return rapl.joules_between(before, after) / (end - start)
