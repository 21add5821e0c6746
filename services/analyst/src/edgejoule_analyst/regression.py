"""Did anything get worse? Two runs held against each other, cell by cell, with every test corrected for all the others.

AP is compared on the same images: its interval by the paired bootstrap, its p-value by permutation. What repeats by
trials (latency, energy, power, memory) is compared as a ratio, by Welch's t-test of the trials' logarithms. One
correction (Holm) covers every test that was asked for, those of the gated metrics, so that a matrix of a hundred cells
in which nothing changed fails in one of twenty comparisons at most, and not in nearly all. What is not gated is
corrected for every test of the comparison.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from edgejoule.decisions import Change, RunComparison, StatusChange
from edgejoule.errors import OptionError
from edgejoule.records import Evidence, Results, Row
from edgejoule_analyst.bootstrap import NO_EVIDENCE, Estimate
from edgejoule_analyst.figures import (
    METRICS,
    NO_SENSOR_ERROR,
    NOTHING,
    OLD_RESULTS,
    ONE_TRIAL,
    own_relative_error,
    sensor_of,
)
from edgejoule_analyst.significance import Spread, holm
from edgejoule_analyst.words import row_name

STATUS = "status"
PAIRED = ("ap", "ap50")
BY_TRIALS = {
    "latency": "trial_means_ms",
    "latency-p50": "trial_p50_ms",
    "latency-p90": "trial_p90_ms",
    "latency-p99": "trial_p99_ms",
    "energy": "trial_energies_mj",
    "power": "trial_powers_w",
    "memory": "trial_memory_peaks_mb",
}
PER_IMAGE = ("energy",)
"""The trials tell it per inference."""
BY_SENSOR = ("energy", "power")
ROW_FIELD = {"energy": "energy_mj", "power": "power_w", "memory": "memory_peak_mb"}
CONDITIONS = {"power_mode": "power mode", "clocks_locked": "locked clocks", "l4t": "L4T"}
"""Facts of a device's environment that must be alike, since they decide what the same board comes to."""
ALIKE = (
    "every trial of a run came to the same figure, which does not tell how far another would differ, so the difference"
    " between the runs has nothing to be judged by"
)
EXACT = {"size": "size_mb"}
GATES = (STATUS, *PAIRED, *BY_TRIALS, *EXACT)
_GATE = re.compile(r"(?P<metric>[a-z0-9-]+)(:(?P<tolerance>\d+(\.\d+)?)(?P<percent>%?))?")


@dataclass(frozen=True)
class Gate:
    """What makes a comparison fail: a metric worse by evidence, and by more than ``tolerance``."""

    metric: str
    tolerance: float
    """ap, ap50: a fraction; all else: a share of run A's figure."""

    @classmethod
    def parse(cls, text: str) -> Gate:
        """``ap50:0.5`` (points), ``latency:5%``, ``status``.

        >>> Gate.parse("latency:5%")
        Gate(metric='latency', tolerance=0.05)

        Raises:
            OptionError: there is no such metric, or its tolerance is no number, or one in percent for an AP.
        """
        found = _GATE.fullmatch(text)
        if not found or found["metric"] not in GATES or (found["metric"] == STATUS and found["tolerance"]):
            raise OptionError(
                f"--fail-on {text} is not METRIC or METRIC:TOLERANCE, as in ap50:0.5 (points) or latency:5%;"
                f" METRIC is one of {', '.join(GATES)}, and status takes no tolerance"
            )
        if found["metric"] in PAIRED and found["percent"]:
            points = f"{found['metric']}:{found['tolerance']}"
            raise OptionError(
                f"--fail-on {text}: {found['metric']} takes points of 100, not percent of itself: {points}"
            )
        return cls(found["metric"], float(found["tolerance"] or 0) / 100)

    @classmethod
    def parse_all(cls, texts: Sequence[str]) -> list[Gate]:
        """The gates of a command line.

        Raises:
            OptionError: as for one, or two name the same metric.
        """
        gates = [cls.parse(text) for text in texts]
        named = [gate.metric for gate in gates]
        if twice := next((metric for metric in named if named.count(metric) > 1), None):
            both = " and ".join(text for text, metric in zip(texts, named, strict=True) if metric == twice)
            raise OptionError(f"--fail-on names {twice} more than once, as {both}; give it one tolerance")
        return gates


@dataclass(frozen=True)
class PairedChange:
    """B less A on the same images."""

    estimate: Estimate
    p: float


Pair = Callable[[str, str], PairedChange | str]
"""(cell, ap or ap50) to its change, or why it cannot be told."""


def compare(a: Results, b: Results, gates: Sequence[Gate], confidence: float, pair: Pair) -> RunComparison:
    """The answer.

    Args:
        pair: compares an AP of a cell that both runs scored.
    """
    rows_a, rows_b = ({row_name(row): row for row in results.rows} for results in (a, b))
    tolerated = {gate.metric: gate.tolerance for gate in gates}
    statuses = [_status(name, rows_a.get(name), rows_b.get(name), STATUS in tolerated) for name in {**rows_a, **rows_b}]
    changes = []
    for name in (name for name in rows_a if name in rows_b):
        if rows_a[name].status == rows_b[name].status == "ok":
            sides = [(rows[name], results.evidence.get(name, NOTHING)) for rows, results in ((rows_a, a), (rows_b, b))]
            changes += _changes(name, sides[0], sides[1], confidence, pair)
    changes = [_decided(change, tolerated, confidence) for change in _corrected(changes, tolerated)]
    regressed = any(status.fails for status in statuses) or any(change.fails for change in changes)
    not_judged = _not_judged(statuses, changes, tolerated)
    return RunComparison(
        run_a=a.run,
        run_b=b.run,
        confidence=confidence,
        fail_on=[_gate_text(gate) for gate in gates],
        answer="regressed" if regressed else "not judged" if not_judged else "passed",
        not_judged=not_judged,
        statuses=statuses,
        changes=changes,
        notes=_notes(a, b, changes, tolerated),
    )


def _gate_text(gate: Gate) -> str:
    unit = "" if gate.metric in PAIRED else "%"
    return gate.metric + (f":{100 * gate.tolerance:g}{unit}" if gate.tolerance else "")


def _status(name: str, a: Row | None, b: Row | None, gated: bool) -> StatusChange:
    was, now = (row.status if row else None for row in (a, b))
    if b is None:
        says = "is not in run B"
    elif a is None:
        says = f"is new in run B ({b.status})"
    elif was == now:
        says = f"{now} in both"
    else:
        says = f"was {was}, is {now}" + (f": {b.reason}" if b.reason else "")
    return StatusChange(cell=name, a=was, b=now, says=says, fails=gated and was == "ok" and now != "ok")


def _not_judged(
    statuses: Sequence[StatusChange], changes: Sequence[Change], tolerated: Mapping[str, float]
) -> list[str]:
    """Why not every gate is answered, a sentence each. What a row that run B lost would be, nobody knows."""
    gated = [metric for metric in tolerated if metric != STATUS]
    if not gated:
        return []
    told = []
    lost = [status.cell for status in statuses if status.a == "ok" != status.b]
    if lost:
        rows = "1 row was" if len(lost) == 1 else f"{len(lost)} rows were"
        told.append(f"{', '.join(gated)}: {rows} ok in run A, and not ok or not there in run B: {', '.join(lost)}")
    if not any(status.a == "ok" for status in statuses):
        told.append(f"{', '.join(gated)}: no row of run A is ok, so there is nothing to hold run B against")
    reasons: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        if change.metric in gated and change.verdict == "not judged":
            reasons.setdefault((change.metric, change.absent["change"]), []).append(change.cell)
    told += [f"{metric} of {', '.join(cells)}: {reason}" for (metric, reason), cells in reasons.items()]
    return told + [
        f"{metric} of {', '.join(cells)}: its interval lies wholly beyond the tolerance, yet p (Holm) is no evidence:"
        f" too few {'images' if metric in PAIRED else 'trials'}"
        for metric, cells in _seen(changes, tolerated).items()
        if tolerated[metric]
    ]


def _seen(changes: Sequence[Change], tolerated: Mapping[str, float]) -> dict[str, list[str]]:
    """Gated metric to the cells that its intervals put beyond the tolerance, where the corrected test does not."""
    found: dict[str, list[str]] = {}
    for change in changes:
        if change.metric not in tolerated or change.verdict != NO_EVIDENCE or change.low is None or change.high is None:
            continue
        least = -change.high if METRICS[change.metric].higher_is_better else change.low - 1
        if least > tolerated[change.metric]:
            found.setdefault(change.metric, []).append(change.cell)
    return found


Side = tuple[Row, Evidence]


def _changes(name: str, a: Side, b: Side, confidence: float, pair: Pair) -> list[Change]:
    found = [_of_ap(name, metric, a[0], b[0], pair) for metric in PAIRED]
    found += [_of_trials(name, metric, a, b, confidence) for metric in BY_TRIALS]
    return [*found, _of_size(name, a[0], b[0])]


def _of_ap(name: str, metric: str, a: Row, b: Row, pair: Pair) -> Change:
    values = getattr(a, metric), getattr(b, metric)
    if missing := next((row.absent[metric] for row in (a, b) if metric in row.absent), None):
        return _unjudged(name, metric, values, missing)
    found = pair(name, metric)
    if isinstance(found, str):
        return _unjudged(name, metric, values, found)
    estimate = found.estimate
    return _judged(name, metric, values, (estimate.value, estimate.low, estimate.high), found.p)


def _of_trials(name: str, metric: str, a: Side, b: Side, confidence: float) -> Change:
    trials = [
        [each / (row.batch if metric in PER_IMAGE else 1) for each in getattr(evidence, BY_TRIALS[metric])]
        for row, evidence in (a, b)
    ]
    values = tuple(sum(found) / len(found) if found else None for found in trials)
    reason = next(
        (row.absent[field] for row, _ in (a, b) if (field := ROW_FIELD.get(metric, "latency_ms")) in row.absent), None
    )
    reason = reason or (OLD_RESULTS if not all(trials) else None) or unlike(a, b)
    if not reason and min(map(len, trials)) < 2:
        reason = ONE_TRIAL
    reason = reason or _no_ratio(metric, [value for found in trials for value in found])
    if reason:
        return _unjudged(name, metric, values, reason)
    logs = [Spread.of([math.log(value) for value in found]) for found in trials]
    difference = logs[1].less(logs[0])
    if difference.value and not difference.scattered:
        return _unjudged(name, metric, values, ALIKE)
    if metric in BY_SENSOR and sensor_of(*a) != sensor_of(*b):
        difference = difference.less(Spread(0.0, math.hypot(own_relative_error(*a), own_relative_error(*b)), math.inf))
    low, high = difference.interval(confidence)
    return _judged(name, metric, values, tuple(map(math.exp, (difference.value, low, high))), difference.p)


def _no_ratio(metric: str, values: Sequence[float]) -> str | None:
    """Why these cannot be held against each other as a ratio; None where they can."""
    odd = next((value for value in values if not 0 < value < math.inf), None)
    return None if odd is None else f"{METRICS[metric].title} of {odd:g} {METRICS[metric].unit} allows no ratio"


def unlike(a: Side, b: Side) -> str | None:
    """Why figures of one and the same device cannot be held against each other; None where they can."""
    (row_a, evidence_a), (row_b, evidence_b) = a, b
    if row_a.simulated != row_b.simulated:
        return "one of the two is simulated"
    if row_a.protocol != row_b.protocol:
        return f"measured by protocol {row_a.protocol} and by {row_b.protocol}"
    chips = [found.hardware.gpu or found.hardware.processor for found in (evidence_a, evidence_b) if found.hardware]
    if len(set(chips)) > 1:
        return f"measured on different hardware: {chips[0]} and {chips[1]}"
    conditions = [found.environment.get("environment", {}) for found in (evidence_a, evidence_b)]
    for name, called in CONDITIONS.items():
        told = [of_side.get(name) for of_side in conditions]
        if told[0] != told[1]:
            return f"measured with {called} {_fact(told[0])} and with {called} {_fact(told[1])}"
    if row_a.batch != row_b.batch:
        return f"measured at batch {row_a.batch} and at batch {row_b.batch}"
    if evidence_a.threads != evidence_b.threads:
        return f"measured with {evidence_a.threads} threads and with {evidence_b.threads}"
    return None


def _fact(told: object) -> str:
    if isinstance(told, bool):
        return "on" if told else "off"
    return "not told" if told is None else str(told)


def _of_size(name: str, a: Row, b: Row) -> Change:
    values = a.size_mb, b.size_mb
    if values[0] is None or values[1] is None:
        return _unjudged(name, "size", values, a.absent.get("size_mb") or b.absent["size_mb"])
    if reason := _no_ratio("size", [values[0], values[1]]):
        return _unjudged(name, "size", values, reason)
    ratio = values[1] / values[0]
    return _judged(name, "size", values, (ratio, ratio, ratio), None)


def _judged(
    name: str,
    metric: str,
    values: Sequence[float | None],
    change: Sequence[float],
    p: float | None,
) -> Change:
    """A change whose verdict is still to come."""
    exact = {"p": "it is exact", "p_holm": "it is exact"} if p is None else {}
    return Change(
        cell=name,
        metric=metric,
        a=values[0],
        b=values[1],
        change=change[0],
        low=change[1],
        high=change[2],
        p=p,
        p_holm=p,
        verdict="same",
        fails=False,
        absent=exact,
    )


def _unjudged(name: str, metric: str, values: Sequence[float | None], reason: str) -> Change:
    figures = {"a": values[0], "b": values[1]}
    empty = [key for key, value in figures.items() if value is None]
    return Change(
        cell=name,
        metric=metric,
        **figures,
        change=None,
        low=None,
        high=None,
        p=None,
        p_holm=None,
        verdict="not judged",
        fails=False,
        absent=dict.fromkeys((*empty, "change", "low", "high", "p", "p_holm"), reason),
    )


def _corrected(changes: Sequence[Change], gated: Collection[str]) -> list[Change]:
    """Each p-value of a gated metric corrected for the others of such metrics; all else for every test."""
    tested = [index for index, change in enumerate(changes) if change.p is not None]
    corrected: dict[int, float] = {}
    for family in (tested, [index for index in tested if changes[index].metric in gated]):
        corrected |= dict(zip(family, holm([changes[index].p or 0.0 for index in family]), strict=True))
    return [
        change.model_copy(update={"p_holm": corrected[index]}) if index in corrected else change
        for index, change in enumerate(changes)
    ]


def _decided(change: Change, tolerated: Mapping[str, float], confidence: float) -> Change:
    if change.change is None:
        return change
    metric = METRICS[change.metric]
    gain = change.change if change.metric in PAIRED else change.change - 1
    if change.p_holm is None:
        shown = gain != 0
    else:
        shown = change.p_holm <= 1 - confidence
    if not shown:
        verdict = "same" if gain == 0 else NO_EVIDENCE
    else:
        verdict = "better" if (gain > 0) == metric.higher_is_better else "worse"
    fails = verdict == "worse" and change.metric in tolerated and abs(gain) > tolerated[change.metric]
    return change.model_copy(update={"verdict": verdict, "fails": fails})


def _notes(a: Results, b: Results, changes: Sequence[Change], tolerated: Mapping[str, float]) -> list[str]:
    tests = [change.metric for change in changes if change.p is not None]
    gated = sum(metric in tolerated for metric in tests)
    over = f"the {gated} tests of what --fail-on names, all others over " if gated else ""
    over += f"the {len(tests)} tests of this comparison"
    notes = [f"p-values are Holm-corrected over {over}; intervals are not corrected."]
    notes += [
        f"{metric} of {', '.join(cells)} may be worse: its interval says so, its p-value once corrected does not."
        for metric, cells in _seen(changes, tolerated).items()
        if not tolerated[metric]
    ]
    if moved := _on_another_machine(a, b, changes):
        notes.append(
            f"Run B measured {', '.join(moved)} on another machine than run A: how far two of one kind differ is in no"
            " interval."
        )
    if _of_unknown_sensors(a, b, changes):
        notes.append(f"Energy and power of two power sensors are compared {NO_SENSOR_ERROR}.")
    if any(row.simulated for results in (a, b) for row in results.rows):
        notes.append("Some figures are simulated: they come from no real device.")
    if not all(row.comparable for results in (a, b) for row in results.rows):
        notes.append("Some rows were measured by a protocol for looking, not for comparing.")
    notes.append(
        "Trials speak of their own session only: what a reboot, another day or another room changes is in no interval."
    )
    return notes


def _on_another_machine(a: Results, b: Results, changes: Sequence[Change]) -> list[str]:
    """Cells whose trials were judged though two machines ran them."""
    judged = dict.fromkeys(c.cell for c in changes if c.metric in BY_TRIALS and c.change is not None)
    return [
        cell for cell in judged if _machine(a, cell) and _machine(b, cell) and _machine(a, cell) != _machine(b, cell)
    ]


def _machine(results: Results, cell: str) -> str | None:
    facts: Mapping[str, str] = results.evidence.get(cell, NOTHING).environment.get("environment", {})
    return facts.get("machine_id")


def _of_unknown_sensors(a: Results, b: Results, changes: Sequence[Change]) -> bool:
    """Whether a test holds two sensors against each other, of which one's own error is not known."""
    cells = {change.cell for change in changes if change.metric in BY_SENSOR and change.p is not None}
    first, second = (
        {name: (row, results.evidence[name]) for row in results.rows if (name := row_name(row)) in cells}
        for results in (a, b)
    )
    return any(
        sensor_of(*first[cell]) != sensor_of(*second[cell])
        and None in (first[cell][1].sensor_error_mj, second[cell][1].sensor_error_mj)
        for cell in cells
    )
