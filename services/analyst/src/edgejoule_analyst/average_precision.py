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
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from edgejoule.errors import DataError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Indices = NDArray[np.intp]
Metric = Literal["ap", "ap50"]
METRICS: tuple[Metric, ...] = ("ap", "ap50")
"""What two rows are held against each other by."""
Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = ("small", "medium", "large")
Figure = Literal["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100"]
"""What a row tells of itself, each with an interval."""

RECALL_STEP = 0.01
RECALL_POINTS = 101
LATER = ("size_tp", "size_ignored", "size_gt", "gt_image", "gt_category", "operating")
"""Arrays that older matches files do not have."""
ROWS_PER_BLOCK = 64
"""Resamples worked on at once: the running counts of a category stay in the processor's cache."""


@dataclass(frozen=True)
class Matches:
    """Which detection found what: output ``matches`` of a ``score`` step, at most 100 per image and category.

    I images, C categories, T IoU thresholds, D detections, G ground truths that count, in ceil(D / 8) bytes D bits; per
    image, detections come by falling score. What begins with ``size_`` has the matches of small, medium and large
    objects alone, each size's by itself; S is 3, or 0 where they were not kept, as in older files.
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
    size_tp: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    """[S, T, ceil(D / 8)]: ``tp`` of each size"""
    size_ignored: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    """[S, T, ceil(D / 8)]: ``ignored`` of each size, as what found, or is itself, of another size is too"""
    size_gt: BoolArray = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    """[S, G]: which ground truths are of it; one at the very bound is of both"""
    gt_image: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """[G]: index into ``image_ids``"""
    gt_category: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """[G]: index into ``category_ids``"""
    operating: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.int32))
    """[S, 4, I]: objects, those found, detections shown and those of them that are wrong, at the operating point"""

    @classmethod
    def load(cls, path: Path) -> Matches:
        """Read the npz.

        Raises:
            DataError: it is not an npz of these arrays with shapes that agree.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = (name for name in cls.__dataclass_fields__ if name in arrays or name not in LATER)
                matches = cls(**{name: arrays[name] for name in names})
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
        if len(self.size_tp):
            packed, ground_truths = -(-detections // 8), len(self.gt_image)
            expected |= dict.fromkeys(("size_tp", "size_ignored"), (len(SIZES), thresholds, packed))
            expected |= {"size_gt": (len(SIZES), ground_truths), "gt_category": (ground_truths,)}
        if len(self.operating):
            expected["operating"] = (len(SIZES), 4, images)
        for name, shape in expected.items():
            if (found := getattr(self, name).shape) != shape:
                raise DataError(f"{path}: array {name} has shape {found} where {shape} fits the others")

    def by_size(self) -> dict[Size, Matches]:
        """The matches of the objects of each size, without the detections that count at no threshold; empty where they
        were not kept.
        """
        found: dict[Size, Matches] = {}
        for number, size in enumerate(SIZES[: len(self.size_tp)]):
            tp, ignored = (
                np.unpackbits(bits[number], axis=1, count=len(self.det_score)).astype(np.bool_)
                for bits in (self.size_tp, self.size_ignored)
            )
            counts, mine = ~ignored.all(axis=0), self.size_gt[number]
            gt_count = np.zeros_like(self.gt_count)
            np.add.at(gt_count, (self.gt_image[mine], self.gt_category[mine]), 1)
            found[size] = Matches(
                image_ids=self.image_ids,
                category_ids=self.category_ids,
                ious=self.ious,
                det_image=self.det_image[counts],
                det_category=self.det_category[counts],
                det_score=self.det_score[counts],
                tp=tp[:, counts],
                ignored=ignored[:, counts],
                gt_count=gt_count,
            )
        return found

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
        return self.with_recall(weights)[:, 0]

    def with_recall(self, weights: NDArray[np.int64]) -> FloatArray:
        """AP and, beside it, the recall that all detections reach, both as in ``at``: [B, 2, T].

        The mean of the second over T is COCO's AR100.
        """
        blocks = [
            self._block(weights[start : start + ROWS_PER_BLOCK].astype(np.float64))
            for start in range(0, len(weights), ROWS_PER_BLOCK)
        ]
        return np.concatenate(blocks)

    def _block(self, weights: FloatArray) -> FloatArray:
        by_image = np.ascontiguousarray(weights.T)  # what a sparse product wants, made once
        total = np.zeros((len(weights), 2, self._thresholds))
        present = np.zeros((len(weights), 1, 1))
        for curves in self._categories:
            ground_truths = weights @ self._ground_truths[curves.category][:, None]
            total += curves.precision_and_recall(weights, by_image, np.maximum(ground_truths, 1))
            present += (ground_truths > 0)[:, None]
        with np.errstate(invalid="ignore"):
            mean: FloatArray = total / present
        return mean


class AccuracyCurves:
    """COCO's figures of one engine that a row tells, all of the same resamples.

    Args:
        by_size: AP of each size too, of which there are objects.
    """

    def __init__(self, matches: Matches, *, by_size: bool = True) -> None:
        self._curves = ApCurves(matches)
        self._at_75 = np.isclose(matches.ious, 0.75)
        sizes = matches.by_size() if by_size else {}
        self._of_sizes = {size: ApCurves(of_size) for size, of_size in sizes.items() if of_size.gt_count.any()}
        figures = ("ap", "ap50", "ap75", "ar100", *(f"ap_{size}" for size in self._of_sizes))
        self.figures: tuple[Figure, ...] = figures  # type: ignore[assignment]

    def at(self, weights: NDArray[np.int64]) -> FloatArray:
        """Each of ``figures``, [B, F], for B weightings of the images, [B, I]; NaN where there is no ground truth."""
        ap, recall = np.moveaxis(self._curves.with_recall(weights), 1, 0)
        of_all = metrics_of(ap)
        columns = [of_all["ap"], of_all["ap50"], ap[:, self._at_75].mean(axis=1), recall.mean(axis=1)]
        return np.stack([*columns, *(curves.at(weights).mean(axis=1) for curves in self._of_sizes.values())], axis=1)


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
        ignored = matches.ignored[:, order[:last]]
        self._ignored = _Ignored(ignored, segment, images[:last], self._hit, len(matches.image_ids))

    def precision_and_recall(self, weights: FloatArray, by_image: FloatArray, ground_truths: FloatArray) -> FloatArray:
        """AP and the recall reached, [B, 2, T], under ``weights`` [B, I], also given as ``by_image`` [I, B];
        ``ground_truths`` [B, 1] >= 1.
        """
        result = np.zeros((len(weights), 2, len(self._hit)))
        points = points_by_count(ground_truths)
        seen = _running_sum(self._seen, by_image)
        event_weight = weights.take(self._event_image, axis=1)
        of_ignored = self._ignored.up_to_each_hit(by_image)
        for threshold, (hit, ignored) in enumerate(zip(self._hit, of_ignored, strict=True)):
            if not len(hit):
                continue
            counted = seen.take(hit, axis=1)
            if ignored is not None:
                counted -= ignored
            true = event_weight.take(hit, axis=1)
            np.cumsum(true, axis=1, out=true)
            result[:, 0, threshold] = interpolated_average(true, counted, points)
            result[:, 1, threshold] = true[:, -1] / ground_truths[:, 0]
        return result


class _Ignored:
    """The few detections of one category that count neither way, those of all thresholds in one product."""

    def __init__(
        self, ignored: BoolArray, segment: NDArray[np.int64], image: NDArray[np.int32], hits: list[Indices], images: int
    ) -> None:
        """``ignored`` [T, N] of N detections with their ``segment`` and ``image``; ``hits``, by threshold, segments."""
        threshold, which = np.nonzero(ignored)
        segments = int(segment[-1]) + 1 if len(segment) else 0
        few, row = np.unique(threshold * segments + segment[which], return_inverse=True)
        self._counts = _counts(row, image[which], (len(few), images))
        self._bounds = np.searchsorted(few, np.arange(len(ignored) + 1) * segments).tolist()
        self._rows_so_far = [
            np.searchsorted(few[begin:end], number * segments + of_iou, side="right") if end > begin else None
            for number, ((begin, end), of_iou) in enumerate(zip(pairwise(self._bounds), hits, strict=True))
        ]

    def up_to_each_hit(self, by_image: FloatArray) -> list[FloatArray | None]:
        """Weighted, [B, K] of each threshold; None where there is none."""
        per_row = (self._counts @ by_image).T
        found: list[FloatArray | None] = []
        for (begin, end), rows_so_far in zip(pairwise(self._bounds), self._rows_so_far, strict=True):
            if rows_so_far is None:
                found.append(None)
                continue
            sums = np.zeros((by_image.shape[1], end - begin + 1))
            np.cumsum(per_row[:, begin:end], axis=1, out=sums[:, 1:])
            found.append(sums.take(rows_so_far, axis=1))
        return found


def metrics_of(ap_by_iou: FloatArray) -> dict[Metric, FloatArray]:
    """AP and AP50 from AP per IoU threshold, [B, T].

    >>> metrics_of(np.array([[0.5, 0.25]]))
    {'ap': array([0.375]), 'ap50': array([0.5])}
    """
    return {"ap": ap_by_iou.mean(axis=1), "ap50": ap_by_iou[:, 0]}


def interpolated_average(true: FloatArray, counted: FloatArray, points: FloatArray) -> FloatArray:
    """The mean of the interpolated precision at COCO's 101 recall thresholds, [B]: the integral of the paper's Eq. 7.

    Args:
        true: [B, K], true positives up to and with each one, by falling score.
        counted: [B, K], detections that count up to there.
        points: [B, N], as ``points_by_count`` tells them.

    >>> points = points_by_count(np.array([[2.0]]))
    >>> interpolated_average(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]), points).round(4)
    array([0.7525])
    """
    precision = np.maximum(counted, 1)
    np.divide(true, precision, out=precision)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    place = true.astype(np.intp)
    place += np.arange(len(points))[:, None] * points.shape[1]
    reached = points.take(place)
    total: FloatArray = envelope[:, 0] * reached[:, 0]
    total += np.einsum("bk,bk->b", envelope[:, 1:], reached[:, 1:] - reached[:, :-1])
    return total / RECALL_POINTS


def points_by_count(ground_truths: FloatArray) -> FloatArray:
    """How many recall thresholds 0, 1, 2, ... found objects of ``ground_truths``, [B, 1], 1 or more, reach: [B, N].

    Looked up for every true positive at every IoU threshold, which costs less than reckoning it there. Where a row has
    fewer objects than another, its last columns mean nothing.

    >>> points_by_count(np.array([[2.0]]))
    array([[  0.,  51., 101.]])
    """
    return recall_points_reached(np.arange(ground_truths.max() + 1) / ground_truths)


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
