"""Every cell's AP with its interval, and its difference from the same model in FP32 on the same device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgejoule.errors import DataError
from edgejoule.records import Difference
from edgejoule_analyst.average_precision import METRICS, AccuracyCurves, Figure, FloatArray, Matches, Metric
from edgejoule_analyst.bootstrap import LEVEL, Estimate, basic_interval, distribution, percentile_interval
from edgejoule_analyst.measurements import Cell
from edgejoule_analyst.permutation import TOSSES, Permutation, paired_permutations
from edgejoule_analyst.significance import holm, verdict


@dataclass(frozen=True)
class Accuracy:
    """COCO's figures of one cell: on the images as they are, and under each resample."""

    matches: Matches
    values: Mapping[Figure, float]
    draws: Mapping[Figure, FloatArray]

    def intervals(self) -> dict[Figure, Estimate]:
        """Each figure on its own, to be judged beside no other engine."""
        return {figure: basic_interval(value, self.draws[figure]) for figure, value in self.values.items()}

    def draws_curve(self, metric: Metric) -> list[float]:
        """The 0th, 1st, ..., 100th percentile of the draws, to a millionth: enough for a bound at any whole percent."""
        percentiles = np.nanpercentile(self.draws[metric], np.arange(101))
        return [round(float(value), 6) for value in percentiles]


def measure(
    matches: Matches, *, count: int, seed: int, by_size: bool = True, progress: Callable[[int], None]
) -> Accuracy:
    """COCO's figures with their bootstrap distributions over images.

    Args:
        by_size: AP of the sizes of objects too, which takes as long again.
        progress: told how many resamples are done.

    Raises:
        DataError: no image has a ground truth that counts, so there is no AP.

    Three images with an object each, found in the first two; AP50 of resamples that miss the third is 1:

    >>> places = np.arange(3, dtype=np.int32)
    >>> matches = Matches(places, np.array([1]), np.array([0.5, 0.75]), places, np.zeros(3, np.int32),
    ...                   np.array([0.9, 0.8, 0.7], np.float32), np.array([[True, True, False]] * 2),
    ...                   np.zeros((2, 3), bool), np.ones((3, 1), np.int32))
    >>> found = measure(matches, count=200, seed=0, progress=lambda done: None)
    >>> round(found.values["ap50"], 3), float(found.draws["ap50"].max())
    (0.663, 1.0)
    """
    if not matches.gt_count.any():
        raise DataError("the evaluation set has no object that counts, so no AP can be had; give it annotated images")
    curves = AccuracyCurves(matches, by_size=by_size)
    images = len(matches.image_ids)
    (whole,) = curves.at(np.ones((1, images), np.int64)).tolist()
    draws = distribution(curves.at, images, count=count, seed=seed, progress=progress)
    return Accuracy(
        matches, dict(zip(curves.figures, whole, strict=True)), dict(zip(curves.figures, draws.T, strict=True))
    )


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

    With one engine twice there is nothing to tell:

    >>> def cell(precision: str) -> Cell:
    ...     return Cell(name=precision, model="m", detector="nanodet-m", weights="base", variant=precision,
    ...                 precision=precision, device="host", protocol="quick", comparable=False)
    >>> places = np.arange(3, dtype=np.int32)
    >>> matches = Matches(places, np.array([1]), np.array([0.5, 0.75]), places, np.zeros(3, np.int32),
    ...                   np.array([0.9, 0.8, 0.7], np.float32), np.array([[True, True, False]] * 2),
    ...                   np.zeros((2, 3), bool), np.ones((3, 1), np.int32))
    >>> engine = measure(matches, count=100, seed=0, progress=lambda done: None)
    >>> cells = [cell("fp32"), cell("int8")]
    >>> for each in differences(cells, {"fp32": engine, "int8": engine}, seed=0):
    ...     print(each.metric, each.row, each.against, each.difference, each.p_holm, each.verdict)
    ap int8 fp32 0.0 1.0 no evidence of a difference
    ap50 int8 fp32 0.0 1.0 no evidence of a difference
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
    tested = []
    for number, (row, against) in enumerate(pairs):
        progress(number * TOSSES, len(pairs) * TOSSES)
        found = paired_permutations(
            measured[against].matches,
            measured[row].matches,
            count=TOSSES,
            seed=seed,
            progress=lambda done, number=number: progress(number * TOSSES + done, len(pairs) * TOSSES),  # type: ignore[misc]
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

    >>> def cell(weights: str, precision: str) -> Cell:
    ...     return Cell(name=f"{weights} {precision}", model="m", detector="nanodet-m", weights=weights,
    ...                 variant=precision, precision=precision, device="host", protocol="quick", comparable=False)
    >>> base, ptq, qat = cells = [cell("base", "fp32"), cell("base", "int8"), cell("qat", "int8")]
    >>> [[other.name for other in references_of(each, cells)] for each in cells]
    [[], ['base fp32'], ['base fp32', 'base int8']]
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
