"""Is a difference more than chance? Tests on what repeats, and Holm's correction for asking often.

What repeats is the *trial*: one process, started anew, that times some hundred inferences. Inferences within a trial
follow each other too closely to be independent; their number says nothing of how the next trial will turn out. So the
mean, a quantile, the energy of each trial is one value, and a few values make a Student interval. AP does not repeat
so: a deterministic engine scores the same at every trial, and only the images are a sample (``bootstrap``,
``permutation``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from edgejoule_analyst.bootstrap import LEVEL, NO_EVIDENCE

NO_SPREAD = (
    "every pair differs by exactly the same amount, so the test has no spread to judge by: a deterministic engine"
    " scores one checkpoint alike at every trial, and its repetition is no evidence; resample the images, or train and"
    " calibrate anew by other seeds"
)
TRIALS_ALIKE = "the trials of each are alike to the last digit, so nothing tells how far another would differ"

ROUNDING = 1e-12


@dataclass(frozen=True)
class Spread:
    """A figure with its standard error and the degrees of freedom that the error was judged by."""

    value: float
    error: float
    freedom: float

    @classmethod
    def of(cls, trials: Sequence[float]) -> Spread:
        """The mean of independent values, at least two.

        >>> Spread.of([9.0, 10.0, 11.0])
        Spread(value=10.0, error=0.5773502691896258, freedom=2)

        Raises:
            ValueError: there are fewer than two, so nothing tells how far another would differ.
        """
        if len(trials) < 2:
            raise ValueError(f"{len(trials)} value has no spread; two trials are the least")
        values = np.asarray(trials, float)
        return cls(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values) - 1)

    @classmethod
    def of_draws(cls, value: float, draws: Sequence[float]) -> Spread:
        """A figure whose bootstrap draws, or their percentiles, are known: normal, as wide as their middle 95 %.

        The standard deviation of percentiles is too large: the least and the greatest draw count as much as any other.

        >>> round(Spread.of_draws(0.5, stats.norm(0.5, 0.02).ppf(np.linspace(0.001, 0.999, 101)).tolist()).error, 3)
        0.02
        """
        low, high = np.quantile(draws, (0.025, 0.975))
        return cls(value, float((high - low) / (2 * stats.norm.ppf(0.975))), math.inf)

    def less(self, other: Spread) -> Spread:
        """The difference of two independent figures; its degrees of freedom are Welch's and Satterthwaite's."""
        parts = (self.error**2, other.error**2)
        variance = sum(parts)
        if variance == 0:
            return Spread(self.value - other.value, 0.0, math.inf)
        of_each = zip(parts, (self.freedom, other.freedom), strict=True)
        return Spread(
            self.value - other.value,
            math.sqrt(variance),
            # as shares of the whole, whose squares cannot underflow
            _inverse(sum((part / variance) ** 2 / freedom for part, freedom in of_each)),
        )

    @property
    def scattered(self) -> bool:
        """Whether there is an error to judge by; trials that agree to the last digit leave none but rounding.

        >>> Spread.of([9.1, 9.1, 9.1]).scattered
        False
        """
        return self.error > ROUNDING * max(1.0, abs(self.value))

    def interval(self, level: float) -> tuple[float, float]:
        """The two-sided Student interval."""
        reach = self._quantile((1 + level) / 2) * self.error
        return self.value - reach, self.value + reach

    def bounds(self, confidence: float) -> tuple[float, float]:
        """What the figure is above, and what it is below, each with ``confidence`` on its own."""
        reach = self._quantile(confidence) * self.error
        return self.value - reach, self.value + reach

    @property
    def p(self) -> float:
        """Two-sided p-value of the hypothesis that the true figure is zero."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * _student(self.freedom).sf(abs(self.value) / self.error))

    def _quantile(self, probability: float) -> float:
        return float(_student(self.freedom).ppf(probability))


def _inverse(value: float) -> float:
    return 1 / value if value else math.inf


def _student(freedom: float) -> stats.rv_frozen:
    return stats.norm() if math.isinf(freedom) else stats.t(freedom)


@dataclass(frozen=True)
class PairedT:
    """The paired t-test of the paper's section 3.3."""

    difference: float
    low: float
    high: float
    t: float
    freedom: int
    p: float
    effect: float
    """Cohen's d of pairs: the mean difference in standard deviations of the differences."""


def paired_t_test(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> PairedT:
    """Whether ``second`` less ``first`` differs from zero, trial by trial, as in section 3.3 of the paper.

    Trials must be such that each could have turned out otherwise and that the two of a pair share something: a seed of
    training or calibration, or a round in which every cell was timed once.

    Raises:
        ValueError: fewer than two pairs, or every pair differs by the same amount, as the AP of one checkpoint does.

    >>> round(paired_t_test([37.4, 37.1, 37.7], [38.2, 38.1, 38.4]).effect, 2)
    5.46
    """
    differences = np.subtract(second, first)
    if len(differences) < 2:
        raise ValueError(f"{len(differences)} pair has no spread; two are the least")
    if np.ptp(differences) <= ROUNDING * max(1.0, float(np.abs(differences).max())):
        raise ValueError(NO_SPREAD)
    found = Spread.of(differences.tolist())
    low, high = found.interval(level)
    t = found.value / found.error
    return PairedT(
        found.value, low, high, t, len(differences) - 1, found.p, found.value / float(differences.std(ddof=1))
    )


def holm(p_values: Sequence[float], among: int | None = None) -> list[float]:
    """Each p-value, raised so that all those at or under a level are errors with at most that probability, together.

    Holm (1979): the smallest times their number, the next times one less, and so on, never falling. It asks nothing of
    how the tests hang together.

    Args:
        among: how many tests these were chosen from by what the data say, at least their number. The rest need not be
            made: when the first true hypothesis among these is rejected, those rejected before it are false, so of
            all there are at most ``among`` less their number of true ones, and that is what its p-value is multiplied
            by. Holm's own proof asks no more.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    >>> holm([0.01, 0.02], among=3)
    [0.03, 0.04]
    """
    family = len(p_values) if among is None else among
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (family - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(difference: float, p_holm: float, level: float = LEVEL) -> str:
    """What a test allows one to say of a difference.

    Args:
        p_holm: its p-value, corrected for the others that were made with it.

    >>> verdict(-0.02, 0.012)
    'lower'
    >>> verdict(-0.02, 0.08)
    'no evidence of a difference'
    """
    if p_holm > 1 - level:
        return NO_EVIDENCE
    return "lower" if difference < 0 else "higher"
