"""What a deployed detector shows, at the protocol's confidence and NMS IoU (0.25 and 0.45 in the paper).

These figures describe one point of use. They are kept apart from AP, which looks at all scores: a cut list
has less recall, so its AP50 is lower and compares with nothing but itself.
"""

from __future__ import annotations

from edgejoule.records import OperatingPoint
from edgejoule_evaluator.detections import Detections
from edgejoule_evaluator.ground_truth import GroundTruth
from edgejoule_evaluator.matching import match
from edgejoule_evaluator.scoring import Scorer, accuracy, curves


def operating_point(
    truth: GroundTruth, detections: Detections, confidence: float, nms_iou: float, scorer: Scorer = "hotcoco"
) -> OperatingPoint:
    """Precision, recall and F1 at IoU 0.5, counted over all categories together; crowds as COCO has them.

    ``detections`` were made with ``confidence`` and ``nms_iou``. Precision is ``None`` without detections,
    recall without objects, F1 without both.

    Raises:
        DataError: the set has no objects.
    """
    matches = match(truth, detections)
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
    )
