"""What the agent is at, by the files in its state folder: the job, the trial under way, and the last of each cell."""

import json
import os
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional

from edgejoule_agent.exporter.exposition import Distribution, Readings
from edgejoule_agent.live import HISTOGRAM

KINDS = ("build", "benchmark", "predict")
FORGOTTEN_S = 30 * 24 * 3600.0  # a cell that was not measured for so long is no longer shown


def readings(state: str) -> Readings:
    """What the folder of an agent says now."""
    job = _json(os.path.join(state, "job", "job.json"))
    waiting = os.path.exists(os.path.join(state, "job", "result.json"))
    began = os.path.exists(os.path.join(state, "job", "log"))  # and does not wait for others on this host any more
    running = job["kind"] if job is not None and began and not waiting else None
    found: Readings = {
        "edgejoule_job_running": [({"kind": kind}, float(kind == running)) for kind in KINDS],
        "edgejoule_result_waiting": [({}, float(waiting))],
    }
    heard_s = _changed_s(os.path.join(state, "heard"))
    if heard_s is not None:
        found["edgejoule_gateway_heard_timestamp_seconds"] = [({}, heard_s)]
    disk = os.statvfs(state)
    found["edgejoule_disk_free_bytes"] = [({"volume": "state"}, disk.f_bavail * disk.f_frsize)]
    found["edgejoule_disk_size_bytes"] = [({"volume": "state"}, disk.f_blocks * disk.f_frsize)]
    _add_cells(os.path.join(state, "live"), found, running == "benchmark")
    return found


def _add_cells(folder: str, found: Readings, measuring: bool) -> None:
    latest_s, idle_w = 0.0, None
    for path in _cell_files(folder):
        kept, changed_s = _json(path), _changed_s(path)
        if kept is None or changed_s is None or time.time() - changed_s > FORGOTTEN_S:
            continue
        cell = {"detector": kept["detector"], "precision": kept["precision"]}
        for stage, told in sorted(kept["stages"].items()):
            if told["counts"]:
                _add(found, HISTOGRAM, dict(cell, stage=stage), Distribution(told["counts"], told["sum_s"]))
            _add(found, "edgejoule_inferences_total", dict(cell, stage=stage), told["inferences"])
        now = kept["now"]
        under_way = measuring and now is not None and _lives(now["pid"])
        if under_way:
            _add(found, "edgejoule_cell_info", dict(cell, stage=now["stage"]), 1)
        if under_way or now is None:  # of a trial that broke off, nothing is told
            means = kept.get("means", {})  # a file of another release may have none
            for metric, mean in (("mean", "trial_s"), ("baseline", "baseline_s")):
                if means.get(mean) is not None:
                    _add(found, f"edgejoule_trial_{metric}_latency_seconds", cell, means[mean])
        trial = kept["trial"]
        if trial is not None:
            for quantile, latency_s in sorted(trial["latency_s"].items()):
                _add(found, "edgejoule_trial_latency_seconds", dict(cell, quantile=quantile), latency_s)
            if trial["energy_j"] is not None:
                _add(found, "edgejoule_trial_energy_joules", cell, trial["energy_j"])
            if "ended_s" in trial:  # not of another release
                _add(found, "edgejoule_trial_ended_timestamp_seconds", cell, trial["ended_s"])
            if trial["idle_power_w"] is not None and changed_s > latest_s:
                latest_s, idle_w = changed_s, trial["idle_power_w"]
    if idle_w is not None:
        _add(found, "edgejoule_trial_idle_power_watts", {}, idle_w)


def _cell_files(folder: str) -> Iterator[str]:
    try:
        names: List[str] = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(".json"):
            yield os.path.join(folder, name)


def _add(found: Readings, metric: str, labels: Mapping[str, str], value: Any) -> None:
    found.setdefault(metric, []).append((labels, value))


def _json(path: str) -> Optional[Dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            found: Dict[str, Any] = json.load(file)
            return found
    except (OSError, ValueError):
        return None


def _changed_s(path: str) -> Optional[float]:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
