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
from edgejoule.errors import OptionError

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


def parse_weights(texts: Sequence[str], metrics: Sequence[str]) -> dict[str, float]:
    """The weights of a command line by metric, together 1; empty where it names none.

    Args:
        metrics: those that can be weighed.

    >>> parse_weights(["ap50:3", "latency:1"], ["ap50", "latency"])
    {'ap50': 0.75, 'latency': 0.25}

    Raises:
        OptionError: there is no such metric, its weight is no number from 0 on, one is named twice, only one is named,
            or all are 0.
    """
    weights: dict[str, float] = {}
    for text in texts:
        metric, _, number = text.partition(":")
        if metric not in metrics:
            raise OptionError(
                f"--weight {text}: there is no metric {metric!r} to weigh; there are {', '.join(metrics)}"
            )
        if metric in weights:
            raise OptionError(f"--weight names {metric} more than once; give it one weight")
        try:
            weights[metric] = float(number)
        except ValueError:
            weights[metric] = math.nan
        if not 0 <= weights[metric] < math.inf:
            raise OptionError(f"--weight {text} is not METRIC:WEIGHT with a number from 0 on, as in {metric}:2")
    if len(weights) == 1:
        raise OptionError(f"--weight names {metric} alone; name at least two, or rank by it with --objective {metric}")
    greatest = max(weights.values(), default=1.0)
    if not greatest:
        raise OptionError("--weight: every weight is 0; give at least one that is more")
    total = sum(weight / greatest for weight in weights.values())
    return {metric: weight / greatest / total for metric, weight in weights.items()}


def weigh(
    values: Mapping[str, Sequence[float]], higher_is_better: Sequence[bool], weights: Sequence[float] | None = None
) -> list[Share]:
    """Each cell's share of the weightings and its score: by ``weights`` the best first, else the greatest share first.

    Args:
        values: cell name to its metrics, at least two of each.
        weights: of the metrics, together 1; None: equal ones.
    """
    scores = normalized(list(values.values()), higher_is_better)
    equal = scores.mean(axis=1)
    asked = equal if weights is None else scores @ np.asarray(weights, float)
    found = [
        Share(name=name, share=share, equal_weights_score=float(mean), score=float(score))
        for name, share, mean, score in zip(values, winning_shares(scores), equal, asked, strict=True)
    ]
    if weights is not None:
        return sorted(found, key=lambda share: (-share.score, -share.share))
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
