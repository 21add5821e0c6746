"""How panels look here: one data source, colours that the colour-blind tell apart, large figures, units everywhere.

Colours are those of Okabe and Ito ("Color Universal Design"). A colour stands for one thing on all pages; what has
no colour of its own (devices above all) is told apart by its name beside it, never by colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import xychart as xychart_models

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#8E8E8E"

SOURCE = models.DataSourceRef(type_val="prometheus", uid="edgejoule-prometheus")

COLOURS: Mapping[str, str] = {  # a pattern of a series' name -> its colour, on every page
    "fp32.*": BLUE,
    "fp16.*": SKY,
    "int8-ptq.*": ORANGE,
    "int8-qat.*": GREEN,
    "p50|total|now|done": BLUE,
    "p90|waiting": ORANGE,
    "p99|lost|failed": RED,
    "idle|last trial|planned": GREY,
}
STATES: Mapping[str, str] = {  # of a cell
    "waiting": "#5A5A5A",
    "running": SKY,
    "ok": BLUE,
    "unsupported": YELLOW,
    "failed": RED,
    "oom": RED,
    "throttled": ORANGE,
    "unreachable": PINK,
}

RUNBOOK, REPORT = "/d/runbook-", "/d/edgejoule-report"
"""Pages of the same Grafana (runbooks.py), so that a link is never dead: an alert's name follows the first."""

LEVELS: Mapping[tuple[float, float | None], str] = {
    (0, 0): "#5A5A5A",
    (1, 4): SKY,
    (5, 24): BLUE,
    (25, None): ORANGE,
}
"""How many of something, from and to, in which colour."""

REPEATED_PER_ROW = 3

_Panel = TypeVar("_Panel", bound=Any)
Query = tuple[str, str]
"""A legend and an expression."""


def named(expr: str) -> str:
    """An expression of devices with the label ``shown``, which says of a simulated one that it is."""
    return f"({expr}) * on (device) group_left (shown) device:shown:info"


def named_also_when_away(expr: str) -> str:
    """The same of what others tell of a device, which may be away."""
    plain = f'label_replace({expr}, "shown", "$1", "device", "(.+)")'  # of one that was not there for an hour
    # The name at the end, so that no row is renamed; of one that is away for an hour by then, the name at each moment.
    there = "(device:shown:last1h @ end() or on (device) device:shown:last1h)"
    return f"({expr}) * on (device) group_left (shown) {there} or {plain} unless on (device) {there}"


def now_there(expr: str, series: str) -> str:
    """An expression of devices, without those of which ``series``, a selector, is no longer there now."""
    return f"{expr} and on (device) {series} @ end()"


def none_as_0(count: str, series: str) -> str:
    """A count that is 0 where there is nothing to count, see ``none_as``."""
    return none_as("0", count, series)


def none_as(none: str, value: str, series: str) -> str:
    """A value that is ``none`` where there is none, and unknown where ``series``, a selector, is not 1: where nobody is
    there to tell. Nothing of what was told before then stands for now.
    """
    return f"(({value}) or {none} * max({series} == 1)) and on () max({series} @ end() == 1)"


def named_with_source(expr: str) -> str:
    """The same as ``named`` of a power, of which it says too where it is but the host's CPU packages'."""
    packages = 'on (device) edgejoule_power_source_info{source="rapl"}'
    named_packages = f'label_replace({named(expr)}, "shown", "$1, CPU packages", "shown", "(.+)") and {packages}'
    return f"({named(expr)} unless {packages} or {named_packages})"


def graph(title: str, unit: str, *queries: Query, about: str = "", **look: Any) -> timeseries.Panel:
    """Values over time.

    Args:
        look: ``span``, ``height``, ``colours`` (pattern to colour, before those of all pages), ``dashed`` (pattern),
            ``top`` and ``least`` of the axis, ``stacked``, ``repeat`` (a variable: a graph for each of its values),
            ``many`` (True: a legend of its own column, for more names than fit into a line).
    """
    panel = _placed(timeseries.Panel(), title, about, look, height=8).unit(unit)
    for query in _queries(queries):
        panel.with_target(query)
    panel.line_width(2).fill_opacity(8).show_points(common_models.VisibilityMode.NEVER).span_nulls(15000)
    legend = common.VizLegendOptions().show_legend(True).calcs(["lastNotNull"])
    if look.get("many"):
        legend.display_mode(common_models.LegendDisplayMode.TABLE).placement("right")
    panel.legend(legend if look.get("many") else legend.placement("bottom"))
    panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    if "least" in look:
        panel.axis_soft_min(look["least"])
    if "top" in look:
        panel.max(look["top"])
    if look.get("stacked"):
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL)).fill_opacity(60)
    for pattern, colour in {**COLOURS, **look.get("colours", {})}.items():
        panel.override_by_regexp(f"/^(?:{pattern})$/", [_value("color", {"mode": "fixed", "fixedColor": colour})])
    if "dashed" in look:
        dash = [_value("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}), _value("custom.fillOpacity", 0)]
        panel.override_by_regexp(f"/^(?:{look['dashed']})$/", dash)
    return panel


def figure(title: str, unit: str, legend: str, expr: str, about: str = "", **look: Any) -> stat.Panel:
    """One figure, or one tile for each series with its name and what it was lately; to be read from two metres.

    With a spark line the last value of the time shown stands there, also of a series that has ended: such an expression
    must be there always, or end with ``now_there``.

    Args:
        look: ``span``, ``height``, ``steps`` (from which value on which colour), ``spark`` (False: none), ``decimals``,
            ``texts`` (value to text and colour), ``names`` (True: show the series' name alone), ``absent`` (text).
    """
    panel = _placed(stat.Panel(), title, about, look, height=4).unit(unit)
    panel.with_target(*_queries([(legend, expr)], instant=not look.get("spark", True)))
    spark = common_models.BigValueGraphMode.AREA if look.get("spark", True) else common_models.BigValueGraphMode.NONE
    panel.graph_mode(spark).color_mode(common_models.BigValueColorMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(steps_of(look.get("steps", {None: BLUE}))).no_value(look.get("absent", "–"))
    if "decimals" in look:
        panel.decimals(look["decimals"])
    if look.get("names"):
        panel.text_mode(common_models.BigValueTextMode.NAME)
    elif legend:
        panel.text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
    if "texts" in look:
        panel.mappings([values_as(look["texts"])])
    return panel


def bars(title: str, unit: str, legend: str, expr: str, about: str = "", **look: Any) -> bargauge.Panel:
    """One bar for each series, with its name: for what has no colour of its own."""
    panel = _placed(bargauge.Panel(), title, about, look, height=8).unit(unit)
    panel.with_target(*_queries([(legend, expr)], instant=True))
    panel.display_mode(common_models.BarGaugeDisplayMode.BASIC).orientation(common_models.VizOrientation.HORIZONTAL)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(steps_of(look.get("steps", {None: BLUE}))).min(0).no_value("–")
    if "top" in look:
        panel.max(look["top"])
    return panel


def states(
    title: str, legend: str, expr: str, texts: Mapping[str, tuple[str, str]], about: str = "", **look: Any
) -> Any:
    """States over time.

    Args:
        texts: value to text and colour.
    """
    panel = _placed(statetimeline.Panel(), title, about, look, height=5)
    panel.with_target(*_queries([(legend, expr)]))
    panel.mappings([values_as(texts)]).row_height(0.8).fill_opacity(90).line_width(0)
    return panel.legend(common.VizLegendOptions().show_legend(False).placement("bottom"))


def levels(title: str, legend: str, expr: str, about: str = "", **look: Any) -> Any:
    """How many of something over time, a row with its name for each series: for what has no colour of its own."""
    panel = _placed(statetimeline.Panel(), title, about, look, height=8).unit("none").decimals(0)
    panel.with_target(*_queries([(legend, expr)]))
    ranges = [
        models.RangeMap(models.DashboardRangeMapOptions(least, most, models.ValueMappingResult(color=colour, index=at)))
        for at, ((least, most), colour) in enumerate(LEVELS.items())
    ]
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color(GREY))
    panel.mappings(ranges).row_height(0.8).fill_opacity(90).line_width(0)
    return panel.legend(common.VizLegendOptions().show_legend(False).placement("bottom"))


def heat(title: str, expr: str, about: str = "", **look: Any) -> heatmap.Panel:
    """A histogram over time; the buckets are Prometheus' own."""
    panel = _placed(heatmap.Panel(), title, about, look, height=9)
    query = prometheus.Dataquery().expr(expr).legend_format("{{le}}").ref_id("A").datasource(SOURCE)
    panel.with_target(query.format(prometheus_models.PromQueryFormat.HEATMAP)).calculate(False)
    colours = heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Cividis").steps(64)
    return panel.color(colours).y_axis(heatmap.YAxisConfig().unit("s")).cell_gap(1)


def rows(title: str, *queries: Query, about: str = "", **look: Any) -> table.Panel:
    """A table of labels and values, one row for each set of labels.

    Args:
        look: ``span``, ``height``, ``names`` (column to heading), ``hidden`` (columns), ``units`` (heading to unit),
            ``matrix`` (row's label, column's label, label that fills the cells), ``texts`` (value to text and colour),
            ``best`` (heading whose greatest stands first), ``order`` (columns), ``rows_high`` (for who stands far off),
            ``absent`` (text where there is no row),
            ``widths`` (heading to pixels), ``to_runbooks`` (a column of alerts' names, each a link).
    """
    panel = _placed(table.Panel(), title, about, look, height=8)
    for query in _queries(queries, instant=True, as_table=True):
        panel.with_target(query)
    if len(queries) > 1:
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    if "matrix" in look:
        row, column, value = look["matrix"]
        options = {"rowField": row, "columnField": column, "valueField": value}
        panel.with_transformation(models.DataTransformerConfig(id_val="groupingToMatrix", options=options))
    else:
        hidden = {"Time": True, **({"Value": True} if len(queries) == 1 and not look.get("value") else {})}
        hidden.update(dict.fromkeys(look.get("hidden", ()), True))
        options = {"excludeByName": hidden, "renameByName": dict(look.get("names", {}))}
        if "order" in look:
            options["indexByName"] = {name: place for place, name in enumerate(look["order"])}
        panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
    for heading, width in look.get("widths", {}).items():
        panel.override_by_name(heading, [_value("custom.width", width)])
    for heading, unit in look.get("units", {}).items():
        panel.override_by_name(heading, [_value("unit", unit)])
    if "texts" in look:
        panel.mappings([values_as(look["texts"])])
        panel.cell_options(common_models.TableColoredBackgroundCellOptions())
    if "to_runbooks" in look:
        links = [{"title": "What to do", "url": f"{RUNBOOK}${{__value.raw}}"}]
        panel.override_by_name(look["to_runbooks"], [_value("links", links)])
    if "best" in look:
        panel.sort_by([common.TableSortByFieldState().display_name(look["best"]).desc(True)])
    panel.align(common_models.FieldTextAlignment.AUTO).inspect(False)
    panel.cell_height(look.get("rows_high", common_models.TableCellHeight.SM))
    return panel.show_header(True).no_value(look.get("absent", "–"))


def scatter(
    title: str, x: Query, y: Query, units: tuple[str, str], about: str = "", marked: Query | None = None, **look: Any
) -> xychart.Panel:
    """A point for each set of labels that both expressions have.

    Args:
        marked: of those points of ``y`` that stand out: larger squares of another colour lie on them.
    """
    panel = _placed(xychart.Panel(), title, about, look, height=10)
    queries = [x, y] if marked is None else [x, y, marked]
    for query in _queries(queries, instant=True, as_table=True):
        panel.with_target(query)
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    names = {f"Value #{letter}": name for letter, (name, _) in zip("ABC", queries, strict=False)}
    options = {"excludeByName": {"Time": True}, "renameByName": names}
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
    panel.mapping(xychart_models.SeriesMapping.MANUAL).show(xychart_models.XYShowMode.POINTS)
    by_x = xychart.MatcherConfig().id("byName").options(x[0])
    series = []
    for name, _ in queries[1:]:
        by_y = xychart.MatcherConfig().id("byName").options(name)
        one = xychart.XYSeriesConfig().x(xychart.XychartXYSeriesConfigX().matcher(by_x))
        series.append(one.y(xychart.XychartXYSeriesConfigY().matcher(by_y)))
    panel.series(series).legend(common.VizLegendOptions().show_legend(marked is not None).placement("bottom"))
    panel.point_size(xychart.XychartFieldConfigPointSize().fixed(12))
    panel.override_by_name(x[0], [_value("unit", units[0]), _value("custom.axisLabel", x[0])])
    for name, _ in queries[1:]:  # one axis for both
        panel.override_by_name(name, [_value("unit", units[1]), _value("custom.axisLabel", look.get("up", y[0]))])
    if marked is not None:
        outstanding = {"color": {"mode": "fixed", "fixedColor": ORANGE}, "custom.pointShape": "square"}
        outstanding["custom.pointSize"] = {"fixed": 18}
        panel.override_by_name(marked[0], [_value(name, value) for name, value in outstanding.items()])
    return panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color(BLUE))


# --- pieces -------------------------------------------------------------------------------------------


def steps_of(steps: Mapping[float | None, str]) -> dashboard.ThresholdsConfig:
    """From which value on which colour; None: from the least on."""
    found = [models.Threshold(value=value, color=colour) for value, colour in steps.items()]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


def values_as(texts: Mapping[str, tuple[str, str]]) -> models.ValueMap:
    """Text and colour of values."""
    return models.ValueMap(
        {
            value: models.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(texts.items())
        }
    )


def choice(name: str, label: str, query: str, *, several: bool = False) -> dashboard.QueryVariable:
    """A variable: what there is of a label."""
    variable = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    if several:
        variable.multi(True).include_all(True).all_value(".+")
        variable.current(models.VariableOption(selected=True, text="All", value="$__all"))
    return variable


def _queries(queries: Sequence[Query], *, instant: bool = False, as_table: bool = False) -> list[prometheus.Dataquery]:
    found = []
    for letter, (legend, expr) in zip("ABCDEFGH", queries, strict=False):
        query = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(letter).datasource(SOURCE)
        query = query.instant() if instant else query.range()
        found.append(query.format(prometheus_models.PromQueryFormat.TABLE) if as_table else query)
    return found


def _placed(panel: _Panel, title: str, about: str, look: Mapping[str, Any], height: int) -> _Panel:
    panel.title(title).datasource(SOURCE).span(look.get("span", 12)).height(look.get("height", height))
    if "repeat" in look:
        panel.repeat(look["repeat"]).repeat_direction("h").max_per_row(REPEATED_PER_ROW)
    links = [
        *(dashboard.DashboardLink(f"Runbook: {alert}").url(f"{RUNBOOK}{alert}") for alert in look.get("runbooks", ())),
        *([dashboard.DashboardLink("The run's report").url(REPORT)] if look.get("report") else ()),
    ]
    if links:
        panel.links([link.type(models.DashboardLinkType.LINK) for link in links])
    return panel.description(about) if about else panel


def _value(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)
