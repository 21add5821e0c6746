"""One trial on a simulated board, in a process of its own: as on a real one, by the files of its tree.

What this host alone decides (loading, memory, pre- and post-processing) is not told as the board's.
"""

import time
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from edgejoule_agent import boards, contention, jetson, sensors
from edgejoule_agent.engines import load
from edgejoule_agent.errors import ShardError
from edgejoule_agent.isolate import Progress
from edgejoule_agent.measure import PROGRESS_S, summarize
from edgejoule_agent.optional import require
from edgejoule_agent.preprocess import decode, prepare
from edgejoule_agent.shards import ShardReader
from edgejoule_agent.simulation import roofline
from edgejoule_agent.simulation.running import declared, read_status, root_of
from edgejoule_agent.simulation.work import Worked, back_to_back
from edgejoule_agent.watch import Watch

IDLE_S = 3.0
WARM_UP_S = 0.5  # until the governor has the clock where it belongs
WINDOW_S = 3.0  # of inferences whose energy is taken; a model of a board needs no longer look, a board does

THIS_HOST = {
    "load_ms": "the board is simulated: loading takes what it takes on this host",
    "memory_peak_mb": "the board is simulated: the memory is this host's",
    "stages_ms": "the board is simulated: pre- and post-processing run on this host",
}


def trial(request: Mapping[str, Any], progress: Progress) -> Dict[str, Any]:
    """Measure one engine on the board ``request["board"]`` that lives in ``request["folder"]``.

    Request and return are else those of ``measure.trial``.
    """
    record, folder = request["engine_record"], request["folder"]
    root, gpu = root_of(folder), declared(request["board"]).gpu
    layers = _layers_of_engine_that_runs(request)

    def work(iterations: int, least_s: float, unit: str) -> Worked:
        told_s = [time.monotonic()]

        def meanwhile(done: int) -> None:
            if time.monotonic() > told_s[0] + PROGRESS_S:
                progress(min(done, iterations), iterations, unit)
                told_s[0] = time.monotonic()

        return back_to_back(layers, gpu, record["precision"], folder, iterations, least_s, meanwhile)

    while read_status(folder)["gpu_load"] > 0:  # a trial before told its work a little ahead: see ``work``
        time.sleep(0.1)
    with Watch(_total_rails(root), root) as watch:
        rest = watch.mark(), watch.rest(IDLE_S)
        work(request["warmup_iterations"], WARM_UP_S, "warm-up inferences")
        before, begin = contention.snapshot(), watch.mark()
        done = work(request["iterations"], WINDOW_S, "inferences")
        end, after = watch.mark(), contention.snapshot()
        # the work's own times: the marks lie a little outside
        begin, end = begin._replace(time_s=done.begin_s), end._replace(time_s=done.end_s)
        power, no_power = watch.energy(begin, end, len(done.times_ms), rest)
        throttled = watch.throttled(begin, end).throttled
    times_ms = np.array(done.times_ms[: request["iterations"]])
    with open(request["samples"], "wb") as file:
        np.savez(file, latency_ms=times_ms)

    power = power or {"power_w": None, "energy_mj": None, "idle_power_w": None, "idle_absent": no_power}
    temperature_c, no_temperature = sensors.temperature_c(root)
    measured = {
        "power_w": power["power_w"],
        "energy_mj": power["energy_mj"],
        "idle_power_w": power["idle_power_w"],
        "temperature_c": temperature_c,
    }
    reasons = {
        "power_w": no_power,
        "energy_mj": no_power,
        "idle_power_w": power["idle_absent"],
        "temperature_c": no_temperature,
    }
    absent = dict(THIS_HOST, **{name: reasons[name] for name, value in measured.items() if value is None})
    return dict(
        measured,
        latency_ms=summarize(times_ms),
        stages_ms=None,
        load_ms=None,
        memory_peak_mb=None,
        throttled=throttled,
        contention=contention.between(before, after),
        absent=absent,
    )


def _layers_of_engine_that_runs(request: Mapping[str, Any]) -> List[roofline.Layer]:
    """After one inference of a real picture in ONNX Runtime: what does not run takes no time either."""
    record = request["engine_record"]
    with ShardReader(request["shard"]) as reader:
        if not reader.ids:
            raise ShardError(f"{request['shard']}: holds no image; give the evaluation set at least one per shard")
        image = prepare(decode(reader.read(reader.ids[0])), record["model"])[0]
    with load(request["engine"], record, request["threads"]) as engine:
        engine.infer(image)
    with open(request["engine"], "rb") as file:
        return roofline.layers_of(require("onnx", "onnxruntime").load_model_from_string(file.read()))


def _total_rails(root: str) -> Sequence[str]:
    """Names of the rails that together hold all that the board takes."""
    facts = jetson.probe(root) or {}
    found = boards.board_of([facts.get("module") or ""])
    if found is None:
        return ()
    rails = found[0].rails
    return (rails.total,) if rails.total is not None else rails.add
