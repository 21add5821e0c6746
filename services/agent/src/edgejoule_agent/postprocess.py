"""From an engine's boxes and scores to detections in pixels of the original image; the only NMS there is."""

from typing import Any, List, Mapping, NamedTuple, Optional

import numpy as np

from edgejoule_agent.errors import EngineError
from edgejoule_agent.preprocess import Frame


class Detections(NamedTuple):
    """Detections of one image, best first."""

    category_id: Any  # int64[n]
    score: Any  # float32[n]
    bbox: Any  # float32[n,4]: x, y, width, height in pixels of the original image


def detect(
    boxes: Any, scores: Any, frame: Frame, manifest: Mapping[str, Any], nms: Optional[Mapping[str, Any]] = None
) -> Detections:
    """Score floor, top-k over box x class pairs, clipping, non-maximum suppression, limit.

    Equal scores are ordered by box, then class, so the result is a function of the input alone.

    Args:
        boxes: float32[N,4] or [1,N,4], x1,y1,x2,y2 as fractions of the network's input.
        scores: float32[N,C] or [1,N,C].
        nms: ``score_floor``, ``top_k``, ``iou``, ``class_wise``, ``limit``; the origin's own when left out.

    Raises:
        EngineError: a score or a candidate's box is not a finite number.
    """
    nms = nms or manifest["nms"]["origin"]
    columns = [column for column, label in enumerate(manifest["labels"]) if label["id"] is not None]
    if len(columns) < scores.shape[-1]:  # the origin has columns for no category of the data set
        scores = scores[..., columns]
    classes = scores.shape[-1]
    flat = scores.reshape(-1)
    if flat.size and np.isnan(flat.max()):
        raise EngineError("the engine's scores hold NaN; the model or the build is broken")
    chosen = top_candidates(flat, nms["score_floor"], nms["top_k"])
    raw = frame.to_original(boxes.reshape(-1, 4)[chosen // classes].astype(np.float64))
    if not np.isfinite(raw).all():
        raise EngineError("the engine's boxes hold NaN or infinity; the model or the build is broken")
    clipped = np.clip(raw, 0.0, np.array([frame.width, frame.height] * 2, dtype=np.float64))
    visible = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    chosen, raw, clipped = chosen[visible], raw[visible], clipped[visible]

    kept = suppress(
        clipped if manifest["clip"] == "before_nms" else raw,
        chosen % classes if nms["class_wise"] else None,
        nms["iou"],
        nms["limit"],
    )
    category_ids = np.array([manifest["labels"][column]["id"] for column in columns], dtype=np.int64)
    corners = clipped[kept]
    return Detections(
        category_id=category_ids[chosen[kept] % classes],
        score=flat[chosen[kept]].astype(np.float32),
        bbox=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32),
    )


def top_candidates(scores: Any, floor: float, top_k: int) -> Any:
    """Indices of the ``top_k`` best of ``scores`` [n] at or above ``floor``, best first, ties by index."""
    candidates = np.flatnonzero(scores >= np.float32(floor))
    values = scores[candidates]
    if len(candidates) > top_k:
        threshold = np.partition(values, len(values) - top_k)[len(values) - top_k]
        above = np.flatnonzero(values > threshold)
        level = np.flatnonzero(values == threshold)[: top_k - len(above)]
        chosen = np.sort(np.concatenate([above, level]))
        candidates, values = candidates[chosen], values[chosen]
    return candidates[np.argsort(-values, kind="stable")]


def suppress(boxes: Any, groups: Optional[Any], iou: float, limit: int) -> Any:
    """Greedy non-maximum suppression of ``boxes`` [n,4] (corners), ordered best first.

    A box goes when its IoU with a better kept one is above ``iou``; with ``groups`` [n] only boxes of
    one group suppress each other. One pass in score order for all groups at once, so it may stop at ``limit``.

    Returns:
        int64[m]: indices of the kept ones, best first, ``m <= limit``.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rest = np.arange(len(boxes))
    kept: List[int] = []
    while len(rest) and len(kept) < limit:
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        others = boxes[rest]
        width = np.minimum(others[:, 2], boxes[best, 2]) - np.maximum(others[:, 0], boxes[best, 0])
        height = np.minimum(others[:, 3], boxes[best, 3]) - np.maximum(others[:, 1], boxes[best, 1])
        shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        stays = shared <= iou * (areas[rest] + areas[best] - shared)
        if groups is not None:
            stays |= groups[rest] != groups[best]
        rest = rest[stays]
    return np.array(kept, dtype=np.int64)
