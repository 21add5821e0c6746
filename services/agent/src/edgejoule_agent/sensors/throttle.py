"""Was it throttled? Evidence from counters, cooling devices, clocks and trip points; a verdict with its words.

Counters (over-current events of Orin and Thor, throttle counts of x86 processors) remember what happened between two
looks. Cooling states, temperatures and clocks tell of their moment only, so a verdict "no" from them needs looks no
farther apart than a throttling lasts. Where nothing tells, the verdict is "unknown", which must not pass as "no".
"""

import os
import re
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from edgejoule_agent import jetson
from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.reading import find, integer, text, text_or
from edgejoule_agent.sensors.state import gpu_folder, gpu_load_file, read_load
from edgejoule_agent.sensors.thermal import THROTTLING_TRIPS, Zone, find_zones, slows

THROTTLE_COUNTS = "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"
OVERCURRENT = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
LOOKS_S = 5.0  # farther apart, a throttling may have come and gone unseen: thermal governors act within seconds
HIGH_LOAD = 0.5


class Snapshot(NamedTuple):
    """One look. Everything is by name; what could not be read is not in it."""

    time_s: float  # monotonic
    counts: Dict[str, int]  # since boot
    cooling: Dict[str, int]  # state of each cooling device that slows something down
    margins_c: Dict[str, float]  # of each zone with a trip that throttles: how far below it
    slow_clocks: Dict[str, str]  # clocks under their locked minimum at high load, in words
    slow_cpus: Dict[str, List[int]]  # clusters under theirs, by their cores ("0 1"): kHz now and locked
    cpu_ticks: Dict[str, List[int]]  # of each core since boot: at work, and in all


class Verdict(NamedTuple):
    """``throttled`` is yes, no or unknown; ``evidence`` says by what, in words."""

    throttled: str
    evidence: str


def snapshot(root: str = "/") -> Snapshot:
    """Look once."""
    zones = find_zones(root)
    return Snapshot(
        time.monotonic(),
        _counts(root),
        _cooling(root, zones),
        _margins(zones),
        _slow_clocks(root),
        # elsewhere a locked clock is what turbo may reach, and promised to nobody
        *((_slow_cpus(root), _cpu_ticks(root)) if jetson.is_jetson(root) else ({}, {})),
    )


def verdict(looks: Sequence[Snapshot]) -> Verdict:
    """Judge a stretch of time from looks at its begin, at its end and between."""
    if len(looks) < 2:
        return Verdict("unknown", "nobody looked at begin and end")
    found = []
    first, last = looks[0], looks[-1]
    shared = sorted(set(first.counts) & set(last.counts))
    for name in shared:
        if last.counts[name] > first.counts[name]:
            found.append(f"{name} {last.counts[name] - first.counts[name]} times")
    for name in sorted({name for look in looks for name in look.cooling}):
        highest = max(look.cooling.get(name, 0) for look in looks)
        if highest > 0:
            found.append(f"cooling device {name} at state {highest}")
    for name in sorted({name for look in looks for name in look.margins_c}):
        least = min(look.margins_c[name] for look in looks if name in look.margins_c)
        if least <= 0:
            found.append(f"zone {name} {-least:.1f} °C over its trip point")
    found += sorted({words for look in looks for words in look.slow_clocks.values()})
    found += sorted({words for before, after in zip(looks, looks[1:]) for words in _slow_at_work(before, after)})
    if found:
        return Verdict("yes", "; ".join(found))

    heat_counted = [name for name in shared if name not in OVERCURRENT.values()]
    if heat_counted:
        return Verdict("no", f"the counters of {', '.join(heat_counted)} stood still")
    seen = set.intersection(*(set(look.cooling) | set(look.margins_c) for look in looks))
    if not seen:
        return Verdict("unknown", "neither throttle counters nor cooling devices nor trip points can be read here")
    apart_s = max(after.time_s - before.time_s for before, after in zip(looks, looks[1:]))
    if apart_s > LOOKS_S:
        return Verdict("unknown", f"nothing seen, but the looks were up to {apart_s:.0f} s apart")
    words = f"{len(looks)} looks at {', '.join(sorted(seen))} saw nothing"
    return Verdict("no", words + (f"; no {', no '.join(shared)}" if shared else "; nothing here counts over-currents"))


def throttle_counts(root: str = "/") -> Optional[int]:
    """How often the CPU was throttled for heat since boot, all counters added; None where it does not count."""
    paths = find(root, THROTTLE_COUNTS)
    return sum(integer(path) for path in paths) if paths else None


def throttled(before: Optional[int], after: Optional[int]) -> str:
    """``yes``, ``no``, or ``unknown``, which must not pass as no."""
    if before is None or after is None:
        return "unknown"
    return "yes" if after > before else "no"


def to_json(look: Snapshot) -> Dict[str, Any]:
    """A snapshot as JSON values."""
    return dict(look._asdict())


def from_json(values: Mapping[str, Any]) -> Snapshot:
    """The snapshot that ``to_json`` was given."""
    return Snapshot(**values)


def _counts(root: str) -> Dict[str, int]:
    counts: Dict[str, int] = {}
    for path in find(root, THROTTLE_COUNTS):
        kind = os.path.basename(path).split("_")[0]
        _add(counts, f"{kind} throttling", path)
    for path in find(root, "sys/class/hwmon/hwmon*/oc[1-3]_event_cnt"):
        _add(counts, OVERCURRENT[os.path.basename(path)[:3]], path)
    return counts


def _add(counts: Dict[str, int], name: str, path: str) -> None:
    try:
        counts[name] = counts.get(name, 0) + integer(path)
    except SensorError:
        counts.pop(name, None)


def _cooling(root: str, zones: Sequence[Zone]) -> Dict[str, int]:
    """Those bound to a trip that throttles, or to none; not those bound only to others, as a fan is."""
    bound: Dict[str, List[str]] = {}
    for zone in zones:
        for trip in zone.trips:
            for device in trip.cooling:
                bound.setdefault(device, []).append(trip.kind)
    states: Dict[str, int] = {}
    for path in find(root, "sys/class/thermal/cooling_device*"):
        name = text_or(os.path.join(path, "type"), "")
        kinds = bound.get(name, list(THROTTLING_TRIPS))
        if not slows(name) or not set(kinds) & set(THROTTLING_TRIPS):
            continue
        try:
            states[name] = max(states.get(name, 0), integer(os.path.join(path, "cur_state")))
        except SensorError:
            continue
    return states


def _margins(zones: Sequence[Zone]) -> Dict[str, float]:
    margins = {}
    for zone in zones:
        trips_c = [trip.temp_c for trip in zone.trips if trip.throttles]
        if not trips_c:
            continue
        try:
            margins[zone.name] = min(trips_c) - zone.read_c()
        except SensorError:
            continue
    return margins


def _slow_clocks(root: str) -> Dict[str, str]:
    """The GPU at high load under a clock that was locked, least = greatest."""
    folder, load = gpu_folder(root), gpu_load_file(root)
    if folder is None or load is None:
        return {}
    try:
        least, greatest, now = (integer(os.path.join(folder, f"{name}_freq")) for name in ("min", "max", "cur"))
        if least == greatest and now < least and read_load(load) >= HIGH_LOAD:
            return {"gpu": f"GPU at {now / 1e6:.0f} MHz under its locked {least / 1e6:.0f} MHz at high load"}
    except SensorError:
        pass  # without it the other evidence decides
    return {}


def _slow_cpus(root: str) -> Dict[str, List[int]]:
    """Clusters under a clock that was locked, least = greatest; how busy they are takes two looks."""
    slow = {}
    for folder in find(root, "sys/devices/system/cpu/cpufreq/policy*"):
        scaling = os.path.join(folder, "scaling_{}_freq")
        try:
            least, greatest, now = (integer(scaling.format(name)) for name in ("min", "max", "cur"))
            if least == greatest and now < least:
                slow[text(os.path.join(folder, "affected_cpus"))] = [now, least]
        except SensorError:
            continue  # without it the other evidence decides
    return slow


def _cpu_ticks(root: str) -> Dict[str, List[int]]:
    ticks = {}
    for line in text_or(os.path.join(root, "proc/stat"), "").splitlines():
        core = re.match(r"cpu(\d+)((?: \d+){8})", line)
        if core is not None:
            # user nice system idle iowait irq softirq steal; guest time is in user already
            each = [int(part) for part in core.group(2).split()]
            ticks[core.group(1)] = [sum(each) - each[3] - each[4], sum(each)]
    return ticks


def _slow_at_work(before: Snapshot, after: Snapshot) -> List[str]:
    """Clusters, in words, that were under their locked clock after a time in which a core of theirs was busy."""
    found = []
    seen = set(before.cpu_ticks) & set(after.cpu_ticks)
    for cores, (now, locked) in after.slow_cpus.items():
        ticks = [(before.cpu_ticks[core], after.cpu_ticks[core]) for core in cores.split() if core in seen]
        if any(end[0] - begin[0] >= HIGH_LOAD * (end[1] - begin[1]) > 0 for begin, end in ticks):
            found.append(f"CPU {cores} at {now / 1e3:.0f} MHz under its locked {locked / 1e3:.0f} MHz at high load")
    return found
