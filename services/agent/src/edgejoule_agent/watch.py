"""Watch the power of this device while something runs on it, and say what that took.

    with Watch(supply()) as watch:
        rest = watch.mark(), watch.rest(10)
        begin = watch.mark()
        ...                                    # many inferences, 10 s or more
        end = watch.mark(closing=True)
        found, reason = watch.energy(begin, end, inferences, rest)

A board's power is sampled on its total rail (or several are added, none of which feeds another). A host's comes from
counters, which need no sampler: of its processor packages (RAPL) or, where an engine runs on an NVIDIA GPU, of that
GPU's board (NVML). The two are never added: a sum would pass for the whole machine. Where there is nothing to read,
``energy`` gives None and why.
"""

import time
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edgejoule_agent import boards, jetson
from edgejoule_agent.energy import Accuracy, Energy, Resolution, above_idle, from_counters, integrate
from edgejoule_agent.errors import SensorError
from edgejoule_agent.sampler import PERIOD_S, Sampler, Samples
from edgejoule_agent.sensors.nvml import GpuEnergy, find_gpu_energy
from edgejoule_agent.sensors.rapl import Rapl, find_rapl
from edgejoule_agent.sensors.throttle import Snapshot, Verdict, snapshot, verdict


class Supply(NamedTuple):
    """What tells how much power a device takes."""

    rails: Tuple[str, ...]  # of a board: those that together hold what it takes, none of which feeds another
    of: str  # of what the power is, and what is not in it
    absent: str  # why nothing tells; empty where something does
    counters: Union[Rapl, GpuEnergy, None] = None  # of a host


def supply(root: str = "/", on_gpu: bool = False) -> Supply:
    """A board's total by the table of boards, never a sum of overlapping rails; a host's RAPL counters or its GPU's.

    Args:
        on_gpu: what runs works on a GPU; on a board that makes no difference.
    """
    facts = jetson.probe(root)
    if facts is None and on_gpu:
        gpu, absent = find_gpu_energy()
        words = "" if gpu is None else f"gpu board, {gpu.name}, by NVML; not in it: the rest of the machine"
        return Supply((), words, absent, gpu)
    if facts is None:
        rapl = find_rapl(root)
        return Supply((), "the processor packages, by RAPL; not in it: the rest of the machine", rapl.absent, rapl)
    found = boards.board_of([facts["module"] or ""])
    if found is None:
        return Supply((), "", f"which rail holds the others is not known of this board: {facts['absent']['board']}")
    rails = found[0].rails
    names = rails.add if rails.total is None else (rails.total,)
    if not names:
        return Supply((), "", rails.why)
    words = f"rail {names[0]}" if len(names) == 1 else f"rails {' + '.join(names)}, since {rails.why}"
    return Supply(names, words + (f"; not in it: {rails.leaves_out}" if rails.leaves_out else ""), "")


class Mark(NamedTuple):
    """A moment, with what the energy counters said then, and a look for throttling."""

    time_s: float
    counters_uj: Dict[str, int]
    look: Snapshot


class Watch:
    """Sees the device's power from ``with`` to its end. Never fails for want of a sensor: ``energy`` tells the reason.

    The sampler asks for real-time scheduling; where it may not have it, it samples without, and ``energy`` says why.

    Args:
        source: what tells the power.
    """

    def __init__(self, source: Supply, root: str = "/", period_s: float = PERIOD_S) -> None:
        self._root, self._total = root, list(source.rails)
        self._counters = source.counters
        self._sampler = Sampler(self._total, root, period_s, realtime=True) if self._total else None
        self._absent = source.absent

    def __enter__(self) -> "Watch":
        if self._sampler is not None:
            try:
                self._sampler.__enter__()
            except SensorError as error:
                self._absent = str(error)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._sampler is not None:
            self._sampler.__exit__()
            self._sampler.close()

    @property
    def absent(self) -> str:
        """Why no power can be told; empty where it can, as far as is known yet. Ask within the ``with``."""
        return self._absent

    def mark(self, closing: bool = False) -> Mark:
        """This moment. A look for throttling takes milliseconds: before it or, ``closing`` what is timed, after it."""
        look = None if closing else snapshot(self._root)
        counters_uj: Dict[str, int] = {}
        if self._counters is not None and not self._absent:
            try:
                counters_uj = self._counters.read_uj()
            except SensorError as error:
                self._absent = str(error)
        now_s = time.monotonic()
        return Mark(now_s, counters_uj, snapshot(self._root) if look is None else look)

    def rest(self, seconds: float) -> Mark:
        """Wait, and mark the end of it."""
        time.sleep(seconds)
        return self.mark(closing=True)

    def energy(
        self, begin: Mark, end: Mark, inferences: int, rest: Optional[Tuple[Mark, Mark]] = None
    ) -> Tuple[Optional[Dict[str, Any]], str]:
        """What ``inferences`` took between two marks; or None and the reason. Not after the ``with``.

        Args:
            rest: begin and end of a time of idling, to be subtracted.

        Returns:
            energy_mj per inference, power_w, idle_power_w, energy_above_idle_mj per inference, each with its
            ``_uncertainty`` (half-width at 95 %); sensor_error_mj, the sensor's own error (None: no data sheet);
            samples, period_s and max_gap_s of the sampling; window_s; realtime (the sampler's words). What needs
            ``rest`` is None where that is not given or told nothing, and ``idle_absent`` says why.
        """
        try:
            samples = self._samples()
            busy = self._between(samples, begin, end)
        except SensorError as error:
            return None, str(error)
        found: Dict[str, Any] = {
            "energy_mj": 1e3 * busy.joules / inferences,
            "energy_uncertainty_mj": 1e3 * busy.uncertainty_j / inferences,
            "sensor_error_mj": None if busy.sensor_error_j is None else 1e3 * busy.sensor_error_j / inferences,
            "power_w": busy.power_w,
            "power_uncertainty_w": busy.power_uncertainty_w,
            "samples": busy.samples,
            "period_s": busy.period_s,
            "max_gap_s": busy.max_gap_s,
            "window_s": busy.window_s,
            "realtime": None if samples is None else samples.realtime,
            "idle_absent": "",
        }
        names = ("energy_above_idle_mj", "energy_above_idle_uncertainty_mj", "idle_power_w", "idle_power_uncertainty_w")
        found.update(dict.fromkeys(names))
        if rest is None:
            found["idle_absent"] = "nobody measured it idling"
            return found, ""
        try:
            idle = self._between(samples, *rest)
        except SensorError as error:
            found["idle_absent"] = f"while idling: {error}"
            return found, ""
        if samples is not None and self._frozen(samples, rest, (begin, end)):
            return None, f"the rail is stuck: it reads {busy.power_w:.3f} W without any change, idle and at work"
        joules, uncertainty_j = above_idle(busy, idle)
        values = (joules / inferences, uncertainty_j / inferences, idle.power_w, idle.power_uncertainty_w)
        found.update(zip(names, (1e3 * values[0], 1e3 * values[1], *values[2:])))
        return found, ""

    def throttled(self, begin: Mark, end: Mark) -> Verdict:
        """Whether it was throttled between two marks, by their looks and the sampler's."""
        between = self._sampler.samples().looks if self._sampler is not None and not self._absent else []
        return verdict([begin.look, *(look for look in between if begin.time_s < look.time_s < end.time_s), end.look])

    def states(self, begin: Mark, end: Mark) -> Tuple[Optional[Dict[str, float]], str]:
        """Means of clocks, loads, fan and memory between two marks; or None and why. Not after the ``with``."""
        try:
            samples = self._samples()
        except SensorError as error:
            return None, f"no sampler looked: {error}"
        if samples is None:
            return None, "no sampler looks on a host: its energy counters need none"
        seen = [
            states for look, states in zip(samples.looks, samples.states) if begin.time_s < look.time_s < end.time_s
        ]
        if not seen:
            return None, f"the sampler did not look within {end.time_s - begin.time_s:.1f} s"
        names = sorted({name for states in seen for name in states})
        return {name: float(np.mean([states[name] for states in seen if name in states])) for name in names}, ""

    def _samples(self) -> Optional[Samples]:
        if self._absent:
            raise SensorError(self._absent)
        return None if self._sampler is None else self._sampler.samples()

    def _between(self, samples: Optional[Samples], begin: Mark, end: Mark) -> Energy:
        """Energy between two marks. Raises SensorError."""
        if samples is None:
            counters = self._counters
            assert counters is not None
            grown_j = counters.grown_j(begin.counters_uj, end.counters_uj)
            return from_counters(grown_j, end.time_s - begin.time_s, counters.step_j, counters.update_s)
        steps = samples.resolutions
        try:
            return integrate(
                samples.times_s,
                samples.powers_w.sum(axis=1),
                (begin.time_s, end.time_s),
                # the steps of several rails at once, at worst all the same way
                Resolution(sum(step.step_w for step in steps), max(step.step_share for step in steps)),
                _added(samples.accuracies),
                samples.period_s,
            )
        except SensorError as error:
            said = "; ".join(samples.failures.values())
            raise SensorError(f"{error}: {said}" if said and said != str(error) else str(error)) from error

    @staticmethod
    def _frozen(samples: Samples, *windows: Tuple[Mark, Mark]) -> bool:
        """Whether every reading of all windows is one and the same; a load must show."""
        inside = np.zeros(len(samples.times_s), dtype=bool)
        for begin, end in windows:
            inside |= (samples.times_s >= begin.time_s) & (samples.times_s <= end.time_s)
        powers = samples.powers_w.sum(axis=1)[inside]
        return len(np.unique(powers[np.isfinite(powers)])) == 1


def _added(errors: Sequence[Optional[Accuracy]]) -> Optional[Accuracy]:
    """Largest errors of rails added up; None where one is not known."""
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    return Accuracy(max(error.gain for error in known), sum(error.offset_w for error in known))
