"""COCO's matching of detections to objects, per image, kept so that others can resample images.

The rule (all areas, at most 100 detections per image and category), for each IoU threshold: detections
of a category in an image choose, best score first, the free object they overlap most; a later object
wins a tie of IoU; a crowd region is chosen only where no object can be, is never used up, and takes its
detection out of the count. Here all images and categories advance together, one rank per round.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
}


@dataclass(frozen=True)
class Matches:
    """Which detections are right at which IoU threshold. D detections, I images, C categories, T thresholds.

    Attributes:
        image_ids: int64[I], sorted. category_ids: int64[C], sorted. ious: float64[T].
        det_image: int32[D], index into ``image_ids``, rising. det_category: int32[D], index into ``category_ids``.
        det_score: float32[D], falling within an image; equal scores stay in the detector's order.
        tp: bool[T, D], matched to an object. ignored: bool[T, D], matched to a crowd region: neither right nor wrong.
        gt_count: int32[I, C], objects, crowd regions left out.
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
class Matched:
    """Matches with what they came from: ``order``, int[D], the detections in the order of ``matches``; ``found``,
    bool[T, G], objects that a detection was matched to."""

    matches: Matches
    order: Indices
    found: Bools


def match(truth: GroundTruth, detections: Detections) -> Matches:
    """Match every detection on the images and categories of ``truth``, which must know them all."""
    return match_objects(truth, detections).matches


def match_objects(truth: GroundTruth, detections: Detections) -> Matched:
    """As ``match``, and which objects were found."""
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
    tp, ignored, found = _assign(
        det_box=detections.bbox[order].astype(np.float64),
        det_cell=det_cell[order],
        det_rank=rank[order],
        gt_box=truth.bbox,
        gt_cell=gt_image * categories + gt_category,
        crowd=truth.crowd,
    )
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
    return Matched(matches, order, found)


def _assign(
    det_box: Float64s, det_cell: Indices, det_rank: Indices, gt_box: Float64s, gt_cell: Indices, crowd: Bools
) -> tuple[Bools, Bools, Bools]:
    """tp and ignored, both bool[T, D], and found objects, bool[T, G], by rounds over a detection's rank in its cell."""
    tp = np.zeros((len(IOU_THRESHOLDS), len(det_box)), np.bool_)
    ignored = np.zeros_like(tp)
    free = np.ones((len(IOU_THRESHOLDS), len(gt_box)), np.bool_)

    det, gt = _pairs(det_cell, gt_cell)
    iou = box_iou(det_box[det], gt_box[gt], crowd[gt])
    near = iou >= IOU_THRESHOLDS[0]
    det, gt, iou = det[near], gt[near], iou[near]
    # The pairs of one detection side by side, the one it wants most first.
    wanted = np.lexsort((-gt, -iou, crowd[gt], det, det_rank[det]))
    det, gt, iou = det[wanted], gt[wanted], iou[wanted]
    rounds = np.flatnonzero(np.diff(det_rank[det], prepend=-1, append=-1))

    for begin, end in pairwise(rounds):
        d, g = det[begin:end], gt[begin:end]
        can = free[:, g] & (iou[begin:end] >= IOU_THRESHOLDS[:, None])
        starts = np.flatnonzero(np.diff(d, prepend=-1))
        choice = np.minimum.reduceat(np.where(can, np.arange(len(d)), len(d)), starts, axis=1)
        threshold, which = np.nonzero(choice < len(d))
        chosen = choice[threshold, which]
        is_crowd = crowd[g[chosen]]
        tp[threshold, d[chosen]] = ~is_crowd
        ignored[threshold, d[chosen]] = is_crowd
        free[threshold, g[chosen]] = is_crowd
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
