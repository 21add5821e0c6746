"""One trial, in a process of its own: rest, idle power, warm-up, timed inferences, energy, stages.

Called in a child (see ``isolate``). While inferences are timed nothing else happens in the process: garbage
collection is off, and progress is told between two inferences, at most twice a second. Power is sampled by another
process (see ``watch``). Where it can be read, inferring goes on after the last timed inference until the power's
window is full: energies need seconds, percentiles need a count.
"""

import gc
import re
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgejoule_agent import conditions, contention, live, sensors
from edgejoule_agent.engines import Engine, load, recorded_batch
from edgejoule_agent.errors import OutOfMemoryError, ShardError
from edgejoule_agent.isolate import Progress
from edgejoule_agent.postprocess import detect
from edgejoule_agent.preprocess import decode, prepare, stack
from edgejoule_agent.shards import ShardReader
from edgejoule_agent.watch import Supply, Watch, supply

PROGRESS_S = 0.5
GPU_RUNTIMES = ("tensorrt",)
STREAMS = 2  # of the throughput: one copies while the other executes
AGAINST_IDLE = ("idle_power_w", "idle_power_uncertainty_w", "energy_above_idle_mj", "energy_above_idle_uncertainty_mj")
POWER = (
    *("power_of", "power_w", "power_uncertainty_w", "energy_mj", "energy_uncertainty_mj", "sensor_error_mj"),
    *AGAINST_IDLE,
    *("sampling", "window_s", "window_inferences"),
)


def trial(request: Mapping[str, Any], progress: Progress) -> Dict[str, Any]:
    """Measure one engine.

    ``request``: engine (file), engine_record, shard, threads, protocol (what a trial does, see core's
    ``Protocol.measuring``), stage_images, samples (npz to write), root (where sys and proc lie, if not in /).

    Returns:
        The measured part of a BenchmarkRecord, ``absent`` included.
    """
    record, protocol, root = request["engine_record"], request["protocol"], request.get("root", "/")
    runtime, first = record["hardware"]["runtime"], first_batch(request["shard"], record)
    started_at = utc_now()
    settled, unsettled = conditions.settle(protocol, progress, root)
    source = supply(root, on_gpu=runtime in GPU_RUNTIMES)
    with Watch(source, root, period_s=protocol["power_sampling_ms"] / 1e3) as watch:
        rest = None if watch.absent else (watch.mark(), watch.rest(protocol["idle_s"]))
        start = time.perf_counter()
        engine = load(request["engine"], record, request["threads"])
        load_ms = 1e3 * (time.perf_counter() - start)
        with engine:
            _timed(engine, first, protocol["warmup_iterations"], progress, "warm-up inferences")
            before, begin = contention.snapshot(), watch.mark()
            latency_ms, execution_ms = _timed(engine, first, protocol["iterations"], progress, "inferences")
            more = 0
            if not watch.absent:
                more = _keep_busy(engine, first, begin.time_s, protocol["power_window_s"], progress)
            end, after = watch.mark(closing=True), contention.snapshot()
            live.end_window()
            peak_mb = memory_peak_mb()  # before the pictures of the stages, which are no part of the engine
            overlapped, not_overlapped = _throughput(engine, first, protocol["power_window_s"], record, progress)
            with ShardReader(request["shard"]) as reader:
                images = [decode(reader.read(image_id)) for image_id in reader.ids[: request["stage_images"]]]
            stages_ms = _stages(engine, images, record, progress)
            device_bytes, host_bytes = engine.device_memory_bytes, engine.host_memory_bytes
        inferences = protocol["iterations"] + more
        power, absent = tell_power(source, watch.energy(begin, end, inferences, rest), inferences)
        throttled = watch.throttled(begin, end)
        states, no_states = watch.states(begin, end)
    samples = {"latency_ms": latency_ms}
    if execution_ms is not None:
        samples["execution_ms"] = execution_ms
    with open(request["samples"], "wb") as file:
        np.savez(file, **samples)

    temperature_c, no_temperature = sensors.temperature_c(root)
    measured = dict(
        power,
        execution_ms=None if execution_ms is None else summarize(execution_ms),
        preconditioning=settled,
        throughput=overlapped,
        states=states,
        device_memory_mb=None if device_bytes is None else device_bytes / 1e6,
        temperature_c=temperature_c,
    )
    reasons = dict(
        absent,
        execution_ms=f"{runtime} does not time its execution apart from the call",
        preconditioning=unsettled,
        throughput=not_overlapped,
        states=no_states,
        device_memory_mb=(
            "what was free did not fall while the engine was loaded: others gave memory back meanwhile"
            if runtime in GPU_RUNTIMES
            else f"engines of {runtime} are in the process's own memory"
        ),
        temperature_c=no_temperature,
    )
    return dict(
        measured,
        started_at=started_at,
        latency_ms=summarize(latency_ms),
        stages_ms=stages_ms,
        load_ms=load_ms,
        load_memory_mb=host_bytes / 1e6,
        memory_peak_mb=peak_mb,
        throttled=throttled.throttled,
        throttled_evidence=throttled.evidence,
        contention=contention.between(before, after),
        absent={name: reasons[name] for name, value in measured.items() if value is None},
    )


def first_batch(shard: Any, record: Mapping[str, Any]) -> Any:
    """The first images of a shard, from its first again where they are too few, as float32[B,3,H,W] for an engine.

    Raises:
        ShardError: there is none.
    """
    with ShardReader(shard) as reader:
        if not reader.ids:
            raise ShardError(f"{shard}: holds no image; give the evaluation set at least one per shard")
        ids = [reader.ids[place % len(reader.ids)] for place in range(recorded_batch(record))]
        return stack([prepare(decode(reader.read(image_id)), record["model"])[0] for image_id in ids])


def tell_power(
    source: Supply, energy: Tuple[Optional[Dict[str, Any]], str], inferences: int
) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """The fields ``POWER`` of a BenchmarkRecord from ``Watch.energy``, and the reason for each that is None."""
    found, reason = energy
    if found is None:
        return dict.fromkeys(POWER), dict.fromkeys(POWER, reason)
    sampling = {name: found[name] for name in ("period_s", "max_gap_s", "samples")}
    sampling["realtime"] = found["realtime"] or "no sampler: counters are read"
    fields = {name: found[name] for name in POWER if name in found}
    fields.update(power_of=source.of, sampling=sampling, window_inferences=inferences)
    why = {"sensor_error_mj": "no data sheet tells this sensor's largest error"}
    return fields, dict(why, **dict.fromkeys(AGAINST_IDLE, found["idle_absent"]))


def utc_now() -> str:
    """The time as records write it: UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


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


def _timed(engine: Engine, image: Any, iterations: int, progress: Progress, unit: str) -> Tuple[Any, Optional[Any]]:
    """Latencies of ``iterations`` inferences, float64[iterations] in ms, the clock around ``infer`` alone.

    Beside them the executions alone, where the engine times these.
    """
    samples_ms = np.zeros(iterations, dtype=np.float64)
    executions_ms = np.full(iterations, np.nan)
    show = live.begin("warm-up" if unit.startswith("warm-up") else "measure")
    shown, clock = 0, time.perf_counter
    told = clock()
    gc.collect()
    gc.disable()
    try:
        for number in range(iterations):
            start = clock()
            engine.infer(image)
            end = clock()
            samples_ms[number] = 1e3 * (end - start)
            if engine.execution_ms is not None:
                executions_ms[number] = engine.execution_ms
            if end - told > PROGRESS_S:
                progress(number + 1, iterations, unit)
                show(samples_ms[shown : number + 1])
                shown, told = number + 1, clock()
    finally:
        gc.enable()
    show(samples_ms[shown:])
    return samples_ms, executions_ms if np.isfinite(executions_ms).all() and iterations else None


def _keep_busy(engine: Engine, image: Any, begin_s: float, window_s: float, progress: Progress) -> int:
    """Infer on until ``window_s`` after ``begin_s`` (monotonic), and how often that was; no clock around any."""
    clock, done, counted = time.monotonic, 0, 0
    count = live.begin_untimed("power")
    told = now = clock()
    gc.disable()
    try:
        while now < begin_s + window_s:
            engine.infer(image)
            done += 1
            now = clock()
            if now - told > PROGRESS_S:
                progress(round(now - begin_s), round(window_s), "seconds of the power's window")
                count(done - counted)
                told, counted = now, done
    finally:
        gc.enable()
    count(done - counted)
    return done


def _throughput(
    engine: Engine, image: Any, window_s: float, record: Mapping[str, Any], progress: Progress
) -> Tuple[Optional[Dict[str, Any]], str]:
    """A Throughput record, or None and why."""
    told_s = 0.0

    def tell(passed_s: float) -> None:
        nonlocal told_s
        if passed_s - told_s > PROGRESS_S:
            progress(round(passed_s), round(window_s), "seconds of the throughput")
            told_s = passed_s

    try:
        found = engine.throughput(image, STREAMS, window_s, tell)
    except OutOfMemoryError as error:
        return None, f"{STREAMS} streams: {error}"
    if found is None:
        return None, f"engines of {record['hardware']['runtime']} take one inference at a time here"
    return dict(found._asdict()), ""


def _stages(engine: Engine, images: List[Any], record: Mapping[str, Any], progress: Progress) -> Dict[str, float]:
    """Mean time per real image of resizing, inference and detections, ms; decoding the file is not counted.

    In whole batches, so that of the inference it is an image's share; the last is filled up with the first images.
    """
    manifest, batch, totals = record["model"], recorded_batch(record), np.zeros(3)
    count = len(images) + -len(images) % batch
    for done in range(0, count, batch):
        several = [images[place % len(images)] for place in range(done, done + batch)]
        marks: Tuple[float, ...] = (time.perf_counter(),)
        prepared = [prepare(image, manifest) for image in several]
        tensor = stack([image for image, _ in prepared])
        marks += (time.perf_counter(),)
        all_boxes, all_scores = engine.infer(tensor)
        marks += (time.perf_counter(),)
        for (_, frame), boxes, scores in zip(prepared, all_boxes, all_scores):
            detect(boxes, scores, frame, manifest)
        marks += (time.perf_counter(),)
        totals += np.diff(marks)
        progress(min(done + batch, len(images)), len(images), "images through all stages")
    return dict(zip(("pre", "infer", "post"), (1e3 * totals / count).tolist()))
