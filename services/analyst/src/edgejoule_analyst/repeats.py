"""Is what INT8 costs, and what training brings back, more than the luck of a seed? t-tests over INT8 made anew.

The paper's section 3.3 pairs five trials of one checkpoint, which a deterministic engine scores alike. What may be
repeated is the calibration, on other images, and the training, in another order: each by a seed. Quantization-aware
INT8 and post-training INT8 of one seed share their calibration, so the two are paired by it. FP32 has one value,
whatever the seed: a paired test against it is the one-sample test of the differences from that value.

The images are the same at every seed, so nothing here speaks of other images; that is what ``bootstrap`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from edgejoule.records import Results, Row, SeedTest
from edgejoule_analyst.average_precision import METRICS, Metric
from edgejoule_analyst.bootstrap import LEVEL, NO_EVIDENCE
from edgejoule_analyst.comparison import references_of
from edgejoule_analyst.measurements import Cell, Ended, Measurements
from edgejoule_analyst.significance import holm, paired_t_test, verdict
from edgejoule_analyst.words import after_holm, level, row_name, signed_points, variant_name

NOT_JUDGED = "not judged"
ALIKE = "every seed gives the same difference, so there is no spread to judge it by"
TESTED = ("low", "high", "effect", "t", "freedom", "p")


@dataclass(frozen=True)
class _Pairs:
    """A metric of two rows, seed by seed."""

    metric: Metric
    row: str
    against: str
    test: Literal["paired", "one-sample"]
    seeds: list[int]
    values: list[float]
    others: list[float]


def seed_tests(cells: Sequence[Cell], rows: Sequence[Row]) -> list[SeedTest]:
    """Each row that was made by several seeds against those of ``references_of``, AP and AP50.

    Holm's correction is over all of them: both metrics, all models.
    """
    by_name = {row_name(row): row for row in rows}
    found = [
        pairs
        for cell in cells
        for reference in references_of(cell, cells)
        for metric in METRICS
        if (pairs := _pairs(metric, by_name[cell.name], by_name[reference.name])) is not None
    ]
    told = [_tested(pairs) for pairs in found]
    p_values = [values["p"] for values in told if values is not None]
    corrected = iter(holm(p_values))
    return [
        _record(pairs, values, next(corrected) if values else None) for pairs, values in zip(found, told, strict=True)
    ]


@dataclass(frozen=True)
class Scatter:
    """A metric of one row over its seeds."""

    mean: float
    std: float
    """Of a sample (n - 1)."""
    least: float
    greatest: float


def scatters(results: Results) -> list[tuple[Row, dict[Metric, Scatter]]]:
    """Each row that was made by several seeds, with the scatter of its AP and AP50."""
    return [
        (row, {metric: _scatter(list(_by_seed(metric, row).values())) for metric in METRICS})
        for row in results.rows
        if row.repeats
    ]


def _scatter(values: Sequence[float]) -> Scatter:
    return Scatter(mean(values), stdev(values), min(values), max(values))


def doubts(rows: Sequence[Row], measured: Mapping[str, Measurements]) -> Iterator[str]:
    """What speaks against the scatter between seeds; it says nothing against the row, which is of one seed.

    Args:
        measured: by the name of the row.
    """
    for row in rows:
        if row.repeats is None:
            continue
        name = row_name(row)
        made = measured[name].repeats.items()
        if lost := {seed: again.score.reason for seed, again in made if isinstance(again.score, Ended)}:
            seeds = ", ".join(map(str, lost))
            yield f"{name}: made anew without a score by seed {seeds}, and tested without: {next(iter(lost.values()))}"
        others = [again for again in row.repeats if (again.runtime, again.ran_as) != (row.runtime, row.ran_as)]
        if others:
            told = ", ".join(f"by seed {again.seed} on {again.runtime} as {again.ran_as}" for again in others)
            yield (
                f"{name}: made for {row.runtime} as {row.ran_as}, but {told}; what the runtimes differ by is in the"
                " scatter between its seeds."
            )


def sentences(results: Results) -> Iterator[str]:
    """What the tests of AP say, each in plain words."""
    rows = {row_name(row): row for row in results.rows}
    for test in results.seed_tests:
        if test.metric == "ap":
            row, against = rows[test.row], rows[test.against]
            yield (
                f"{row.model} on {row.device}, {variant_name(row.variant)} against {variant_name(against.variant)}"
                f" over {len(test.seeds)} seeds: {in_words(test)}."
            )


def in_short(results: Results) -> str:
    """How many tests of AP ended how."""
    verdicts = [test.verdict for test in results.seed_tests if test.metric == "ap"]
    counts = ", ".join(f"{verdict} in {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts))
    return f"AP over seeds, in {len(verdicts)} comparisons: {counts}; the report has each"


def in_words(test: SeedTest) -> str:
    """What one test says."""
    mean = f"{signed_points(test.difference)} points"
    if test.low is None or test.high is None or test.p_holm is None or test.effect is None:
        return f"{test.verdict}: {mean}, and {test.absent['p']}"
    said = f"{NO_EVIDENCE} in AP" if test.verdict == NO_EVIDENCE else f"AP is {test.verdict}"
    interval = f"{level(test.level)} interval {signed_points(test.low)} to {signed_points(test.high)}"
    return f"{said} (mean {mean}, {interval}, {after_holm(test.p_holm)}, d_z {test.effect:.1f})"


def _pairs(metric: Metric, row: Row, against: Row) -> _Pairs | None:
    """None where the row was made by one seed, or nothing pairs with it."""
    ours = _by_seed(metric, row)
    theirs = _by_seed(metric, against)
    single = getattr(against, metric)
    test: Literal["paired", "one-sample"] = "paired"
    if against.precision == "fp32" and single is not None:
        test, theirs = "one-sample", dict.fromkeys(ours, single)
    seeds = [seed for seed in ours if seed in theirs]
    if len(seeds) < 2:
        return None
    values, others = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    return _Pairs(metric, row_name(row), row_name(against), test, seeds, values, others)


def _by_seed(metric: Metric, row: Row) -> dict[int, float]:
    return {repeat.seed: getattr(repeat, metric) for repeat in row.repeats or ()}


def _tested(pairs: _Pairs) -> dict[str, Any] | None:
    """What the t-test finds; None where it has nothing to judge by."""
    try:
        found = paired_t_test(pairs.others, pairs.values, LEVEL)
    except ValueError:
        return None
    return {name: getattr(found, name) for name in TESTED}


def _record(pairs: _Pairs, tested: dict[str, Any] | None, p_holm: float | None) -> SeedTest:
    difference = sum(ours - theirs for ours, theirs in zip(pairs.values, pairs.others, strict=True)) / len(pairs.seeds)
    said = NOT_JUDGED if p_holm is None else verdict(difference, p_holm)
    return SeedTest(
        metric=pairs.metric,
        row=pairs.row,
        against=pairs.against,
        test=pairs.test,
        seeds=pairs.seeds,
        difference=difference,
        level=LEVEL,
        **(tested or dict.fromkeys(TESTED)),
        p_holm=p_holm,
        verdict=said,
        absent={} if tested else dict.fromkeys((*TESTED, "p_holm"), ALIKE),
    )
