"""Detections of many images as columns: what is kept of an engine's answers, and by which bounds."""

from typing import Any, Dict, Sequence

import numpy as np

SCORE_FLOOR = 0.001  # of detections for AP: low enough for the whole precision-recall curve
MAX_DETECTIONS = 100  # of detections for AP: COCO looks at no more per image and category

DTYPES = {
    "images": np.int64,
    "image_id": np.int64,
    "category_id": np.int64,
    "score": np.float32,
    "bbox": np.float32,
}
"""Columns of a detections file: every image looked at, and of each detection its image, category, score and box."""


def as_columns(images: Any, per_image: Sequence[Any]) -> Dict[str, Any]:
    """The columns of ``DTYPES`` from the detections of each of ``images`` (int64[I]), in that order.

    Args:
        per_image: ``postprocess.Detections``.
    """
    counts = [len(one.score) for one in per_image]
    columns = {
        "images": images,
        "image_id": np.repeat(images, counts),
        "category_id": np.concatenate([one.category_id for one in per_image] or [np.zeros(0)]),
        "score": np.concatenate([one.score for one in per_image] or [np.zeros(0)]),
        "bbox": np.concatenate([one.bbox for one in per_image] or [np.zeros((0, 4))]),
    }
    return {name: np.asarray(columns[name], dtype) for name, dtype in DTYPES.items()}
