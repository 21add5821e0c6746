"""How closely an engine says what its reference says: an AP that needs no labels.

The reference engine's confident detections are taken as the objects, and the other engine's whole list is
scored against them as COCO scores. Both engines err together on what the detector finds hard, so the
figure has far less noise than the difference of two APs on the same images.
"""

from __future__ import annotations

from edgejoule.records import Fidelity
from edgejoule_evaluator.detections import Detections
from edgejoule_evaluator.ground_truth import GroundTruth, from_detections
from edgejoule_evaluator.scoring import Scorer, accuracy, curves

CONFIDENCE = 0.3
"""A reference detection from here on counts as an object.

Above the 0.25 from which a deployed detector shows a box, so the reference is what a user would have seen
and no half-seen noise; not much above, so that small and crowded objects, which quantization hurts first,
are among them. The engine under test is not cut: a box whose score fell still counts, at its new rank.
"""


def fidelity(
    truth: GroundTruth, detections: Detections, reference: Detections, name: str, scorer: Scorer = "hotcoco"
) -> Fidelity | None:
    """AP and AP50 of ``detections`` against ``reference``, both on the images of ``truth``.

    Of ``truth`` only the images and categories are used. ``name`` says which engine the reference is.
    Areas are those of the boxes. ``None`` when the reference has no detection at or above ``CONFIDENCE``.
    """
    objects = from_detections(reference.where(reference.score >= CONFIDENCE), like=truth)
    if not len(objects):
        return None
    score = accuracy(curves(objects, detections, scorer))
    return Fidelity(ap=score.ap, ap50=score.ap50, reference=name, confidence=CONFIDENCE, boxes=len(objects))
