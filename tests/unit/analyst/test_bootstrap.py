import numpy as np
import pytest
from scipy import stats

from edgejoule_analyst.average_precision import ApCurves, Matches
from edgejoule_analyst.bootstrap import (
    BATCH,
    Estimate,
    basic_interval,
    distribution,
    percentile_interval,
    resamples,
)


def mean_under(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_interval_of_a_paired_mean_equals_scipys_for_the_same_random_stream() -> None:
    random = np.random.default_rng(5)
    first = random.normal(0, 1, 60)
    second = first + random.normal(0.1, 0.3, 60)
    draws = [distribution(mean_under(values), 60, count=1000, seed=9) for values in (first, second)]
    ours = percentile_interval((second - first).mean(), draws[1] - draws[0])
    theirs = stats.bootstrap(
        (first, second),
        lambda a, b, axis: (b - a).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=1000,
        batch=BATCH,
        rng=np.random.default_rng(9),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_resamples_draw_each_image_as_often_as_chance_has_it() -> None:
    weights = np.concatenate(list(resamples(40, 1000, seed=1)))
    assert weights.shape == (1000, 40)
    assert (weights.sum(axis=1) == 40).all()
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 40, rel=0.05)


def test_resamples_are_the_same_when_the_seed_is() -> None:
    first, again, other = (np.concatenate(list(resamples(7, 300, seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_distribution_tells_its_progress_up_to_the_last_resample() -> None:
    told: list[int] = []
    distribution(mean_under(np.arange(5.0)), 5, count=300, seed=0, progress=told.append)
    assert told == [128, 256, 300]


def test_interval_leaves_out_resamples_without_the_figure() -> None:
    assert percentile_interval(1.0, np.array([np.nan, 1.0, 1.0])) == Estimate(1.0, 1.0, 1.0, 0.95)


def test_basic_interval_equals_scipys_for_the_same_random_stream() -> None:
    values = np.random.default_rng(5).uniform(0.2, 0.4, 60)
    ours = basic_interval(values.mean(), distribution(mean_under(values), 60, count=1000, seed=9))
    theirs = stats.bootstrap(
        (values,), np.mean, method="basic", n_resamples=1000, batch=BATCH, rng=np.random.default_rng(9)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_basic_interval_takes_a_bias_out_where_percentile_doubles_it() -> None:
    draws = np.random.default_rng(1).normal(0.34, 0.01, 2000)  # an estimate of .32 that resampling lifts by .02
    percentile, basic = percentile_interval(0.32, draws), basic_interval(0.32, draws)
    assert (percentile.low + percentile.high) / 2 == pytest.approx(0.34, abs=0.002)
    assert (basic.low + basic.high) / 2 == pytest.approx(0.30, abs=0.002)


def test_basic_interval_stays_a_fraction() -> None:
    assert basic_interval(0.02, np.linspace(0, 0.3, 100)).low == 0


def test_interval_covers_a_true_null_at_its_level() -> None:
    """400 experiments of 100 images without a true difference; 95 % must cover, give or take 3 standard errors."""
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(400):
        shared = random.normal(0, 1, 100)
        difference = (shared + random.normal(0, 0.5, 100)) - (shared + random.normal(0, 0.5, 100))
        interval = percentile_interval(0, distribution(mean_under(difference), 100, count=400, seed=seed))
        covered += interval.low <= 0 <= interval.high
    assert 0.95 - 0.033 <= covered / 400 <= 0.95 + 0.033


def equal_engines(images: int, random: np.random.Generator) -> tuple[ApCurves, ApCurves]:
    """Two that find six of ten objects, one to four in each image, by luck that seven of ten objects share."""
    image = np.repeat(np.arange(images), random.integers(1, 5, images))
    category = random.integers(0, 2, len(image))
    gt_count = np.zeros((images, 2), np.int32)
    np.add.at(gt_count, (image, category), 1)
    common, is_shared = random.random(len(image)), random.random(len(image)) < 0.7
    made = []
    for _ in range(2):
        luck = np.where(is_shared, common, random.random(len(image)))
        wrong = random.integers(0, images, images)
        scores = np.concatenate([random.beta(4, 2, len(image)), random.beta(2, 4, images)])
        matches = Matches(
            image_ids=np.arange(images),
            category_ids=np.arange(2),
            ious=np.array([0.5]),
            det_image=np.concatenate([image, wrong]).astype(np.int32),
            det_category=np.concatenate([category, random.integers(0, 2, images)]).astype(np.int32),
            det_score=scores.astype(np.float32),
            tp=np.concatenate([luck < 0.6, np.zeros(images, bool)])[None],
            ignored=np.zeros((1, len(scores)), bool),
            gt_count=gt_count,
        )
        made.append(ApCurves(matches))
    return made[0], made[1]


@pytest.mark.timeout(300)  # 13 s of CPU time
def test_interval_of_a_difference_of_ap_covers_at_its_level() -> None:
    """1,000 experiments of 200 images with equal engines; 93 to 97 % is 95 %, give or take 2.9 standard errors."""
    random, images, covered = np.random.default_rng(2), 200, 0
    for seed in range(1000):
        engines = equal_engines(images, random)
        values = [each.at(np.ones((1, images), np.int64))[0, 0] for each in engines]
        draws = [distribution(each.at, images, count=400, seed=seed)[:, 0] for each in engines]
        interval = percentile_interval(values[1] - values[0], draws[1] - draws[0])
        covered += interval.low <= 0 <= interval.high
    assert 0.93 <= covered / 1000 <= 0.97
