"""The comparison of two runs as a page: what changed, row by row, with its pictures; made as the report is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from edgejoule.decisions import Change, RunComparison
from edgejoule.records import Results, Row
from edgejoule_analyst import chart_parts as parts
from edgejoule_analyst import page
from edgejoule_analyst.chart_parts import Spec
from edgejoule_analyst.charts import Chart, of_device, slug
from edgejoule_analyst.decision_tables import change_in_words
from edgejoule_analyst.figures import METRICS
from edgejoule_analyst.regression import PAIRED
from edgejoule_analyst.words import level, row_name, simulated_devices

VERDICTS = {
    "better": ("#007a5a", "triangle-up"),
    "worse": ("#c44e00", "triangle-down"),
    "same": ("#66707c", "square"),
    "no evidence of a difference": ("#66707c", "circle"),
}
"""What each looks like, so that it need not be told from colour alone."""
ON = " on "
LINES_HIGH = 30
"""Height of a row whose name takes two lines."""
HEAD = ["row", "metric", "a", "b", "change", "low", "high", "p", "p_holm", "verdict", "fails", "simulated", "reason"]


def render_comparison(a: Results, b: Results, answer: RunComparison) -> str:
    """The whole page. Equal answers give equal bytes."""
    charts, simulated = all_charts(a, b, answer), simulated_devices([*a.rows, *b.rows])
    table = [
        [change.cell, change.metric]
        + [_plain(getattr(change, name)) for name in ("a", "b", "change", "low", "high", "p", "p_holm")]
        + [change.verdict, str(change.fails).lower()]
        + [str(change.cell.rpartition("/")[2] in simulated).lower(), change.absent.get("change", "")]
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
        chosen_between={chart.metric: METRICS[chart.metric].title for chart in charts if chart.metric},
        choices={"verdict": list(dict.fromkeys(change.verdict for change in answer.changes))},
        simulated_devices=simulated,
    )


def all_charts(a: Results, b: Results, answer: RunComparison) -> list[Chart]:
    """Where each row was and is in the plane of latency and AP, and the changes of each metric with their intervals."""
    devices = dict.fromkeys(row.device for row in b.rows)
    models = list(dict.fromkeys(row.model for row in b.rows))
    found = [chart for device in devices if (chart := _moves(a, b, device))]
    found = [replace(chart, spec=parts.of_models(chart.spec, models)) for chart in found]
    for metric in METRICS:
        changes = [change for change in answer.changes if change.metric == metric and change.low is not None]
        if changes:
            found.append(_changes(changes, metric, answer, [*a.rows, *b.rows]))
    return found


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
    before_it = {"x": {"field": "a_ms", "type": "quantitative"}, "y": {"field": "a_ap", "type": "quantitative"}}
    start = {**before_it, **colour, "shape": parts.model_shape(values)}
    line = {**parts.between("x", "a_ms", "b_ms"), **parts.between("y", "a_ap", "b_ap"), **colour}
    layers = [
        parts.layer("rule", line, strokeWidth=1.5, opacity=0.7),
        parts.layer("point", start, filled=False, size=95, opacity=1),
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


def _changes(changes: Sequence[Change], metric: str, answer: RunComparison, rows: Sequence[Row]) -> Chart:
    """The change of one metric in each row, a line of the picture for each."""
    told_of = {row_name(row): row for row in rows}
    shown = [told_of[change.cell] for change in changes]
    cells = {change.cell for change in changes}
    marks = parts.marks_of(row for row in rows if row_name(row) in cells)
    several = len({row.device for row in shown}) > 1
    values = []
    for change, row in zip(changes, shown, strict=True):
        ends = {
            name: round(100 * (value if metric in PAIRED else value - 1), 6)  # no axis of rounding errors
            for name in ("change", "low", "high")
            if (value := getattr(change, name)) is not None
        }
        name = f"{row.model} {row.variant}" + (f"{ON}{row.device}" if several else "")
        values.append({"row": name, "verdict": change.verdict, **ends})
    axis: Spec = {"labelLimit": 200}
    if several:
        axis |= {"labelExpr": f"split(datum.label, '{ON}')", "labelOffset": -6}
    y = parts.nominal("row", axis=axis)
    x = parts.quantitative(
        "change", "points less  |  points more" if metric in PAIRED else "per cent less  |  per cent more"
    )
    there = [verdict for verdict in VERDICTS if any(change.verdict == verdict for change in changes)]
    look: Spec = {"field": "verdict", "type": "nominal", "legend": {"title": None, "columns": 2}}
    colours, shapes = ([VERDICTS[verdict][which] for verdict in there] for which in (0, 1))
    colour = {**look, "scale": {"domain": there, "range": colours}}
    shape = {**look, "scale": {"domain": there, "range": shapes}}
    told = [("change", "change", "+.2f"), ("low", "from", "+.2f"), ("high", "to", "+.2f"), ("verdict", "verdict", None)]
    point = {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": parts.tooltip(told)}
    layers = [
        parts.rule_at(0.0),
        parts.layer("rule", {"y": y, "color": colour, **parts.between("x", "low", "high")}, strokeWidth=2),
        parts.layer("point", point, filled=True, size=70, opacity=1),
    ]
    height = {"height": (LINES_HIGH if several else parts.STEP) * len(values)}
    return Chart(
        f"changes-{metric}",
        f"Change of {METRICS[metric].title}",
        f"The second run against the first; {level(answer.confidence)} intervals, each on its own. Verdicts are"
        " corrected for the number of tests (Holm).",
        "; ".join(f"{value['row']} {value['change']:+.2f}, {value['verdict']}" for value in values) + ".",
        parts.spec(marks, values, layers) | height,
        metric=metric,
    )


def _show(change: Change, side: str) -> str:
    value = getattr(change, side)
    return "–" if value is None else METRICS[change.metric].show(value)


def _plain(value: Any) -> str:
    return "" if value is None else str(value)
