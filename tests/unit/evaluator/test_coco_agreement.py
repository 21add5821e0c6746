"""hotcoco, pycocotools and our own matching say the same of any data set."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import coco, cocoeval

from edgejoule.errors import DataError
from edgejoule_evaluator.detections import Detections
from edgejoule_evaluator.ground_truth import GroundTruth
from edgejoule_evaluator.matching import Matches, match, read_matches, write_matches
from edgejoule_evaluator.scoring import Curves, accuracy, ap_by_category, curves

# Coarse values, so that ties of score and of IoU, and areas at the very bounds of small and medium, are common.
sides = st.sampled_from([0.0, 1.0, 16.0, 31.0, 32.0, 33.0, 48.0, 95.9, 96.0, 97.0, 200.0])
places = st.sampled_from([0.0, 1.0, 2.0, 4.0, 8.0, 24.0, 100.0])
shifts = st.sampled_from([0.0, 0.0, 0.5, 1.0, -3.0])
scores = st.sampled_from([0.001, 0.25, 0.3, 0.5, 0.5, 0.9, 1.0])
boxes = st.tuples(places, places, sides, sides)
area_shares = st.sampled_from([1.0, 1.0, 0.5, 0.0, 9216 / 10000])


def shifted(box: tuple[float, float, float, float], dx: float, dw: float) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x + dx, y, max(0.0, width + dw), height


@st.composite
def problems(draw: st.DrawFn) -> tuple[GroundTruth, Detections]:
    images = np.array(sorted(draw(st.sets(st.integers(0, 50), min_size=1, max_size=4))), np.int64)
    categories = np.array(sorted(draw(st.sets(st.integers(0, 90), min_size=1, max_size=3))), np.int64)
    where = st.tuples(st.sampled_from(images.tolist()), st.sampled_from(categories.tolist()))
    objects = draw(st.lists(st.tuples(where, boxes, area_shares, st.sampled_from([False, False, True])), max_size=12))
    free = st.tuples(where, boxes, scores)
    near = free
    if objects:
        near = st.builds(
            lambda item, dx, dw, score: (item[0], shifted(item[1], dx, dw), score),
            st.sampled_from(objects),
            shifts,
            shifts,
            scores,
        )
    found = draw(st.lists(st.one_of(near, near, free), max_size=20))
    bbox = np.array([box for _, box, _, _ in objects], np.float64).reshape(-1, 4)
    truth = GroundTruth(
        images=images,
        categories=categories,
        names=tuple(f"class {number}" for number in categories),
        image_id=np.array([image for (image, _), _, _, _ in objects], np.int64),
        category_id=np.array([category for (_, category), _, _, _ in objects], np.int64),
        bbox=bbox,
        area=bbox[:, 2] * bbox[:, 3] * np.array([share for _, _, share, _ in objects], np.float64),
        crowd=np.array([crowd for _, _, _, crowd in objects], np.bool_),
    )
    detections = Detections(
        images=images,
        image_id=np.array([image for (image, _), _, _ in found], np.int64),
        category_id=np.array([category for (_, category), _, _ in found], np.int64),
        score=np.array([score for _, _, score in found], np.float32),
        bbox=np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
    )
    return truth, detections


def crowded_problem(seed: int, images: int = 12, objects: int = 30, found: int = 160) -> tuple[GroundTruth, Detections]:
    """Many detections per image and category (the limit of 100 bites), continuous boxes, some crowds."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(1, images + 1) * 7
    centre, size = rng.uniform(0, 300, (images * objects, 2)), np.exp(rng.uniform(2, 5.5, (images * objects, 2)))
    bbox = np.hstack([centre, size])
    category = rng.integers(1, 3, images * objects)
    source = (rng.integers(0, objects, (images, found)) + np.arange(images)[:, None] * objects).ravel()
    shaken = bbox[source] + rng.normal(0, 0.12, (len(source), 4)) * np.tile(size[source], 2)
    truth = GroundTruth(
        images=numbers,
        categories=np.array([1, 2, 3]),
        names=("one", "two", "none of it"),
        image_id=np.repeat(numbers, objects),
        category_id=category,
        bbox=bbox,
        area=bbox[:, 2] * bbox[:, 3] * rng.uniform(0.4, 1, len(bbox)),
        crowd=rng.random(len(bbox)) < 0.1,
    )
    detections = Detections(
        images=numbers,
        image_id=np.repeat(numbers, found),
        category_id=np.where(rng.random(len(source)) < 0.9, 1, category[source]),
        score=rng.random(len(source)).round(2).astype(np.float32),
        bbox=np.hstack([shaken[:, :2], shaken[:, 2:].clip(1)]).astype(np.float32),
    )
    return truth, detections


def official_stats(truth: GroundTruth, detections: Detections) -> list[float]:
    """pycocotools used as its own demo does, independent of ``scoring``."""

    def annotations(items, **columns):  # type: ignore[no-untyped-def]
        plain = {key: np.asarray(value).tolist() for key, value in columns.items()}
        return [
            {"id": n + 1, "image_id": int(items.image_id[n]), "category_id": int(items.category_id[n]), "iscrowd": 0}
            | {key: value[n] for key, value in plain.items()}
            for n in range(len(items))
        ]

    target = coco.COCO()
    target.dataset = {
        "images": [{"id": n} for n in truth.images.tolist()],
        "categories": [{"id": n} for n in truth.categories.tolist()],
        "annotations": annotations(truth, bbox=truth.bbox, area=truth.area, iscrowd=truth.crowd.astype(int)),
    }
    target.createIndex()
    rows = annotations(detections, bbox=detections.bbox, score=detections.score)
    evaluation = cocoeval.COCOeval(target, target.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist()


def precision_from(matches: Matches, threshold: int, category: int) -> float | None:
    """AP of one category at one IoU threshold, straight from COCO's definition: 101 recall points, one at a time."""
    objects = int(matches.gt_count[:, category].sum())
    if objects == 0:
        return None
    counted = (matches.det_category == category) & ~matches.ignored[threshold]
    order = np.argsort(-matches.det_score[counted], kind="stable")
    right = np.cumsum(matches.tp[threshold, counted][order])
    recall, precision = right / objects, right / np.arange(1, len(right) + 1)
    return float(np.mean([max(precision[recall >= point], default=0.0) for point in np.linspace(0, 1, 101)]))


def average_precision(matches: Matches) -> float:
    cells = [precision_from(matches, t, c) for t in range(len(matches.ious)) for c in range(len(matches.category_ids))]
    return float(np.mean([value for value in cells if value is not None]))


def of_size(matches: Matches, number: int) -> Matches:
    """What is kept of one size, as if it were all that there is."""
    tp, ignored = (
        np.unpackbits(bits[number], axis=1, count=len(matches.det_score)).astype(bool)
        for bits in (matches.size_tp, matches.size_ignored)
    )
    mine, gt_count = matches.size_gt[number], np.zeros_like(matches.gt_count)
    np.add.at(gt_count, (matches.gt_image[mine], matches.gt_category[mine]), 1)
    return replace(matches, tp=tp, ignored=ignored, gt_count=gt_count)


def assert_our_matches_equal(matches: Matches, reference: Curves) -> None:
    """AP over all areas and of each size, from the definition, against pycocotools."""
    expected = accuracy(reference)
    assert average_precision(matches) == pytest.approx(expected.ap, abs=1e-9)
    for number, ap in enumerate((expected.ap_small, expected.ap_medium, expected.ap_large)):
        mine = of_size(matches, number)
        assert mine.gt_count.any() == (ap is not None)
        assert ap is None or average_precision(mine) == pytest.approx(ap, abs=1e-9)


@given(problems())
@settings(max_examples=120)
def test_hotcoco_and_our_matches_equal_pycocotools(problem: tuple[GroundTruth, Detections]) -> None:
    truth, detections = problem
    fast, reference = curves(truth, detections, scorer="hotcoco"), curves(truth, detections, scorer="pycocotools")
    np.testing.assert_allclose(fast.precision, reference.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.recall, reference.recall, rtol=0, atol=1e-12)
    if not truth.crowd.all():  # else there is no AP, see below
        assert_our_matches_equal(match(truth, detections), reference)


@pytest.mark.parametrize("seed", range(4))
def test_all_agree_when_crowded_and_over_the_limit_of_detections(seed: int) -> None:
    truth, detections = crowded_problem(seed)
    fast, reference = curves(truth, detections), curves(truth, detections, scorer="pycocotools")
    np.testing.assert_allclose(fast.precision, reference.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.recall, reference.recall, rtol=0, atol=1e-12)
    matches = match(truth, detections)
    assert_our_matches_equal(matches, reference)
    per_cell = np.bincount(matches.det_image * 3 + matches.det_category)
    assert per_cell.max() == 100
    assert matches.ignored.any()
    assert matches.tp[0].any()


def test_accuracy_equals_the_official_summary() -> None:
    truth, detections = crowded_problem(5)
    stats = official_stats(truth, detections)
    for scorer in ("hotcoco", "pycocotools"):
        result = accuracy(curves(truth, detections, scorer=scorer))  # type: ignore[arg-type]
        ours = [result.ap, result.ap50, result.ap75, result.ap_small, result.ap_medium, result.ap_large, result.ar100]
        assert ours == pytest.approx([*stats[:6], stats[8]], abs=1e-12)


def test_scorers_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    truth, detections = crowded_problem(6, images=2)
    curves(truth, detections, scorer="hotcoco")
    curves(truth, detections, scorer="pycocotools")
    assert capfd.readouterr() == ("", "")


def test_category_without_objects_has_no_ap_and_area_without_objects_is_none() -> None:
    truth, detections = crowded_problem(7)
    small = truth.area < 32**2
    keep = ~small
    truth = GroundTruth(
        truth.images, truth.categories, truth.names,
        truth.image_id[keep], truth.category_id[keep], truth.bbox[keep], truth.area[keep], truth.crowd[keep],
    )  # fmt: skip
    result = curves(truth, detections)
    assert ap_by_category(result, truth)["none of it"] is None
    assert accuracy(result).ap_small is None
    assert accuracy(result).ap_large is not None


def test_accuracy_is_a_data_error_when_there_is_no_object() -> None:
    truth, detections = crowded_problem(8, images=2)
    only_crowds = GroundTruth(
        truth.images, truth.categories, truth.names,
        truth.image_id, truth.category_id, truth.bbox, truth.area, np.ones_like(truth.crowd),
    )  # fmt: skip
    with pytest.raises(DataError, match="no annotated object"):
        accuracy(curves(only_crowds, detections))


def test_matches_file_returns_what_was_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    matches = match(*crowded_problem(9))
    write_matches(tmp_path / "first", matches)
    write_matches(tmp_path / "second", matches)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    again = read_matches(tmp_path / "first")
    for name, array in vars(matches).items():
        np.testing.assert_array_equal(getattr(again, name), array)
