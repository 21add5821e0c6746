"""Can it be? Checks that every row of a run must pass, each with its arithmetic; the same rules judge claimed tables.

A check says ``plausible``, ``implausible`` or, where the record lacks what it needs, ``not checked`` and why: silence
is no consent. What is implausible becomes a flag of its row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgejoule.records import Check, Evidence, Results, Row
from edgejoule_analyst.hardware import Peak, UnknownError, has_fast_int8, peak_of, precisions_in
from edgejoule_analyst.measurements import Trial
from edgejoule_analyst.words import row_name

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}

FOLDED = 0.9
"""Batch norm's scale and shift count as parameters and are folded away in an engine: so much at least stays."""

MAX_SCORE_FLOOR = 0.05
"""Detections below a confidence are missing from the curve's tail. Up to here evaluators cut (NanoDet's own does)."""

MIN_INT8_SHARE = 0.5
"""With less of its multiplications in 8 bits, most of an engine is something else than its name says."""

EQUATIONS: Mapping[str, str] = {
    "roofline": "2 x batch x MACs / latency <= units x operations per clock x clock",
    "bytes per parameter": f"size / parameters >= {FOLDED:g} x bytes of the precision",
    "int8 hardware": "INT8 only where the hardware multiplies 8 bits (dp4a: compute capability 6.1 and from 7.0 on)",
    "int8 share": f"MACs in INT8 / all MACs >= {MIN_INT8_SHARE:g}",
    "idle power": "power under load > power at rest, in every trial",
    "zero variance": "greatest - least latency of a trial > 0",
    "throttling": "the device says of every trial that it did not throttle",
    "score floor": f"confidence below which nothing is scored <= {MAX_SCORE_FLOOR:g}",
    "calibration overlap": "images to calibrate on and images to evaluate on have none in common, by id and by content",
    "identical latencies": "two engines do not take the same time to the last digit",
}
"""Every check of a row with what it asks."""


@dataclass(frozen=True)
class Images:
    """The images of a set, by id and by content."""

    ids: frozenset[int]
    sha256: frozenset[str]

    @classmethod
    def of(cls, dataset: Mapping[str, Any]) -> Images:
        """Of a set as ``import-data`` writes it."""
        return cls(
            frozenset(image["id"] for image in dataset["images"]),
            frozenset(image["sha256"] for image in dataset["images"]),
        )


# --- rules, on plain numbers ---------------------------------------------------------------------


def exceeds_roofline(gmacs: float, latency_ms: float, peak: Peak) -> bool:
    """Whether 2 x MACs / latency, both of one inference, is more than ``peak``.

    >>> exceeds_roofline(8.25, 45.0, Peak(235.9e9, ""))
    True
    """
    return 2 * gmacs * 1e9 / (latency_ms / 1e3) > peak.ops_s


def bytes_per_parameter(size_mb: float, params_m: float) -> float:
    """Both in millions: bytes of a serialized engine for each parameter.

    >>> bytes_per_parameter(3.6, 7.2)
    0.5
    """
    return size_mb / params_m


def least_overlap(all_images: int, some: int, others: int) -> int:
    """How many images two draws from one set share at least: some + others - all (inclusion and exclusion).

    >>> least_overlap(5000, 5000, 1024), least_overlap(5000, 2000, 1024)
    (1024, 0)
    """
    return max(0, some + others - all_images)


# --- rows ----------------------------------------------------------------------------------------


def checked(
    rows: Sequence[Row],
    evidence: Mapping[str, Evidence],
    trials: Mapping[str, Sequence[Trial]],
    evaluation: Images | None,
    calibration: Images | None,
) -> tuple[list[Row], dict[str, Evidence]]:
    """The rows with what is implausible among their flags, and their evidence with every check.

    Args:
        evidence, trials: by ``model/variant/device``.
        evaluation, calibration: None where there is no such set.
    """
    checks = {
        row_name(row): check_row(row, evidence[row_name(row)], trials[row_name(row)], evaluation, calibration)
        for row in rows
    }
    for row, check in check_pairs(rows):
        checks[row_name(row)].append(check)
    flagged = [row.model_copy(update={"flags": [*row.flags, *flags_of(checks[row_name(row)])]}) for row in rows]
    told = {name: found.model_copy(update={"checks": checks.get(name, [])}) for name, found in evidence.items()}
    return flagged, told


def check_row(
    row: Row, evidence: Evidence, trials: Sequence[Trial], evaluation: Images | None, calibration: Images | None
) -> list[Check]:
    """Every check of one row on its own; none where it has no figures."""
    if row.ap is None and row.latency_ms is None:
        return []
    checks = [_roofline(row, evidence), _bytes(row), _floor(evidence), _throttling(row)]
    if trials:
        checks += [_idle(trials), _variance(trials)]
    if row.precision == "int8":
        checks += [_int8_hardware(row, evidence), _int8_share(row), _overlap(evaluation, calibration)]
    return checks


def check_pairs(rows: Sequence[Row]) -> list[tuple[Row, Check]]:
    """Quantization-aware rows beside the post-training row of the same model and device."""
    ptq = {(row.model, row.device): row for row in rows if row.variant == "int8-ptq"}
    return [
        (row, _identical(row, ptq[row.model, row.device]))
        for row in rows
        if row.variant == "int8-qat" and row.latency_ms is not None and (row.model, row.device) in ptq
    ]


def flags_of(checks: Sequence[Check]) -> Iterator[str]:
    """What is implausible, in words; a row that throttled says so by its status."""
    return (check.said for check in checks if check.verdict == "implausible" and check.name != "throttling")


def unchecked(results: Results) -> list[tuple[str, str, list[Row]]]:
    """What could not be checked: the check, why, and the rows, once for each check and reason."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        evidence = results.evidence.get(row_name(row))
        for check in evidence.checks if evidence else ():
            if check.verdict == "not checked":
                found.setdefault((check.name, check.said), []).append(row)
    return [(name, why, rows) for (name, why), rows in found.items()]


def _roofline(row: Row, evidence: Evidence) -> Check:
    name = "roofline"
    if row.latency_ms is None or row.gmacs is None:
        return _unchecked(name, row.absent.get("latency_ms") or row.absent.get("gmacs", ""))
    features = evidence.hardware.features if evidence.hardware else []
    precisions = [row.precision, *precisions_in(row.ran_as or "")]
    try:
        peak = peak_of(evidence.environment, row.runtime or "", evidence.threads, precisions, features)
    except UnknownError as why:
        return _unchecked(name, str(why))
    mean_ms, gmacs = row.latency_ms.mean, row.batch * row.gmacs
    if mean_ms == 0:
        return _implausible(name, f"{gmacs:.4g} GMACs in 0 ms, which no device can do")
    images = "" if row.batch == 1 else f"{row.batch} x "
    does = f"2 x {images}{row.gmacs:.4g} GMACs / {mean_ms:.4g} ms = {2 * gmacs / mean_ms * 1e3:.1f} GOPS"
    if exceeds_roofline(gmacs, mean_ms, peak):
        return _implausible(name, f"faster than the device can be: {does}, and at its clocks {peak.said} is the most")
    return _plausible(name, f"{does}, of {peak.said}")


def _bytes(row: Row) -> Check:
    name = "bytes per parameter"
    if row.size_mb is None or row.params_m is None:
        return _unchecked(name, row.absent.get("size_mb", ""))
    needs = BYTES[row.precision]
    said = (
        f"{row.size_mb:.4g} MB / {row.params_m:.4g} M parameters = {bytes_per_parameter(row.size_mb, row.params_m):.2f}"
        f" bytes each, where {row.precision} takes {needs}"
    )
    if bytes_per_parameter(row.size_mb, row.params_m) < FOLDED * needs:
        return _implausible(name, f"the engine is too small for its parameters: {said}")
    return _plausible(name, said)


def _int8_hardware(row: Row, evidence: Evidence) -> Check:
    name = "int8 hardware"
    facts, told = evidence.environment.get("environment", {}), evidence.environment.get("precisions", {})
    fast = told.get("fast_int8")
    if fast is None and facts.get("sm"):
        fast, told = has_fast_int8(facts["sm"]), {"learnt": f"compute capability {facts['sm']}"}
    if fast is None and {"avx2", "asimd"} & set(evidence.hardware.features if evidence.hardware else []):
        return _plausible(name, "the processor's vector unit multiplies 8 bits")
    if fast is None:
        return _unchecked(name, "the record does not tell what the device computes fast")
    if not fast:
        return _implausible(name, f"INT8 ran where the hardware has none: {told.get('learnt', 'the device says so')}")
    return _plausible(name, str(told.get("learnt", "the device says so")))


def _int8_share(row: Row) -> Check:
    name = "int8 share"
    if row.int8_share is None:
        return _unchecked(name, row.absent.get("int8_share", ""))
    said = f"{row.int8_share:.0%} of the multiplications run in INT8"
    if row.int8_share < MIN_INT8_SHARE:
        return _implausible(name, f"little of the engine is INT8: only {said}, as {row.ran_as}")
    return _plausible(name, said)


def _idle(trials: Sequence[Trial]) -> Check:
    name = "idle power"
    records = [trial.record for trial in trials]
    for field in ("power_w", "idle_power_w"):
        if why := next((record.absent[field] for record in records if field in record.absent), None):
            return _unchecked(name, why)
    pairs = [(r.power_w, r.idle_power_w) for r in records if r.power_w is not None and r.idle_power_w is not None]
    if not pairs:
        return _unchecked(name, "nothing was timed")
    power_w, idle_w = min(pairs, key=lambda pair: pair[0] - pair[1])
    said = f"{power_w:.3g} W at work, {idle_w:.3g} W at rest before"
    if power_w <= idle_w:
        return _implausible(name, f"the device took no more at work than at rest: {said}")
    return _plausible(name, said)


def _variance(trials: Sequence[Trial]) -> Check:
    name = "zero variance"
    several = [trial for trial in trials if trial.samples_ms.size > 1]
    if not several:
        return _unchecked(name, "no trial has two inferences")
    # not by the standard deviation: rounding may leave equal samples a little of it
    if still := [trial.record.trial for trial in several if np.ptp(trial.samples_ms) == 0]:
        which = ", ".join(map(str, still))
        return _implausible(name, f"latency does not vary at all in trial {which}: no real clock measures that")
    return _plausible(name, f"at least {min(trial.samples_ms.std() for trial in several):.2g} ms in every trial")


def _throttling(row: Row) -> Check:
    name = "throttling"
    if row.throttled is None:
        return _unchecked(name, row.absent.get("throttled", ""))
    if row.throttled == "unknown":
        return _unchecked(name, "the device does not say whether it throttled")
    if row.throttled == "yes":
        return _implausible(name, "the device throttled: these are not figures of its clocks")
    return _plausible(name, "the device says that it did not throttle")


def _floor(evidence: Evidence) -> Check:
    name = "score floor"
    if evidence.score_floor is None:
        return _unchecked(name, "nothing was scored")
    said = f"detections from a confidence of {evidence.score_floor:g} on are scored"
    if evidence.score_floor > MAX_SCORE_FLOOR:
        return _implausible(
            name,
            f"AP is not an AP: only {said}, and the precision-recall curve ends there (at most {MAX_SCORE_FLOOR:g})",
        )
    return _plausible(name, said)


def _overlap(evaluation: Images | None, calibration: Images | None) -> Check:
    name = "calibration overlap"
    if not calibration or not evaluation:
        return _unchecked(name, f"there is no {'evaluation' if calibration else 'calibration'} set")
    by_id, by_content = evaluation.ids & calibration.ids, evaluation.sha256 & calibration.sha256
    said = f"{len(calibration.ids)} calibration and {len(evaluation.ids)} evaluation images"
    if by_id or by_content:
        common = f"{len(by_id)} by id and {len(by_content)} by content"
        return _implausible(name, f"calibrated on what it is evaluated on: of {said} are in both {common}")
    return _plausible(name, f"{said}, none in both")


def _identical(qat: Row, ptq: Row) -> Check:
    name = "identical latencies"
    if qat.latency_ms is None or ptq.latency_ms is None:
        return _unchecked(name, ptq.absent.get("latency_ms", ""))
    if qat.hashes.engine is not None and qat.hashes.engine == ptq.hashes.engine:
        return _unchecked(name, "int8-ptq and int8-qat are one engine")
    ours, theirs = qat.latency_ms, ptq.latency_ms
    if (ours.mean, ours.std) == (theirs.mean, theirs.std):
        said = f"{ours.mean!r} ± {ours.std!r} ms"
        return _implausible(name, f"as fast as int8-ptq to the last digit, {said}: two engines were not timed")
    return _plausible(name, f"{ours.mean:.4g} ms, and {theirs.mean:.4g} ms of int8-ptq")


def _plausible(name: str, said: str) -> Check:
    return Check(name=name, verdict="plausible", said=said)


def _implausible(name: str, said: str) -> Check:
    return Check(name=name, verdict="implausible", said=said)


def _unchecked(name: str, why: str) -> Check:
    return Check(name=name, verdict="not checked", said=why)
