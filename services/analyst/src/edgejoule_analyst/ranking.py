"""The ranking by weighted normalized metrics, and how often each wins when nobody knows the weights.

The paper ranks by equal weights and tells of a "sensitivity analysis" whose winners sum to 150 %. Here a cell's share
is the part of the simplex of all weightings (each weight at or above 0, together 1) under which its score is the
highest. The share is a volume, and exact: the weightings under which one cell beats each other are cut out of the
simplex by half-spaces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection, QhullError

from edgejoule.decisions import Share

FloatArray = NDArray[np.float64]
THIN = 1e-9
"""A region with no ball of this radius has no volume to speak of."""


def normalized(values: ArrayLike, higher_is_better: Sequence[bool]) -> FloatArray:
    """Each metric, [K, M], from 0 (the worst of the K) to 1 (the best); 1 where all are equal.

    >>> normalized([[40.0, 9.0], [38.0, 7.0]], [True, False])
    array([[1., 0.],
           [0., 1.]])
    """
    signed = np.asarray(values, float) * np.where(higher_is_better, 1.0, -1.0)
    reach = np.ptp(signed, axis=0)
    scaled: FloatArray = (signed - signed.min(axis=0)) / np.where(reach == 0, 1.0, reach)
    return np.where(reach == 0, 1.0, scaled)


def weigh(values: Mapping[str, Sequence[float]], higher_is_better: Sequence[bool]) -> list[Share]:
    """Each cell's share of the weightings, and its score under equal weights; the greatest share first.

    Args:
        values: cell name to its metrics, at least two of each.
    """
    scores = normalized(list(values.values()), higher_is_better)
    found = [
        Share(name=name, share=share, equal_weights_score=float(score))
        for name, share, score in zip(values, winning_shares(scores), scores.mean(axis=1), strict=True)
    ]
    return sorted(found, key=lambda share: (-share.share, -share.equal_weights_score))


def winning_shares(scores: ArrayLike) -> list[float]:
    """The part of the simplex of weights under which each candidate wins, from its normalized metrics [K, M].

    Equal candidates share what they win together.

    >>> [round(share, 6) for share in winning_shares([[1.0, 0.0], [0.0, 1.0], [0.4, 0.4]])]
    [0.5, 0.5, 0.0]
    """
    matrix = np.asarray(scores, float)
    unique, which, copies = np.unique(matrix, axis=0, return_inverse=True, return_counts=True)
    shares = [_share(row, np.delete(unique, index, axis=0)) for index, row in enumerate(unique)]
    return [shares[index] / int(copies[index]) for index in which.ravel()]


def _share(mine: FloatArray, others: FloatArray) -> float:
    """Volume of {w in the simplex: mine·w >= other·w for all others} over that of the simplex.

    The last weight is one less the sum of the rest, so all is told in M - 1 dimensions.
    """
    if not len(others):
        return 1.0
    less = others - mine  # less·w <= 0
    rows = np.vstack([less[:, :-1] - less[:, -1:], -np.eye(len(mine) - 1), np.ones((1, len(mine) - 1))])
    limits = np.concatenate([-less[:, -1], np.zeros(len(mine) - 1), [1.0]])
    norms = np.linalg.norm(rows, axis=1)
    if ((norms == 0) & (limits < 0)).any():
        return 0.0  # an other is better by the same amount whatever the weights
    rows, limits, norms = rows[norms > 0], limits[norms > 0], norms[norms > 0]
    if len(mine) == 2:
        low = max((limits / rows[:, 0])[rows[:, 0] < 0])
        high = min((limits / rows[:, 0])[rows[:, 0] > 0])
        return max(0.0, float(high - low))
    cost = np.zeros(len(mine))
    cost[-1] = -1  # the greatest ball that fits
    ball = linprog(cost, A_ub=np.column_stack([rows, norms]), b_ub=limits, bounds=[(None, None)] * len(mine))
    if not ball.success or ball.x[-1] < THIN:
        return 0.0
    try:
        corners = HalfspaceIntersection(np.column_stack([rows, -limits]), ball.x[:-1]).intersections
        return float(ConvexHull(corners).volume * math.factorial(len(mine) - 1))
    except QhullError:  # thinner than Qhull can tell from flat
        return 0.0
