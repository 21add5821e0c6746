"""The figures that limits and objectives speak of: what each is, which way is better, how sure one is of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from edgejoule.records import Evidence, Interval, Row
from edgejoule_analyst.efficiency import LEVEL
from edgejoule_analyst.latency import frames_per_second
from edgejoule_analyst.significance import Spread
from edgejoule_analyst.words import level as level_in_words
from edgejoule_analyst.words import points

OLD_RESULTS = "its results were written without it; run the spec again, which measures nothing anew"
NOTHING = Evidence.model_validate({})
NO_SENSOR_ERROR = "without the sensor's own error, which no data sheet tells"
ONE_TRIAL = "one trial does not tell how far another would differ; measure at least two"


Sensor = tuple[str, str | None, str | None]
"""A device, what its power is of, and the machine: rows of one have the sensor's own error alike."""


@dataclass(frozen=True)
class Known:
    """A figure: above ``low`` with the confidence asked for, and with the same below ``high``."""

    value: float
    low: float
    high: float
    spread: Spread | None
    """None: it has no error, as the size of a file."""
    alike: float = 0.0
    """Standard error that all rows of one sensor share: in the bounds, not in ``spread``, and of the same scale."""
    sensor: Sensor | None = None
    without: str | None = None
    """What may be off beyond the bounds, and cannot be told."""


@dataclass(frozen=True)
class Unknown:
    """A figure that nobody measured, or measured too little to judge."""

    reason: str
    value: float | None = None


Estimator = Callable[[Row, Evidence, float], Known | Unknown]


@dataclass(frozen=True)
class Metric:
    """One figure, as limits and objectives name it."""

    title: str
    unit: str
    higher_is_better: bool
    estimate: Estimator
    scale: float = 1.0
    """Shown as value times this: fractions as points of a hundred."""

    def show(self, value: float) -> str:
        """With its unit, to what a person can use.

        >>> METRICS["ap50"].show(0.4127), METRICS["latency"].show(9.0)
        ('41.3 points', '9.00 ms')
        """
        scaled = value * self.scale
        digits = 1 if self.scale != 1 else max(0, 2 - max(0, math.floor(math.log10(abs(scaled) or 1))))
        return f"{scaled:.{digits}f} {self.unit}".rstrip().replace("-", "−")

    def better(self, first: float, second: float) -> bool:
        return first > second if self.higher_is_better else first < second


def from_trials(trials: Sequence[float], confidence: float) -> Known | Unknown:
    """The mean of the trials' figures with Student bounds."""
    if len(trials) < 2:
        return Unknown(ONE_TRIAL, trials[0] if trials else None)
    return known(Spread.of(trials), confidence)


def known(spread: Spread, confidence: float) -> Known:
    """A figure with the bounds of its spread."""
    return Known(spread.value, *spread.bounds(confidence), spread)


def from_draws(value: float, percentiles: Sequence[float], confidence: float) -> Known:
    """An AP with basic bootstrap bounds, from the 0th to the 100th percentile of its draws.

    >>> found = from_draws(0.5, [0.4 + 0.002 * i for i in range(101)], 0.95)
    >>> round(found.low, 3), round(found.high, 3)
    (0.41, 0.59)
    """
    upper, lower = np.interp((100 * confidence, 100 * (1 - confidence)), np.arange(101), percentiles)
    low, high = (min(1.0, max(0.0, 2 * value - float(end))) for end in (upper, lower))
    return Known(value, low, high, Spread.of_draws(value, percentiles))


def _accuracy(name: str) -> Estimator:
    def estimate(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
        value, draws = getattr(row, name), getattr(evidence, f"{name}_draws")
        if value is None:
            return Unknown(row.absent[name])
        return from_draws(value, draws, confidence) if draws else Unknown(OLD_RESULTS, value)

    return estimate


def _repeated(field: str, trials: str, *, per_image: bool = False) -> Estimator:
    """A figure of the row whose trials are in the evidence; ``per_image`` where they tell it of a whole batch."""

    def estimate(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
        value = getattr(row, field)
        if value is None:
            return Unknown(row.absent[field])
        images = row.batch if per_image else 1
        measured = [each / images for each in getattr(evidence, trials)]
        shown = value / images if isinstance(value, float | int) else None
        return from_trials(measured, confidence) if measured else Unknown(OLD_RESULTS, shown)

    return estimate


def _quantile(name: str) -> Estimator:
    """A quantile of all inferences pooled, as the row tells it, with the bounds of the mean of its trials'.

    They reach out to the pooled quantile where that lies beyond: one slow trial moves it far more than their mean.
    """

    def estimate(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
        found = _repeated("latency_ms", f"trial_{name}_ms")(row, evidence, confidence)
        if row.latency_ms is None or isinstance(found, Unknown):
            return found
        pooled = float(getattr(row.latency_ms, name))
        return replace(found, value=pooled, low=min(found.low, pooled), high=max(found.high, pooled))

    return estimate


def _fps(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
    if row.fps is None:
        return Unknown(row.absent["fps"])
    if not all(ms > 0 for ms in evidence.trial_means_ms):
        return Unknown("a trial's mean latency is 0 ms, of which no rate can be told", row.fps)
    measured = [frames_per_second(ms, row.batch) for ms in evidence.trial_means_ms]
    return from_trials(measured, confidence) if measured else Unknown(OLD_RESULTS, row.fps)


def own_energy_error_mj(row: Row, evidence: Evidence) -> float:
    """Standard uncertainty of a row's energy per image that its trials share, and so do not show.

    Two parts, as squares: what each trial states of itself (steps of the sensor, moments nobody looked at), which is
    what the row states (a half-width at 95 %) less the scatter of its trials (``efficiency.uncertainty``); and the
    sensor's gain and offset by its data sheet. 0 where neither is stated.
    """
    trials = evidence.trial_energies_mj
    low, high = Spread.of(trials).interval(LEVEL) if len(trials) > 1 else (0.0, 0.0)
    stated = math.sqrt(max(0.0, (row.energy_uncertainty_mj or 0.0) ** 2 - ((high - low) / 2) ** 2))
    shared = math.hypot(stated, evidence.sensor_error_mj or 0.0)
    return shared / float(stats.norm.ppf((1 + LEVEL) / 2)) / row.batch


def sensor_of(row: Row, evidence: Evidence) -> Sensor:
    """Which sensor a row's power and energy are of."""
    return row.device, evidence.power_of, evidence.environment.get("environment", {}).get("machine_id")


def own_relative_error(row: Row, evidence: Evidence) -> float:
    """``own_energy_error_mj`` as a share of the energy; of the mean power, over the same window, the same share."""
    return own_energy_error_mj(row, evidence) * row.batch / row.energy_mj if row.energy_mj else 0.0


def _by_sensor(figure: Known, error: float, row: Row, evidence: Evidence, confidence: float) -> Known:
    """A figure with what all rows of its sensor share, ``error``, in its bounds; or with a word that it is unknown."""
    without = NO_SENSOR_ERROR if evidence.sensor_error_mj is None else None
    wide = _widened(figure, error, confidence)
    return replace(wide, alike=error, sensor=sensor_of(row, evidence), without=without)


def _widened(figure: Known, error: float, confidence: float) -> Known:
    """A figure whose bounds have one more error in them, normal."""
    more = float(stats.norm.ppf(confidence)) * error
    below, above = figure.value - figure.low, figure.high - figure.value
    return replace(figure, low=figure.value - math.hypot(below, more), high=figure.value + math.hypot(above, more))


def difference_of(one: Known, two: Known) -> Spread | None:
    """``one`` less ``two``, None where either is exact; what rows of one sensor share counts only between two."""
    if one.spread is None or two.spread is None:
        return None
    found = one.spread.less(two.spread)
    return found if one.sensor == two.sensor else found.less(Spread(0.0, math.hypot(one.alike, two.alike), math.inf))


def _energy(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
    found = _repeated("energy_mj", "trial_energies_mj", per_image=True)(row, evidence, confidence)
    if isinstance(found, Unknown):
        return found
    return _by_sensor(found, own_energy_error_mj(row, evidence), row, evidence, confidence)


def _power(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
    found = _repeated("power_w", "trial_powers_w")(row, evidence, confidence)
    if isinstance(found, Unknown):
        return found
    return _by_sensor(found, own_relative_error(row, evidence) * found.value, row, evidence, confidence)


def _exact(field: str) -> Estimator:
    def estimate(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
        value = getattr(row, field)
        return Unknown(row.absent[field]) if value is None else Known(value, value, value, None)

    return estimate


def _map_per_joule(row: Row, evidence: Evidence, confidence: float) -> Known | Unknown:
    """Its error by that of AP50 and that of energy, which are independent: their relative variances add."""
    parts = [METRICS[name].estimate(row, evidence, confidence) for name in ("ap50", "energy")]
    unknown = [part for part in parts if isinstance(part, Unknown)]
    if unknown or row.map_per_joule is None:
        return Unknown(unknown[0].reason if unknown else row.absent["map_per_joule"], row.map_per_joule)
    if row.map_per_joule == 0:
        return Unknown("its AP50 is 0, of which no relative error can be told", 0.0)
    ap50, energy = (relative(part) for part in parts if isinstance(part, Known))
    log = ap50.less(energy)
    wide = _by_sensor(known(log, confidence), own_relative_error(row, evidence), row, evidence, confidence)
    low, high = (row.map_per_joule * math.exp(end - log.value) for end in (wide.low, wide.high))
    spread = Spread(math.log(row.map_per_joule), log.error, log.freedom)
    return replace(wide, value=row.map_per_joule, low=low, high=high, spread=spread)


def relative(figure: Known) -> Spread:
    """The spread of a positive figure's logarithm."""
    if figure.spread is None or figure.value <= 0:
        return Spread(math.log(max(figure.value, 1e-300)), 0.0, math.inf)
    return Spread(math.log(figure.value), figure.spread.error / figure.value, figure.spread.freedom)


METRICS: dict[str, Metric] = {
    "ap": Metric("AP", "points", True, _accuracy("ap"), 100),
    "ap50": Metric("AP50", "points", True, _accuracy("ap50"), 100),
    "latency": Metric("mean latency", "ms", False, _repeated("latency_ms", "trial_means_ms")),
    "latency-p50": Metric("median latency", "ms", False, _quantile("p50")),
    "latency-p90": Metric("90th percentile of latency", "ms", False, _quantile("p90")),
    "latency-p99": Metric("99th percentile of latency", "ms", False, _quantile("p99")),
    "fps": Metric("images per second", "FPS", True, _fps),
    "energy": Metric("energy per image", "mJ", False, _energy),
    "power": Metric("power", "W", False, _power),
    "memory": Metric("peak memory", "MB", False, _exact("memory_peak_mb")),
    "size": Metric("size of the engine", "MB", False, _exact("size_mb")),
    "map-per-joule": Metric("mAP/J", "", True, _map_per_joule),
}


def interval_of(name: str, row: Row, evidence: Evidence, level: float = LEVEL) -> Known | Unknown:
    """A figure of ``METRICS`` between two-sided bounds at ``level``, or why there are none.

    Half of what may err lies at either end. None of these figures can be negative, so no bound is.
    """
    found = METRICS[name].estimate(row, evidence, (1 + level) / 2)
    return found if isinstance(found, Unknown) else replace(found, low=max(0.0, found.low))


OVER_IMAGES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")
"""Fields of a row whose intervals come of resampling the images."""
AT_OPERATING_POINT = ("precision", "recall", "f1")
"""The same of its operating point."""
NOTHING_SHOWN = "no detection reached the confidence of the operating point"


def image_figure(field: str, row: Row) -> float | Unknown:
    """The value of one of ``OVER_IMAGES`` or ``AT_OPERATING_POINT``, or why there is none."""
    if field in OVER_IMAGES:
        value, reason = getattr(row, field), row.absent.get(field, "")
    elif row.operating_point is None:
        value, reason = None, row.absent["operating_point"]
    else:
        value, reason = getattr(row.operating_point, field), NOTHING_SHOWN
    return Unknown(reason) if value is None else float(value)


def image_interval(field: str, row: Row, evidence: Evidence) -> Interval | Unknown:
    """The interval of ``image_figure``, or why there is none."""
    value = image_figure(field, row)
    if isinstance(value, Unknown):
        return value
    return getattr(evidence, f"{field}_interval") or Unknown(OLD_RESULTS, value)


def image_interval_in_words(field: str, row: Row, evidence: Evidence) -> str:
    """A figure with its interval, in points: ``41.3, 95 % interval 39.9 to 42.6``; or the reason for none."""
    value, found = image_figure(field, row), image_interval(field, row, evidence)
    if isinstance(value, Unknown):
        return f"none: {value.reason}"
    if isinstance(found, Unknown):
        return f"{points(value)}, interval: none, {found.reason}"
    return f"{points(value)}, {level_in_words(found.level)} interval {points(found.low)} to {points(found.high)}"


def interval_in_words(name: str, row: Row, evidence: Evidence) -> str:
    """The same for the page: ``8.91 ms to 9.12 ms``, or the reason."""
    found = interval_of(name, row, evidence)
    if isinstance(found, Unknown):
        return f"none: {found.reason}"
    return f"{METRICS[name].show(found.low)} to {METRICS[name].show(found.high)}"
