"""The report: one HTML file that needs no network, and says everything without a script, made from results.json alone.

A script makes it livelier: charts that answer to a pointer, a matrix to sort and to filter. The page forbids itself
to load anything from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from markupsafe import Markup

from edgejoule.records import Evidence, Results, Row
from edgejoule_analyst import charts, headline, layer_errors, methods, page, paper_tables, plausibility, repeats, words
from edgejoule_analyst.exports import rows_table
from edgejoule_analyst.figures import (
    AT_OPERATING_POINT,
    METRICS,
    OLD_RESULTS,
    OVER_IMAGES,
    image_interval_in_words,
    interval_in_words,
)

HASH_DIGITS = 12
MANY_NAMES = 3
"""So many names of rows are told as one group, where they are one."""


@dataclass(frozen=True)
class Gap:
    """Figures that are null for one and the same reason."""

    number: int
    reason: str
    fields: list[str]
    rows: list[str]


def render_report(results: Results, sha256: str) -> str:
    """The whole page. Equal results give equal bytes.

    Args:
        sha256: of the file that has the results.
    """
    gaps = find_gaps(results)
    figures = charts.all_charts(results)
    return page.render(
        "report.html.j2",
        name=results.run,
        figures=figures,
        csv_table=rows_table(results),
        filters={**FILTERS, "in_short": partial(in_short, of=results.rows)},
        results=results,
        simulated_devices=words.simulated_devices(results.rows),
        comparisons=headline.comparisons(results),
        as_cards=headline.AS_CARDS,
        gaps=gaps,
        gap_of={(row, field): gap.number for gap in gaps for row in gap.rows for field in gap.fields},
        endings=headline.shared_endings(results.rows),
        methods=methods.methods(results),
        bibtex=methods.bibtex(results, sha256),
        class_of=class_of,
        interval_bar=interval_bar,
        interval_in_words=interval_in_words,
        over_images=(*OVER_IMAGES, *AT_OPERATING_POINT),
        image_interval_in_words=image_interval_in_words,
        choices={
            name: list(dict.fromkeys(getattr(row, name) for row in results.rows))
            for name in ("device", "variant", "status")
        },
        scored=[row for row in results.rows if row.ap is not None],
        by_size=[row for row in results.rows if row.operating_point and row.operating_point.by_size],
        environments=_environments(results),
        protocol=results.spec.get("protocol", {}),
        flags=headline.shared_flags(results.rows),
        checks=_checks(results),
        models=paper_tables.models(results),
        losses=paper_tables.losses(results),
        ratios=(ratios := paper_tables.ratios(results)),
        mean_ratios=list(paper_tables.mean_ratios(ratios)),
        efficiencies=paper_tables.efficiencies(results),
        unchecked=plausibility.unchecked(results),
        scatters=repeats.scatters(results),
        rankings=_rankings(results),
        metrics=METRICS,
        of_name={words.row_name(row): row for row in results.rows},
        graphs=(graphs := layer_errors.graphs(results)),
        drawn_models=[
            model
            for model in dict.fromkeys(graph.model for graph in graphs)
            if charts.layers_figure(model) in {chart.name for chart in figures}
        ],
        layers_figure=charts.layers_figure,
        float_reasons=_float_reasons(graphs),
        unmeasured_graphs=_unmeasured_graphs(results),
        words_of=charts.WORDS_OF,
        digits=HASH_DIGITS,
    )


def find_gaps(results: Results) -> list[Gap]:
    """What was not measured in rows that have figures, by reason; rows without any say so themselves."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for row, field, reason in _absences(results.rows):
        fields, rows = found.setdefault(reason, ({}, {}))
        fields[field] = rows[words.row_name(row)] = None
    numbered = enumerate(found.items(), 1)
    return [Gap(number, reason, list(fields), list(rows)) for number, (reason, (fields, rows)) in numbered]


def _absences(rows: list[Row]) -> Iterator[tuple[Row, str, str]]:
    for row in rows:
        if row.ap is not None or row.latency_ms is not None:
            fields = [field for field in Row.model_fields if field in row.absent and field not in words.NO_GAPS]
            yield from ((row, field, row.absent[field]) for field in fields)


def in_short(names: Iterable[str], of: Sequence[Row]) -> str:
    """Names of rows; where they are all of a device, all that have figures there, or a variant of its models, that."""
    left, said = list(dict.fromkeys(names)), []
    for device in dict.fromkeys(row.device for row in of):
        here = [row for row in of if row.device == device]
        measured = [row for row in here if row.ap is not None or row.latency_ms is not None]
        groups = [(f"every row on {device}", here), (f"every row with figures on {device}", measured)]
        for variant in dict.fromkeys(row.variant for row in here):
            groups.append((f"{variant} of every model on {device}", [row for row in here if row.variant == variant]))
        for group, rows in groups:
            names_of_group = [words.row_name(row) for row in rows]
            if len(rows) >= MANY_NAMES and set(names_of_group) <= set(left):
                left = [name for name in left if name not in names_of_group]
                said.append(group)
    return ", ".join([*said, *left])


def class_of(row: Row) -> str:
    """The style class that colours a row's chip."""
    return f"v-{row.variant}" if row.variant in words.VARIANTS else "v-other"


def interval_bar(low: float, value: float, high: float) -> Markup:
    """A small difference with its interval around zero, for a tile; the words beside it say the same."""
    reach = 1.1 * max(abs(low), abs(high), 1e-4)
    left, middle, right = (round(80 + 78 * end / reach, 2) for end in (low, value, high))
    return Markup(
        '<svg class="spark" viewBox="0 0 160 18" aria-hidden="true">'
        f'<line class="zero" x1="80" x2="80" y1="1" y2="17"/>'
        f'<line class="whisker" x1="{left}" x2="{right}" y1="9" y2="9"/>'
        f'<rect class="dot" x="{middle - 4:.2f}" y="5" width="8" height="8"/></svg>'
    )


def _checks(results: Results) -> list[tuple[str, str, dict[str, int]]]:
    """Every check that a row had: its name, what it asks, and how many rows got each verdict."""
    counts: dict[str, dict[str, int]] = {}
    for evidence in results.evidence.values():
        for check in evidence.checks:
            of_check = counts.setdefault(check.name, dict.fromkeys(("plausible", "implausible", "not checked"), 0))
            of_check[check.verdict] += 1
    return [(name, asked, counts[name]) for name, asked in plausibility.EQUATIONS.items() if name in counts]


def _rankings(results: Results) -> list[charts.Ranking]:
    """Of each device, the best by equal weights first."""
    found = []
    for device in dict.fromkeys(row.device for row in results.rows):
        ranked = charts.rank(results, device, [row for row in results.rows if row.device == device])
        if ranked is not None:
            found.append(replace(ranked, shares=sorted(ranked.shares, key=lambda share: -share.equal_weights_score)))
    return found


def _float_reasons(graphs: Iterable[layer_errors.Graph]) -> dict[str, list[str]]:
    """Why layers stay in float, and how many of which model."""
    found: dict[str, dict[str, None]] = {}
    for graph in graphs:
        for why, count in graph.in_float.items():
            found.setdefault(why, {})[f"{graph.model}: {count}"] = None
    return {why: list(those) for why, those in found.items()}


def _unmeasured_graphs(results: Results) -> dict[str, list[str]]:
    """Why the layers of INT8 graphs have no error told, and of which."""
    found: dict[str, list[str]] = {}
    for graph in results.quantization:
        if graph.error is None:
            found.setdefault(graph.absent["error"], []).append(f"{graph.model} {graph.variant}")
    if not results.quantization:
        rows = [row for row in results.rows if row.precision == "int8"]
        names = list(dict.fromkeys(f"{words.model_name(row)} {row.variant}" for row in rows))
        found |= {OLD_RESULTS: names} if names else {}
    return found


def _environments(results: Results) -> dict[str, Evidence]:
    """Device to the evidence of its first row that was timed."""
    found: dict[str, Evidence] = {}
    for row in results.rows:
        if row.latency_ms is not None:
            found.setdefault(row.device, results.evidence[words.row_name(row)])
    return found


def _plain(value: Any) -> str:
    """A value of a free-form record as a person reads it."""
    if value is None:
        return "not told"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value) or "none"
    return str(value)


FILTERS: dict[str, Callable[..., Any]] = {
    "points": words.points,
    "signed_points": words.signed_points,
    "factor": words.factor,
    "variant": words.variant_name,
    "row_name": words.row_name,
    "field_name": words.field_name,
    "level": words.level,
    "interval": words.interval,
    "p_value": words.p_value,
    "facts": words.facts,
    "plain": _plain,
}
