"""The paired permutation test over images: could the difference of two APs have come of which image fell to which?

Were two engines alike, it would not matter which of the two answers to an image is called whose. So the answers are
swapped, image by image, by the toss of a coin, AP is computed of both mixtures, and the difference that was found is
held against those that come of coins. It asks nothing of how AP is distributed, and an image counts once, however many
boxes it has.

A mixture is a weighting: the images of both engines side by side, weight 1 where an engine's answer was taken, 0 where
not. So it costs what a resample of the bootstrap costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgejoule_analyst.average_precision import ApCurves, FloatArray, Matches
from edgejoule_analyst.comparison import Metric, metrics_of

BATCH = 64
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
    """Test that ``metric`` of two engines on the same images differs by chance only.

    Stops early once ``ENOUGH`` tosses reached the difference: p is then their share, else (1 + reached) / (1 + count).

    Args:
        count: most tosses; the least p-value is 1 / (1 + count).
    """
    images = len(first.image_ids)
    curves = ApCurves(side_by_side(first, second))
    untouched = float(_difference(curves, np.zeros((1, images), bool), metric)[0])
    generator = np.random.default_rng(seed)
    reached = done = 0
    while done < count:
        swapped = generator.integers(0, 2, (min(BATCH, count - done), images)).astype(bool)
        hits = np.abs(_difference(curves, swapped, metric)) >= abs(untouched) - ROUNDING
        if reached + np.count_nonzero(hits) >= ENOUGH:
            tosses = done + int(np.flatnonzero(hits)[ENOUGH - reached - 1]) + 1
            return Permutation(untouched, ENOUGH / tosses, tosses)
        reached += int(np.count_nonzero(hits))
        done += len(swapped)
        progress(done)
    return Permutation(untouched, (1 + reached) / (1 + count), count)


def _difference(curves: ApCurves, swapped: NDArray[np.bool_], metric: Metric) -> FloatArray:
    """Second less first, [B], with the answers to some images swapped, [B, I]."""
    weights = np.zeros((2, *swapped.shape, 2), np.int64)  # engine in the mixture, toss, image, engine it came from
    weights[0, ..., 0] = weights[1, ..., 1] = ~swapped
    weights[0, ..., 1] = weights[1, ..., 0] = swapped
    first, second = (metrics_of(curves.at(half.reshape(len(swapped), -1)))[metric] for half in weights)
    return second - first


def side_by_side(first: Matches, second: Matches) -> Matches:
    """One data set of twice the images: image i of ``first`` is 2i, of ``second`` 2i + 1, so ties keep their order."""
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
