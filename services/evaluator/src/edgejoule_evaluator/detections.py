"""Detections of a set of frames as columns, their file format, and the joining of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgejoule.errors import DataError
from edgejoule_agent.detections import DTYPES
from edgejoule_agent.npz import write_npz
from edgejoule_evaluator.npz import read_npz

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """What a detector said about some frames.

    Attributes:
        images: int64[I], every frame looked at, those without detections too.
        image_id: int64[n], the frame of each detection.
        category_id: int64[n], data-set category.
        score: float32[n].
        bbox: float32[n, 4], x, y, width, height in pixels of the original frame.

    Raises:
        DataError: the columns contradict each other, or hold what no detector can say.
    """

    images: Int64s
    image_id: Int64s
    category_id: Int64s
    score: Float32s
    bbox: Float32s

    def __post_init__(self) -> None:
        count = len(self.image_id)
        shapes = {
            "images": (self.images.shape, (len(self.images),)),
            "category_id": (self.category_id.shape, (count,)),
            "score": (self.score.shape, (count,)),
            "bbox": (self.bbox.shape, (count, 4)),
        }
        for name, (shape, expected) in shapes.items():
            if shape != expected:
                raise DataError(f"Detections: {name} has shape {shape}, expected {expected} for {count} detections.")
        if repeated := _repeated(self.images):
            raise DataError(f"Detections: image {repeated[0]} is listed twice; each frame must be looked at once.")
        if len(unseen := np.setdiff1d(self.image_id, self.images)):
            raise DataError(f"Detections: one names image {unseen[0]}, which is not among the images looked at.")
        wrong = ~np.isfinite(self.score) | ~np.isfinite(self.bbox).all(axis=1) | (self.bbox[:, 2:] < 0).any(axis=1)
        if wrong.any():
            n = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"Detections: image {self.image_id[n]} has score {self.score[n]} and box {self.bbox[n].tolist()}; "
                "scores and boxes must be finite, widths and heights not negative. The engine's output is broken."
            )

    def __len__(self) -> int:
        return len(self.image_id)

    def where(self, keep: npt.NDArray[np.bool_]) -> Detections:
        """The detections for which ``keep`` (bool[n]) is true, on the same frames."""
        return Detections(self.images, self.image_id[keep], self.category_id[keep], self.score[keep], self.bbox[keep])


def write_detections(path: Path, detections: Detections) -> None:
    """Write a detections file; equal detections give equal bytes."""
    write_npz(path, {name: np.asarray(array, DTYPES[name]) for name, array in asdict(detections).items()})


def read_detections(path: Path) -> Detections:
    """Read a detections file.

    Raises:
        DataError: the file is not one, or its columns contradict each other.
    """
    arrays: dict[str, Any] = read_npz(path, DTYPES, "detections")
    return Detections(**arrays)


def merge(shards: Sequence[Detections]) -> Detections:
    """The detections of all shards as one, in the order given.

    Raises:
        DataError: two shards saw the same image, or there is no shard.
    """
    if not shards:
        raise DataError("There are no detections to score; give at least one shard.")
    if repeated := _repeated(np.concatenate([shard.images for shard in shards])):
        raise DataError(
            f"{len(repeated)} images are in more than one shard of the detections: {_some(repeated)}. "
            "Shards must not overlap; run predict again."
        )
    return Detections(
        images=np.concatenate([shard.images for shard in shards]),
        image_id=np.concatenate([shard.image_id for shard in shards]),
        category_id=np.concatenate([shard.category_id for shard in shards]),
        score=np.concatenate([shard.score for shard in shards]),
        bbox=np.concatenate([shard.bbox for shard in shards]),
    )


def require_same_images(detections: Detections, image_ids: Int64s) -> None:
    """Hold that the detector looked at exactly these images.

    Raises:
        DataError: an image was not seen, or one was that is not in the set.
    """
    if unseen := np.setdiff1d(image_ids, detections.images).tolist():
        raise DataError(
            f"{len(unseen)} of {len(image_ids)} evaluation images were not given to the detector: {_some(unseen)}. "
            "An AP over a part would not be the set's; predict every shard."
        )
    if foreign := np.setdiff1d(detections.images, image_ids).tolist():
        raise DataError(
            f"The detector was given {len(foreign)} images that are not in the evaluation set: {_some(foreign)}. "
            "Give the detections and the annotations of the same import."
        )


def _repeated(ids: Int64s) -> list[int]:
    values, counts = np.unique(ids, return_counts=True)
    return [int(value) for value in values[counts > 1]]


def _some(ids: Sequence[int], most: int = 5) -> str:
    """The first few ids, and that there are more."""
    return ", ".join(str(number) for number in ids[:most]) + (", ..." if len(ids) > most else "")
