"""Images of an imported data set's shards as training wants them, and as the network's input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgejoule.errors import DataError
from edgejoule.records import Label
from edgejoule_agent.preprocess import decode, prepare
from edgejoule_agent.shards import ShardReader

Sample = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]
"""An image uint8[h, w, 3] RGB, its boxes float32[n, 4] x1 y1 x2 y2, and their class indices int64[n]."""


class ShardImages:
    """``TrainingImages`` over shards. Crowd boxes name a region, not an object, and teach nothing here."""

    def __init__(self, annotations: Mapping[str, Any], shards: Sequence[Path], labels: Sequence[Label]) -> None:
        column = {label.id: index for index, label in enumerate(labels) if label.id is not None}
        if strange := sorted({category["id"] for category in annotations["categories"]} - column.keys()):
            raise DataError(
                f"The training set has categories {strange} that the detector has no score for; give a data set with "
                "the same categories, or train on this one first."
            )
        self._objects: dict[int, list[tuple[list[float], int]]] = defaultdict(list)
        for annotation in annotations["annotations"]:
            if not annotation["iscrowd"]:
                entry = (annotation["bbox"], column[annotation["category_id"]])
                self._objects[annotation["image_id"]].append(entry)
        self._ids = [image["id"] for image in annotations["images"]]
        self._stack = ExitStack()
        readers = [self._stack.enter_context(ShardReader(path)) for path in shards]
        self._reader = {image_id: reader for reader in readers for image_id in reader.ids}

    def __enter__(self) -> ShardImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        image_id = self._ids[index]
        objects = self._objects[image_id]
        boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([label for _, label in objects], np.int64)
        return decode(self._reader[image_id].read(image_id)), boxes, labels


def prepared(shards: Sequence[Path], manifest: Mapping[str, Any]) -> Iterator[Tensor]:
    """The images of shards, in order, as the network's input float32[1,3,H,W], RGB 0-255."""
    for path in shards:
        with ShardReader(path) as shard:
            for _, content in shard:
                yield torch.from_numpy(prepare(decode(content), manifest)[0])
