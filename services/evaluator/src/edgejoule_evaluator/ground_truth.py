"""The annotated objects of an evaluation set as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgejoule.errors import DataError
from edgejoule_evaluator.detections import Detections, Int64s

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GroundTruth:
    """Objects in the order of the annotation file, which decides COCO's ties.

    Attributes:
        images: int64[I], sorted, unique.
        categories: int64[C], sorted, unique.
        names: C category names, unique, in the order of ``categories``.
        image_id: int64[G]. category_id: int64[G].
        bbox: float64[G, 4], x, y, width, height in pixels.
        area: float64[G], square pixels, as annotated: it decides small, medium and large.
        crowd: bool[G], a region of many objects: detections in it are neither right nor wrong.
    """

    images: Int64s
    categories: Int64s
    names: tuple[str, ...]
    image_id: Int64s
    category_id: Int64s
    bbox: Float64s
    area: Float64s
    crowd: Bools

    def __len__(self) -> int:
        return len(self.image_id)


def from_dataset(dataset: Mapping[str, Any]) -> GroundTruth:
    """The ground truth in the JSON of an ``import-data`` step, which has validated it.

    Raises:
        DataError: a key is missing, an id or a category name occurs twice, or an object names an image or a
            category that is not listed.
    """
    try:
        objects = dataset["annotations"]
        categories = sorted((int(category["id"]), str(category["name"])) for category in dataset["categories"])
        truth = GroundTruth(
            images=np.array(sorted(image["id"] for image in dataset["images"]), np.int64),
            categories=np.array([number for number, _ in categories], np.int64),
            names=tuple(name for _, name in categories),
            image_id=np.array([item["image_id"] for item in objects], np.int64),
            category_id=np.array([item["category_id"] for item in objects], np.int64),
            bbox=np.array([item["bbox"] for item in objects], np.float64).reshape(-1, 4),
            area=np.array([item["area"] for item in objects], np.float64),
            crowd=np.array([item["iscrowd"] for item in objects], np.bool_),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The annotations are no COCO detection data set ({error!r}); import the data again."
        ) from error
    for what, values in (("image id", truth.images), ("category id", truth.categories), ("category name", truth.names)):
        if len(np.unique(values)) != len(values):
            raise DataError(f"The annotations list a {what} twice; each must be unique.")
    for what, used, known in (
        ("image", truth.image_id, truth.images),
        ("category", truth.category_id, truth.categories),
    ):
        if len(unknown := np.setdiff1d(used, known)):
            raise DataError(f"An annotation names {what} {unknown[0]}, which the annotations do not list.")
    return truth


def from_detections(detections: Detections, like: GroundTruth) -> GroundTruth:
    """Detections taken as objects of the images and categories of ``like``; boxes without area are left out."""
    bbox = detections.bbox.astype(np.float64)
    area = bbox[:, 2] * bbox[:, 3]
    keep = area > 0
    return GroundTruth(
        images=like.images,
        categories=like.categories,
        names=like.names,
        image_id=detections.image_id[keep],
        category_id=detections.category_id[keep],
        bbox=bbox[keep],
        area=area[keep],
        crowd=np.zeros(int(keep.sum()), np.bool_),
    )


def require_known_categories(detections: Detections, truth: GroundTruth) -> None:
    """Hold that every category detected is one of the data set's.

    COCO would silently drop the others, and a detector whose class ids follow another table (80 numbers
    for COCO's 90, say) would then only look bad.

    Raises:
        DataError: a detection's category is not among the data set's.
    """
    if unknown := np.setdiff1d(detections.category_id, truth.categories).tolist():
        raise DataError(
            f"The detector's labels name categories that the data set does not list: {', '.join(map(str, unknown))}. "
            "Add them to the annotations' categories, or give weights whose labels carry this data set's ids."
        )
