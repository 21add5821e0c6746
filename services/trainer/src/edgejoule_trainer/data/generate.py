"""A generated detection data set: shapes on textured grounds, with exact boxes.

It needs no network and no licence, a small detector learns it in minutes, and what quantization does to
that detector shows. Every picture is a function of (seed, image id) alone, so picture 17 is the same
picture whether 100 or 10,000 are made.

A box is the extent of the object's *visible* pixels, and its area is their number: as in COCO, whose
masks leave out what is hidden or beyond the frame. No object is left with less than
``LEAST_VISIBLE`` of its pixels in sight, so nothing visible is without its annotation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgejoule.canonical import canonical_json
from edgejoule.errors import DataError
from edgejoule.job import Progress

FORMAT = 1
"""Raised when the same seed no longer gives the same pictures."""

FIRST_ID = {"train": 1, "val": 1_000_001}
"""Splits and the id of their first image: far apart, so ids stay disjoint however many are made."""

LEAST_VISIBLE = 0.5
MARKER = "generated.json"

_FRAMES_HW = ((240, 320), (320, 240), (320, 320), (320, 400), (300, 400), (320, 384))
_OBJECTS = (2, 6)
_ATTEMPTS = 60
_JPEG_QUALITY = 90

# Square root of the area in pixels, lower and upper, and how often. COCO's bounds are 32 and 96.
_SCALES = ((15.0, 30.0, 0.20), (36.0, 92.0, 0.50), (99.0, 130.0, 0.30))

Image = NDArray[np.uint8]
Points = NDArray[np.float64]


# --- shapes: polygons within the unit circle, y downwards ---------------------------------------


def _ngon(corners: int, first_degrees: float) -> Points:
    angles = np.deg2rad(first_degrees + 360.0 * np.arange(corners) / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _disc() -> list[Points]:
    return [_ngon(64, 0.0)]


def _square() -> list[Points]:
    return [_ngon(4, 45.0)]


def _triangle() -> list[Points]:
    return [_ngon(3, -90.0)]


def _ring() -> list[Points]:
    return [_ngon(64, 0.0), 0.55 * _ngon(64, 0.0)]  # the second contour is a hole


def _cross() -> list[Points]:
    arm, half = 0.94, 0.33
    quarter = np.array([[half, half], [half, arm], [-half, arm]])
    turns = (np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in np.pi / 2 * np.arange(4))
    return [np.concatenate([quarter @ turn.T for turn in turns])]


def _star() -> list[Points]:
    points = np.empty((10, 2))
    points[0::2] = _ngon(5, -90.0)
    points[1::2] = 0.42 * _ngon(5, -54.0)
    return [points]


_SHAPES: dict[str, Callable[[], list[Points]]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
    "star": _star,
}
CATEGORIES = [{"id": number, "name": name} for number, name in enumerate(_SHAPES, start=1)]


def _polygon_area(points: Points) -> float:
    x, y = points[:, 0], points[:, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _shape_area(contours: list[Points]) -> float:
    """Area of the first contour less that of its holes, for a circumscribed radius of 1."""
    return _polygon_area(contours[0]) - sum(_polygon_area(hole) for hole in contours[1:])


def _coverage(contours: list[Points], radius: float, degrees: float) -> Image:
    """How much of each pixel of a square patch the turned shape covers, 0-255."""
    side = 2 * int(np.ceil(radius)) + 3
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    fixed = [np.round((points @ turn.T * radius + (side - 1) / 2) * 16).astype(np.int32) for points in contours]
    patch = np.zeros((side, side), np.uint8)
    cv2.fillPoly(patch, fixed, 255, cv2.LINE_AA, shift=4)
    return patch


# --- textures ------------------------------------------------------------------------------------


def _noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Noise of four scales, from blotches to grain; about -1 to 1."""
    total = np.zeros((height, width), np.float32)
    for cell, weight in ((64, 0.5), (24, 0.3), (8, 0.2), (2, 0.15)):
        coarse = rng.random((height // cell + 2, width // cell + 2), dtype=np.float32) * 2 - 1
        total += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return total


def _ramp(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """A linear gradient in any direction, -1 to 1."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-np.cos(angle), np.cos(angle), width, dtype=np.float32)
    y = np.linspace(-np.sin(angle), np.sin(angle), height, dtype=np.float32)
    return np.asarray((x[None, :] + y[:, None]) / (abs(np.cos(angle)) + abs(np.sin(angle))), np.float32)


def _stripes(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Soft stripes in any direction, -1 to 1, with a period of 8 to 40 pixels."""
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    pace = 2 * np.pi / rng.uniform(8, 40)
    x = np.arange(width, dtype=np.float32) * np.float32(pace * np.cos(angle))
    y = np.arange(height, dtype=np.float32) * np.float32(pace * np.sin(angle)) + np.float32(phase)
    # sin(x + y) taken apart, so that only height + width sines are computed
    return np.sin(y)[:, None] * np.cos(x)[None, :] + np.cos(y)[:, None] * np.sin(x)[None, :]


_TEXTURES = (_noise, _ramp, _stripes)


def _painted(rng: np.random.Generator, height: int, width: int, colour: Points, contrast: float) -> NDArray[np.float32]:
    """A textured surface about ``colour`` (RGB 0-255): float32[3, height, width], planar because that is quick."""
    texture = _TEXTURES[rng.integers(len(_TEXTURES))](rng, height, width)
    tint = (contrast * rng.uniform(0.4, 1.0, 3) * rng.choice([-1.0, 1.0])).astype(np.float32)
    return colour.astype(np.float32)[:, None, None] + texture * tint[:, None, None]


def _colour_unlike(rng: np.random.Generator, ground: Points) -> Points:
    """A random RGB colour that stands out from ``ground``: at least 90 apart (of 441)."""
    while True:
        colour = rng.uniform(20, 235, 3)
        if np.linalg.norm(colour - ground) >= 90:
            return colour


# --- one picture ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Placed:
    """A shape put somewhere: the part of its patch within the frame."""

    label: int
    rows: slice
    columns: slice
    alpha: Image
    pixels: int  # of the whole shape, hidden ones and those beyond the frame included


def _place(rng: np.random.Generator, height: int, width: int) -> _Placed:
    names = list(_SHAPES)
    label = int(rng.integers(len(names)))
    contours = _SHAPES[names[label]]()
    low, high, _ = _SCALES[rng.choice(len(_SCALES), p=[share for _, _, share in _SCALES])]
    radius = min(rng.uniform(low, high) / np.sqrt(_shape_area(contours)), 0.49 * min(height, width))
    patch = _coverage(contours, radius, rng.uniform(-20, 20))
    side = patch.shape[0]
    beyond = side // 8  # part of a shape may leave the frame
    top = int(rng.integers(-beyond, height - side + beyond + 1))
    left = int(rng.integers(-beyond, width - side + beyond + 1))
    rows = slice(max(top, 0), min(top + side, height))
    columns = slice(max(left, 0), min(left + side, width))
    alpha = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return _Placed(label, rows, columns, alpha, int(np.count_nonzero(patch >= 128)))


def _fits(owner: NDArray[np.int8], placed: list[_Placed], new: _Placed) -> bool:
    """Whether ``new`` and all it would hide stay at least ``LEAST_VISIBLE`` in sight."""
    solid = new.alpha >= 128
    if np.count_nonzero(solid) < LEAST_VISIBLE * new.pixels:
        return False
    for number in np.unique(owner[new.rows, new.columns][solid]):
        if number < 0:
            continue
        hidden = np.count_nonzero(owner[new.rows, new.columns][solid] == number)
        if np.count_nonzero(owner == number) - hidden < LEAST_VISIBLE * placed[number].pixels:
            return False
    return True


def draw(seed: int, index: int) -> tuple[Image, NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Picture ``index`` of the data set that ``seed`` names.

    Returns:
        image: uint8[H, W, 3], RGB.
        boxes: float64[n, 4], x, y, width, height in pixels; exact extents of the visible pixels.
        labels: int64[n], indices into ``CATEGORIES``.
        areas: int64[n], visible pixels.
    """
    rng = np.random.default_rng([FORMAT, seed, index])
    height, width = _FRAMES_HW[rng.integers(len(_FRAMES_HW))]
    canvas = _painted(rng, height, width, rng.uniform(40, 215, 3), contrast=70.0)
    owner = np.full((height, width), -1, np.int8)  # whose pixel it is; -1 is the ground's
    placed: list[_Placed] = []
    wanted = int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))
    for _ in range(_ATTEMPTS):
        if len(placed) == wanted:
            break
        new = _place(rng, height, width)
        if not _fits(owner, placed, new):
            continue
        region = canvas[:, new.rows, new.columns]
        colour = _colour_unlike(rng, region.mean(axis=(1, 2)))
        surface = _painted(rng, new.alpha.shape[0], new.alpha.shape[1], colour, contrast=45.0)
        region += new.alpha.astype(np.float32) / 255 * (surface - region)
        owner[new.rows, new.columns][new.alpha >= 128] = len(placed)
        placed.append(new)
    canvas += 4.0 * rng.standard_normal((height, width), dtype=np.float32)  # the sensor's grain
    image = cv2.merge(list(np.clip(canvas, 0, 255).astype(np.uint8)))
    boxes = np.array([_extent(owner == number) for number in range(len(placed))], np.float64)
    areas = np.array([np.count_nonzero(owner == number) for number in range(len(placed))], np.int64)
    return image, boxes, np.array([shape.label for shape in placed], np.int64), areas


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x, y, width, height of the true pixels, of which there is at least one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


# --- a folder of them ----------------------------------------------------------------------------


def generate(into: Path, images: Mapping[str, int], seed: int, progress: Progress | None = None) -> None:
    """Write ``into/<split>/<id>.jpg`` and ``into/annotations/<split>.json`` for the splits asked for.

    A complete folder is recognised by its marker and left alone; one that was cut short is done again,
    with the same bytes.

    Raises:
        DataError: an unknown split, a count below 1, or a folder that holds something else or cannot be written.
    """
    for split, count in images.items():
        if split not in FIRST_ID:
            raise DataError(f"split {split!r} is unknown; a generated data set has {', '.join(FIRST_ID)}")
        if not 1 <= count < 1_000_000:
            raise DataError(f"{count} images asked for split {split!r}; give 1 to 999999")
    if seed < 0:
        raise DataError(f"seed {seed} is negative; give 0 or more")
    try:
        _generate(into, images, seed, progress)
    except OSError as error:
        where = error.filename or into
        raise DataError(f"{where}: cannot be written ({error.strerror}); choose another folder") from error


def _generate(into: Path, images: Mapping[str, int], seed: int, progress: Progress | None) -> None:
    recipe = {"format": FORMAT, "seed": seed, "images": dict(images)}
    if _is_complete(into, recipe):
        return
    _write_atomically(into / f"{MARKER}.partial", canonical_json(recipe).encode())
    done, total = 0, sum(images.values())
    for split, count in images.items():
        entries: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id in range(FIRST_ID[split], FIRST_ID[split] + count):
            image, boxes, labels, areas = draw(seed, image_id)
            name = f"{image_id:012d}.jpg"
            _, jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            _write_atomically(into / split / name, jpeg.tobytes())
            entries.append({"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
            for number, (box, label, area) in enumerate(zip(boxes, labels, areas, strict=True)):
                annotations.append(
                    {
                        "id": image_id * 10 + number,
                        "image_id": image_id,
                        "category_id": CATEGORIES[label]["id"],
                        "bbox": box.tolist(),
                        "area": int(area),
                        "iscrowd": 0,
                    }
                )
            done += 1
            if progress:
                progress(done, total, "images")
        truth = {"images": entries, "annotations": annotations, "categories": CATEGORIES}
        _write_atomically(into / "annotations" / f"{split}.json", canonical_json(truth).encode())
    (into / f"{MARKER}.partial").replace(into / MARKER)


def _is_complete(into: Path, recipe: dict[str, Any]) -> bool:
    """Whether ``into`` already holds what ``recipe`` makes; a folder with anything else is an error."""
    if not into.exists() or not any(into.iterdir()):
        return False
    marker, partial = into / MARKER, into / f"{MARKER}.partial"
    found = marker if marker.exists() else partial
    if not found.exists():
        raise DataError(f"{into} is not empty and holds no generated data set; give a new folder")
    if found.read_text(encoding="utf-8") != canonical_json(recipe):
        raise DataError(f"{into} holds another generated data set ({found.name} tells which); give a new folder")
    return found is marker


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
