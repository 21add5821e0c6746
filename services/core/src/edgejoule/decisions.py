"""What ``edgejoule recommend --json`` and ``edgejoule compare --json`` answer. Figures have the units of ``Row``.

Metric names: ap, ap50 (fractions); latency, latency-p50, latency-p90, latency-p99 (ms, of one inference); fps
(images per second); energy (mJ per image); power (W); memory, size (MB); map-per-joule.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgejoule.records import Measured, Record

Verdict = Literal["deployable", "review", "blocked"]


class Limit(Record):
    """What a cell must keep to."""

    metric: str
    side: Literal["at least", "at most"]
    bound: float


class Figure(Measured):
    """One figure of one cell, and what it is above and below, each at the stated confidence on its own."""

    value: float | None
    low: float | None
    high: float | None


class Judgement(Record):
    """One limit held against one cell."""

    limit: Limit
    kept: bool | None = Field(description="true or false: shown at the stated confidence; null: neither is")
    shortfall: float | None = Field(
        description="by how much the figure's unfavourable bound misses the limit, in its unit; null: kept or unknown"
    )
    says: str


class CellVerdict(Record):
    """One cell."""

    name: str = Field(description="model/variant/device")
    verdict: Verdict
    feasible: bool | None = Field(description="whether every limit is kept, at the stated confidence; null: not shown")
    reasons: list[str] = Field(description="why it is not deployable, or what its figures rest on")
    judgements: list[Judgement]
    figures: dict[str, Figure]
    simulated: bool


class Tie(Record):
    """A cell that the best was held against, by the objective."""

    name: str
    difference: float = Field(description="the best less this cell; for mAP/J of their logarithms")
    p: float | None = Field(
        description="Holm-adjusted over all pairs of cells that are ranked; null: no error, or trials of no scatter"
    )
    tie: bool
    says: str


class Share(Record):
    """How often a cell wins when nobody knows the weights."""

    name: str
    share: float = Field(description="volume of the weightings under which it has the highest score, of all, 0-1")
    equal_weights_score: float = Field(description="mean of its normalized metrics, 0-1")
    score: float = Field(description="sum of its normalized metrics by the weights asked for, 0-1; by equal ones else")


class Weighting(Measured):
    """The ranking by weighted normalized metrics: by the weights asked for, and over every weighting there is."""

    metrics: list[str]
    weights: dict[str, float] | None = Field(
        description="asked for, of each of the metrics, together 1; null: none were"
    )
    shares: list[Share] | None = Field(description="the best by the weights asked for first; else that which wins most")


class Recommendation(Measured):
    """The answer to: which of these, under my limits?"""

    format: Literal[1] = 1
    run: str
    confidence: float
    objective: str
    limits: list[Limit]
    answer: Verdict = Field(
        description="deployable: best is; review: best, or some cell where best is null, needs one; blocked: all are"
    )
    best: str | None
    runner_up: str | None
    runner_up_needs: str | None
    against_best: list[Tie]
    cells: list[CellVerdict]
    weighting: Weighting
    notes: list[str]


class Change(Measured):
    """One figure of one cell, in run B against run A."""

    cell: str
    metric: str
    a: float | None
    b: float | None
    change: float | None = Field(description="ap, ap50: B less A, a fraction; all else: B / A")
    low: float | None = Field(description="interval of the change, at the confidence, not corrected")
    high: float | None
    p: float | None = Field(description="by permutation of images for ap and ap50, by Welch's t-test of trials else")
    p_holm: float | None = Field(
        description="corrected over all tests of what fail_on names; of other metrics, over all"
    )
    verdict: Literal["better", "worse", "same", "no evidence of a difference", "not judged"]
    fails: bool = Field(description="worse by evidence, by more than --fail-on tolerates")


class StatusChange(Record):
    """How a cell ended in each run; null: it is not in that run."""

    cell: str
    a: str | None
    b: str | None
    says: str
    fails: bool


class RunComparison(Record):
    """The answer to: did anything get worse?"""

    format: Literal[1] = 1
    run_a: str
    run_b: str
    confidence: float
    fail_on: list[str]
    answer: Literal["passed", "regressed", "not judged"]
    not_judged: list[str] = Field(description="what fail_on names and cannot be told, with the reason; a sentence each")
    statuses: list[StatusChange]
    changes: list[Change]
    notes: list[str]
