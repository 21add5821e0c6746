"""COCO average precision from matches, for many resamples of the images at once.

Matching detections to ground truths costs nearly all of the time that scoring takes, and does not depend
on which other images there are. So it is done once, by the evaluator, and a resample of the images is only
a *weight* per image: how often it was drawn. AP under weights follows from three facts:

* only a true positive can raise recall, so the precision-recall curve need only be known there;
* precision there is weighted true positives / weighted detections so far, both cumulative sums;
* COCO's sum over 101 recall points is a sum over true positives, each counted as often as the recall
  thresholds between its predecessor's recall and its own.

Equal to pycocotools on the data set in which each image stands as often as its weight says, its copies side
by side, unless two detections of one image and category have the same score: their order is arbitrary then.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from edgejoule.errors import DataError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Metric = Literal["ap", "ap50"]
METRICS: tuple[Metric, ...] = ("ap", "ap50")

RECALL_STEP = 0.01
RECALL_POINTS = 101
ROWS_PER_BLOCK = 64
"""Resamples worked on at once: the running counts of a category stay in the processor's cache."""


@dataclass(frozen=True)
class Matches:
    """Which detection found what: output ``matches`` of a ``score`` step (all areas, at most 100 detections per image).

    I images, C categories, T IoU thresholds, D detections; per image, detections come by falling score.
    """

    image_ids: NDArray[np.int64]
    """[I]"""
    category_ids: NDArray[np.int64]
    """[C]"""
    ious: FloatArray
    """[T]: 0.50, 0.55, ..., 0.95"""
    det_image: NDArray[np.int32]
    """[D]: index into ``image_ids``"""
    det_category: NDArray[np.int32]
    """[D]: index into ``category_ids``"""
    det_score: NDArray[np.float32]
    """[D]"""
    tp: BoolArray
    """[T, D]: matched to a ground truth"""
    ignored: BoolArray
    """[T, D]: neither right nor wrong, as a match to a crowd is"""
    gt_count: NDArray[np.int32]
    """[I, C]: ground truths that count"""

    @classmethod
    def load(cls, path: Path) -> Matches:
        """Read the npz.

        Raises:
            DataError: it is not an npz of these arrays with shapes that agree.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                matches = cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a matches file ({error}); run the score step again") from error
        matches._check(path)
        return matches

    def _check(self, path: Path) -> None:
        images, categories, thresholds = len(self.image_ids), len(self.category_ids), len(self.ious)
        detections = len(self.det_score)
        expected = {
            "det_image": (detections,),
            "det_category": (detections,),
            "tp": (thresholds, detections),
            "ignored": (thresholds, detections),
            "gt_count": (images, categories),
        }
        for name, shape in expected.items():
            if (found := getattr(self, name).shape) != shape:
                raise DataError(f"{path}: array {name} has shape {found} where {shape} fits the others")

    def same_images(self, other: Matches) -> bool:
        """Whether both were scored on the same images, categories and ground truths, so that they can be paired."""
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("image_ids", "category_ids", "ious", "gt_count")
        )


class ApCurves:
    """The part of AP that does not depend on the weights, sorted and thinned once."""

    def __init__(self, matches: Matches) -> None:
        self._thresholds = len(matches.ious)
        self._ground_truths = matches.gt_count.T.astype(np.float64)
        self._categories = [
            _CategoryCurves(matches, category)
            for category in range(len(matches.category_ids))
            if matches.gt_count[:, category].any()
        ]

    def at(self, weights: NDArray[np.int64]) -> FloatArray:
        """AP per IoU threshold, [B, T], for B weightings of the images, [B, I].

        The mean over the categories that have a ground truth under the weighting; NaN where none has. The paper's
        Eq. 7 prints their sum, without 1 / N; what it reports can only be the mean.
        The mean over T is COCO's AP, column 0 its AP50.

        One image with an object of each of two categories, the first found, the second not:

        >>> categories = np.array([0, 1])
        >>> matches = Matches(
        ...     image_ids=np.array([7]), category_ids=categories, ious=np.array([0.5]), det_image=np.zeros(2, np.int32),
        ...     det_category=categories, det_score=np.ones(2, np.float32), tp=np.array([[True, False]]),
        ...     ignored=np.zeros((1, 2), bool), gt_count=np.ones((1, 2), np.int32),
        ... )
        >>> ApCurves(matches).at(np.ones((1, 1), np.int64))
        array([[0.5]])
        """
        blocks = [
            self._block(weights[start : start + ROWS_PER_BLOCK].astype(np.float64))
            for start in range(0, len(weights), ROWS_PER_BLOCK)
        ]
        return np.concatenate(blocks)

    def _block(self, weights: FloatArray) -> FloatArray:
        by_image = np.ascontiguousarray(weights.T)  # what a sparse product wants, made once
        total = np.zeros((len(weights), self._thresholds))
        present = np.zeros((len(weights), 1))
        for curves in self._categories:
            ground_truths = weights @ self._ground_truths[curves.category][:, None]
            total += curves.average_precision(weights, by_image, np.maximum(ground_truths, 1))
            present += ground_truths > 0
        with np.errstate(invalid="ignore"):
            mean: FloatArray = total / present
        return mean


class _CategoryCurves:
    """One category: its detections by falling score, cut into segments that each end in a true positive."""

    def __init__(self, matches: Matches, category: int) -> None:
        self.category = category
        mine = np.flatnonzero(matches.det_category == category)
        # COCO's order: by score, ties by image, then as they came.
        order = mine[np.lexsort((mine, matches.det_image[mine], -matches.det_score[mine]))]
        images = matches.det_image[order]
        hit = matches.tp[:, order] & ~matches.ignored[:, order]
        is_event = hit.any(axis=0)
        events = np.flatnonzero(is_event)
        last = events[-1] + 1 if len(events) else 0  # what follows the last true positive changes nothing
        segment = (np.cumsum(is_event) - is_event)[:last]

        self._event_image = images[events]
        self._hit = [np.flatnonzero(of_iou) for of_iou in hit[:, events]]
        self._seen = _counts(segment, images[:last], (len(events), len(matches.image_ids)))
        self._ignored = [
            _Ignored.of(segment[of_iou], images[:last][of_iou], hits, len(matches.image_ids)) if of_iou.any() else None
            for of_iou, hits in zip(matches.ignored[:, order[:last]], self._hit, strict=True)
        ]

    def average_precision(self, weights: FloatArray, by_image: FloatArray, ground_truths: FloatArray) -> FloatArray:
        """AP, [B, T], under ``weights`` [B, I], also given as ``by_image`` [I, B]; ``ground_truths`` [B, 1] >= 1."""
        result = np.zeros((len(weights), len(self._hit)))
        seen = _running_sum(self._seen, by_image)
        event_weight = weights[:, self._event_image]
        for threshold, (hit, ignored) in enumerate(zip(self._hit, self._ignored, strict=True)):
            if not len(hit):
                continue
            counted = seen.take(hit, axis=1)
            if ignored is not None:
                counted -= ignored.up_to_each_hit(by_image)
            true = event_weight.take(hit, axis=1)
            np.cumsum(true, axis=1, out=true)
            result[:, threshold] = interpolated_average(true, counted, ground_truths)
        return result


@dataclass(frozen=True)
class _Ignored:
    """The few detections of one category and threshold that count neither way: [few, images], and how many of these
    rows lie at or before each hit.
    """

    counts: csr_array
    rows_so_far: NDArray[np.int64]

    @classmethod
    def of(cls, segment: NDArray[np.int64], image: NDArray[np.int32], hit: NDArray[np.int64], images: int) -> _Ignored:
        few, row = np.unique(segment, return_inverse=True)
        return cls(_counts(row, image, (len(few), images)), np.searchsorted(few, hit, side="right"))

    def up_to_each_hit(self, by_image: FloatArray) -> FloatArray:
        """Weighted, [B, K]."""
        sums = np.zeros((by_image.shape[1], self.counts.shape[0] + 1))
        sums[:, 1:] = _running_sum(self.counts, by_image)
        return sums.take(self.rows_so_far, axis=1)


def metrics_of(ap_by_iou: FloatArray) -> dict[Metric, FloatArray]:
    """AP and AP50 from AP per IoU threshold, [B, T].

    >>> metrics_of(np.array([[0.5, 0.25]]))
    {'ap': array([0.375]), 'ap50': array([0.5])}
    """
    return {"ap": ap_by_iou.mean(axis=1), "ap50": ap_by_iou[:, 0]}


def interpolated_average(true: FloatArray, counted: FloatArray, ground_truths: FloatArray) -> FloatArray:
    """The mean of the interpolated precision at COCO's 101 recall thresholds, [B]: the integral of the paper's Eq. 7.

    Args:
        true: [B, K], true positives up to and with each one, by falling score.
        counted: [B, K], detections that count up to there.
        ground_truths: [B, 1], at least 1.

    >>> interpolated_average(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]), np.array([[2.0]])).round(4)
    array([0.7525])
    """
    precision = true / np.maximum(counted, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = recall_points_reached(true / ground_truths)
    total: FloatArray = envelope[:, 0] * reached[:, 0]
    total += np.einsum("bk,bk->b", envelope[:, 1:], np.diff(reached, axis=1))
    return total / RECALL_POINTS


def recall_points_reached(recall: FloatArray) -> FloatArray:
    """How many of COCO's recall thresholds 0, .01, ..., 1 are at or below ``recall`` (0 for recall 0: nothing found).

    The thresholds are multiples of .01 as floats, some a bit above the decimal; COCO compares those, so do we.

    >>> recall_points_reached(np.array([0.0, 0.005, 0.01, 1.0]))
    array([  0.,   1.,   2., 101.])
    """
    above = np.floor(recall * (RECALL_POINTS - 1))
    above += 1
    above += above * RECALL_STEP <= recall
    above -= (above - 1) * RECALL_STEP > recall
    above *= recall > 0
    return above


def _counts(segment: NDArray[np.int64], image: NDArray[np.int32], shape: tuple[int, int]) -> csr_array:
    """Detections per segment and image, [segments, images]."""
    return csr_array((np.ones(len(segment)), (segment, image)), shape=shape)


def _running_sum(counts: csr_array, by_image: FloatArray) -> FloatArray:
    """Weighted detections up to the end of each segment, [B, segments]."""
    per_segment = np.ascontiguousarray((counts @ by_image).T)
    return np.cumsum(per_segment, axis=1, out=per_segment)
