from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgejoule_analyst.pareto import front, hypervolume

few_values = st.integers(0, 4)
candidates = st.lists(st.tuples(few_values, few_values, few_values), min_size=1, max_size=12)


def beats(one: tuple, other: tuple) -> bool:
    """(AP up, latency down, size down), spelled out."""
    no_worse = one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]
    return no_worse and one != other


@given(candidates)
def test_front_equals_brute_force(points: list[tuple]) -> None:
    ap, latency, size = zip(*points, strict=True)
    expected = [not any(beats(other, point) for other in points) for point in points]
    assert front(maximise=[ap], minimise=[latency, size]).tolist() == expected


@given(candidates)
def test_front_is_never_empty_and_beats_the_rest(points: list[tuple]) -> None:
    ap, latency, size = zip(*points, strict=True)
    on = front(maximise=[ap], minimise=[latency, size])
    best = [point for point, is_on in zip(points, on, strict=True) if is_on]
    assert best
    assert all(any(beats(winner, p) for winner in best) for p, is_on in zip(points, on, strict=True) if not is_on)


def test_duplicates_are_on_the_front_together() -> None:
    assert front(maximise=[[0.3, 0.3, 0.2]], minimise=[[5, 5, 9]]).tolist() == [True, True, False]


def test_a_tie_in_one_objective_is_decided_by_the_other() -> None:
    assert front(maximise=[[0.3, 0.3]], minimise=[[5, 6]]).tolist() == [True, False]


def test_the_papers_own_inequality_would_pick_the_worst() -> None:
    """Its Eq. 10, read literally with every objective minimised, holds for what all others beat."""
    costs = np.array([[1.0, 1.0], [2.0, 2.0]])
    literal = [
        all((x <= star).all() and (x < star).any() for x in np.delete(costs, index, axis=0))
        for index, star in enumerate(costs)
    ]
    assert literal == [False, True]
    assert front(minimise=costs.T).tolist() == [True, False]


def volume_by_inclusion_and_exclusion(boxes: np.ndarray) -> float:
    """Of the union of boxes [N, M] that share the corner 0: an intersection's edges are the least of each."""
    total = 0.0
    for size in range(1, len(boxes) + 1):
        for chosen in combinations(boxes, size):
            total += (-1) ** (size + 1) * float(np.prod(np.min(chosen, axis=0)))
    return total


def of_three(points: list[tuple]) -> float:
    ap, latency, size = zip(*points, strict=True)
    return hypervolume(maximise=[ap], minimise=[latency, size], reference=[1, 4, 3])


@given(st.lists(st.tuples(few_values, few_values, few_values), min_size=1, max_size=7))
def test_hypervolume_equals_inclusion_and_exclusion(points: list[tuple]) -> None:
    boxes = np.array([(max(ap - 1, 0), max(4 - latency, 0), max(3 - size, 0)) for ap, latency, size in points])
    assert of_three(points) == pytest.approx(volume_by_inclusion_and_exclusion(boxes), abs=1e-9)


@given(candidates, st.tuples(few_values, few_values, few_values))
def test_hypervolume_is_the_fronts_and_never_falls_by_another(points: list[tuple], another: tuple) -> None:
    ap, latency, size = zip(*points, strict=True)
    on = front(maximise=[ap], minimise=[latency, size])
    assert of_three([point for point, is_on in zip(points, on, strict=True) if is_on]) == pytest.approx(
        of_three(points)
    )
    assert of_three([*points, another]) >= of_three(points) - 1e-9


def test_hypervolume_is_the_share_of_a_fine_grid_that_is_beaten() -> None:
    random = np.random.default_rng(3)
    ap, latency = random.random((2, 9))
    middles = (np.arange(400) + 0.5) / 400
    beaten = (ap[:, None, None] >= middles[:, None]) & (latency[:, None, None] <= middles)
    found = hypervolume(maximise=[ap], minimise=[latency], reference=[0, 1])
    assert found == pytest.approx(beaten.any(axis=0).mean(), abs=0.005)
