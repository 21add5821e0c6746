"""What a trial lets others see while it runs: how long its inferences took, and in the end what it came to.

The agent that shows metrics names its state folder in the environment of its steps; a trial then keeps a small file for
its cell in there, which the exporter reads. Between two inferences and at most twice a second, so no latency holds any
of it; where nobody looks, nothing happens. A file that cannot be written harms no trial.

    STATE/live/CELL.json   detector, precision; now: {stage, pid}; trial: see ``keep``;
                           stages: {stage: {inferences, counts, sum_s}}, counts empty of a stage that times none
"""

import contextlib
import json
import os
import re
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np

from edgejoule_agent import metrics

VARIABLE = "EDGEJOULE_LIVE"  # in the environment of steps: the state folder of the agent that shows them
TIMED = ("warm-up", "measure")
STAGES = (*TIMED, "power")  # the last is the window of the power alone, where no inference is timed
HISTOGRAM = "edgejoule_inference_latency_seconds"

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
    told = kept["stages"][stage]

    def show(latencies_ms: Any) -> None:
        """Add latencies; each falls under the first bound that it does not exceed."""
        latencies_s = np.asarray(latencies_ms, dtype=np.float64) / 1e3
        under = np.searchsorted(bounds_s, latencies_s, side="left")
        counts = np.bincount(under, minlength=len(bounds_s) + 1)
        told["counts"] = [int(count) + more for count, more in zip(told["counts"], counts.tolist())]
        told["sum_s"] += float(latencies_s.sum())
        told["inferences"] += len(latencies_s)
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


def _bounds_s() -> Any:
    return np.array(metrics.load()[HISTOGRAM]["buckets"])


def _begun(place: str, stage: str) -> Dict[str, Any]:
    """What the file of a cell holds when a stage begins."""
    kept = _counting(_read(place))
    kept["now"] = {"stage": stage, "pid": os.getpid()}
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
    kept, latency_ms = _read(place), record["latency_ms"]
    kept["now"] = None
    kept["trial"] = {
        "latency_s": {"0.5": latency_ms["p50"] / 1e3, "0.9": latency_ms["p90"] / 1e3, "0.99": latency_ms["p99"] / 1e3},
        "energy_j": None if record["energy_mj"] is None else record["energy_mj"] / 1e3,
        "idle_power_w": record["idle_power_w"],
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


def _place() -> Optional[str]:
    """The file of the cell that is measured, or None where nobody looks."""
    state = os.environ.get(VARIABLE)
    if not state:
        return None
    try:
        with open(os.path.join(state, "job", "job.json"), encoding="utf-8") as file:
            cell = cell_of(json.load(file)["step"])
        if cell is None:
            return None
        folder = os.path.join(state, "live")
        os.makedirs(folder, exist_ok=True)
    except (OSError, ValueError, KeyError):
        return None
    name = "{detector}@{precision}".format(**cell)
    return os.path.join(folder, re.sub(r"[^\w@.-]", "_", name) + ".json")


def _read(place: str) -> Dict[str, Any]:
    with contextlib.suppress(OSError, ValueError), open(place, encoding="utf-8") as file:
        kept: Dict[str, Any] = json.load(file)
        return kept
    return {"detector": None, "precision": None, "stages": {}, "now": None, "trial": None}


def _write(place: str, kept: Dict[str, Any]) -> None:
    """The whole file or none, so that no reader meets half of it."""
    name = os.path.basename(place)[: -len(".json")]
    kept["detector"], kept["precision"] = name.split("@", 1)
    with contextlib.suppress(OSError):
        with open(place + ".new", "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(place + ".new", place)
