"""What a deployed detector shows, at the protocol's confidence and NMS IoU (0.25 and 0.45 in the paper).

These figures describe one point of use. They are kept apart from AP, which looks at all scores: a cut list
has less recall, so its AP50 is lower and compares with nothing but itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgejoule.records import OperatingPoint, SizeErrors
from edgejoule_evaluator.detections import Detections
from edgejoule_evaluator.ground_truth import Float64s, GroundTruth
from edgejoule_evaluator.matching import Int32s, match_objects
from edgejoule_evaluator.scoring import Scorer, accuracy, curves

Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = ("small", "medium", "large")
_BOUNDS = (32.0**2, 96.0**2)  # COCO's; here each area is of one size


def count_errors(truth: GroundTruth, detections: Detections) -> Int32s:
    """Objects, those found, detections shown, and those of them that are wrong, at IoU 0.5: int32[3, 4, I], of each of
    ``SIZES`` and each image of ``truth``.

    ``detections`` were made with the operating point's confidence and NMS IoU. Crowds as COCO has them. An object has
    the size of its annotation's area, a detection that of its own box.
    """
    matched = match_objects(truth, detections)
    matches = matched.matches
    box = detections.bbox[matched.order].astype(np.float64)
    objects = _sizes(truth.area), np.searchsorted(truth.images, truth.image_id)
    shown = _sizes(box[:, 2] * box[:, 3]), matches.det_image.astype(np.intp)
    right, counts = matches.tp[0], ~matches.ignored[0]
    errors = np.zeros((len(SIZES), 4, len(truth.images)), np.int32)
    kinds = (
        (objects, ~truth.crowd),
        (objects, ~truth.crowd & matched.found[0]),
        (shown, counts),
        (shown, counts & ~right),
    )
    for number, ((size, image), which) in enumerate(kinds):
        np.add.at(errors, (size[which], number, image[which]), 1)
    return errors


def operating_point(
    truth: GroundTruth,
    detections: Detections,
    errors: Int32s,
    confidence: float,
    nms_iou: float,
    scorer: Scorer = "hotcoco",
) -> OperatingPoint:
    """Precision, recall and F1 at IoU 0.5, counted over all categories together.

    ``detections`` were made with ``confidence`` and ``nms_iou``; ``errors`` is ``count_errors`` of them. Precision is
    ``None`` without detections, recall without objects, F1 without both.

    Raises:
        DataError: the set has no objects.
    """
    objects, right, shown, _ = errors.sum(axis=(0, 2)).tolist()
    return OperatingPoint(
        confidence=confidence,
        nms_iou=nms_iou,
        precision=right / shown if shown else None,
        recall=right / objects if objects else None,
        f1=2 * right / (shown + objects) if shown + objects else None,
        ap50=accuracy(curves(truth, detections, scorer)).ap50,
        detections=len(detections),
        by_size={size: _size_errors(of_size) for size, of_size in zip(SIZES, errors, strict=True)},
    )


def _size_errors(counts: Int32s) -> SizeErrors:
    """What was found and what was shown wrongly of one size, from its counts by image, int32[4, I]."""
    objects, found, shown, wrong = counts.sum(axis=1).tolist()
    return SizeErrors(
        objects=objects,
        found=found,
        recall=found / objects if objects else None,
        shown=shown,
        false_positives=wrong,
        false_positives_per_image=wrong / counts.shape[1],
    )


def _sizes(area: Float64s) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """0, 1, 2: an index of ``SIZES`` for each area in square pixels.

    >>> _sizes(np.array([1023.0, 1024.0, 9216.0]))
    array([0, 1, 2])
    """
    return np.searchsorted(_BOUNDS, area, side="right")
