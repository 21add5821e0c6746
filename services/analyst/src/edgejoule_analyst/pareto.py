"""The Pareto front: what no other choice beats on every count.

The paper's Eq. 10 asks, of an optimal x*, for an x with f_i(x) <= f_i(x*) for all i and f_j(x) < f_j(x*) for some j.
With objectives to minimise, as it has them, that is the definition of an x* that something *beats*. What is meant:

    x* is optimal  <=>  there is no x with  f_i(x) <= f_i(x*) for all i  and  f_j(x) < f_j(x*) for some j.

How good a front is as a whole is its hypervolume (Zitzler and Thiele, 1998): the volume of what it beats, up to a
reference point. No front that another beats has a greater one, and two may be compared at one reference point only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(maximise: Sequence[ArrayLike] = (), minimise: Sequence[ArrayLike] = ()) -> NDArray[np.bool_]:
    """Which of N candidates no other dominates, [N].

    Args:
        maximise: objectives of which more is better, each [N].
        minimise: objectives of which less is better, each [N].

    Equal candidates do not dominate each other: both are on the front, or neither.

    >>> front(maximise=[[0.3, 0.2, 0.2]], minimise=[[9.0, 5.0, 6.0]])
    array([ True,  True, False])
    """
    columns = [-np.asarray(values, float) for values in maximise] + [np.asarray(values, float) for values in minimise]
    costs = np.stack(columns, axis=1)
    return np.array([not _dominated(cost, costs) for cost in costs], dtype=bool)


def _dominated(cost: NDArray[np.float64], by: NDArray[np.float64]) -> bool:
    return bool(np.any(np.all(by <= cost, axis=1) & np.any(by < cost, axis=1)))


def hypervolume(
    maximise: Sequence[ArrayLike] = (), minimise: Sequence[ArrayLike] = (), *, reference: Sequence[float]
) -> float:
    """Volume of what N candidates beat that is better than ``reference``, in the product of the objectives' units.

    Args:
        maximise: objectives of which more is better, each [N].
        minimise: objectives of which less is better, each [N].
        reference: a value of each objective, those to maximise first. A candidate that is not better than it in every
            objective adds nothing.

    Of AP against ms, with AP 0 and 10 ms to compare with: .3 from 9 ms on, .2 from 5 to 9.

    >>> round(hypervolume(maximise=[[0.3, 0.2, 0.2]], minimise=[[9.0, 5.0, 6.0]], reference=[0.0, 10.0]), 9)
    1.1
    """
    columns = [-np.asarray(values, float) for values in maximise] + [np.asarray(values, float) for values in minimise]
    ends = np.array([-each for each in reference[: len(maximise)]] + list(reference[len(maximise) :]), float)
    return _volume(np.maximum(ends - np.stack(columns, axis=1), 0.0))


def _volume(extents: NDArray[np.float64]) -> float:
    """Of the union of boxes that share a corner, with edges [N, M]: sliced along the last, each slice by the others."""
    if extents.shape[1] == 1:
        return float(extents.max(initial=0.0))
    cuts = np.unique(extents[:, -1])
    below = np.concatenate([[0.0], cuts[:-1]])
    return sum(
        float(cut - floor) * _volume(extents[extents[:, -1] >= cut, :-1])
        for floor, cut in zip(below, cuts, strict=True)
    )
