"""A contact sheet: some images of a data set with their boxes, for human eyes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgejoule.errors import DataError
from edgejoule_trainer.data import coco, pictures
from edgejoule_trainer.data.sets import stable_order

_TILE_PX = 320
_COLUMNS = 4
_CROWD_BGR = (160, 160, 160)


@dataclass(frozen=True)
class Sheet:
    png: bytes
    ids: list[int]


def contact_sheet(truth: coco.Truth, folder: Path, count: int, seed: int) -> Sheet:
    """``count`` images of the data set, chosen by the seed, on one PNG; crowd regions in grey.

    Raises:
        DataError: an image cannot be read or decoded; `edgejoule data check` then tells all that is wrong.
    """
    ids = stable_order(truth.pictures, seed)[:count]
    wanted = set(ids)
    by_image: dict[int, list[coco.Annotation]] = {id_: [] for id_ in ids}
    for annotation in truth.annotations:
        if annotation.image_id in wanted:
            by_image[annotation.image_id].append(annotation)
    colours = {id_: _colour(number, len(truth.categories)) for number, id_ in enumerate(truth.categories)}
    tiles = []
    for id_ in ids:
        try:
            image = pictures.decode(coco.read_picture(truth.pictures[id_], folder))
        except (pictures.BadPicture, coco.Fault) as error:
            raise DataError(f"{folder / truth.pictures[id_].file_name}: image {id_} {error}") from error
        tiles.append(_tile(image, by_image[id_], truth.categories, colours))
    columns = min(_COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    _, png = cv2.imencode(".png", np.vstack(rows))
    return Sheet(png.tobytes(), ids)


def _tile(
    image: NDArray[np.uint8],
    annotations: list[coco.Annotation],
    categories: dict[int, str],
    colours: dict[int, tuple[int, int, int]],
) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = _TILE_PX / max(height, width)
    small = cv2.resize(
        image, (max(round(width * scale), 1), max(round(height * scale), 1)), interpolation=cv2.INTER_AREA
    )
    tile = np.zeros((_TILE_PX, _TILE_PX, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    for annotation in annotations:
        x, y, w, h = (value * scale for value in annotation.bbox)
        colour = _CROWD_BGR if annotation.iscrowd else colours[annotation.category_id]
        cv2.rectangle(tile, (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1), colour, 1)
        label = categories[annotation.category_id]
        cv2.putText(tile, label, (round(x) + 2, round(y) + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)
    return tile


def _colour(number: int, of: int) -> tuple[int, int, int]:
    """A BGR colour of its own for each category, all of them bright."""
    hsv = np.array([[[number * 180 // max(of, 1), 170, 255]]], np.uint8)
    blue, green, red = (int(value) for value in cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0])
    return blue, green, red
