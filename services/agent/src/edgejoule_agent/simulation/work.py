"""Inferences one after the other on a simulated GPU, each as long as the roofline says at the clock of its moment.

The board's files follow the time of day, so the work really lasts so long, and this process sleeps through it. What
will keep the GPU busy is told ahead: however crowded this host is, the board sees the load that a real one would have.
"""

import os
import time
from typing import Any, Callable, List, NamedTuple

from edgejoule_agent.sensors.reading import integer
from edgejoule_agent.sensors.state import gpu_folder
from edgejoule_agent.simulation.declared import Gpu
from edgejoule_agent.simulation.roofline import Layer, latency_s
from edgejoule_agent.simulation.running import LoadPipe, root_of

AHEAD_S = 3.0  # that the GPU's work is told before it begins; so long it goes on after the last inference too
CLOCK_S = 0.02  # between two looks at the clock


class Worked(NamedTuple):
    """What was done: the time of each inference in ms, and from when to when, on the monotonic clock."""

    times_ms: List[float]
    begin_s: float
    end_s: float


def back_to_back(
    layers: List[Layer],
    gpu: Gpu,
    precision: str,
    folder: str,
    iterations: int,
    least_s: float,
    meanwhile: Callable[[List[float]], Any],
) -> Worked:
    """At least so many inferences, and for at least so long, on the board in ``folder``.

    Args:
        meanwhile: called about every ``CLOCK_S`` with the times of all inferences so far, ms.

    Raises:
        EngineError: no board runs there any more.
    """
    clock_file = os.path.join(str(gpu_folder(root_of(folder))), "cur_freq")
    pipe = LoadPipe(folder)
    try:
        times_ms: List[float] = []
        begin_s = reached_s = told_s = time.monotonic()
        while len(times_ms) < iterations or reached_s < begin_s + least_s:
            if told_s < reached_s + AHEAD_S:
                pipe.busy(told_s, told_s + AHEAD_S)
                told_s += AHEAD_S
            takes_s = latency_s(layers, gpu, precision, integer(clock_file))
            several = max(1, int(CLOCK_S / takes_s))
            times_ms += [1e3 * takes_s] * several
            reached_s += several * takes_s
            time.sleep(max(0.0, reached_s - time.monotonic()))
            meanwhile(times_ms)
        return Worked(times_ms, begin_s, reached_s)
    finally:
        pipe.close()
