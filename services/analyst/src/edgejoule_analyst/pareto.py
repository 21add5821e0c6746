"""The Pareto front: what no other choice beats on every count.

The paper's Eq. 10 asks, of an optimal x*, that f_i(x) <= f_i(x*) for all x and i and f_j(x) < f_j(x*) for some j. With
objectives to minimise, as it has them, that is the definition of an x* that everything *beats*. What is meant:

    x* is optimal  <=>  there is no x with  f_i(x) <= f_i(x*) for all i  and  f_j(x) < f_j(x*) for some j.
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
