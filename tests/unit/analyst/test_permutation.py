"""scipy's exact permutation test, over every way to swap, is the oracle; pycocotools that of a mixture's AP."""

import numpy as np
import pytest
from coco_scenes import matches_of, oracle, random_scene
from scipy import stats

from edgejoule_analyst.average_precision import METRICS, ApCurves, Matches
from edgejoule_analyst.permutation import ENOUGH, beyond, paired_permutation, paired_permutations, side_by_side
from edgejoule_analyst.significance import holm

IMAGES = 8


def engines(seed: int, loss: float, images: int = IMAGES) -> tuple[tuple[dict, list[dict]], tuple[dict, list[dict]]]:
    """Two engines on one data set; the second lost a share of the first's detections."""
    dataset, detections = random_scene(seed, images)
    random = np.random.default_rng(seed)
    return (dataset, detections), (dataset, [each for each in detections if random.random() > loss])


def test_ap_of_a_mixture_equals_pycocotools() -> None:
    (dataset, one), (_, two) = engines(3, 0.3, images=12)
    swapped = np.random.default_rng(1).integers(0, 2, 12)
    mixture = [each for each in one if not swapped[each["image_id"] - 1]]
    mixture += [each for each in two if swapped[each["image_id"] - 1]]
    curves = ApCurves(side_by_side(matches_of(dataset, one), matches_of(dataset, two)))
    weights = np.stack([1 - swapped, swapped], axis=1).reshape(1, -1)
    np.testing.assert_allclose(curves.at(weights)[0], oracle(dataset, mixture), rtol=0, atol=1e-9)


def test_p_value_is_scipys_exact_one() -> None:
    (dataset, one), (_, two) = engines(5, 0.25)
    first, second = matches_of(dataset, one), matches_of(dataset, two)
    curves = ApCurves(side_by_side(first, second))

    def difference(of_second: np.ndarray, of_first: np.ndarray, axis: int = -1) -> float:
        weights = np.zeros((2, 2 * IMAGES), np.int64)
        weights[0, of_second.astype(int)] = weights[1, of_first.astype(int)] = 1
        ap = curves.at(weights).mean(axis=1)
        return ap[0] - ap[1]

    places = 2 * np.arange(IMAGES)
    theirs = stats.permutation_test(
        (places + 1, places), difference, permutation_type="samples", vectorized=False, n_resamples=np.inf
    )
    ours = paired_permutation(first, second, "ap", count=4000, seed=0)
    assert ours.difference == pytest.approx(theirs.statistic, abs=1e-12)
    # a p-value of a stopped test has a relative error of about 1 / sqrt(ENOUGH); of a full one, a binomial one
    error = theirs.pvalue / np.sqrt(ENOUGH) if ours.tosses < 4000 else np.sqrt(theirs.pvalue / 4000)
    assert abs(ours.p - theirs.pvalue) < 3 * error


def test_no_difference_stops_early_with_a_p_value_of_one() -> None:
    matches = matches_of(*random_scene(1, IMAGES))
    found = paired_permutation(matches, matches, "ap50", count=1000, seed=0)
    assert (found.difference, found.p, found.tosses) == (0, 1, ENOUGH)


def test_clear_difference_has_the_least_p_value() -> None:
    found = paired_permutation(lucky(0, 0, skill=0.95), lucky(0, 1, skill=0.3), "ap", count=200, seed=0)
    assert found.difference < 0
    assert 0 < found.p < 1 / 201


def test_what_lies_beyond_the_tosses_is_not_less_than_many_more_of_them_find() -> None:
    """Of differences that 100 tosses do not reach, each p-value is at or above the one that 20,000 measure."""
    judged = 0
    for seed in range(40):
        pair = lucky(seed, 0, skill=0.75), lucky(seed, 1, skill=0.4)
        few = paired_permutation(*pair, "ap50", count=100, seed=seed)
        if few.p < 1 / 101:
            many = paired_permutation(*pair, "ap50", count=20_000, seed=seed + 1000)
            judged += many.p > 1 / 20_001
            assert few.p >= many.p or many.p < 1 / 20_001
    assert judged >= 4


@pytest.mark.parametrize("terms", [[1.0] * 14, [0.5**n for n in range(14)], list(range(1, 15))])
def test_bound_holds_for_every_sum_of_random_signs(terms: list[float]) -> None:
    """All 2¹⁴ signs of equal, falling and rising terms."""
    signs = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)
    sums = np.abs(signs @ np.array(terms))
    for d in np.quantile(sums, (0.5, 0.9, 0.99, 0.999, 1)):
        assert np.mean(sums >= d - 1e-12) <= beyond(float(d), float(np.sum(np.square(terms))))


def test_p_values_of_equal_engines_are_spread_evenly() -> None:
    """Where both are alike in all but luck, p is under .05 in 5 % of 200 experiments, and 3 standard errors."""
    errors = 0
    for seed in range(200):
        first, second = lucky(seed, 0), lucky(seed, 1)
        errors += paired_permutation(first, second, "ap50", count=199, seed=seed).p <= 0.05
    assert errors / 200 <= 0.05 + 0.047


@pytest.mark.parametrize(("seed", "loss"), [(5, 0.05), (6, 0.25), (7, 0.6)])
def test_metrics_of_the_same_tosses_have_the_p_values_that_each_has_alone(seed: int, loss: float) -> None:
    (dataset, one), (_, two) = engines(seed, loss, images=20)
    pair = matches_of(dataset, one), matches_of(dataset, two)
    together = paired_permutations(*pair, count=300, seed=1)
    assert together == {metric: paired_permutation(*pair, metric, count=300, seed=1) for metric in METRICS}


def test_family_of_equal_engines_errs_anywhere_at_most_as_often_as_said() -> None:
    """400 runs of 5 engines alike, each against the first: after Holm, any is called different in 5 % of runs.

    Bounds: what chance alone exceeds in one of a thousand draws. Uncorrected, the same runs must exceed it, or the
    bound would say nothing.
    """
    runs, level = 400, 0.05
    p_values = [
        [paired_permutation(lucky(seed, 0), lucky(seed, e), "ap50", count=159, seed=seed).p for e in range(1, 5)]
        for seed in range(runs)
    ]
    bound = stats.binom.ppf(0.999, runs, level)
    assert sum(min(holm(family)) <= level for family in p_values) <= bound
    assert sum(min(family) <= level for family in p_values) > bound


def lucky(seed: int, engine: int, skill: float = 0.6) -> Matches:
    """30 images, one category, an object and a detection on each, found by the toss of a coin."""
    random = np.random.default_rng((seed, engine))
    places = np.arange(30, dtype=np.int32)
    return Matches(
        image_ids=np.arange(30),
        category_ids=np.array([1]),
        ious=np.array([0.5]),
        det_image=places,
        det_category=np.zeros(30, np.int32),
        det_score=random.random(30).astype(np.float32),
        tp=random.random((1, 30)) < skill,
        ignored=np.zeros((1, 30), bool),
        gt_count=np.ones((30, 1), np.int32),
    )
