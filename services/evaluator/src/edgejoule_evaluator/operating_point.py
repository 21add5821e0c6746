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
from edgejoule_evaluator.matching import Matched, match_objects
from edgejoule_evaluator.scoring import Scorer, accuracy, curves

Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = ("small", "medium", "large")
_BOUNDS = (32.0**2, 96.0**2)  # COCO's; here each area is of one size


def operating_point(
    truth: GroundTruth, detections: Detections, confidence: float, nms_iou: float, scorer: Scorer = "hotcoco"
) -> OperatingPoint:
    """Precision, recall and F1 at IoU 0.5, counted over all categories together; crowds as COCO has them.

    ``detections`` were made with ``confidence`` and ``nms_iou``. Precision is ``None`` without detections,
    recall without objects, F1 without both.

    Raises:
        DataError: the set has no objects.
    """
    matched = match_objects(truth, detections)
    matches = matched.matches
    right = int(matches.tp[0].sum())
    shown = int((~matches.ignored[0]).sum())
    objects = int(matches.gt_count.sum())
    return OperatingPoint(
        confidence=confidence,
        nms_iou=nms_iou,
        precision=right / shown if shown else None,
        recall=right / objects if objects else None,
        f1=2 * right / (shown + objects) if shown + objects else None,
        ap50=accuracy(curves(truth, detections, scorer)).ap50,
        detections=len(detections),
        by_size=by_size(truth, detections, matched),
    )


def by_size(truth: GroundTruth, detections: Detections, matched: Matched) -> dict[Size, SizeErrors]:
    """What was found and what was shown wrongly at IoU 0.5, per size."""
    boxes = detections.bbox[matched.order].astype(np.float64)
    counts = ~matched.matches.ignored[0]
    wrong = counts & ~matched.matches.tp[0]
    object_sizes, shown_sizes = _sizes(truth.area), _sizes(boxes[:, 2] * boxes[:, 3])
    errors: dict[Size, SizeErrors] = {}
    for number, size in enumerate(SIZES):
        objects = (object_sizes == number) & ~truth.crowd
        of_size = shown_sizes == number
        total, found = int(objects.sum()), int((objects & matched.found[0]).sum())
        false = int((wrong & of_size).sum())
        errors[size] = SizeErrors(
            objects=total,
            found=found,
            recall=found / total if total else None,
            shown=int((counts & of_size).sum()),
            false_positives=false,
            false_positives_per_image=false / len(truth.images),
        )
    return errors


def _sizes(area: Float64s) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """0, 1, 2: an index of ``SIZES`` for each area in square pixels.

    >>> _sizes(np.array([1023.0, 1024.0, 9216.0]))
    array([0, 1, 2])
    """
    return np.searchsorted(_BOUNDS, area, side="right")
