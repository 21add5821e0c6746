"""What a trial lets others see while it runs: how long its inferences took, and in the end what it came to.

The agent that shows metrics names its state folder in the environment of its steps; a trial then keeps a small file for
its cell in there, which the exporter reads. Between two inferences and at most twice a second, so no latency holds any
of it; where nobody looks, nothing happens. A file that cannot be written harms no trial.

    STATE/live/CELL.json   detector, precision; now: {stage, pid}, None outside a trial's window; trial: see ``keep``;
                           stages: {stage: {inferences, counts, sum_s}}, counts empty of a stage that times none;
                           means: {trial_s, baseline_s} of the trial under way, or last, from its measuring on;
                           engines: [{engine, power_mode, threads, trials, mean_s}], the latest last

The baseline of a trial is what earlier ones of the very same engine came to here, by the engine's hash, in the power
mode and with the threads that were asked for. A throttled trial is no part of it.
"""

import contextlib
import json
import os
import re
import time
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np

from edgejoule_agent import metrics

VARIABLE = "EDGEJOULE_LIVE"  # in the environment of steps: the state folder of the agent that shows them
TIMED = ("warm-up", "measure")
STAGES = (*TIMED, "power")  # the last is the window of the power alone, where no inference is timed
HISTOGRAM = "edgejoule_inference_latency_seconds"
ENGINES = 16  # of a cell, that a baseline is kept of

Show = Callable[[Any], None]
Count = Callable[[int], None]


def expect() -> None:
    """Show a cell's counters at 0 from its first job on, its build as a rule.

    A short trial is over between two scrapes; of counters first seen with all of it in them ``rate()`` sees nothing.
    """
    place = _place()
    if place is not None and not os.path.exists(place):
        _write(place, _counting(_read(place)))


def begin(stage: str) -> Show:
    """A stage of the trial begins, one of ``TIMED``; returns what is told latencies, float[n] in ms."""
    place = _place()
    if place is None:
        return lambda latencies_ms: None
    bounds_s, kept = _bounds_s(), _begun(place, stage)
    told, means = kept["stages"][stage], kept["means"]
    had, had_s = told["inferences"], told["sum_s"]

    def show(latencies_ms: Any) -> None:
        """Add latencies; each falls under the first bound that it does not exceed."""
        latencies_s = np.asarray(latencies_ms, dtype=np.float64) / 1e3
        under = np.searchsorted(bounds_s, latencies_s, side="left")
        counts = np.bincount(under, minlength=len(bounds_s) + 1)
        told["counts"] = [int(count) + more for count, more in zip(told["counts"], counts.tolist())]
        told["sum_s"] += float(latencies_s.sum())
        told["inferences"] += len(latencies_s)
        if stage == "measure" and told["inferences"] > had:
            means["trial_s"] = (told["sum_s"] - had_s) / (told["inferences"] - had)
        _write(place, kept)

    show([])
    return show


def begin_untimed(stage: str) -> Count:
    """A stage of the trial begins that times no inference; returns what is told how many more there were."""
    place = _place()
    if place is None:
        return lambda inferences: None
    kept = _begun(place, stage)

    def count(inferences: int) -> None:
        kept["stages"][stage]["inferences"] += inferences
        _write(place, kept)

    count(0)
    return count


def end_window() -> None:
    """The trial's window has closed: what runs from here on is not counted, and the cell is no longer at work."""
    place = _place()
    if place is not None:
        _write(place, dict(_read(place), now=None))


def _bounds_s() -> Any:
    return np.array(metrics.load()[HISTOGRAM]["buckets"])


def _begun(place: str, stage: str) -> Dict[str, Any]:
    """What the file of a cell holds when a stage begins."""
    kept = _counting(_read(place))
    kept["now"] = {"stage": stage, "pid": os.getpid()}
    if stage in TIMED:
        known = _known(kept, _engine()) if stage == "measure" else None
        kept["means"] = {"trial_s": None, "baseline_s": known["mean_s"] if known else None}
    return kept


def _counting(kept: Dict[str, Any]) -> Dict[str, Any]:
    """The same, with counters of every stage, so that each is seen at 0 before it grows."""
    buckets = len(_bounds_s()) + 1
    for name in STAGES:
        told = kept["stages"].setdefault(name, {})
        counts = [0] * buckets if name in TIMED else []
        if len(told.get("counts", ())) != len(counts) or "inferences" not in told:  # new, or of another release
            told.update(counts=counts, sum_s=0.0, inferences=0)
    return kept


def keep(record: Mapping[str, Any]) -> None:
    """Show what a BenchmarkRecord says of the whole trial, until the cell's next one has ended."""
    place = _place()
    if place is None:
        return
    kept, latency_ms, engine = _read(place), record["latency_ms"], _engine()
    known, mean_s = _known(kept, engine), latency_ms["mean"] / 1e3
    kept["now"], kept["means"] = None, {"trial_s": mean_s, "baseline_s": known["mean_s"] if known else None}
    if engine is not None and record["throttled"] != "yes":
        before = known or dict(engine, trials=0, mean_s=0.0)
        trials = before["trials"] + 1
        before = dict(before, trials=trials, mean_s=before["mean_s"] + (mean_s - before["mean_s"]) / trials)
        kept["engines"] = [*(each for each in kept["engines"] if each is not known), before][-ENGINES:]
    kept["trial"] = {
        "latency_s": {"0.5": latency_ms["p50"] / 1e3, "0.9": latency_ms["p90"] / 1e3, "0.99": latency_ms["p99"] / 1e3},
        "energy_j": None if record["energy_mj"] is None else record["energy_mj"] / 1e3,
        "idle_power_w": record["idle_power_w"],
        "ended_s": time.time(),
    }
    _write(place, kept)


def cell_of(step: str) -> Optional[Dict[str, str]]:
    """The labels of a step's cell, by the step's id.

    >>> cell_of("benchmark/nanodet_m/int8-ptq/nano/0")
    {'detector': 'nanodet_m', 'precision': 'int8-ptq'}
    >>> cell_of("analyze")
    """
    parts = step.split("/")
    return {"detector": parts[1], "precision": parts[2]} if len(parts) > 3 else None


def _job() -> Dict[str, Any]:
    """The job at hand, as the agent was given it.

    Raises:
        OSError, ValueError: there is none that can be read.
    """
    with open(os.path.join(os.environ[VARIABLE], "job", "job.json"), encoding="utf-8") as file:
        found: Dict[str, Any] = json.load(file)
        return found


def _engine() -> Optional[Dict[str, Any]]:
    """The engine that the job at hand measures, and what it was asked to be measured with; None of another job."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        job = _job()
        asked = job["parameters"]
        return {
            "engine": job["inputs"]["engine"],
            "power_mode": asked.get("power_mode"),
            "threads": asked.get("threads"),
        }
    return None


def _known(kept: Mapping[str, Any], engine: Optional[Mapping[str, Any]]) -> Optional[Dict[str, Any]]:
    """What earlier trials of this engine came to, or None where there were none."""
    for each in kept["engines"]:
        if engine is not None and all(each[name] == value for name, value in engine.items()):
            found: Dict[str, Any] = each
            return found
    return None


def _place() -> Optional[str]:
    """The file of the cell that is measured, or None where nobody looks."""
    state = os.environ.get(VARIABLE)
    if not state:
        return None
    try:
        cell = cell_of(_job()["step"])
        if cell is None:
            return None
        folder = os.path.join(state, "live")
        os.makedirs(folder, exist_ok=True)
    except (OSError, ValueError, KeyError):
        return None
    name = "{detector}@{precision}".format(**cell)
    return os.path.join(folder, re.sub(r"[^\w@.-]", "_", name) + ".json")


def _read(place: str) -> Dict[str, Any]:
    kept: Dict[str, Any] = {"detector": None, "precision": None, "stages": {}, "now": None, "trial": None}
    kept.update(means={"trial_s": None, "baseline_s": None}, engines=[])
    with contextlib.suppress(OSError, ValueError), open(place, encoding="utf-8") as file:
        kept.update(json.load(file))  # one of another release may lack some
    return kept


def _write(place: str, kept: Dict[str, Any]) -> None:
    """The whole file or none, so that no reader meets half of it."""
    name = os.path.basename(place)[: -len(".json")]
    kept["detector"], kept["precision"] = name.split("@", 1)
    with contextlib.suppress(OSError):
        with open(place + ".new", "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(place + ".new", place)
