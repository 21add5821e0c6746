"""Figures of the operating point under resampling: brute force on images physically copied, coverage by simulation."""

import numpy as np
import pytest

from edgejoule_analyst.operating import FIGURES, OF_ALL, figures, intervals


def random_errors(images: int, random: np.random.Generator) -> np.ndarray:
    """Small, medium and large objects, those found and false alarms of images that are hard, or not, as a whole."""
    skill = random.beta(4, 2, images)
    objects = random.poisson([[1.5], [1.0], [0.1]], (3, images))
    found = random.binomial(objects, skill)
    wrong = random.poisson(np.array([[0.6], [0.3], [0.1]]) * (1.2 - skill))
    return np.stack([objects, found, found + wrong, wrong], axis=1).astype(np.int32)


def by_hand(errors: np.ndarray) -> dict[str, float]:
    """Every figure of these images, one by one."""
    images = [errors[:, :, number] for number in range(errors.shape[2])]
    objects, found, shown, wrong = (sum(int(image[:, kind].sum()) for image in images) for kind in range(4))
    told = {
        "precision": found / shown if shown else np.nan,
        "recall": found / objects if objects else np.nan,
        "f1": 2 * found / (shown + objects) if shown + objects else np.nan,
    }
    for number, size in enumerate(("small", "medium", "large")):
        objects, found, _, wrong = (sum(int(image[number, kind]) for image in images) for kind in range(4))
        told[f"recall_{size}"] = found / objects if objects else np.nan
        told[f"false_positives_per_image_{size}"] = wrong / len(images)
    return told


def test_figures_equal_those_of_images_physically_copied() -> None:
    random = np.random.default_rng(1)
    errors = random_errors(12, random)
    weights = random.multinomial(12, np.full(12, 1 / 12), size=50)
    expected = [by_hand(np.repeat(errors, row, axis=2)) for row in weights]
    assert any(np.isnan(told["recall_large"]) for told in expected)
    np.testing.assert_allclose(
        figures(errors, weights), [[told[name] for name in FIGURES] for told in expected], rtol=0, atol=1e-12
    )


def test_figures_that_do_not_exist_have_no_interval() -> None:
    errors = random_errors(30, np.random.default_rng(2))
    errors[2] = 0  # nothing large
    found = intervals(errors, count=200, seed=0)
    assert set(FIGURES) - set(found) == {"recall_large"}
    assert found["false_positives_per_image_large"].high == 0
    assert intervals(np.zeros((0, 0, 0), np.int32), count=200, seed=0) == {}


@pytest.mark.timeout(300)
def test_intervals_cover_at_their_level() -> None:
    """1,000 experiments of 200 images; 93 to 97 % is 95 %, give or take 2.9 standard errors."""
    random = np.random.default_rng(3)
    everything = figures(random_errors(400_000, random), np.ones((1, 400_000), np.int64))
    truth = dict(zip(FIGURES, everything[0], strict=True))
    asked = (*OF_ALL, "recall_small", "false_positives_per_image_small")
    covered = dict.fromkeys(asked, 0)
    for seed in range(1000):
        found = intervals(random_errors(200, random), count=400, seed=seed)
        for name in asked:
            covered[name] += found[name].low <= truth[name] <= found[name].high
    assert all(0.93 <= hits / 1000 <= 0.97 for hits in covered.values()), covered
