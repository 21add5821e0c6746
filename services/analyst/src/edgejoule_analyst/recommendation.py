"""Which cell, under these limits? The best by the objective, the runner-up, and what rules out each other one.

A cell keeps a limit only if it does so at the stated confidence: the bound on the figure's unfavourable side must keep
it. It breaks a limit only if even the favourable bound does. Between the two, nothing is shown, and that is said. All
limits of a cell must be kept, each at the confidence, so their number needs no correction: a cell that breaks one is
let through with at most the probability that this one test errs (an intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgejoule.decisions import CellVerdict, Figure, Judgement, Limit, Recommendation, Tie, Verdict, Weighting
from edgejoule.records import Evidence, Results, Row
from edgejoule_analyst.bootstrap import NO_EVIDENCE
from edgejoule_analyst.figures import METRICS, NOTHING, Known, Unknown, difference_of
from edgejoule_analyst.ranking import weigh
from edgejoule_analyst.significance import holm
from edgejoule_analyst.words import row_name

MORE_DATA = {"ap": "more evaluation images", "ap50": "more evaluation images"}
NOT_COMPARABLE = "protocol {0} is for looking: too few inferences and trials to deploy by"
AMONG_REVIEW = "so the best is chosen among those whose limits are kept but that need a review"
ALIKE = "a tie: every trial of either came to the same figure, which does not tell how the next would"
REAL_ALONE = "simulated rows are ranked beside no real one; left out of the {0}: {1}"


@dataclass(frozen=True)
class Candidate:
    """A cell as a decision sees it."""

    name: str
    figures: Mapping[str, Known | Unknown]
    ended: str | None = None
    """How, where it did not end well: nothing of it can be deployed."""
    doubts: Sequence[str] = ()
    """What speaks against its figures."""
    simulated: bool = False


@dataclass(frozen=True)
class Paired:
    """A difference between two cells on the same images."""

    difference: float
    p: float


Pair = Callable[[str, str, str], Paired | None]
"""(better cell, other cell, ap or ap50) to their paired difference; None where their matches are not at hand."""


def candidates(results: Results, confidence: float) -> list[Candidate]:
    """Every row of a run."""
    return [_candidate(row, results.evidence.get(row_name(row), NOTHING), confidence) for row in results.rows]


def _candidate(row: Row, evidence: Evidence, confidence: float) -> Candidate:
    doubts = list(row.flags)
    if not row.comparable:
        doubts.append(NOT_COMPARABLE.format(row.protocol))
    return Candidate(
        name=row_name(row),
        figures={name: metric.estimate(row, evidence, confidence) for name, metric in METRICS.items()},
        ended=None if row.status == "ok" else f"{row.status}: {row.reason}",
        doubts=doubts,
        simulated=row.simulated,
    )


@dataclass(frozen=True)
class Asked:
    """What a person wants."""

    limits: Sequence[Limit]
    objective: str
    confidence: float
    weights_over: Sequence[str] = ("ap50", "latency", "energy", "memory", "size")
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the metrics to rank by, together 1; where there are none, ``weights_over`` is weighed equally."""


@dataclass(frozen=True)
class _Judged:
    candidate: Candidate
    verdict: CellVerdict
    figures: Mapping[str, Known | Unknown] = field(repr=False)

    @property
    def name(self) -> str:
        return self.candidate.name

    def known(self, metric: str) -> Known | None:
        found = self.figures.get(metric)
        return found if isinstance(found, Known) else None


def recommend(run: str, found: Sequence[Candidate], asked: Asked, pair: Pair = lambda *_: None) -> Recommendation:
    """The answer.

    Args:
        found: the cells; at least one.
        pair: tells AP differences on the same images; without it they are judged as if the images were not the same,
            which sees less.
    """
    judged = [_judge(candidate, asked) for candidate in found]
    objective = METRICS[asked.objective]
    pools = [[cell for cell in judged if cell.verdict.verdict == "deployable" and cell.known(asked.objective)]]
    pools.append([cell for cell in judged if cell.verdict.feasible and cell.known(asked.objective)])
    answer: Verdict = "blocked" if all(cell.verdict.verdict == "blocked" for cell in judged) else "review"
    pool = pools[1]
    if pools[0]:
        answer, pool = "deployable", pools[0]
    ranked = sorted(
        _of_one_kind(pool), key=lambda cell: _value(cell, asked.objective) * (-1 if objective.higher_is_better else 1)
    )  # stable: equals stay in the order of the run
    ties, notes = _against_best(ranked, asked, pair)
    notes += _of_sensors(ranked, asked.objective)
    if ranked and answer == "review":
        notes.insert(0, f"{_why_not_deployed(judged, asked)}, {AMONG_REVIEW}")
    absent = {}
    if not ranked:
        absent["best"] = _why_none(judged, asked)
    if len(ranked) < 2:
        absent |= dict.fromkeys(("runner_up", "runner_up_needs"), absent.get("best", "no other cell keeps the limits"))
    feasible = [cell for cell in judged if cell.verdict.feasible]
    for what, cells in (("order", pool), ("shares of the weightings", feasible)):
        if aside := [cell.name for cell in cells if cell not in _of_one_kind(cells)]:
            notes.append(REAL_ALONE.format(what, ", ".join(aside)))
    return Recommendation(
        run=run,
        confidence=asked.confidence,
        objective=asked.objective,
        limits=list(asked.limits),
        answer=answer,
        best=ranked[0].name if ranked else None,
        runner_up=ranked[1].name if len(ranked) > 1 else None,
        runner_up_needs=_needs(ranked[1], ranked[0], asked, ties) if len(ranked) > 1 else None,
        against_best=ties,
        cells=[cell.verdict for cell in judged],
        weighting=_weighting(feasible, asked),
        notes=notes,
        absent=absent,
    )


def _of_one_kind(cells: Sequence[_Judged]) -> list[_Judged]:
    """Those of real devices; the simulated where there are no others. One order of both would pass a figure that
    nobody measured for one that somebody did.
    """
    real = [cell for cell in cells if not cell.candidate.simulated]
    return real or list(cells)


def _why_not_deployed(judged: Sequence[_Judged], asked: Asked) -> str:
    lacking = [cell.name for cell in judged if cell.verdict.verdict == "deployable"]
    if not lacking:
        return "nothing is deployable"
    return f"the deployable rows lack the objective, {METRICS[asked.objective].title} ({', '.join(lacking)})"


def _why_none(judged: Sequence[_Judged], asked: Asked) -> str:
    if any(cell.verdict.feasible for cell in judged):
        return f"no cell that keeps the limits has a figure for the objective, {METRICS[asked.objective].title}"
    if any(cell.verdict.verdict == "review" for cell in judged):
        return "no cell is shown to keep every limit, and some are not shown to break one"
    return "every cell breaks a limit or did not end well"


# --- one cell ------------------------------------------------------------------------------------


def _judge(candidate: Candidate, asked: Asked) -> _Judged:
    judgements = [] if candidate.ended else [_hold(candidate, limit, asked.confidence) for limit in asked.limits]
    broken = [judgement for judgement in judgements if judgement.kept is False]
    unknown = [judgement for judgement in judgements if judgement.kept is None]
    feasible: bool | None = None
    if candidate.ended or broken:
        verdict: Verdict = "blocked"
        feasible = False
        reasons = [candidate.ended] if candidate.ended else [judgement.says for judgement in broken]
    elif unknown or candidate.doubts:
        verdict = "review"
        feasible = None if unknown else True
        reasons = [judgement.says for judgement in unknown] + list(candidate.doubts)
    else:
        verdict, feasible = "deployable", True
        reasons = [judgement.says for judgement in judgements]
    return _Judged(
        candidate,
        CellVerdict(
            name=candidate.name,
            verdict=verdict,
            feasible=feasible,
            reasons=reasons,
            judgements=judgements,
            figures={name: _figure(found) for name, found in candidate.figures.items()},
            simulated=candidate.simulated,
        ),
        candidate.figures,
    )


def _hold(candidate: Candidate, limit: Limit, confidence: float) -> Judgement:
    metric, found = METRICS[limit.metric], candidate.figures[limit.metric]
    bound = metric.show(limit.bound)
    if isinstance(found, Unknown):
        seen = "" if found.value is None else f" ({metric.show(found.value)} was seen)"
        says = f"{metric.title} cannot be judged against {limit.side} {bound}{seen}: {found.reason}"
        return Judgement(limit=limit, kept=None, shortfall=None, says=says)
    least = limit.side == "at least"
    unfavourable, favourable = (found.low, found.high) if least else (found.high, found.low)
    miss = limit.bound - unfavourable if least else unfavourable - limit.bound
    broken = favourable < limit.bound if least else favourable > limit.bound
    where = _where(found, limit.metric, unfavourable, least, confidence)
    if miss <= 0:
        return Judgement(limit=limit, kept=True, shortfall=None, says=f"{where} keeps {limit.side} {bound}")
    if broken:
        takes = _takes(found.value, limit, metric.scale)
        says = f"{where_worse(found, limit.metric, favourable, least, confidence)} breaks {limit.side} {bound}: {takes}"
        return Judgement(limit=limit, kept=False, shortfall=miss, says=says)
    more = MORE_DATA.get(limit.metric, "more trials")
    says = f"{where} is not shown to keep {limit.side} {bound}, nor to break it; {more} may tell"
    return Judgement(limit=limit, kept=None, shortfall=miss, says=says)


def _where(found: Known, name: str, end: float, least: bool, confidence: float) -> str:
    metric = METRICS[name]
    said = [f"{'above' if least else 'below'} {metric.show(end)} at {100 * confidence:g} %"]
    said = ([] if found.low == found.high else said) + ([found.without] if found.without else [])
    return f"{metric.title} of {metric.show(found.value)}" + (f" ({', '.join(said)})" if said else "")


def where_worse(found: Known, name: str, end: float, least: bool, confidence: float) -> str:
    """As ``_where``, with the bound on the other side: what the figure is no better than."""
    return _where(found, name, end, not least, confidence)


def _takes(value: float, limit: Limit, scale: float) -> str:
    """What it would take to reach the limit, in words."""
    if limit.metric == "fps":
        return f"it would have to be {limit.bound / value:.2f} times as fast"
    if limit.side == "at least":
        return f"it would have to gain {scale * (limit.bound - value):.1f} points"
    if limit.metric.startswith("latency"):
        return f"it would have to be {value / limit.bound:.2f} times as fast"
    return f"it would have to take {1 - limit.bound / value:.0%} less"


def _figure(found: Known | Unknown) -> Figure:
    if isinstance(found, Known):
        return Figure(value=found.value, low=found.low, high=found.high)
    absent = dict.fromkeys(("value", "low", "high") if found.value is None else ("low", "high"), found.reason)
    return Figure(value=found.value, low=None, high=None, absent=absent)


# --- the best and the others ---------------------------------------------------------------------


def _against_best(ranked: Sequence[_Judged], asked: Asked, pair: Pair) -> tuple[list[Tie], list[str]]:
    """The best held against each other cell of its pool.

    The data chose which is the best, so the family is every pair of the pool: the best of ten equals is
    significantly better than one of them far more often than nine tests would tell.
    """
    if len(ranked) < 2:
        return [], []
    best, others = ranked[0], ranked[1:]
    found = [_difference(best, other, asked.objective, pair) for other in others]
    tested = [index for index, held in enumerate(found) if held.p is not None]
    p_values = holm([found[index].p or 0.0 for index in tested], among=math.comb(len(tested) + 1, 2))
    corrected = dict(zip(tested, p_values, strict=True))
    ties = []
    for index, (other, held) in enumerate(zip(others, found, strict=True)):
        p = corrected.get(index)
        tie = held.alike or held.difference == 0 if p is None else p > 1 - asked.confidence
        what = METRICS[asked.objective].title
        says = (
            f"a tie: {NO_EVIDENCE} in {what} from {best.name}" + (f" (p {p:.2g})" if p is not None else "")
            if tie
            else f"worse in {what} than {best.name}" + (f" (p {p:.2g})" if p is not None else "")
        )
        says = ALIKE if held.alike else says
        ties.append(Tie(name=other.name, difference=held.difference, p=p, tie=tie, says=says))
    unpaired = asked.objective in ("ap", "ap50") and not all(held.paired for held in found)
    note = (
        "the matches of some cells are not at hand, so their APs are compared as if on different images, which sees"
        " smaller differences less well; name the run's store by --store"
    )
    return ties, [note] if unpaired else []


@dataclass(frozen=True)
class _Held:
    """The best less another cell."""

    difference: float
    p: float | None
    """None: nothing errs, or there is nothing to tell by how much."""
    paired: bool = False
    alike: bool = False
    """Whether all trials of each came to one figure, so that chance cannot be told from a difference."""


def _of_sensors(ranked: Sequence[_Judged], objective: str) -> list[str]:
    """A note where figures of several power sensors are held against each other, and one's own error is not known."""
    found = [figure for cell in ranked if (figure := cell.known(objective)) and figure.sensor]
    unknown = next((figure.without for figure in found if figure.without), None)
    if unknown is None or len({figure.sensor for figure in found}) < 2:
        return []
    return [f"{METRICS[objective].title} of several power sensors is compared {unknown}"]


def _difference(best: _Judged, other: _Judged, objective: str, pair: Pair) -> _Held:
    if objective in ("ap", "ap50") and (paired := pair(best.name, other.name, objective)):
        return _Held(paired.difference, paired.p, paired=True)
    one, two = best.known(objective), other.known(objective)
    if one is None or two is None:
        raise ValueError("only cells whose objective is known are held against each other")
    spread = difference_of(one, two)
    if spread is None:
        return _Held(one.value - two.value, None)
    if spread.value and not spread.scattered:
        return _Held(spread.value, None, alike=True)
    return _Held(spread.value, spread.p)


def _needs(runner_up: _Judged, best: _Judged, asked: Asked, ties: Sequence[Tie]) -> str:
    """What the runner-up would need to be the best."""
    metric = METRICS[asked.objective]
    mine, its = _value(runner_up, asked.objective), _value(best, asked.objective)
    if mine == its:
        return f"nothing: its {metric.title} is the same, {metric.show(its)}"
    if metric.scale != 1:
        takes = f"its {metric.title} would have to gain {metric.scale * (its - mine):.1f} points"
    elif asked.objective.startswith("latency") and its > 0:
        takes = f"it would have to be {mine / its:.2f} times as fast"
    elif metric.higher_is_better:
        takes = f"its {metric.title} would have to be {its / mine - 1:.0%} higher"
    else:
        takes = f"its {metric.title} would have to be {1 - its / mine:.0%} lower"
    return f"{takes}, past {metric.show(its)}" + (f"; as it is, {ties[0].says}" if ties[0].tie else "")


def _value(cell: _Judged, metric: str) -> float:
    found = cell.known(metric)
    return math.nan if found is None else found.value


def _weighting(feasible: Sequence[_Judged], asked: Asked) -> Weighting:
    """The ranking by the weights asked for, or over those metrics that every feasible cell of one kind has."""
    simulated_aside = " of real devices" if len(_of_one_kind(feasible)) < len(feasible) else ""
    feasible = _of_one_kind(feasible)
    weights = dict(asked.weights) or None
    no_weights = {} if weights else {"weights": "none were asked for"}
    metrics = [name for name in asked.weights_over if feasible and all(cell.known(name) for cell in feasible)]
    if weights:
        metrics = list(weights)
    lacking = [(cell, name) for cell in feasible for name in weights or () if not cell.known(name)]
    reason = ""
    if len(feasible) < 2:
        reason = f"there are not two feasible cells{simulated_aside}"
    elif len(metrics) < 2:
        reason = "no two metrics are known of all of them"
    elif lacking:
        cell, name = lacking[0]
        found = cell.figures[name]
        why = f": {found.reason}" if isinstance(found, Unknown) else ""
        reason = f"{METRICS[name].title} is to be weighed, and is not known of {cell.name}{why}"
    if reason:
        return Weighting(metrics=metrics, weights=weights, shares=None, absent={"shares": reason, **no_weights})
    values = {cell.name: [_value(cell, name) for name in metrics] for cell in feasible}
    higher = [METRICS[name].higher_is_better for name in metrics]
    shares = weigh(values, higher, None if weights is None else [weights[name] for name in metrics])
    return Weighting(metrics=metrics, weights=weights, shares=shares, absent=no_weights)
