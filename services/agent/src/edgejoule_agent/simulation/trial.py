"""One trial on a simulated board, in a process of its own: as on a real one, by the files of its tree.

What this host alone decides (loading, memory, pre- and post-processing) is not told as the board's.
"""

import time
from typing import Any, Dict, List, Mapping

import numpy as np

from edgejoule_agent import conditions, contention, live, sensors
from edgejoule_agent.engines import load
from edgejoule_agent.errors import EngineError
from edgejoule_agent.isolate import Progress
from edgejoule_agent.measure import PROGRESS_S, first_batch, summarize, tell_power, utc_now
from edgejoule_agent.optional import require
from edgejoule_agent.simulation import roofline
from edgejoule_agent.simulation.running import declared, read_status, root_of
from edgejoule_agent.simulation.work import Worked, back_to_back
from edgejoule_agent.watch import Watch, supply

WARM_UP_S = 0.5  # until the governor has the clock where it belongs

THIS_HOST = {
    "execution_ms": "the board is simulated: its latency is the execution alone, by its roofline",
    "throughput": "the board is simulated: its inferences come one after the other",
    "device_memory_mb": "the board is simulated: nothing is loaded onto a GPU",
    "load_ms": "the board is simulated: loading takes what it takes on this host",
    "load_memory_mb": "the board is simulated: the memory is this host's",
    "memory_peak_mb": "the board is simulated: the memory is this host's",
    "stages_ms": "the board is simulated: pre- and post-processing run on this host",
}

SILENT_S = 30.0
"""A board that lives tells of itself many times a second; a crowded host may hold it up."""


def trial(request: Mapping[str, Any], progress: Progress) -> Dict[str, Any]:
    """Measure one engine on the board ``request["board"]`` that lives in ``request["folder"]``.

    Request and return are else those of ``measure.trial``.
    """
    record, folder, protocol = request["engine_record"], request["folder"], request["protocol"]
    root, gpu = root_of(folder), declared(request["board"]).gpu
    layers = _layers_of_engine_that_runs(request)

    def work(iterations: int, least_s: float, unit: str) -> Worked:
        told_s, shown = [time.monotonic()], [0]
        show = live.begin("warm-up" if unit.startswith("warm-up") else "measure")

        def meanwhile(times_ms: List[float]) -> None:
            if time.monotonic() > told_s[0] + PROGRESS_S:
                progress(min(len(times_ms), iterations), iterations, unit)
                show(times_ms[shown[0] :])
                told_s[0], shown[0] = time.monotonic(), len(times_ms)

        done = back_to_back(layers, gpu, record["precision"], folder, iterations, least_s, meanwhile)
        show(done.times_ms[shown[0] :])
        return done

    status = read_status(folder)
    while status["gpu_load"] > 0:  # a trial before told its work a little ahead: see ``work``
        if time.monotonic() - status["time_s"] > SILENT_S:
            raise EngineError(f"the simulated board has ended: {folder} tells nothing new; run it again")
        time.sleep(0.1)
        status = read_status(folder)
    started_at, source = utc_now(), supply(root)
    settled, unsettled = conditions.settle(protocol, progress, root)
    with Watch(source, root, period_s=protocol["power_sampling_ms"] / 1e3) as watch:
        rest = watch.mark(), watch.rest(protocol["idle_s"])
        work(protocol["warmup_iterations"], WARM_UP_S, "warm-up inferences")
        before, begin = contention.snapshot(), watch.mark()
        done = work(protocol["iterations"], protocol["power_window_s"], "inferences")
        end, after = watch.mark(closing=True), contention.snapshot()
        live.end_window()
        # the work's own times: the marks lie a little outside
        begin, end = begin._replace(time_s=done.begin_s), end._replace(time_s=done.end_s)
        inferences = len(done.times_ms)
        power, absent = tell_power(source, watch.energy(begin, end, inferences, rest), inferences)
        throttled = watch.throttled(begin, end)
        states, no_states = watch.states(begin, end)
    times_ms = np.array(done.times_ms[: protocol["iterations"]])
    with open(request["samples"], "wb") as file:
        np.savez(file, latency_ms=times_ms)

    temperature_c, no_temperature = sensors.temperature_c(root)
    measured = dict(power, preconditioning=settled, states=states, temperature_c=temperature_c)
    reasons = dict(absent, preconditioning=unsettled, states=no_states, temperature_c=no_temperature)
    return dict(
        measured,
        **dict.fromkeys(THIS_HOST),
        started_at=started_at,
        latency_ms=summarize(times_ms),
        throttled=throttled.throttled,
        throttled_evidence=throttled.evidence,
        contention=contention.between(before, after),
        absent=dict(THIS_HOST, **{name: reasons[name] for name, value in measured.items() if value is None}),
    )


def _layers_of_engine_that_runs(request: Mapping[str, Any]) -> List[roofline.Layer]:
    """After one inference of real pictures in ONNX Runtime: what does not run takes no time either."""
    record = request["engine_record"]
    images = first_batch(request["shard"], record)
    with load(request["engine"], record, request["threads"]) as engine:
        engine.infer(images)
    with open(request["engine"], "rb") as file:
        return roofline.layers_of(require("onnx", "onnxruntime").load_model_from_string(file.read()))
