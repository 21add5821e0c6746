"""Every cell's AP with its interval, and its difference from the same model in FP32 on the same device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgejoule.errors import DataError
from edgejoule.records import Difference
from edgejoule_analyst.average_precision import ApCurves, FloatArray, Matches
from edgejoule_analyst.bootstrap import LEVEL, Estimate, basic_interval, distribution, percentile_interval, verdict
from edgejoule_analyst.measurements import Cell

Metric = Literal["ap", "ap50"]
METRICS: tuple[Metric, ...] = ("ap", "ap50")


@dataclass(frozen=True)
class Accuracy:
    """AP and AP50 of one cell: on the images as they are, and under each resample."""

    matches: Matches
    values: Mapping[Metric, float]
    draws: Mapping[Metric, FloatArray]

    def interval(self, metric: Metric) -> Estimate:
        """The metric on its own, to be judged beside no other engine."""
        return basic_interval(self.values[metric], self.draws[metric])

    def draws_curve(self, metric: Metric) -> list[float]:
        """The 0th, 1st, ..., 100th percentile of the draws, to a millionth: enough for a bound at any whole percent."""
        percentiles = np.nanpercentile(self.draws[metric], np.arange(101))
        return [round(float(value), 6) for value in percentiles]


def measure(matches: Matches, *, count: int, seed: int, progress: Callable[[int], None]) -> Accuracy:
    """AP and AP50 with their bootstrap distributions over images.

    Raises:
        DataError: no image has a ground truth that counts, so there is no AP.
    """
    if not matches.gt_count.any():
        raise DataError("the evaluation set has no object that counts, so no AP can be had; give it annotated images")
    curves = ApCurves(matches)
    images = len(matches.image_ids)
    whole = metrics_of(curves.at(np.ones((1, images), np.int64)))
    draws = metrics_of(distribution(curves.at, images, count=count, seed=seed, progress=progress))
    return Accuracy(matches, {metric: float(values[0]) for metric, values in whole.items()}, draws)


def differences(cells: Sequence[Cell], measured: Mapping[str, Accuracy]) -> list[Difference]:
    """Each cell's AP and AP50 less those of the cells it is held against, where both were scored.

    Args:
        measured: by cell name, drawn with one seed and count; that pairs them.

    Raises:
        DataError: a cell and its reference were scored on different images.
    """
    found = []
    for cell in cells:
        for reference in references_of(cell, cells):
            if cell.name not in measured or reference.name not in measured:
                continue
            row, against = measured[cell.name], measured[reference.name]
            if not row.matches.same_images(against.matches):
                raise DataError(
                    f"{cell.name} and {reference.name} were scored on different images and cannot be compared;"
                    " score both on one evaluation set"
                )
            found += [_difference(metric, cell.name, row, reference.name, against) for metric in METRICS]
    return found


def references_of(cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that ``cell`` is held against, of the same model on the same device.

    Base weights in FP32 for every other one; and base weights in INT8 for quantization-aware INT8, since what that
    training recovers is the difference between the two.
    """
    wanted = [("base", "fp32")] + ([("base", "int8")] if (cell.weights, cell.precision) == ("qat", "int8") else [])
    same = [other for other in cells if (other.model, other.device) == (cell.model, cell.device) and other is not cell]
    return [other for pair in wanted for other in same if (other.weights, other.precision) == pair]


def _difference(metric: Metric, row_name: str, row: Accuracy, against_name: str, against: Accuracy) -> Difference:
    draws = row.draws[metric] - against.draws[metric]
    estimate = percentile_interval(row.values[metric] - against.values[metric], draws)
    return Difference(
        metric=metric,
        row=row_name,
        against=against_name,
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        level=LEVEL,
        resamples=len(draws),
        images=len(row.matches.image_ids),
        verdict=verdict(estimate),
    )


def metrics_of(ap_by_iou: FloatArray) -> dict[Metric, FloatArray]:
    """AP and AP50 from AP per IoU threshold, [B, T]."""
    return {"ap": ap_by_iou.mean(axis=1), "ap50": ap_by_iou[:, 0]}
