"""The paired permutation test over images: could the difference of two APs have come of which image fell to which?

Were two engines alike, it would not matter which of the two answers to an image is called whose. So the answers are
swapped, image by image, by the toss of a coin, AP is computed of both mixtures, and the difference that was found is
held against those that come of coins. It asks nothing of how AP is distributed, and an image counts once, however many
boxes it has.

A mixture is a weighting: the images of both engines side by side, weight 1 where an engine's answer was taken, 0 where
not. A toss costs some seven resamples of the bootstrap: two mixtures, of twice the images each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgejoule_analyst.average_precision import METRICS, ApCurves, FloatArray, Matches, Metric, metrics_of

BATCH = 64
TOSSES = 1000
"""Most for one difference, whatever the number of tests: see ``beyond``."""
ENOUGH = 20
"""A difference that coins reached so often is none; the p-value is known well enough (Besag and Clifford, 1991)."""
ROUNDING = 1e-12


@dataclass(frozen=True)
class Permutation:
    """What the coins said of one difference."""

    difference: float
    """Second less first."""
    p: float
    """Two-sided."""
    tosses: int


def paired_permutation(
    first: Matches,
    second: Matches,
    metric: Metric,
    *,
    count: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Permutation:
    """``paired_permutations`` of one metric; an example is there."""
    return paired_permutations(first, second, (metric,), count=count, seed=seed, progress=progress)[metric]


def paired_permutations(
    first: Matches,
    second: Matches,
    metrics: Sequence[Metric] = METRICS,
    *,
    count: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[Metric, Permutation]:
    """Test that each of ``metrics`` of two engines on the same images differs by chance only.

    All are of the same tosses, so a metric's p-value is the same whichever others are asked for. Each stops once
    ``ENOUGH`` tosses reached its difference: p is then their share, else (1 + reached) / (1 + count), and where none
    did, what lies ``beyond`` if that is less.

    Args:
        count: most tosses.
        progress: told how many tosses are done.

    Two engines see ten images with an object each; the first finds every one, the second none. Only the 2 of 1,024
    ways to swap that leave each engine's answers together differ as much:

    >>> images = np.arange(10, dtype=np.int32)
    >>> def engine(finds: bool) -> Matches:
    ...     return Matches(images, np.array([1]), np.array([0.5]), images, np.zeros(10, np.int32),
    ...                    np.full(10, 0.9, np.float32), np.full((1, 10), finds), np.zeros((1, 10), bool),
    ...                    np.ones((10, 1), np.int32))
    >>> found = paired_permutations(engine(True), engine(False), count=999, seed=0)["ap50"]
    >>> round(found.difference, 6), found.p < 0.02
    (-1.0, True)
    >>> paired_permutation(engine(True), engine(True), "ap50", count=199, seed=0)
    Permutation(difference=0.0, p=1.0, tosses=20)
    """
    images = len(first.image_ids)
    curves = ApCurves(side_by_side(first, second))
    untouched = {metric: float(each[0]) for metric, each in _differences(curves, np.zeros((1, images), bool)).items()}
    generator = np.random.default_rng(seed)
    reached, squares = dict.fromkeys(metrics, 0), dict.fromkeys(metrics, 0.0)
    found: dict[Metric, Permutation] = {}
    done = 0
    while done < count and len(found) < len(reached):
        swapped = generator.integers(0, 2, (min(BATCH, count - done), images)).astype(bool)
        tossed = _differences(curves, swapped)
        for metric in reached.keys() - found.keys():
            hits = np.flatnonzero(np.abs(tossed[metric]) >= abs(untouched[metric]) - ROUNDING)
            if reached[metric] + len(hits) >= ENOUGH:
                tosses = done + int(hits[ENOUGH - reached[metric] - 1]) + 1
                found[metric] = Permutation(untouched[metric], ENOUGH / tosses, tosses)
            reached[metric] += len(hits)
            squares[metric] += float(np.sum(tossed[metric] ** 2))
        done += len(swapped)
        progress(done)
    for metric in reached.keys() - found.keys():
        p = (1 + reached[metric]) / (1 + count)
        if reached[metric] == 0:
            p = min(p, beyond(untouched[metric], squares[metric] / count))
        found[metric] = Permutation(untouched[metric], p, count)
    return {metric: found[metric] for metric in metrics}


def beyond(difference: float, variance: float) -> float:
    """Hoeffding's bound of the p-value of a difference that no toss reached, by the tosses' mean square.

    Each image that is swapped takes its share of the difference to the other side. Where these shares add up, as they
    do to first order, the tosses are a sum of independent terms of random sign, and P(|sum| >= d) is at most
    2 exp(-d² / 2 variance), whatever the terms (Hoeffding, 1963). Only below 1 / (1 + count) is it ever used, so what
    the tosses can tell is left to them; without it a correction over many tests would take many tosses for each.

    >>> round(beyond(5.0, 1.0), 9), beyond(0.5, 0.0)
    (7.453e-06, 0.0)
    """
    return 2 * math.exp(-(difference**2) / (2 * variance)) if variance else 0.0


def _differences(curves: ApCurves, swapped: NDArray[np.bool_]) -> dict[Metric, FloatArray]:
    """Second less first, [B], by metric, with the answers to some images swapped, [B, I]."""
    weights = np.zeros((2, *swapped.shape, 2), np.int64)  # engine in the mixture, toss, image, engine it came from
    weights[0, ..., 0] = weights[1, ..., 1] = ~swapped
    weights[0, ..., 1] = weights[1, ..., 0] = swapped
    first, second = (metrics_of(curves.at(half.reshape(len(swapped), -1))) for half in weights)
    return {metric: second[metric] - first[metric] for metric in METRICS}


def side_by_side(first: Matches, second: Matches) -> Matches:
    """One data set of twice the images: image i of ``first`` is 2i, of ``second`` 2i + 1, so ties keep their order.

    >>> places = np.arange(2, dtype=np.int32)
    >>> one = Matches(places, np.array([1]), np.array([0.5]), places, np.zeros(2, np.int32), np.ones(2, np.float32),
    ...               np.ones((1, 2), bool), np.zeros((1, 2), bool), np.ones((2, 1), np.int32))
    >>> side_by_side(one, one).det_image.tolist()
    [0, 2, 1, 3]
    """
    images = len(first.image_ids)
    return Matches(
        image_ids=np.arange(2 * images),
        category_ids=first.category_ids,
        ious=first.ious,
        det_image=np.concatenate([2 * first.det_image, 2 * second.det_image + 1]).astype(np.int32),
        det_category=np.concatenate([first.det_category, second.det_category]),
        det_score=np.concatenate([first.det_score, second.det_score]),
        tp=np.concatenate([first.tp, second.tp], axis=1),
        ignored=np.concatenate([first.ignored, second.ignored], axis=1),
        gt_count=np.stack([first.gt_count, second.gt_count], axis=1).reshape(2 * images, -1),
    )
