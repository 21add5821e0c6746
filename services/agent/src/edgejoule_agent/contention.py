"""What others did on the host while we measured."""

import os
import re
import time
from typing import Any, Dict, NamedTuple, Optional

# beyond these the median of a one-thread inference moves by more than its own spread between trials
OTHERS_LIMIT = 0.05
PRESSURE_LIMIT = 0.02


class Snapshot(NamedTuple):
    """The host's clocks at one moment."""

    wall_s: float
    busy_s: float  # CPU time of everybody since boot, time stolen by the hypervisor included
    total_s: float  # CPU time there was
    own_s: float  # CPU time of this process, its threads and reaped children
    load1: float
    pressure_some_us: Optional[int]


def snapshot(root: str = "/") -> Snapshot:
    """Read /proc/stat, loadavg and the pressure-stall total."""
    with open(os.path.join(root, "proc/stat"), encoding="ascii") as file:
        # user nice system idle iowait irq softirq steal; guest time is in user already
        ticks = [int(part) for part in file.readline().split()[1:9]]
    with open(os.path.join(root, "proc/loadavg"), encoding="ascii") as file:
        load1 = float(file.readline().split()[0])
    own = os.times()
    per_second = os.sysconf("SC_CLK_TCK")
    idle = ticks[3] + ticks[4]
    return Snapshot(
        wall_s=time.perf_counter(),
        busy_s=(sum(ticks) - idle) / per_second,
        total_s=sum(ticks) / per_second,
        own_s=sum(own[:4]),
        load1=load1,
        pressure_some_us=_pressure(os.path.join(root, "proc/pressure/cpu")),
    )


def between(before: Snapshot, after: Snapshot) -> Dict[str, Any]:
    """A Contention record.

    ``contended`` when others (or a hypervisor) took over 5 % of the CPU time, or somebody waited for a CPU over
    2 % of the time.
    """
    total = after.total_s - before.total_s
    others = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    share = min(1.0, max(0.0, others / total)) if total > 0 else 0.0
    pressure = None
    if before.pressure_some_us is not None and after.pressure_some_us is not None:
        pressure = after.pressure_some_us - before.pressure_some_us
    wall_us = 1e6 * (after.wall_s - before.wall_s)
    return {
        "contended": share > OTHERS_LIMIT or (pressure is not None and pressure > PRESSURE_LIMIT * wall_us),
        "other_cpu_share": share,
        "load1_before": before.load1,
        "load1_after": after.load1,
        "pressure_some_us": pressure,
    }


def _pressure(path: str) -> Optional[int]:
    """The ``some`` total in microseconds; None where the kernel has no pressure stall information."""
    try:
        with open(path, encoding="ascii") as file:
            return int(re.search(r"some .*total=(\d+)", file.read()).group(1))  # type: ignore[union-attr]
    except OSError:
        return None
