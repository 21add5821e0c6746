"""``edgejoule recommend`` and ``edgejoule compare``: decisions from results.json, and from matches in the store."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperArgument, TyperGroup

from edgejoule.errors import DataError, OptionError
from edgejoule.options import Json, StorePlace
from edgejoule_analyst.commands import read_results, write_page

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edgejoule.decisions import Limit, Recommendation, RunComparison
    from edgejoule.records import Results
    from edgejoule.store import Store
    from edgejoule_analyst import recommendation, regression
    from edgejoule_analyst.average_precision import Matches, Metric
    from edgejoule_analyst.comparison import Accuracy

Answer = TypeVar("Answer", "Recommendation", "RunComparison")

NO, OPEN = 3, 4
"""Exit codes: the answer is no; it cannot be told. (1 is an error, 2 wrong usage.)"""
OBJECTIVES = ("ap50", "ap", "latency", "fps", "energy", "power", "memory", "size", "map-per-joule")
LATENCIES = {"mean": "latency", "p50": "latency-p50", "p90": "latency-p90", "p99": "latency-p99"}
SEED = 0

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A results.json, or the folder of a run.")]
Confidence = Annotated[
    float, typer.Option(help="Probability with which each statement is to hold, above 0.5, at most 0.99.")
]


class _NoMore(TyperGroup):
    """A command that no others are under: a word too many is that, and no command that is not there."""

    def resolve_command(self, ctx: Any, args: list[str]) -> NoReturn:
        takes = " and ".join(
            param.metavar for param in self.params if isinstance(param, TyperArgument) and param.metavar
        )
        raise OptionError(f"{ctx.command_path} takes {takes} and options; {args[0]!r} is too many")


def _app(summary: str) -> typer.Typer:
    return typer.Typer(
        cls=_NoMore,
        help=summary,
        invoke_without_command=True,
        context_settings={"allow_interspersed_args": True},
        rich_markup_mode=None,
    )


recommend_app = _app("Which row, under these limits? The best, the runner-up, and what rules out each other one.")
compare_app = _app("Did a run get worse than another? Row by row, with statistics, and an exit code for CI.")


@recommend_app.callback(invoke_without_command=True)
def recommend(
    run: RunFolder,
    min_ap: Annotated[float | None, typer.Option(help="Least AP, a fraction.")] = None,
    min_ap50: Annotated[float | None, typer.Option(help="Least AP50, a fraction.")] = None,
    max_latency: Annotated[
        float | None, typer.Option(help="Greatest latency of one inference, ms; see --latency.")
    ] = None,
    min_fps: Annotated[
        float | None, typer.Option(help="Fewest images per second; a batch of N counts as N images.")
    ] = None,
    max_energy: Annotated[float | None, typer.Option(help="Greatest energy per image, mJ.")] = None,
    max_power: Annotated[float | None, typer.Option(help="Greatest power while it runs, W.")] = None,
    max_memory: Annotated[float | None, typer.Option(help="Greatest peak memory, MB.")] = None,
    max_size: Annotated[float | None, typer.Option(help="Greatest size of the engine, MB.")] = None,
    latency: Annotated[str, typer.Option(help="Which latency is meant: mean, p50, p90 or p99.")] = "mean",
    device: Annotated[list[str], typer.Option(help="Only rows of this device. Repeatable.")] = [],  # noqa: B006
    confidence: Confidence = 0.95,
    objective: Annotated[
        str, typer.Option(help=f"What the best is best at: {', '.join(OBJECTIVES)}. map-per-joule needs energy.")
    ] = "ap50",
    weight: Annotated[
        list[str],
        typer.Option(
            metavar="METRIC:WEIGHT",
            help="Rank by your own weights of these metrics, as in ap50:3 and latency:1, in place of equal ones."
            " Repeatable.",
        ),
    ] = [],  # noqa: B006
    store: StorePlace = None,
    as_json: Json = False,
) -> None:
    """Which row, under these limits? The best, the runner-up, and what rules out each other one.

    Exit codes: 0 the best is deployable; 3 every row is blocked; 4 the best needs a review, or none can be named.
    """
    from edgejoule_analyst import decision_tables, ranking, recommendation

    _check_confidence(confidence)
    if latency not in LATENCIES:
        raise OptionError(f"--latency {latency} is not one of {', '.join(LATENCIES)}")
    if objective not in OBJECTIVES:
        raise OptionError(f"--objective {objective} is not one of {', '.join(OBJECTIVES)}")
    weights = ranking.parse_weights(weight, OBJECTIVES)
    limits = [
        _limit(metric, side, bound)
        for metric, side, bound in (
            ("ap", "at least", min_ap),
            ("ap50", "at least", min_ap50),
            (LATENCIES[latency], "at most", max_latency),
            ("fps", "at least", min_fps),
            ("energy", "at most", max_energy),
            ("power", "at most", max_power),
            ("memory", "at most", max_memory),
            ("size", "at most", max_size),
        )
        if bound is not None
    ]
    results = read_results(run)
    cells = recommendation.candidates(_on_devices(results, device), confidence)
    asked = recommendation.Asked(
        limits,
        _of_latency(objective, latency),
        confidence,
        [_of_latency(metric, latency) for metric in ("ap50", "latency", "energy", "memory", "size")],
        {_of_latency(metric, latency): value for metric, value in weights.items()},
    )
    kept = _store_of(run, store)
    answer = recommendation.recommend(results.run, cells, asked, _pair_within(results, kept))
    _tell(answer, as_json, decision_tables.recommendation_table, decision_tables.recommendation_words)
    if answer.answer != "deployable":
        raise typer.Exit(NO if answer.answer == "blocked" else OPEN)


@compare_app.callback(invoke_without_command=True)
def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="What was: a results.json, or the folder of a run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="What is now.")],
    fail_on: Annotated[
        list[str],
        typer.Option(
            metavar="METRIC[:TOLERANCE]",
            help="Fail when this got worse, by evidence and by more than the tolerance: ap50:0.5 (points), latency:5%,"
            " status, ... Repeatable.",
        ),
    ] = [],  # noqa: B006
    confidence: Confidence = 0.95,
    store: StorePlace = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the comparison as a page to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Did a run get worse than another? Row by row, with statistics, and an exit code for CI.

    Exit codes: 0 nothing that --fail-on names got worse; 3 something did; 4 something that it names cannot be judged.
    """
    from edgejoule_analyst import decision_tables, regression

    _check_confidence(confidence)
    gates = regression.Gate.parse_all(fail_on)
    a, b = read_results(run_a), read_results(run_b)
    pair = _pair_between(a, b, _store_of(run_a, store), _store_of(run_b, store), confidence)
    answer = regression.compare(a, b, gates, confidence, pair)
    if html is not None:
        from edgejoule_analyst.comparison_page import render_comparison

        write_page(html, render_comparison(a, b, answer))
    _tell(answer, as_json, decision_tables.comparison_table, decision_tables.comparison_words)
    if answer.answer != "passed":
        raise typer.Exit(NO if answer.answer == "regressed" else OPEN)


def _tell(
    answer: Answer, as_json: bool, table: Callable[[Answer], Table], words: Callable[[Answer], list[Text]]
) -> None:
    from edgejoule_analyst.decision_tables import show

    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        show(table(answer), words(answer))


def _check_confidence(confidence: float) -> None:
    if not 0.5 < confidence <= 0.99:
        raise OptionError(f"--confidence {confidence:g} is not above 0.5 and at most 0.99")


def _limit(metric: str, side: str, bound: float) -> Limit:
    from edgejoule.decisions import Limit

    is_fraction = metric in ("ap", "ap50")
    if not math.isfinite(bound) or bound < 0 or (bound > 1 if is_fraction else bound == 0):
        what = "a fraction from 0 to 1, as in .40" if is_fraction else "a number above 0"
        raise OptionError(f"the limit of {metric} is {bound:g}; give {what}")
    return Limit.model_validate({"metric": metric, "side": side, "bound": bound})


def _of_latency(metric: str, latency: str) -> str:
    """A metric by its name, ``latency`` as the one that is meant."""
    return LATENCIES[latency] if metric == "latency" else metric


def _on_devices(results: Results, devices: list[str]) -> Results:
    known = list(dict.fromkeys(row.device for row in results.rows))
    if strange := [device for device in devices if device not in known]:
        raise OptionError(f"run {results.run} has no device {strange[0]!r}; its devices are: {', '.join(known)}")
    rows = [row for row in results.rows if not devices or row.device in devices]
    if not rows:
        raise DataError(f"run {results.run} has no row to choose from")
    return results.model_copy(update={"rows": rows})


# --- matches, from the store ---------------------------------------------------------------------


def _store_of(run: Path, store: str | None) -> Store | None:
    """The store that keeps what the run made; None where there is none, and none was named."""
    from edgejoule.options import existing_store
    from edgejoule.runs import find_store

    folder = run if run.is_dir() else run.parent
    where = find_store(folder.absolute(), store, os.environ)
    if store is None and "://" not in where and not Path(where).is_dir():
        return None
    return existing_store(where)


def _fetch(results: Results, kept: Store | None, cell: str) -> Matches | str:
    """The matches of a cell, or why they are not at hand."""
    from edgejoule.errors import CorruptBlobError
    from edgejoule_analyst.average_precision import Matches
    from edgejoule_analyst.figures import OLD_RESULTS

    sha256 = _matches_of(results, cell)
    if sha256 is None:
        return OLD_RESULTS
    if kept is None:
        return f"no store keeps what run {results.run} made; name it by --store"
    try:
        return Matches.load(kept.fetch(sha256))
    except CorruptBlobError:
        return f"the store {kept.where} does not keep the matches of {cell}; name the right one by --store"


def _matches_of(results: Results, cell: str) -> str | None:
    return results.evidence[cell].matches if cell in results.evidence else None


def _evaluation_sets(results: Results, cell: str) -> set[str]:
    """The hash of the set that the cell was scored on; empty where it was not told."""
    from edgejoule_analyst.words import row_name

    return {row.hashes.data for row in results.rows if row_name(row) == cell and row.hashes.data is not None}


def _pair_within(results: Results, kept: Store | None) -> recommendation.Pair:
    from edgejoule_analyst.permutation import TOSSES, paired_permutation
    from edgejoule_analyst.recommendation import Paired

    @cache
    def matches(cell: str) -> Matches | str:
        return _fetch(results, kept, cell)

    def pair(best: str, other: str, metric: str) -> Paired | None:
        first, second = matches(other), matches(best)
        if isinstance(first, str) or isinstance(second, str) or not first.same_images(second):
            return None
        with _told(f"{other} against {best}") as progress:
            found = paired_permutation(first, second, _metric(metric), count=TOSSES, seed=SEED, progress=progress)
        return Paired(found.difference, found.p)

    return pair


def _pair_between(
    a: Results, b: Results, store_a: Store | None, store_b: Store | None, confidence: float
) -> regression.Pair:
    from edgejoule_analyst.bootstrap import Estimate, percentile_interval
    from edgejoule_analyst.permutation import TOSSES, paired_permutation
    from edgejoule_analyst.regression import PairedChange

    @cache
    def both(cell: str) -> tuple[Matches, Matches] | str:
        found = _fetch(a, store_a, cell), _fetch(b, store_b, cell)
        if isinstance(found[0], str) or isinstance(found[1], str):
            return next(each for each in found if isinstance(each, str))
        if not found[0].same_images(found[1]):
            return "the two runs scored it on different images, or on different annotations of them"
        if len(_evaluation_sets(a, cell) | _evaluation_sets(b, cell)) > 1:
            return "the evaluation sets of the two runs are not the same bytes: pictures, annotations or names differ"
        return found[0], found[1]

    @cache
    def drawn(cell: str) -> tuple[Accuracy, Accuracy]:
        from edgejoule_analyst.bootstrap import RESAMPLES
        from edgejoule_analyst.comparison import measure

        found = both(cell)
        assert not isinstance(found, str)
        with _told(f"resampling {cell}") as progress:
            first, second = (
                measure(each, count=RESAMPLES, seed=SEED, by_size=False, progress=progress) for each in found
            )
        return first, second

    def pair(cell: str, metric: str) -> PairedChange | str:
        name = _metric(metric)
        if _matches_of(a, cell) == _matches_of(b, cell) is not None:
            return PairedChange(Estimate(0.0, 0.0, 0.0, confidence), 1.0)  # the same detections, on the same images
        found = both(cell)
        if isinstance(found, str):
            return found
        first, second = drawn(cell)
        draws = second.draws[name] - first.draws[name]
        with _told(f"permuting {cell}") as progress:
            tested = paired_permutation(*found, name, count=TOSSES, seed=SEED, progress=progress)
        return PairedChange(percentile_interval(tested.difference, draws, confidence), tested.p)

    return pair


def _metric(name: str) -> Metric:
    return "ap" if name == "ap" else "ap50"


@contextmanager
def _told(title: str) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, told how many draws are done."""
    from edgejoule.options import console_on
    from edgejoule.progress import bar

    with bar(console_on(sys.stderr), title) as on_progress:
        yield lambda done: on_progress(done, 0, "draws")
