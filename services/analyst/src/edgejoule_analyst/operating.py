"""Precision, recall, F1 and the errors by size at the operating point, resampled over images.

All of them are ratios of sums over images, so the counts of each image are enough; nothing is matched again. The
interval is the percentile one: unlike AP such a ratio hardly runs high on few images, so there is no bias to take out,
and near 0 or 1 a mirrored interval would leave out what is likely.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgejoule_analyst.average_precision import SIZES, FloatArray
from edgejoule_analyst.bootstrap import Estimate, distribution, percentile_interval

OF_ALL = ("precision", "recall", "f1")
FIGURES = (*OF_ALL, *(f"{name}_{size}" for name in ("recall", "false_positives_per_image") for size in SIZES))


def figures(errors: NDArray[np.int32], weights: NDArray[np.int64]) -> FloatArray:
    """Each of ``FIGURES``, [B, F], for B weightings of the images, [B, I]; NaN where it does not exist.

    Args:
        errors: [3, 4, I], of each size and image: objects, those found, detections shown, those of them that are wrong.

    Two images with a small object each, of which the first is found, beside a small false alarm:

    >>> errors = np.zeros((3, 4, 2), np.int32)
    >>> errors[0] = [[1, 1], [1, 0], [2, 0], [1, 0]]
    >>> found = figures(errors, np.array([[1, 1], [1, 0], [0, 2]]))
    >>> found[:, :3].round(3).tolist(), found[:, FIGURES.index("false_positives_per_image_small")].tolist()
    ([[0.5, 0.5, 0.5], [0.5, 1.0, 0.667], [nan, 0.0, 0.0]], [0.5, 1.0, 0.0])
    """
    sizes, kinds, images = errors.shape
    sums = (weights @ errors.reshape(sizes * kinds, images).T).reshape(len(weights), sizes, kinds)
    objects, found, shown, wrong = np.moveaxis(sums, 2, 0)
    in_all, right, in_sight = (count.sum(axis=1) for count in (objects, found, shown))
    with np.errstate(invalid="ignore"):
        of_all = (right / in_sight, right / in_all, 2 * right / (in_sight + in_all))
        return np.column_stack([*of_all, found / objects, wrong / weights.sum(axis=1)[:, None]])


def intervals(errors: NDArray[np.int32], *, count: int, seed: int) -> dict[str, Estimate]:
    """Each of ``FIGURES`` that exists, with its interval; none for ``errors`` of older files, which are empty."""
    if not errors.size:
        return {}
    images = errors.shape[2]
    (values,) = figures(errors, np.ones((1, images), np.int64))
    draws = distribution(partial(figures, errors), images, count=count, seed=seed)
    return {
        name: percentile_interval(value, drawn)
        for name, value, drawn in zip(FIGURES, values, draws.T, strict=True)
        if not np.isnan(value)
    }
