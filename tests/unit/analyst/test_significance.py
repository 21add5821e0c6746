"""scipy is the oracle of the t-tests; closed testing, of which Holm's is a short cut, that of his correction."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from edgejoule_analyst.bootstrap import NO_EVIDENCE
from edgejoule_analyst.significance import Spread, holm, paired_t_test, verdict

RANDOM = np.random.default_rng(8)
FIRST, SECOND = RANDOM.normal(9, 0.3, 5), RANDOM.normal(9.5, 0.6, 4)


def test_interval_of_trials_equals_scipys() -> None:
    theirs = stats.t.interval(0.9, len(FIRST) - 1, FIRST.mean(), stats.sem(FIRST))
    assert Spread.of(FIRST.tolist()).interval(0.9) == pytest.approx(theirs, rel=1e-12)


def test_bounds_are_those_of_scipys_one_sided_test() -> None:
    low, high = Spread.of(FIRST.tolist()).bounds(0.95)
    assert stats.ttest_1samp(FIRST, low, alternative="greater").pvalue == pytest.approx(0.05, rel=1e-9)
    assert stats.ttest_1samp(FIRST, high, alternative="less").pvalue == pytest.approx(0.05, rel=1e-9)


def test_difference_of_trials_is_welchs_test() -> None:
    ours = Spread.of(FIRST.tolist()).less(Spread.of(SECOND.tolist()))
    theirs = stats.ttest_ind(FIRST, SECOND, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-10)
    assert ours.freedom == pytest.approx(theirs.df, rel=1e-10)
    assert ours.interval(0.95) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-10)


def test_difference_of_figures_without_error_is_certain() -> None:
    assert Spread(3.0, 0.0, 4).less(Spread(3.0, 0.0, 4)).p == 1
    assert Spread(3.0, 0.0, 4).less(Spread(2.0, 0.0, 4)).p == 0


def test_error_by_draws_is_that_by_their_percentiles() -> None:
    """To 1 %, in the mean of 100 bootstraps of 2,000 draws; the standard deviation of percentiles is 6.7 % more."""
    random = np.random.default_rng(4)
    ratios = []
    for _ in range(100):
        draws = random.normal(0.4, 0.02, 2000)
        ratios.append(Spread.of_draws(0.4, np.percentile(draws, np.arange(101)).tolist()).error / draws.std())
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)


def test_one_trial_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two trials are the least"):
        Spread.of([1.0])


def test_paired_t_test_equals_scipys() -> None:
    first, second = FIRST[:4], SECOND
    ours, theirs = paired_t_test(first.tolist(), second.tolist()), stats.ttest_rel(second, first)
    assert (ours.t, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-12)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-12)
    assert ours.effect == pytest.approx(theirs.statistic / 2, rel=1e-12)  # t = d * sqrt(4 pairs)


def test_paired_t_test_is_refused_when_one_checkpoint_was_scored_five_times() -> None:
    with pytest.raises(ValueError, match="a deterministic engine scores one checkpoint alike"):
        paired_t_test([0.374] * 5, [0.382] * 5)


def closed(p_values: list[float]) -> list[float]:
    """Adjusted by closed testing with Bonferroni's test of each intersection, by brute force."""
    every = range(len(p_values))
    families = [family for size in every for family in combinations(every, size + 1)]
    return [
        max(min(1.0, len(family) * min(p_values[i] for i in family)) for family in families if index in family)
        for index in every
    ]


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_closed_testing_by_bonferroni(seed: int) -> None:
    p_values = (np.random.default_rng(seed).random(6) ** 3).round(3).tolist()
    assert holm(p_values) == pytest.approx(closed(p_values), abs=1e-15)


@pytest.mark.parametrize("seed", range(20))
def test_holm_of_some_tests_of_a_family_is_at_least_that_of_all_of_it_where_they_are_its_smallest(seed: int) -> None:
    p_values = sorted((np.random.default_rng(seed).random(8) ** 3).tolist())
    assert holm(p_values[:3], among=8) == pytest.approx(holm(p_values)[:3], abs=1e-15)
    some = p_values[1::2]
    assert all(ours >= alone for ours, alone in zip(holm(some, among=8), holm(some), strict=True))


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


@pytest.mark.parametrize(
    ("difference", "p_holm", "said"),
    [(-2, 0.04, "lower"), (1, 0.05, "higher"), (-1, 0.051, NO_EVIDENCE), (0, 1.0, NO_EVIDENCE)],
)
def test_verdict_says_a_direction_only_at_the_corrected_level(difference: float, p_holm: float, said: str) -> None:
    assert verdict(difference, p_holm) == said
