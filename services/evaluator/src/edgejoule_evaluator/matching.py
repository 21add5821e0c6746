"""COCO's matching of detections to objects, per image, kept so that others can resample images.

The rule (all areas, at most 100 detections per image and category), for each IoU threshold: detections
of a category in an image choose, best score first, the free object they overlap most; a later object
wins a tie of IoU; a crowd region is chosen only where no object can be, is never used up, and takes its
detection out of the count. Here all images and categories advance together, one rank per round.

By size of object the same detections are matched again, once for each size: an object of another size then takes its
detection out of the count, as a crowd region does, but is used up; and a detection of another size that found nothing
does not count either.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgejoule_agent.detections import MAX_DETECTIONS
from edgejoule_agent.npz import write_npz
from edgejoule_evaluator.detections import Detections, Float32s, Int64s
from edgejoule_evaluator.ground_truth import Bools, Float64s, GroundTruth
from edgejoule_evaluator.npz import read_npz
from edgejoule_evaluator.scoring import IOU_THRESHOLDS

Int32s = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]
Bits = npt.NDArray[np.uint8]

_DTYPES = {
    "image_ids": np.int64,
    "category_ids": np.int64,
    "ious": np.float64,
    "det_image": np.int32,
    "det_category": np.int32,
    "det_score": np.float32,
    "tp": np.bool_,
    "ignored": np.bool_,
    "gt_count": np.int32,
    "size_tp": np.uint8,
    "size_ignored": np.uint8,
    "size_gt": np.bool_,
    "gt_image": np.int32,
    "gt_category": np.int32,
    "operating": np.int32,
}
AREAS = ((0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e5**2))
"""Small, medium and large in square pixels, as COCO has them: what lies on a bound is of both sides."""


@dataclass(frozen=True)
class Matches:
    """Which detections are right at which IoU threshold. D detections, I images, C categories, T thresholds.

    Attributes:
        image_ids: int64[I], sorted. category_ids: int64[C], sorted. ious: float64[T].
        det_image: int32[D], index into ``image_ids``, rising. det_category: int32[D], index into ``category_ids``.
        det_score: float32[D], falling within an image; equal scores stay in the detector's order.
        tp: bool[T, D], matched to an object. ignored: bool[T, D], matched to a crowd region: neither right nor wrong.
        gt_count: int32[I, C], objects, crowd regions left out: G in all.
        size_tp, size_ignored: uint8[3, T, ceil(D / 8)], the same of small, medium and large objects alone, in bits.
        size_gt: bool[3, G], which objects are of each size. gt_image, gt_category: int32[G], indices as those of
            detections. Only ``match`` tells these.
        operating: int32[3, 4, I], what the detections of the operating point came to: ``operating_point.count_errors``.
            Only the ``score`` step tells it.
    """

    image_ids: Int64s
    category_ids: Int64s
    ious: Float64s
    det_image: Int32s
    det_category: Int32s
    det_score: Float32s
    tp: Bools
    ignored: Bools
    gt_count: Int32s
    size_tp: Bits = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    size_ignored: Bits = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    size_gt: Bools = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    gt_image: Int32s = field(default_factory=lambda: np.zeros(0, np.int32))
    gt_category: Int32s = field(default_factory=lambda: np.zeros(0, np.int32))
    operating: Int32s = field(default_factory=lambda: np.zeros((0, 0, 0), np.int32))


def write_matches(path: Path, matches: Matches) -> None:
    """Write a matches file; equal matches give equal bytes."""
    write_npz(path, asdict(matches))


def read_matches(path: Path) -> Matches:
    """Read a matches file.

    Raises:
        DataError: the file is not one.
    """
    arrays: dict[str, Any] = read_npz(path, _DTYPES, "matches")
    return Matches(**arrays)


@dataclass(frozen=True)
class _Near:
    """What could be matched: P pairs of a detection and an object that share a cell and overlap enough for the least
    threshold. det, gt: intp[P]. iou: float64[P]. rank: intp[D], of a detection in its cell. crowd: bool[all objects].
    """

    det: Indices
    gt: Indices
    iou: Float64s
    rank: Indices
    crowd: Bools


@dataclass(frozen=True)
class Matched:
    """Matches over all areas with what they came from.

    ``order``, int[D], the detections in the order of ``matches``; ``found``, bool[T, all objects], those that a
    detection was matched to; ``near``, what was to be matched.
    """

    matches: Matches
    order: Indices
    found: Bools
    near: _Near


def match(truth: GroundTruth, detections: Detections) -> Matches:
    """Match every detection on the images and categories of ``truth``, which must know them all; by size too."""
    matched = match_objects(truth, detections)
    box = detections.bbox[matched.order].astype(np.float64)
    det_area = box[:, 2] * box[:, 3]
    size_tp, size_ignored, size_gt = [], [], []
    for low, high in AREAS:
        inside = (truth.area >= low) & (truth.area <= high)
        tp, ignored, _ = _assign(matched.near, truth.crowd | ~inside)
        ignored |= ~tp & ((det_area < low) | (det_area > high))
        size_tp.append(np.packbits(tp, axis=1))
        size_ignored.append(np.packbits(ignored, axis=1))
        size_gt.append(inside[~truth.crowd])
    return replace(
        matched.matches,
        size_tp=np.stack(size_tp),
        size_ignored=np.stack(size_ignored),
        size_gt=np.stack(size_gt),
        gt_image=np.searchsorted(truth.images, truth.image_id[~truth.crowd]).astype(np.int32),
        gt_category=np.searchsorted(truth.categories, truth.category_id[~truth.crowd]).astype(np.int32),
    )


def match_objects(truth: GroundTruth, detections: Detections) -> Matched:
    """As ``match``, over all areas alone, and which objects were found."""
    gt_image = np.searchsorted(truth.images, truth.image_id)
    gt_category = np.searchsorted(truth.categories, truth.category_id)
    det_image = np.searchsorted(truth.images, detections.image_id)
    det_category = np.searchsorted(truth.categories, detections.category_id)

    categories = len(truth.categories)
    det_cell = det_image * categories + det_category  # a cell: one category in one image
    by_cell = np.lexsort((-detections.score, det_cell))  # stable, as COCO's sort
    rank = np.empty(len(detections), np.intp)
    rank[by_cell] = _position_in_run(det_cell[by_cell])

    order = np.lexsort((-detections.score, det_image))
    order = order[rank[order] < MAX_DETECTIONS]
    det, gt = _pairs(det_cell[order], gt_image * categories + gt_category)
    iou = box_iou(detections.bbox[order[det]].astype(np.float64), truth.bbox[gt], truth.crowd[gt])
    enough = iou >= IOU_THRESHOLDS[0]
    near = _Near(det[enough], gt[enough], iou[enough], rank[order], truth.crowd)
    tp, ignored, found = _assign(near, truth.crowd)
    gt_count = np.zeros((len(truth.images), categories), np.int32)
    np.add.at(gt_count, (gt_image[~truth.crowd], gt_category[~truth.crowd]), 1)
    matches = Matches(
        image_ids=truth.images,
        category_ids=truth.categories,
        ious=IOU_THRESHOLDS,
        det_image=det_image[order].astype(np.int32),
        det_category=det_category[order].astype(np.int32),
        det_score=detections.score[order],
        tp=tp,
        ignored=ignored,
        gt_count=gt_count,
    )
    return Matched(matches, order, found, near)


def _assign(near: _Near, left_out: Bools) -> tuple[Bools, Bools, Bools]:
    """tp and ignored, both bool[T, D], and found objects, bool[T, all], by rounds over a detection's rank in its cell.

    ``left_out``, bool[all objects], those that take a detection out of the count.
    """
    tp = np.zeros((len(IOU_THRESHOLDS), len(near.rank)), np.bool_)
    ignored = np.zeros_like(tp)
    free = np.ones((len(IOU_THRESHOLDS), len(left_out)), np.bool_)

    # The pairs of one detection side by side, the one it wants most first.
    wanted = np.lexsort((-near.gt, -near.iou, left_out[near.gt], near.det, near.rank[near.det]))
    det, gt, iou = near.det[wanted], near.gt[wanted], near.iou[wanted]
    rounds = np.flatnonzero(np.diff(near.rank[det], prepend=-1, append=-1))

    for begin, end in pairwise(rounds):
        d, g = det[begin:end], gt[begin:end]
        can = free[:, g] & (iou[begin:end] >= IOU_THRESHOLDS[:, None])
        starts = np.flatnonzero(np.diff(d, prepend=-1))
        choice = np.minimum.reduceat(np.where(can, np.arange(len(d)), len(d)), starts, axis=1)
        threshold, which = np.nonzero(choice < len(d))
        chosen = choice[threshold, which]
        is_out = left_out[g[chosen]]
        tp[threshold, d[chosen]] = ~is_out
        ignored[threshold, d[chosen]] = is_out
        free[threshold, g[chosen]] = near.crowd[g[chosen]]
    return tp, ignored, ~free


def _pairs(det_cell: Indices, gt_cell: Indices) -> tuple[Indices, Indices]:
    """Indices of every detection and object that share a cell."""
    by_cell = np.argsort(gt_cell, kind="stable")
    first = np.searchsorted(gt_cell[by_cell], det_cell, side="left")
    count = np.searchsorted(gt_cell[by_cell], det_cell, side="right") - first
    det = np.repeat(np.arange(len(det_cell)), count)
    within = np.arange(len(det)) - np.repeat(np.cumsum(count) - count, count)
    return det, by_cell[first[det] + within]


def _position_in_run(values: Indices) -> Indices:
    """For values with equal ones side by side, each one's place among its equals: 5 5 7 7 7 -> 0 1 0 1 2."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def box_iou(det: Float64s, gt: Float64s, crowd: Bools) -> Float64s:
    """IoU of boxes row by row, float64[n]; over a crowd region, the share of the detection that lies in it.

    >>> box_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 2, 2]]), np.array([False])).round(4)
    array([0.3333])
    """
    low = np.maximum(det[:, :2], gt[:, :2])
    high = np.minimum(det[:, :2] + det[:, 2:], gt[:, :2] + gt[:, 2:])
    width, height = (high - low).T
    overlap = np.where((width > 0) & (height > 0), width * height, 0.0)
    det_area, gt_area = det[:, 2] * det[:, 3], gt[:, 2] * gt[:, 3]
    whole = np.where(crowd, det_area, det_area + gt_area - overlap)
    return np.divide(overlap, whole, out=np.zeros_like(overlap), where=whole > 0)
