"""Rows of results.json from measurements: every value measured, or null with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from edgejoule.records import (
    BenchmarkRecord,
    EngineRecord,
    Evidence,
    Front,
    Interval,
    Repeat,
    Row,
    ScoreRecord,
    SizeIntervals,
    Status,
)
from edgejoule_analyst import efficiency, latency, operating
from edgejoule_analyst.average_precision import METRICS, SIZES, Figure
from edgejoule_analyst.bootstrap import Estimate
from edgejoule_analyst.comparison import Accuracy
from edgejoule_analyst.measurements import Cell, Ended, Measurements, Remade, Trial
from edgejoule_analyst.pareto import front, hypervolume
from edgejoule_analyst.words import row_name

BYTES_PER_MB = 1e6
ACCURACY = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")
FROM_SCORE = (*ACCURACY, "operating_point", "fidelity", "accuracy_from")
FROM_BUILD = ("ran_as", "runtime", "size_mb", "params_m", "gmacs", "int8_share")
ENERGIES = {
    "energy_mj": "energy_uncertainty_mj",
    "energy_above_idle_mj": "energy_above_idle_uncertainty_mj",
}
"""Fields of a trial and of a row, and what holds their uncertainty."""
FROM_TRIALS = (
    "latency_ms",
    "execution_ms",
    "fps",
    "stages_ms",
    "power_w",
    *ENERGIES,
    *ENERGIES.values(),
    "memory_peak_mb",
    "throttled",
    "contended",
)
AP_TOLERANCE = 1e-4
"""Scorers may order equal scores differently; a matching gone wrong differs by more."""
ENERGY_TOLERANCE = 0.25
"""Power is a mean over a whole trial, pauses between inferences included, so the two need not agree closely."""
BEYOND = 1.1
"""Of the slowest row's latency: how far a hypervolume reaches, so that the slowest row on the front adds to it."""
NO_RATE = "the mean latency is 0 ms, of which no rate can be told"
NO_ENERGY = "the energy is 0 mJ, of which no accuracy per joule can be told"
NO_OBJECTS = "the evaluation set has no object of this size"


class _Values:
    """A row's values in the making, with a reason for each null."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.absent: dict[str, str] = {}

    def put(self, name: str, value: Any, why_not: str) -> None:
        """``value``, or null with ``why_not``."""
        self.values[name] = value
        if value is None:
            self.absent[name] = why_not

    def leave_out(self, names: Iterable[str], why: str) -> None:
        for name in names:
            self.put(name, None, why)


def make_row(cell: Cell, measured: Measurements, recomputed: Mapping[Figure, Estimate] | None) -> Row:
    """The row of one cell; ``pareto`` is still to be decided, by ``with_pareto``.

    Args:
        recomputed: accuracy from the matches, which must be the scorer's; ``None`` where nothing was scored.
    """
    row = _Values()
    _put_build(row, measured.build)
    _put_score(row, measured.score)
    trials = [trial for trial in measured.trials if isinstance(trial, Trial)]
    _put_trials(row, trials, measured.endings(), cell.batch)
    _put_efficiency(row, cell.batch)
    _put_repeats(row, cell, measured)
    row.put("pareto", None, "only rows with status ok are compared")
    status, reason = judge(measured)
    simulated = cell.simulated or _is_simulated(measured)
    return Row.model_validate(
        {
            **cell.model_dump(exclude={"name", "seeds", "why_no_repeats"}),
            **row.values,
            "absent": row.absent,
            "status": status,
            "reason": reason,
            "simulated": simulated,
            "hashes": measured.hashes,
            "flags": [*find_flags(trials, simulated), *_contradictions(row.values, recomputed)],
        }
    )


def judge(measured: Measurements) -> tuple[str, str | None]:
    """Status and reason of a row: those of its most upstream step without result, else ``throttled`` or ``ok``."""
    if endings := measured.endings():
        first = endings[0]
        return (first.outcome if first.outcome in get_args(Status) else "failed"), first.reason
    throttled = [t.record.trial for t in measured.trials if isinstance(t, Trial) and t.record.throttled == "yes"]
    if throttled:
        return "throttled", f"the device throttled in trial {', '.join(map(str, throttled))}; cool it and measure again"
    return "ok", None


def find_flags(trials: Sequence[Trial], simulated: bool) -> list[str]:
    """What speaks against taking a row's figures at face value, in words; ``plausibility`` adds what it finds."""
    flags = []
    if simulated:
        flags.append("simulated: these figures come from no real device")
    if crowded := [t.record.contention.other_cpu_share for t in trials if t.record.contention.contended]:
        of_how_many = f"{len(crowded)} of {len(trials)} trials"
        flags.append(f"contended: other processes ran in {of_how_many}, with up to {max(crowded):.0%} of all CPU time")
    starts = [(t.record.trial, t.record.preconditioning) for t in trials]
    if unsettled := [(trial, start.words) for trial, start in starts if start and start.reached == "no"]:
        numbers = ", ".join(str(trial) for trial, _ in unsettled)
        flags.append(f"not cool and steady before trial {numbers}: {unsettled[0][1]}")
    if any(t.record.throttled == "unknown" for t in trials):
        flags.append("whether the device throttled is unknown: it does not say")
    return flags


def _contradictions(values: Mapping[str, Any], recomputed: Mapping[Figure, Estimate] | None) -> Iterator[str]:
    """Where two ways to one figure part."""
    for figure, ours in (recomputed or {}).items():
        if abs(ours.value - values[figure]) > AP_TOLERANCE:
            yield f"{figure} is {values[figure]:.6f} to the scorer and {ours.value:.6f} computed from its matches"
    power_w, energy_mj = values["power_w"], values["energy_mj"]
    if power_w is not None and energy_mj is not None:
        product_mj = efficiency.energy_per_inference_mj(power_w, values["latency_ms"].mean)
        if abs(energy_mj - product_mj) > ENERGY_TOLERANCE * product_mj:
            yield f"energy of {energy_mj:.1f} mJ is far from power times latency, {product_mj:.1f} mJ"


def with_unchanged_flagged(rows: Sequence[Row]) -> list[Row]:
    """The rows; one whose quantization-aware weights are those of post-training quantization says so."""
    ptq = {(row.model, row.device): row.hashes.onnx for row in rows if row.variant == "int8-ptq"}
    same = "training brought nothing that the tuning set shows: this is the graph of int8-ptq"
    return [
        row.model_copy(update={"flags": [*row.flags, same]})
        if row.variant == "int8-qat" and row.hashes.onnx and row.hashes.onnx == ptq.get((row.model, row.device))
        else row
        for row in rows
    ]


def with_pareto(rows: Sequence[Row]) -> list[Row]:
    """The rows, each ok one told whether it is on the front of AP against mean latency within its device."""
    decided = list(rows)
    for device in {row.device for row in rows}:
        candidates = [i for i, row in enumerate(rows) if row.device == device and row.status == "ok"]
        if not candidates:
            continue
        found = [(row.ap, row.latency_ms) for row in (rows[i] for i in candidates)]
        ap = [value for value, _ in found if value is not None]
        mean_ms = [value.mean for _, value in found if value is not None]
        for i, on_front in zip(candidates, front(maximise=[ap], minimise=[mean_ms]), strict=True):
            values = decided[i].model_dump()
            values["absent"].pop("pareto")
            decided[i] = Row.model_validate({**values, "pareto": bool(on_front)})
    return decided


def fronts(rows: Sequence[Row]) -> list[Front]:
    """The Pareto front of each device that has a row to compare, with its hypervolume in AP ms.

    Its reference point is AP 0 and ``BEYOND`` times the latency of the slowest row, so that each row of a front adds.
    """
    found = []
    for device in dict.fromkeys(row.device for row in rows):
        here = [row for row in rows if row.device == device and row.pareto is not None]
        told = [(row.ap, row.latency_ms.mean) for row in here if row.ap is not None and row.latency_ms is not None]
        if told:
            ap, mean_ms = zip(*told, strict=True)
            end_ms = BEYOND * max(mean_ms)
            found.append(
                Front(
                    device=device,
                    rows=[row_name(row) for row in here if row.pareto],
                    hypervolume_ap_ms=hypervolume(maximise=[ap], minimise=[mean_ms], reference=[0.0, end_ms]),
                    reference_ap=0.0,
                    reference_latency_ms=end_ms,
                )
            )
    return found


def make_evidence(
    measured: Measurements, accuracy: Accuracy | None, shown: Mapping[str, Estimate] | None = None
) -> Evidence:
    """What lies behind a row, for plots, for a decision, and for whoever wants to repeat it.

    Args:
        shown: ``operating.intervals``; nothing where they were not made.
    """
    trials = [trial for trial in measured.trials if isinstance(trial, Trial)]
    values: dict[str, Any] = {}
    if accuracy is not None:
        values |= {f"{figure}_interval": _interval(found) for figure, found in accuracy.intervals().items()}
        values |= {f"{metric}_draws": accuracy.draws_curve(metric) for metric in METRICS}
    if shown:
        values |= {f"{name}_interval": _interval(shown[name]) for name in operating.OF_ALL if name in shown}
        values["errors_by_size"] = {
            size: SizeIntervals(
                recall=_interval(found) if (found := shown.get(f"recall_{size}")) else None,
                false_positives_per_image=_interval(shown[f"false_positives_per_image_{size}"]),
            )
            for size in SIZES
        }
    if isinstance(measured.score, ScoreRecord):
        score = measured.score
        values |= {
            "images": score.images,
            "scorer": score.scorer,
            "score_floor": score.score_floor,
            "matches": measured.matches_sha256,
        }
    if isinstance(measured.build, EngineRecord):
        build = measured.build
        values |= {
            "input": build.model.input,
            "hardware": build.hardware,
            "options": build.options,
            "candidates": build.candidates,
            "chosen_because": build.chosen_because,
        }
    if trials:
        first = trials[0].record
        values |= {
            "latency_curve_ms": latency.quantile_curve_ms([trial.samples_ms for trial in trials]),
            "started_at": [trial.record.started_at for trial in trials],
            "power_of": first.power_of,
            "trial_means_ms": [float(trial.samples_ms.mean()) for trial in trials],
            **latency.quantiles_by_trial_ms([trial.samples_ms for trial in trials]),
            "trial_energies_mj": _of_every_trial(trials, "energy_mj"),
            "sensor_error_mj": _mean_of_all([trial.record for trial in trials], "sensor_error_mj"),
            "trial_powers_w": _of_every_trial(trials, "power_w"),
            "trial_memory_peaks_mb": _of_every_trial(trials, "memory_peak_mb"),
            "load_memory_mb": max(_of_every_trial(trials, "load_memory_mb"), default=None),
            "device_memory_mb": max(_of_every_trial(trials, "device_memory_mb"), default=None),
            "warmup_iterations": first.warmup_iterations,
            "iterations": first.iterations,
            "threads": first.threads,
            "other_cpu_share": max(trial.record.contention.other_cpu_share for trial in trials),
            "environment": first.environment,
            "idle_power_w": _mean_of_all([trial.record for trial in trials], "idle_power_w"),
        }
    return Evidence.model_validate(values)


def _of_every_trial(trials: Sequence[Trial], name: str) -> list[float]:
    values = [value for trial in trials if (value := getattr(trial.record, name)) is not None]
    return values if len(values) == len(trials) else []


def _put_build(row: _Values, build: EngineRecord | Ended) -> None:
    if isinstance(build, Ended):
        row.leave_out(FROM_BUILD, f"no engine was built: {build.reason}")
        return
    row.put("ran_as", build.ran_as, "")
    row.put("runtime", build.hardware.runtime, "")
    row.put("size_mb", build.size_bytes / BYTES_PER_MB, "")
    row.put("params_m", build.model.params_m, "")
    row.put("gmacs", build.model.gmacs, "")
    row.put("int8_share", build.int8_share, build.absent.get("int8_share", ""))


def _put_score(row: _Values, score: ScoreRecord | Ended) -> None:
    if isinstance(score, Ended):
        row.leave_out(FROM_SCORE, f"nothing was scored: {score.reason}")
        return
    for name in ACCURACY:
        row.put(name, getattr(score.accuracy, name), NO_OBJECTS)
    row.put("operating_point", score.operating_point, "")
    row.put("fidelity", score.fidelity, score.absent.get("fidelity", ""))
    row.put("accuracy_from", "same-engine", "")


def _put_trials(row: _Values, trials: Sequence[Trial], endings: Sequence[Ended], batch: int) -> None:
    if not trials:
        row.leave_out(FROM_TRIALS, f"nothing was timed: {endings[0].reason if endings else 'the plan has no trial'}")
        return
    pooled = latency.pool([trial.samples_ms for trial in trials])
    records = [trial.record for trial in trials]
    row.put("latency_ms", pooled, "")
    executions = [trial.executions_ms for trial in trials if trial.executions_ms is not None]
    whole = len(executions) == len(trials)
    row.put("execution_ms", latency.pool(executions) if whole else None, _first_reason(trials, "execution_ms"))
    row.put("fps", latency.frames_per_second(pooled.mean, batch) if pooled.mean else None, NO_RATE)
    stages = [record.stages_ms for record in records if record.stages_ms is not None]
    whole = len(stages) == len(records)
    mean_stages = {name: _mean(of_trial[name] for of_trial in stages) for name in stages[0]} if whole else None
    row.put("stages_ms", mean_stages, _first_reason(trials, "stages_ms"))
    for name in ("power_w", *ENERGIES):
        row.put(name, _mean_of_all(records, name), _first_reason(trials, name))
    for name, uncertainty in ENERGIES.items():
        own = _mean_of_all(records, uncertainty)
        both = None if own is None else efficiency.uncertainty(own, [getattr(record, name) for record in records])
        row.put(uncertainty, both, _first_reason(trials, uncertainty))
    peaks = [record.memory_peak_mb for record in records if record.memory_peak_mb is not None]
    whole = len(peaks) == len(records)
    row.put("memory_peak_mb", max(peaks) if whole else None, _first_reason(trials, "memory_peak_mb"))
    verdicts = {record.throttled for record in records}
    row.put("throttled", next(verdict for verdict in ("yes", "unknown", "no") if verdict in verdicts), "")
    row.put("contended", any(record.contention.contended for record in records), "")


def _put_efficiency(row: _Values, batch: int) -> None:
    ap50, energy_mj = row.values["ap50"], row.values["energy_mj"]
    known = ap50 is not None and bool(energy_mj)
    why = row.absent.get("energy_mj") or row.absent.get("ap50", NO_ENERGY)
    row.put("map_per_joule", efficiency.map_per_joule(ap50, energy_mj / batch) if known else None, why)


def _put_repeats(row: _Values, cell: Cell, measured: Measurements) -> None:
    """Accuracy by seed, where INT8 was made by several and at least two have a score."""
    made = dict(zip(cell.seeds, (Remade(measured.build, measured.score), *measured.repeats.values()), strict=False))
    found = [
        Repeat(
            seed=seed,
            ap=again.score.accuracy.ap,
            ap50=again.score.accuracy.ap50,
            runtime=again.build.hardware.runtime,
            ran_as=again.build.ran_as,
        )
        for seed, again in made.items()
        if isinstance(again.score, ScoreRecord) and isinstance(again.build, EngineRecord)
    ]
    reasons = [again.score.reason for again in made.values() if isinstance(again.score, Ended)]
    why_not = cell.why_no_repeats or f"made anew, but not scored: {reasons[0] if reasons else 'no seed but one'}"
    row.put("repeats", found if len(found) > 1 else None, why_not)


def _is_simulated(measured: Measurements) -> bool:
    built = isinstance(measured.build, EngineRecord) and measured.build.simulated
    return built or any(isinstance(trial, Trial) and trial.record.simulated for trial in measured.trials)


def _first_reason(trials: Sequence[Trial], name: str) -> str:
    return next((trial.record.absent[name] for trial in trials if name in trial.record.absent), "")


def _mean_of_all(records: Sequence[BenchmarkRecord], name: str) -> float | None:
    """The mean of a field over trials, if every trial has it."""
    values = [value for record in records if (value := getattr(record, name)) is not None]
    return _mean(values) if len(values) == len(records) else None


def _interval(estimate: Estimate) -> Interval:
    return Interval(low=estimate.low, high=estimate.high, level=estimate.level)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
