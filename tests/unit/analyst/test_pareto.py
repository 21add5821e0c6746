import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgejoule_analyst.pareto import front

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
