"""The bootstrap over images: how far a figure would move had other images been drawn.

A deterministic engine scores the same AP at every trial, so trials say nothing about its uncertainty; the
images do, they are a sample. Two figures are compared on *the same* resamples: an image hard for one
engine is hard for the other, and what they share cancels.

Two intervals, because AP is biased and a difference of APs hardly is. On few images AP runs *high*: a rare
category's false positives come from a handful of images, and precision gains more by their absence than it loses by
their repetition. Resampling repeats that bias on top of the one the estimate has, so the percentile interval of an
AP lies too high by twice the bias; the *basic* interval mirrors the draws at the estimate and takes it out. Between
two engines on the same images the bias cancels, the draws lie around the estimate, and mirroring their long tail to
the wrong side only costs coverage: there the *percentile* interval is the better. ``benchmarks/interval_coverage.py``
measures both claims. BCa was not taken: its acceleration, a jackknife estimate, is erratic where one image reorders a
curve; nor the studentized one, which needs a bootstrap within each resample.

All of it speaks of the images only: not of training, calibration or build seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Statistic = Callable[[NDArray[np.int64]], FloatArray]
"""Weights [B, I] (how often each image was drawn) to values [B, ...]."""

RESAMPLES = 2000
LEVEL = 0.95
BATCH = 128
NO_EVIDENCE = "no evidence of a difference"


@dataclass(frozen=True)
class Estimate:
    """A figure on the images as they are, and the interval that resampling them gives."""

    value: float
    low: float
    high: float
    level: float


def resamples(images: int, count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """``count`` resamples of ``images`` images with replacement, as weights [<=BATCH, images].

    The same arguments give the same resamples, whatever is computed from them: that is what pairs two statistics.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, count, BATCH):
        drawn = generator.integers(0, images, (min(BATCH, count - start), images))
        offsets = np.arange(len(drawn))[:, None] * images
        yield np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)


def distribution(
    statistic: Statistic,
    images: int,
    *,
    count: int = RESAMPLES,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> FloatArray:
    """``statistic`` under each resample, [count, ...]. ``progress`` is told how many are done."""
    parts = []
    done = 0
    for weights in resamples(images, count, seed):
        parts.append(statistic(weights))
        done += len(weights)
        progress(done)
    return np.concatenate(parts)


def percentile_interval(value: float, draws: FloatArray, level: float = LEVEL) -> Estimate:
    """The middle ``level`` of ``draws`` [count].

    Resamples for which the figure does not exist (NaN: none of the images drawn has a ground truth) are left out.

    >>> percentile_interval(4.0, np.arange(9.0), level=0.75)
    Estimate(value=4.0, low=1.0, high=7.0, level=0.75)
    """
    tail = (1 - level) / 2
    low, high = np.nanquantile(draws, (tail, 1 - tail))
    return Estimate(float(value), float(low), float(high), level)


def basic_interval(value: float, draws: FloatArray, level: float = LEVEL) -> Estimate:
    """The percentile interval mirrored at ``value``, for a fraction: a bias of ``draws`` is taken out, not doubled.

    >>> basic_interval(0.5, np.linspace(0.5, 1.0, 9), level=0.75)
    Estimate(value=0.5, low=0.0625, high=0.4375, level=0.75)
    """
    drawn = percentile_interval(value, draws, level)
    low, high = (min(1.0, max(0.0, 2 * value - end)) for end in (drawn.high, drawn.low))
    return Estimate(drawn.value, low, high, level)
