from dataclasses import replace

import numpy as np
import pytest

from edgejoule.records import OperatingPoint
from edgejoule_evaluator.detections import Detections
from edgejoule_evaluator.fidelity import CONFIDENCE, fidelity
from edgejoule_evaluator.ground_truth import GroundTruth, from_dataset
from edgejoule_evaluator.operating_point import count_errors, operating_point

Row = tuple[int, int, float, list[float]]


def a_set(annotations: list[tuple[int, int, list[float], int]]) -> dict[str, object]:
    return {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for n, (image, category, box, crowd) in enumerate(annotations)
        ],
    }


def said(rows: list[Row]) -> Detections:
    return Detections(
        images=np.array([1, 2]),
        image_id=np.array([row[0] for row in rows], np.int64),
        category_id=np.array([row[1] for row in rows], np.int64),
        score=np.array([row[2] for row in rows], np.float32),
        bbox=np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
    )


def point_of(truth: GroundTruth, shown: Detections) -> OperatingPoint:
    return operating_point(truth, shown, count_errors(truth, shown), confidence=0.25, nms_iou=0.45)


LEFT, RIGHT, FAR, ZONE = [0, 0, 10, 10], [20, 0, 10, 10], [60, 60, 10, 10], [100, 100, 50, 50]
UNANNOTATED = from_dataset(a_set([]))


def test_operating_point_counts_right_wrong_and_missed_over_all_categories() -> None:
    truth = from_dataset(a_set([(1, 1, LEFT, 0), (1, 2, RIGHT, 0), (2, 1, FAR, 0), (1, 1, ZONE, 1)]))
    found = said(
        [
            (1, 1, 0.9, LEFT),  # right
            (1, 1, 0.8, [1, 0, 10, 10]),  # the same object again: wrong
            (1, 2, 0.7, LEFT),  # another category's place: wrong
            (2, 1, 0.6, FAR),  # right
            (1, 1, 0.5, [110, 110, 10, 10]),  # in the crowd: not counted
        ]
    )
    point = point_of(truth, found)
    assert point.precision == pytest.approx(2 / 4)
    assert point.recall == pytest.approx(2 / 3)
    assert point.f1 == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert point.detections == 5
    assert (point.confidence, point.nms_iou) == (0.25, 0.45)
    # Cups: right, wrong, right, so precision 1 at 51 of 101 points of recall and 2/3 at the other 50. Dogs: none.
    assert point.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101 / 2)


def test_operating_point_without_detections_has_no_precision() -> None:
    point = point_of(from_dataset(a_set([(1, 1, LEFT, 0)])), said([]))
    assert point.precision is None
    assert (point.recall, point.f1, point.ap50, point.detections) == (0.0, 0.0, 0.0, 0)


def test_fidelity_of_a_detector_to_itself_is_one() -> None:
    rng = np.random.default_rng(0)
    count = 60
    place = np.stack([np.arange(count) * 40.3, rng.uniform(0, 99, count)], axis=1)  # side by side, as after NMS
    itself = Detections(
        images=np.array([1, 2]),
        image_id=rng.integers(1, 3, count),
        category_id=rng.integers(1, 3, count),
        score=rng.random(count).astype(np.float32),
        bbox=np.hstack([place, rng.uniform(3, 40, (count, 2))]).astype(np.float32),
    )
    result = fidelity(UNANNOTATED, itself, itself, "m/fp32/host")
    assert result is not None
    assert (result.ap, result.ap50) == (1.0, 1.0)
    assert result.boxes == int((itself.score >= CONFIDENCE).sum())
    assert result.reference == "m/fp32/host"


def test_fidelity_falls_with_moved_boxes_but_not_with_scaled_scores() -> None:
    reference = said([(1, 1, 0.9, LEFT), (1, 1, 0.6, RIGHT), (2, 2, 0.5, FAR), (2, 2, 0.1, LEFT)])
    weaker = replace(reference, score=reference.score * np.float32(0.5))
    moved = replace(reference, bbox=reference.bbox + np.array([2, 0, 0, 0], np.float32))  # IoU 8 / 12
    assert fidelity(UNANNOTATED, weaker, reference, "fp32").ap == 1.0  # type: ignore[union-attr]
    result = fidelity(UNANNOTATED, moved, reference, "fp32")
    assert result is not None
    assert result.ap50 == 1.0
    assert result.ap == pytest.approx(4 / 10)  # thresholds 0.50, 0.55, 0.60, 0.65


def test_fidelity_is_none_when_the_reference_is_sure_of_nothing() -> None:
    unsure = said([(1, 1, 0.2, LEFT), (1, 1, 0.9, [5, 5, 0, 3])])
    assert fidelity(UNANNOTATED, said([(1, 1, 0.9, LEFT)]), unsure, "fp32") is None


def test_errors_are_told_by_size_of_the_object_and_of_the_wrong_detection() -> None:
    small, medium, large = [0, 0, 31, 33], [100, 0, 32, 32], [200, 200, 96, 96]  # 1023, 1024 and 9216 square pixels
    truth = from_dataset(a_set([(1, 1, small, 0), (1, 1, medium, 0), (2, 1, large, 0), (1, 1, [300, 0, 50, 50], 1)]))
    found = said(
        [
            (1, 1, 0.9, small),  # right
            (1, 1, 0.8, small),  # again: a small one that is wrong
            (2, 2, 0.7, [5, 5, 10, 10]),  # nothing there: another
            (1, 1, 0.6, [100, 0, 28, 32]),  # right, though of small area itself on a medium object
            (1, 1, 0.5, [310, 10, 20, 20]),  # in the crowd: not counted
        ]
    )
    by_size = point_of(truth, found).by_size
    told = {
        size: (errors.objects, errors.found, errors.shown, errors.false_positives) for size, errors in by_size.items()
    }
    assert told == {"small": (1, 1, 4, 2), "medium": (1, 1, 0, 0), "large": (1, 0, 0, 0)}
    assert by_size["small"].false_positives_per_image == 1
    assert by_size["large"].recall == 0


def test_sizes_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(4)
    boxes = np.hstack([rng.uniform(0, 400, (200, 2)), np.exp(rng.uniform(2, 5.5, (200, 2)))]).tolist()
    annotations = [(1 + n % 2, 1 + n % 2, box, int(n % 9 == 0)) for n, box in enumerate(boxes)]
    rows = [(1 + n % 2, 1 + n % 2, 0.3 + n / 1000, [x + 2, y, w, h]) for n, (x, y, w, h) in enumerate(boxes[:150])]
    point = point_of(from_dataset(a_set(annotations)), said(rows))
    parts = point.by_size.values()
    right = sum(part.found for part in parts)
    assert right / sum(part.objects for part in parts) == pytest.approx(point.recall)
    assert 1 - sum(p.false_positives for p in parts) / sum(p.shown for p in parts) == pytest.approx(point.precision)


def counted_one_by_one(truth: GroundTruth, shown: Detections) -> np.ndarray:
    """``count_errors`` from the rule: one detection after the other takes the free object that it overlaps most."""

    def size(area: float) -> int:
        return int(area >= 32**2) + int(area >= 96**2)

    def overlap(box: list[float], item: int) -> float:
        other = truth.bbox[item].tolist()
        sides = [min(box[n] + box[n + 2], other[n] + other[n + 2]) - max(box[n], other[n]) for n in (0, 1)]
        common = max(sides[0], 0) * max(sides[1], 0)
        own, its = box[2] * box[3], other[2] * other[3]
        return common / (own if truth.crowd[item] else own + its - common)

    counts = np.zeros((3, 4, len(truth.images)), int)
    for place, image in enumerate(truth.images):
        for category in truth.categories:
            items = np.flatnonzero((truth.image_id == image) & (truth.category_id == category)).tolist()
            taken: set[int] = set()
            for item in items:
                counts[size(truth.area[item]), 0, place] += not truth.crowd[item]
            mine = np.flatnonzero((shown.image_id == image) & (shown.category_id == category)).tolist()
            for number in sorted(mine, key=lambda number: -shown.score[number])[:100]:
                box = shown.bbox[number].astype(float).tolist()
                near = [(item, overlap(box, item)) for item in items if item not in taken]
                fitting = [(not truth.crowd[item], iou, item) for item, iou in near if iou >= 0.5]
                is_object, _, item = max(fitting, default=(False, 0.0, None))
                if item is not None and not is_object:
                    continue  # in a crowd
                counts[size(box[2] * box[3]), 2, place] += 1
                if item is None:
                    counts[size(box[2] * box[3]), 3, place] += 1
                else:
                    taken.add(item)
                    counts[size(truth.area[item]), 1, place] += 1
    return counts


@pytest.mark.parametrize("seed", range(4))
def test_errors_of_each_image_equal_those_counted_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.hstack([rng.uniform(0, 200, (60, 2)), np.exp(rng.uniform(2.5, 5, (60, 2)))])
    annotations = [(1 + n % 2, 1 + n % 3 % 2, box, int(n % 8 == 0)) for n, box in enumerate(boxes.tolist())]
    shaken = boxes[rng.integers(0, 60, 150)]
    shaken[:, :2] += rng.normal(0, 4, (150, 2))
    rows = [
        (int(rng.integers(1, 3)), int(rng.integers(1, 3)), float(rng.random()), np.float32(box).tolist())
        for box in shaken
    ]
    truth = from_dataset(a_set(annotations))
    expected = counted_one_by_one(truth, said(rows))
    assert expected.sum(axis=(0, 2)).min() > 0
    np.testing.assert_array_equal(count_errors(truth, said(rows)), expected)
