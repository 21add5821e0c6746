"""Energy of a window from power samples, and how far from the truth it may be. Pure: arrays in, numbers out.

The energy is the trapezoid integral over the samples' own times. What is stated with it is an expanded uncertainty at
95 %, combined as the Guide to the Expression of Uncertainty in Measurement says (GUM, JCGM 100:2008): independent
parts add as squares (5.1.2), a part known only by its bounds ±a counts as a/√3 (4.3.7), and the factor for 95 % is
Student's t with the effective degrees of freedom (G.4). Its parts are:

**sampling**: nobody looked between two samples. The sampler looks once in every period, at a moment drawn evenly from
it. The trapezoid rule gives sample i the weight w_i = (t_{i+1} - t_{i-1}) / 2, whose mean, given t_i, is the period: so
the rule's mean is the true integral, whatever the waveform, also when it repeats with the sampler's own period, which
a sampler at regular moments would take for constant. The variance of such a stratified sample is that of each moment's
value within its period, added up with w_i². One look per period cannot show it, but neighbours can: p_i less the line
through its neighbours, its square divided by the noise gain of that difference (1 + a² + (1 - a)², where t_i lies the
share a of the way between them), estimates it free of slopes (Gasser, Sroka and Jennen-Steinmetz, "Residual variance
and residual pattern in nonlinear regression", Biometrika 73 (1986) 625-633; in survey sampling the estimator by
successive differences: Wolter, "Introduction to Variance Estimation", ch. 8). It is right in the mean for white noise,
and too large for what changes more slowly: four times the variance for a random walk, over twice for rare edges. Of a
load faster than the sampler no more is known than it met, so the degrees of freedom are counted from the residuals
themselves: (Σ q)² / Σ q², a third of the samples for white noise, and twice the number of pulses where few were met.

**resolution**: each reading is off by up to half a step. On a steady load it is the same half step every time, so
nothing averages out: the half-widths add up over the window, and count as one rectangular error.

**gaps**: where samples are missing for over 2.5 periods, power is taken to have stayed within the range seen in the
window: the trapezoid there is off by at most the larger distance to that range's ends, a rectangular error per gap.

**the sensor's own error** (gain and offset, from its data sheet) is stated beside these, not in them: it is the same in
every measurement with that sensor, so it matters for joules against another board's, and not for one model against
another on this board.
"""

from typing import Any, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgejoule_agent.errors import SensorError

GAP_PERIODS = 2.5  # neighbours drawn evenly from their periods are at most 2 apart
DEAD_S = 1.0  # without a reading for so long at either end of the window: nothing bounds what was missed
MISSED_LIMIT = 0.5  # share of the window in gaps beyond which the range seen says nothing
MIN_SAMPLES = 10
STUCK_CHANCE = 1e-6  # that readings which used to change stay the same so long by chance
STUCK_TIMES = 5  # a frozen end must be so many times longer than any other still stretch
COVERAGE = 0.95

# Student's t for 95 % (two-sided) by degrees of freedom: GUM, table G.2
STUDENT_95 = (
    *((1, 12.71), (2, 4.30), (3, 3.18), (4, 2.78), (5, 2.57), (6, 2.45), (7, 2.36), (8, 2.31), (9, 2.26), (10, 2.23)),
    *((15, 2.13), (20, 2.09), (30, 2.04), (50, 2.01), (100, 1.984), (np.inf, 1.960)),
)


class Resolution(NamedTuple):
    """The step from one possible reading to the next at ``p`` watts: ``step_w + step_share * p``."""

    step_w: float
    step_share: float


EXACT = Resolution(0.0, 0.0)


class Accuracy(NamedTuple):
    """Largest errors of the sensor itself, by its data sheet: ``gain`` as a share, ``offset_w`` in watts."""

    gain: float
    offset_w: float


class Energy(NamedTuple):
    """Energy of one window. ``uncertainty_j`` and ``sensor_error_j`` are half-widths at 95 %; parts are standard.

    ``sensor_error_j`` is None where the sensor's data sheet is not known.
    """

    joules: float
    uncertainty_j: float
    window_s: float
    samples: int
    period_s: float
    max_gap_s: float
    sampling_j: float
    resolution_j: float
    gaps_j: float
    freedom: float
    sensor_error_j: Optional[float]

    @property
    def power_w(self) -> float:
        """Mean power over the window."""
        return self.joules / self.window_s

    @property
    def power_uncertainty_w(self) -> float:
        """Half-width at 95 % of the mean power."""
        return self.uncertainty_j / self.window_s


def integrate(
    times_s: Any,
    powers_w: Any,
    window_s: Tuple[float, float],
    resolution: Resolution = EXACT,
    accuracy: Optional[Accuracy] = None,
    period_s: float = 0.1,
) -> Energy:
    """Energy between two moments from samples of a rail that feeds the running board.

    >>> times = np.arange(0.05, 12, 0.1)
    >>> found = integrate(times, 2 + times, (1, 11))  # a ramp from 3 to 13 W
    >>> round(found.joules, 6), round(found.uncertainty_j, 6), found.samples
    (80.0, 0.0, 100)

    Args:
        times_s: float64[n], rising; the middle of each reading on one monotonic clock.
        powers_w: float64[n]; NaN where the reading failed. Such a rail is never at 0 W, so 0 is no reading either.
        window_s: begin and end; samples outside help at its edges.
        period_s: the sampler's.

    Raises:
        SensorError: nothing can be said: the rail died, stuck or was hardly read; the message is the reason.
    """
    times, powers = np.asarray(times_s, np.float64), np.asarray(powers_w, np.float64)
    begin, end = window_s
    with np.errstate(invalid="ignore"):
        good = np.isfinite(powers) & (powers > 0)
    inside = (times >= begin) & (times <= end)
    _check_alive(times[inside], powers[inside], good[inside], window_s, period_s)
    first, last = np.flatnonzero(good & inside)[[0, -1]]
    near = good & (times >= times[first] - 3 * period_s) & (times <= times[last] + 3 * period_s)
    times, powers = times[near], powers[near]

    # the first and last value hold to the window's ends where no sample lies beyond; that stretch counts as a gap
    holds_left, holds_right = int(times[0] > begin), int(times[-1] < end)
    knots = np.concatenate([[begin] * holds_left, times, [end] * holds_right])
    values = np.pad(powers, (holds_left, holds_right), mode="edge")
    left, right = np.clip(knots[:-1], begin, end), np.clip(knots[1:], begin, end)
    length = right - left
    share = ((left + right) / 2 - knots[:-1]) / np.diff(knots)  # where the panel's part inside has its middle
    middle = values[:-1] * (1 - share) + values[1:] * share
    joules = float(length @ middle)

    gap = np.diff(knots) > GAP_PERIODS * period_s
    gap[0] |= bool(holds_left)
    gap[-1] |= bool(holds_right)
    seen = powers[(times >= begin) & (times <= end)]
    gaps_j = float(np.sqrt(np.sum((length * np.maximum(seen.max() - middle, middle - seen.min()))[gap] ** 2) / 3))
    missed_s = float(length[gap].sum())
    if missed_s > MISSED_LIMIT * (end - begin):
        raise SensorError(f"no readings for {missed_s:.1f} s of the {end - begin:.1f} s window, all gaps added")

    weights = np.zeros(len(knots))
    weights[:-1] += np.where(gap, 0, length * (1 - share))
    weights[1:] += np.where(gap, 0, length * share)
    weights = weights[holds_left : len(knots) - holds_right]
    variances = weights**2 * _residual_variances(times, powers)
    total = float(variances.sum())
    freedom = total**2 / float(np.sum(variances**2)) if total > 0 else np.inf

    resolution_j = (resolution.step_w * (end - begin) + resolution.step_share * joules) / 2 / np.sqrt(3)
    combined = np.sqrt(total + resolution_j**2 + gaps_j**2)
    # Welch-Satterthwaite (GUM G.4.1): only the sampling part was estimated from few numbers
    effective = freedom * (combined**2 / total) ** 2 if total > 0 else np.inf
    return Energy(
        joules=joules,
        uncertainty_j=float(student_95(effective) * combined),
        window_s=end - begin,
        samples=len(seen),
        period_s=float(np.median(np.diff(times))),
        max_gap_s=float(np.diff(knots).max()),
        sampling_j=float(np.sqrt(total)),
        resolution_j=float(resolution_j),
        gaps_j=gaps_j,
        freedom=float(effective),
        sensor_error_j=None if accuracy is None else _sensor_error_j(accuracy, joules, end - begin),
    )


def from_counters(grown_j: Sequence[float], seconds: float, step_j: float, update_s: float) -> Energy:
    """Energy from counters that were read at a window's begin and end and miss nothing between.

    Each of their two readings is behind by up to one update and rounded by up to a step: two rectangular errors at each
    end. The updates of different counters are independent.

    >>> found = from_counters([100.0, 20.0], 10.0, step_j=61e-6, update_s=1e-3)
    >>> found.joules, round(found.uncertainty_j, 4)
    (120.0, 0.0082)

    Args:
        grown_j: by how much each counter grew.

    Raises:
        SensorError: one stood still.
    """
    grown = np.asarray(grown_j, np.float64)
    if not np.all(grown > 0):
        raise SensorError(f"an energy counter stood still for {seconds:.1f} s")
    errors_j = np.concatenate([update_s * grown / seconds, np.full(len(grown), step_j)]) / 2
    resolution_j = float(np.sqrt(2 * np.sum(errors_j**2) / 3))
    return Energy(
        joules=float(grown.sum()),
        uncertainty_j=student_95(np.inf) * resolution_j,
        window_s=seconds,
        samples=2,
        period_s=seconds,
        max_gap_s=0.0,
        sampling_j=0.0,
        resolution_j=resolution_j,
        gaps_j=0.0,
        freedom=np.inf,
        sensor_error_j=None,
    )


def above_idle(busy: Energy, idle: Energy) -> Tuple[float, float]:
    """Energy of ``busy`` beyond what idling for as long takes, and its half-width at 95 %, joules."""
    scale = busy.window_s / idle.window_s
    return busy.joules - scale * idle.joules, float(np.hypot(busy.uncertainty_j, scale * idle.uncertainty_j))


def student_95(freedom: float) -> float:
    """Student's t for 95 %, two-sided: GUM table G.2, linear in 1 / degrees of freedom between its rows.

    >>> student_95(4.0), round(student_95(70.0), 3), student_95(np.inf)
    (2.78, 1.995, 1.96)
    """
    inverse = [1 / row[0] for row in STUDENT_95]
    return float(np.interp(1 / freedom, inverse[::-1], [row[1] for row in STUDENT_95][::-1]))


def _residual_variances(times: Any, powers: Any) -> Any:
    """Variance of each sample about the line through its neighbours, float64[n]; the ends take their neighbour's."""
    between = (times[1:-1] - times[:-2]) / (times[2:] - times[:-2])
    residual = powers[1:-1] - (1 - between) * powers[:-2] - between * powers[2:]
    return np.pad(residual**2 / (1 + between**2 + (1 - between) ** 2), 1, mode="edge")


def _sensor_error_j(accuracy: Accuracy, joules: float, seconds: float) -> float:
    """Gain and offset as two rectangular errors, at 95 %."""
    return float(student_95(np.inf) * np.hypot(accuracy.gain * joules, accuracy.offset_w * seconds) / np.sqrt(3))


def _check_alive(times: Any, powers: Any, good: Any, window_s: Tuple[float, float], period_s: float) -> None:
    """Refuse a rail that died in the window.

    Raises:
        SensorError: no reading any more, 0 W, or the same reading for longer than chance allows.
    """
    begin, end = window_s
    if not good.any():
        what = "reads 0 W" if np.any(powers == 0) else "gives no reading"
        raise SensorError(f"the rail {what} in the whole window of {end - begin:.1f} s")
    live = times[good]
    if end - live[-1] > DEAD_S + period_s:
        what = "reads 0 W" if np.any(powers[times > live[-1]] == 0) else "gives no reading any more"
        raise SensorError(f"the rail {what} from {live[-1] - begin:.1f} s on, in a window of {end - begin:.1f} s")
    if live[0] - begin > DEAD_S + period_s:
        what = "read 0 W" if np.any(powers[times < live[0]] == 0) else "gave no reading"
        raise SensorError(f"the rail {what} for the first {live[0] - begin:.1f} s of a window of {end - begin:.1f} s")
    if len(live) < MIN_SAMPLES:
        raise SensorError(
            f"only {len(live)} readings in a window of {end - begin:.1f} s, and {MIN_SAMPLES} are needed: "
            "take it longer"
        )
    still = still_tail(powers[good])
    if still and end - live[-still] > DEAD_S:
        raise SensorError(
            f"the rail is stuck: it reads {powers[good][-1]:.3f} W unchanged for the last {end - live[-still]:.1f} s "
            f"of a window of {end - begin:.1f} s, and changed often before"
        )


def still_tail(values: Any) -> int:
    """How many readings at the end are frozen, or 0 when that many equal ones can be chance.

    A steady load gives equal readings too. Frozen is an end that is unlikely by how often readings changed before
    it, and far longer than any still stretch before it (a load that rests and works has those).

    >>> still_tail(np.array([1.0, 2.0] * 20 + [3.0] * 20)), still_tail(np.ones(60)), still_tail(np.arange(60.0))
    (20, 0, 0)
    """
    changed = np.flatnonzero(np.diff(values) != 0) + 1
    if not len(changed):
        return 0
    tail = len(values) - int(changed[-1])
    before = int(changed[-1])
    longest = int(np.diff(np.concatenate([[0], changed])).max())
    chance = (1 - len(changed) / (before + 1)) ** tail
    return tail if tail > STUCK_TIMES * longest and chance < STUCK_CHANCE else 0
