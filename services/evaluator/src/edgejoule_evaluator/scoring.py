"""COCO bounding-box accuracy: hotcoco by default, pycocotools as the reference.

Both fill the same precision and recall tensors; what is read off them is one piece of code. Annotations
are numbered anew from 1, because pycocotools takes an object whose id is 0 for unmatched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgejoule.errors import DataError
from edgejoule.records import Accuracy
from edgejoule_evaluator.detections import Detections
from edgejoule_evaluator.ground_truth import Float64s, GroundTruth

Scorer = Literal["hotcoco", "pycocotools"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_IOU_50, _IOU_75 = 0, 5  # indices of IOU_THRESHOLDS
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # area ranges: all, < 32^2, 32^2..96^2, > 96^2 square pixels
_MOST = 2  # index of 100 among COCO's limits 1, 10, 100


@dataclass(frozen=True)
class Curves:
    """COCO's interpolated curves; -1 where there is no ground truth.

    precision: float64[T=10, R=101, C, 4 areas, 3 limits]. recall: float64[T, C, 4, 3], the largest reached.
    """

    precision: Float64s
    recall: Float64s


def curves(truth: GroundTruth, detections: Detections, scorer: Scorer = "hotcoco") -> Curves:
    """Match and accumulate as COCO does, over the images and categories of ``truth``."""
    return _SCORERS[scorer](truth, detections)


def accuracy(curves: Curves) -> Accuracy:
    """The summary metrics as fractions; ``None`` for an area range without ground truth.

    Raises:
        DataError: there is no ground truth at all (crowd regions are none).
    """
    precision, recall = curves.precision[..., _MOST], curves.recall[..., _MOST]
    ap, ap50, ap75 = (_mean(precision[t, ..., _ALL]) for t in (slice(None), _IOU_50, _IOU_75))
    ar100 = _mean(recall[..., _ALL])
    if ap is None or ap50 is None or ap75 is None or ar100 is None:
        raise DataError("The evaluation set has no annotated object, so it has no AP; give annotated images.")
    return Accuracy(
        ap=ap,
        ap50=ap50,
        ap75=ap75,
        ap_small=_mean(precision[..., _SMALL]),
        ap_medium=_mean(precision[..., _MEDIUM]),
        ap_large=_mean(precision[..., _LARGE]),
        ar100=ar100,
    )


def ap_by_category(curves: Curves, truth: GroundTruth) -> dict[str, float | None]:
    """AP of each category by name; ``None`` for one without ground truth."""
    return {name: _mean(curves.precision[:, :, index, _ALL, _MOST]) for index, name in enumerate(truth.names)}


def _mean(values: Float64s) -> float | None:
    """Mean of the entries that exist."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None


def _hotcoco(truth: GroundTruth, detections: Detections) -> Curves:
    import hotcoco

    target = hotcoco.COCO.from_arrays(
        _images(truth),
        _categories(truth),
        image_ids=truth.image_id,
        category_ids=truth.category_id,
        boxes=truth.bbox,
        area=truth.area,
        iscrowd=truth.crowd,
    )
    columns = (detections.image_id, detections.bbox, detections.score, detections.category_id)
    found = target.load_res(np.column_stack(columns).astype(np.float64, copy=False))
    return _curves_of(hotcoco.COCOeval(target, found, "bbox"))


def _pycocotools(truth: GroundTruth, detections: Detections) -> Curves:
    from pycocotools import coco, cocoeval

    # It reports by bare print() and has no switch; redirecting sys.stdout would mute other threads too.
    coco.print = cocoeval.print = _silence
    target, found = coco.COCO(), coco.COCO()
    target.dataset = {
        "images": _images(truth),
        "categories": _categories(truth),
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": a, "iscrowd": int(crowd)}
            for n, (i, c, b, a, crowd) in enumerate(_rows(truth, truth.area, truth.crowd), start=1)
        ],
    }
    box_area = detections.bbox[:, 2].astype(np.float64) * detections.bbox[:, 3]
    found.dataset = {
        "images": _images(truth),
        "categories": _categories(truth),
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": a, "score": s, "iscrowd": 0}
            for n, (i, c, b, a, s) in enumerate(_rows(detections, box_area, detections.score), start=1)
        ],
    }
    target.createIndex()
    found.createIndex()
    return _curves_of(cocoeval.COCOeval(target, found, "bbox"))


def _rows(items: GroundTruth | Detections, *more: Any) -> zip[tuple[Any, ...]]:
    return zip(*(column.tolist() for column in (items.image_id, items.category_id, items.bbox, *more)), strict=True)


def _silence(*_: object, **__: object) -> None: ...


def _images(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": number, "file_name": "", "width": 0, "height": 0} for number in truth.images.tolist()]


def _categories(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in zip(truth.categories.tolist(), truth.names, strict=True)]


def _curves_of(evaluation: Any) -> Curves:
    """Run an evaluation object; both libraries have this interface."""
    evaluation.evaluate()
    evaluation.accumulate()
    return Curves(np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"]))


_SCORERS: dict[Scorer, Callable[[GroundTruth, Detections], Curves]] = {
    "hotcoco": _hotcoco,
    "pycocotools": _pycocotools,
}
