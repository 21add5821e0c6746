"""pycocotools is the oracle, on the images as they are and on physically resampled data sets."""

from dataclasses import replace

import numpy as np
import pytest
from coco_scenes import copied, matches_of, oracle, oracle_figures, random_scene
from hypothesis import given
from hypothesis import strategies as st

from edgejoule.errors import DataError
from edgejoule_analyst.average_precision import (
    LATER,
    RECALL_POINTS,
    AccuracyCurves,
    ApCurves,
    Matches,
    recall_points_reached,
)


@pytest.mark.parametrize("seed", range(4))
def test_ap_equals_pycocotools_when_every_image_weighs_one(seed: int) -> None:
    scene = random_scene(seed, images=25)
    ap = ApCurves(matches_of(*scene)).at(np.ones((1, 25), np.int64))
    np.testing.assert_allclose(ap[0], oracle(*scene), rtol=0, atol=1e-9)


def test_ap_equals_pycocotools_on_physically_resampled_images() -> None:
    images, count = 15, 20
    scene = random_scene(11, images)
    random = np.random.default_rng(0)
    weights = random.multinomial(images, np.full(images, 1 / images), size=count)
    ap = ApCurves(matches_of(*scene)).at(weights)
    expected = [oracle(*copied(*scene, row)) for row in weights]
    np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-9)


def test_every_figure_equals_pycocotools_on_physically_resampled_images() -> None:
    images, count = 15, 12
    scene = random_scene(12, images)
    weights = np.random.default_rng(3).multinomial(images, np.full(images, 1 / images), size=count)
    curves = AccuracyCurves(matches_of(*scene))
    expected = [oracle_figures(*copied(*scene, row)) for row in weights]
    assert set(curves.figures) == set(expected[0])
    np.testing.assert_allclose(
        curves.at(weights), [[found[name] for name in curves.figures] for found in expected], rtol=0, atol=1e-9
    )


def test_sizes_without_objects_and_files_of_before_sizes_were_kept_have_no_figure(tmp_path) -> None:
    matches = matches_of(*random_scene(12, images=15))
    no_large = replace(matches, size_gt=matches.size_gt & np.array([[True], [True], [False]]))
    assert "ap_medium" in AccuracyCurves(no_large).figures
    assert "ap_large" not in AccuracyCurves(no_large).figures
    np.savez(tmp_path / "older", **{name: array for name, array in vars(matches).items() if name not in LATER})
    older = Matches.load(tmp_path / "older.npz")
    assert AccuracyCurves(older).figures == AccuracyCurves(matches, by_size=False).figures
    assert older.same_images(matches)


def test_ap_is_the_same_for_a_resample_whatever_stands_beside_it() -> None:
    curves = ApCurves(matches_of(*random_scene(2, images=12)))
    weights = np.random.default_rng(1).integers(0, 4, (300, 12))
    together = curves.at(weights)
    np.testing.assert_array_equal(together[200], curves.at(weights[200:201])[0])


def test_ap_is_nan_when_no_drawn_image_has_a_ground_truth() -> None:
    scene = random_scene(3, images=10)
    with_objects = {annotation["image_id"] for annotation in scene[0]["annotations"] if not annotation["iscrowd"]}
    weights = np.array([[int(image not in with_objects) for image in range(1, 11)]])
    assert np.isnan(ApCurves(matches_of(*scene)).at(weights)).all()


def test_ap_is_zero_when_nothing_is_detected() -> None:
    matches = matches_of(*random_scene(4, images=6))
    none = np.zeros(0, np.int32)
    empty = replace(
        matches,
        det_image=none,
        det_category=none,
        det_score=none.astype(np.float32),
        tp=np.zeros((10, 0), bool),
        ignored=np.zeros((10, 0), bool),
    )
    assert (ApCurves(empty).at(np.ones((2, 6), np.int64)) == 0).all()


@given(st.integers(1, 5000), st.data())
def test_recall_points_equal_a_search_among_cocos_thresholds(ground_truths: int, data: st.DataObject) -> None:
    true = data.draw(st.integers(1, ground_truths))
    recall = np.array([true / ground_truths])
    expected = np.searchsorted(np.linspace(0, 1, RECALL_POINTS), recall, side="right")
    assert recall_points_reached(recall) == expected


def test_load_gives_back_what_was_written(tmp_path) -> None:
    matches = matches_of(*random_scene(5, images=4))
    np.savez(tmp_path / "matches", **vars(matches))
    loaded = Matches.load(tmp_path / "matches.npz")
    assert loaded.same_images(matches)
    np.testing.assert_array_equal(loaded.tp, matches.tp)
    np.testing.assert_array_equal(loaded.size_tp, matches.size_tp)


@pytest.mark.parametrize("name", ["tp", "size_tp", "size_gt", "operating"])
def test_load_names_the_array_when_shapes_disagree(tmp_path, name: str) -> None:
    matches = replace(matches_of(*random_scene(5, images=4)), operating=np.zeros((3, 4, 4), np.int32))
    np.savez(tmp_path / "matches", **{**vars(matches), name: getattr(matches, name)[:, 1:]})
    with pytest.raises(DataError, match=f"array {name} has shape"):
        Matches.load(tmp_path / "matches.npz")


def test_load_tells_what_to_do_when_the_file_is_no_npz(tmp_path) -> None:
    path = tmp_path / "matches"
    path.write_text("no")
    with pytest.raises(DataError, match="run the score step again"):
        Matches.load(path)


def test_same_images_is_false_when_ground_truths_differ() -> None:
    matches = matches_of(*random_scene(5, images=4))
    assert not matches.same_images(replace(matches, gt_count=matches.gt_count + 1))
