"""Every cell's AP with its interval, and its difference from the same model in FP32 on the same device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgejoule.errors import DataError
from edgejoule.records import Difference
from edgejoule_analyst.average_precision import METRICS, ApCurves, FloatArray, Matches, Metric, metrics_of
from edgejoule_analyst.bootstrap import LEVEL, Estimate, basic_interval, distribution, percentile_interval
from edgejoule_analyst.measurements import Cell
from edgejoule_analyst.permutation import Permutation, paired_permutations, tosses_for
from edgejoule_analyst.significance import holm, verdict


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


def differences(
    cells: Sequence[Cell],
    measured: Mapping[str, Accuracy],
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Difference]:
    """Each cell's AP and AP50 less those of the cells it is held against, where both were scored.

    The interval is each difference's own. The verdict is by the paired permutation test, its p-value corrected by
    Holm over all of these differences, both metrics: one family, since a reader looks for whichever stands out.

    Args:
        measured: by cell name, drawn with one seed and count; that pairs them.
        seed: of the tosses.
        progress: told how many tosses are done, and of how many at most.

    Raises:
        DataError: a cell and its reference were scored on different images.
    """
    pairs = [
        (cell.name, reference.name)
        for cell in cells
        for reference in references_of(cell, cells)
        if cell.name in measured and reference.name in measured
    ]
    for row, against in pairs:
        if not measured[row].matches.same_images(measured[against].matches):
            raise DataError(
                f"{row} and {against} were scored on different images and cannot be compared;"
                " score both on one evaluation set"
            )
    count = tosses_for(len(pairs) * len(METRICS))
    tested = []
    for number, (row, against) in enumerate(pairs):
        progress(number * count, len(pairs) * count)
        found = paired_permutations(
            measured[against].matches,
            measured[row].matches,
            count=count,
            seed=seed,
            progress=lambda done, number=number: progress(number * count + done, len(pairs) * count),  # type: ignore[misc]
        )
        tested += [(metric, row, against, found[metric]) for metric in METRICS]
    corrected = holm([found.p for *_, found in tested])
    return [
        _difference(metric, row, against, measured, found, p_holm)
        for (metric, row, against, found), p_holm in zip(tested, corrected, strict=True)
    ]


def references_of(cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that ``cell`` is held against, of the same model on the same device.

    Base weights in FP32 for every other one; and base weights in INT8 for quantization-aware INT8, since what that
    training recovers is the difference between the two.
    """
    wanted = [("base", "fp32")] + ([("base", "int8")] if (cell.weights, cell.precision) == ("qat", "int8") else [])
    same = [other for other in cells if (other.model, other.device) == (cell.model, cell.device) and other is not cell]
    return [other for pair in wanted for other in same if (other.weights, other.precision) == pair]


def _difference(
    metric: Metric, row: str, against: str, measured: Mapping[str, Accuracy], tested: Permutation, p_holm: float
) -> Difference:
    one, other = measured[row], measured[against]
    draws = one.draws[metric] - other.draws[metric]
    estimate = percentile_interval(one.values[metric] - other.values[metric], draws)
    return Difference(
        metric=metric,
        row=row,
        against=against,
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        level=LEVEL,
        resamples=len(draws),
        images=len(one.matches.image_ids),
        p=tested.p,
        p_holm=p_holm,
        verdict=verdict(estimate.value, p_holm),
    )
