"""The comparison of two runs as a page: what changed, row by row, with its pictures; made as the report is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from edgejoule.decisions import Change, RunComparison
from edgejoule.records import Results, Row
from edgejoule_analyst import chart_parts as parts
from edgejoule_analyst import page
from edgejoule_analyst.charts import Chart, of_device, slug
from edgejoule_analyst.decision_tables import change_in_words
from edgejoule_analyst.figures import METRICS
from edgejoule_analyst.regression import PAIRED
from edgejoule_analyst.words import level

COLOURS = {"better": "#007a5a", "worse": "#c44e00", "same": "#66707c", "no evidence of a difference": "#66707c"}
HEAD = ["row", "metric", "a", "b", "change", "low", "high", "p", "p_holm", "verdict", "fails", "reason"]


def render_comparison(a: Results, b: Results, answer: RunComparison) -> str:
    """The whole page. Equal answers give equal bytes."""
    charts = all_charts(a, b, answer)
    table = [
        [change.cell, change.metric]
        + [_plain(getattr(change, name)) for name in ("a", "b", "change", "low", "high", "p", "p_holm")]
        + [change.verdict, str(change.fails).lower(), change.absent.get("change", "")]
        for change in answer.changes
    ]
    return page.render(
        "comparison.html.j2",
        name=f"{answer.run_a}-{answer.run_b}",
        figures=charts,
        csv_table=[HEAD, *table],
        answer=answer,
        cells=[(cell, list(changes)) for cell, changes in groupby(answer.changes, key=lambda change: change.cell)],
        statuses=[status for status in answer.statuses if status.a != status.b],
        in_words=change_in_words,
        show=_show,
        level=level(answer.confidence),
        titles={name: metric.title for name, metric in METRICS.items()},
        choices={"verdict": list(dict.fromkeys(change.verdict for change in answer.changes))},
        simulated=any(row.simulated for results in (a, b) for row in results.rows),
    )


def all_charts(a: Results, b: Results, answer: RunComparison) -> list[Chart]:
    """Where each row was and is in the plane of latency and AP, and every change with its interval."""
    devices = dict.fromkeys(row.device for row in b.rows)
    found = [_moves(a, b, device) for device in devices]
    for paired, name, title, axis in (
        (True, "accuracy-changes", "Changes of accuracy", "points less  |  points more"),
        (False, "other-changes", "Changes of everything else", "per cent less  |  per cent more"),
    ):
        changes = [
            change for change in answer.changes if (change.metric in PAIRED) == paired and change.low is not None
        ]
        found.append(_changes(changes, name, title, axis, answer, parts.marks_of([*a.rows, *b.rows])))
    return [chart for chart in found if chart is not None]


def _moves(a: Results, b: Results, device: str) -> Chart | None:
    before = {(row.model, row.variant): row for row in a.rows if row.device == device}
    rows = [row for row in b.rows if row.device == device]
    pairs = [(before[row.model, row.variant], row) for row in rows if (row.model, row.variant) in before]
    values = [
        parts.named(now)
        | {"a_ms": was.latency_ms.mean, "a_ap": 100 * was.ap, "b_ms": now.latency_ms.mean, "b_ap": 100 * now.ap}
        for was, now in pairs
        if was.ap is not None and now.ap is not None and was.latency_ms is not None and now.latency_ms is not None
    ]
    if not values:
        return None
    both: list[Row] = [row for pair in pairs for row in pair]
    x = parts.quantitative("b_ms", "mean latency, ms (less is better)", zero=False)
    y = parts.quantitative("b_ap", "AP, points (more is better)", zero=False)
    told = [
        *(("a_ap", "AP before", ".1f"), ("b_ap", "AP now", ".1f")),
        *(("a_ms", "ms before", ".2f"), ("b_ms", "ms now", ".2f")),
    ]
    colour = {"color": parts.colour(values)}
    start = {"x": {"field": "a_ms", "type": "quantitative"}, "y": {"field": "a_ap", "type": "quantitative"}, **colour}
    line = {**parts.between("x", "a_ms", "b_ms"), **parts.between("y", "a_ap", "b_ap"), **colour}
    layers = [
        parts.layer("rule", line, strokeWidth=1.5, opacity=0.7),
        parts.layer("point", start, filled=False, size=50, opacity=1),
        parts.dots(x, y, values, told),
    ]
    said = (f"{v['row']} AP {v['a_ap']:.1f} to {v['b_ap']:.1f}, {v['a_ms']:.2f} to {v['b_ms']:.2f} ms" for v in values)
    return Chart(
        f"moves-{slug(device)}",
        f"Accuracy against latency, {of_device(device, both)}",
        "Hollow: the row in the first run; filled: in the second. Up and left is better.",
        "; ".join(said) + ".",
        parts.spec(parts.marks_of(both), values, layers),
    )


def _changes(
    changes: Sequence[Change], name: str, title: str, axis: str, answer: RunComparison, marks: Sequence[str]
) -> Chart | None:
    if not changes:
        return None
    values = []
    for change in changes:
        ends = {
            name: 100 * (value if change.metric in PAIRED else value - 1)
            for name in ("change", "low", "high")
            if (value := getattr(change, name)) is not None
        }
        named = {"row": f"{change.cell}, {METRICS[change.metric].title}", "verdict": change.verdict}
        values.append({**named, **ends})
    y = parts.nominal("row", axis={"labelLimit": 300})
    x = parts.quantitative("change", axis)
    colour = {
        "field": "verdict",
        "type": "nominal",
        "scale": {"domain": list(COLOURS), "range": list(COLOURS.values())},
        "legend": {"title": None, "symbolType": "square"},
    }
    told = [("change", "change", "+.2f"), ("low", "from", "+.2f"), ("high", "to", "+.2f"), ("verdict", "verdict", None)]
    place = {"y": y, "color": colour}
    layers = [
        parts.rule_at(0.0),
        parts.layer("rule", {**place, **parts.between("x", "low", "high")}, strokeWidth=2),
        parts.layer("point", {**place, "x": x, "tooltip": parts.tooltip(told)}, filled=True, size=60, opacity=1),
    ]
    return Chart(
        name,
        title,
        f"The second run against the first; {level(answer.confidence)} intervals, each on its own. Verdicts are"
        " corrected for the number of tests (Holm).",
        "; ".join(f"{value['row']} {value['change']:+.2f}, {value['verdict']}" for value in values) + ".",
        parts.spec(marks, values, layers, rows_high=True),
    )


def _show(change: Change, side: str) -> str:
    value = getattr(change, side)
    return "–" if value is None else METRICS[change.metric].show(value)


def _plain(value: Any) -> str:
    return "" if value is None else str(value)
