"""What the charts are put together from: axes, marks, colours, legends that answer to a click, tooltips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from edgejoule.records import Row
from edgejoule_analyst.words import VARIANTS

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH = 440
"""Of the plot area in a file; a page gives each the room it has. CSS pixels."""
HEIGHT = 210
CHARACTER_PX = 6.5
AXIS_PX = 60
"""About what a character of a legend takes, and what an axis with its labels."""
STEP = 19
"""Height of one row of a chart of bars."""

SHAPES = (
    *("circle", "square", "triangle-up", "cross", "diamond", "triangle-down", "triangle-right", "triangle-left"),
    "M0,-1L0.24,-0.32L0.95,-0.31L0.38,0.12L0.59,0.81L0,0.4L-0.59,0.81L-0.38,0.12L-0.95,-0.31L-0.24,-0.32Z",  # a star
    "M-0.9,-0.9L0.9,-0.9L-0.9,0.9L0.9,0.9Z",  # an hourglass
    "M-0.9,-0.9L-0.9,0.9L0.9,-0.9L0.9,0.9Z",  # the same, lying
    "M-0.5,-0.87L0.5,-0.87L1,0L0.5,0.87L-0.5,0.87L-1,0Z",  # a hexagon
)
MANY_MODELS = len(SHAPES)
DASHES = ([1, 0], [9, 4], [2, 3], [9, 3, 2, 3], [4, 2], [9, 3, 2, 3, 2, 3])

Spec = dict[str, Any]

ROUND: Spec = {"height": WIDTH * 3 // 4, "usermeta": {"keepsAspect": True}}
"""Of a chart whose rings are to stay round where a page has less room."""


def marks_of(rows: Iterable[Row]) -> list[str]:
    """What must be told of these rows wherever a picture of them goes."""
    rows = list(rows)
    marks = ["SIMULATED"] if any(row.simulated for row in rows) else []
    protocols = dict.fromkeys(row.protocol for row in rows if not row.comparable)
    return marks + ([f"NOT COMPARABLE: protocol {', '.join(protocols)}"] if protocols else [])


def spec(marks: Sequence[str], values: list[dict[str, Any]], layers: list[Spec], rows_high: bool = False) -> Spec:
    """The whole specification, ``marks`` above the picture."""
    whole: Spec = {
        "$schema": SCHEMA,
        "width": WIDTH,
        "height": STEP * len({value["row"] for value in values}) if rows_high else HEIGHT,
    }
    whole["autosize"] = {"type": "fit-x", "contains": "padding"}
    if marks:
        whole["title"] = {"text": " · ".join(marks), "anchor": "start", "fontSize": 11, "offset": 6}
    return whole | {"data": {"values": rounded(values)}, "layer": layers}


def named(row: Row) -> dict[str, Any]:
    return {"row": f"{row.model} {row.variant}", "model": row.model, "variant": row.variant}


def rounded(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """To six digits: a page with hundreds of rows is the smaller for it, and nobody sees a seventh."""
    return [
        {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in record.items()}
        for record in values
    ]


def layer(
    kind: str,
    encoding: Spec,
    *,
    values: list[dict[str, Any]] | None = None,
    params: list[Spec] | None = None,
    **options: Any,
) -> Spec:
    """One mark; ``values`` where they are not those of the whole chart."""
    made: Spec = {"mark": {"type": kind, **options}, "encoding": encoding}
    if params:
        made["params"] = params
    return made if values is None else {"data": {"values": rounded(values)}, **made}


def between(axis: str, low: str, high: str) -> Spec:
    """Both ends of a rule along an axis."""
    return {axis: {"field": low, "type": "quantitative"}, f"{axis}2": {"field": high}}


def quantitative(field: str, title: str, zero: bool = True) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"zero": zero, **({} if zero else {"padding": 12})},
    }


def nominal(field: str, **more: Any) -> Spec:
    """A field of names, in the order in which they come."""
    return {"field": field, "type": "nominal", "title": None, "sort": None, **more}


def row_axis() -> Spec:
    return nominal("row", axis={"labelLimit": 200})


def tooltip(fields: Sequence[tuple[str, str, str | None]]) -> list[Spec]:
    told: list[Spec] = [{"field": "row", "title": "row", "type": "nominal"}]
    for field, title, form in fields:
        told.append(
            {"field": field, "title": title, "type": "nominal" if form is None else "quantitative"}
            | ({"format": form} if form else {})
        )
    return told


def shown(values: Sequence[dict[str, Any]]) -> list[str]:
    """Variants that are there, in their usual order."""
    there = {value["variant"] for value in values}
    return [variant for variant in domain(values) if variant in there]


def domain(values: Sequence[dict[str, Any]]) -> list[str]:
    """All variants that have a colour, and behind them what else is there: a variant keeps its colour everywhere."""
    return list(dict.fromkeys([*VARIANTS, *(value["variant"] for value in values)]))


def colour(values: Sequence[dict[str, Any]], symbol: str = "square") -> Spec:
    """Of the variant; ``symbol`` is its mark in the legend, ``stroke`` where lines are told apart."""
    legend = {"title": None, "values": shown(values), "symbolType": symbol, "symbolOpacity": 1}
    return {"field": "variant", "type": "nominal", "scale": {"domain": domain(values)}, "legend": legend}


def model_legend(values: Sequence[dict[str, Any]]) -> Spec | None:
    """None where one model needs no telling, and where so many would fill the chart; the pointer tells those."""
    models = {value["model"] for value in values}
    return {"title": None} if 1 < len(models) <= MANY_MODELS else None


def model_shape(values: Sequence[dict[str, Any]]) -> Spec:
    return {"field": "model", "type": "nominal", "sort": None, "legend": model_legend(values)}


def dash_legend(values: Sequence[dict[str, Any]]) -> Spec | None:
    """The same where lines tell the models; wide enough to show a whole dash."""
    models = {value["model"] for value in values}
    return {"title": None, "symbolSize": 900} if 1 < len(models) <= len(DASHES) else None


def of_models(spec: Spec, models: Sequence[str]) -> Spec:
    """A specification in which each of ``models`` has its own shape and dash, the same in every chart of them."""
    there = [model for model in models if any(value.get("model") == model for value in spec["data"]["values"])]
    layers = []
    for one in spec["layer"]:
        encoding = dict(one["encoding"])
        for channel, marks in (("shape", SHAPES), ("strokeDash", DASHES)):
            domain = list(models) if len(models) <= len(marks) else there
            if encoding.get(channel, {}).get("field") == "model" and len(domain) <= len(marks):
                legend, symbol_px = encoding[channel]["legend"], 12 if channel == "shape" else 30
                encoding[channel] = {
                    **encoding[channel],
                    "scale": {"domain": domain, "range": list(marks[: len(domain)])},
                    "legend": legend and {**legend, "values": there, "columns": legend_columns(there, symbol_px)},
                }
        layers.append({**one, "encoding": encoding})
    return {**spec, "layer": layers}


def legend_columns(names: Sequence[str], symbol_px: float) -> int:
    """In how many columns a legend's names fit beside an axis; a page with less room makes it one.

    >>> legend_columns(["yolov5s", "nanodet_m"], 12), legend_columns(["ssdlite_mobilenet_v3"] * 5, 12)
    (3, 2)
    """
    for columns in (3, 2):
        longest = [max(map(len, names[first::columns])) for first in range(min(columns, len(names)))]
        if sum(CHARACTER_PX * length + symbol_px + 10 for length in longest) <= WIDTH - AXIS_PX:
            return columns
    return 1


def legend() -> Spec:
    """A click on a legend's entry leaves the others pale."""
    return {"name": "pick", "select": {"type": "point", "fields": ["variant"]}, "bind": "legend"}


def picked() -> Spec:
    return {"condition": {"param": "pick", "value": 1}, "value": 0.12}


def zoomable() -> Spec:
    """Dragging moves, the wheel zooms with Ctrl held (as a pinch on a touchpad says): without, it scrolls the page."""
    return {"name": "zoom", "select": {"type": "interval", "zoom": "wheel![event.ctrlKey]"}, "bind": "scales"}


def dots(x: Spec, y: Spec, values: list[dict[str, Any]], told: Sequence[tuple[str, str, str | None]]) -> Spec:
    """A mark for each row, which can be zoomed into."""
    encoding = {
        "x": x,
        "y": y,
        "color": colour(values),
        "shape": model_shape(values),
        "opacity": picked(),
        "tooltip": tooltip(told),
    }
    return layer("point", encoding, params=[legend(), zoomable()], filled=True, size=95)


def bars(x: Spec, values: list[dict[str, Any]], told: Sequence[tuple[str, str, str | None]]) -> Spec:
    """A bar for each row."""
    encoding = {"x": x, "y": row_axis(), "color": colour(values), "opacity": picked(), "tooltip": tooltip(told)}
    return layer("bar", encoding, params=[legend()])


def bars_with_ends(x: Spec, values: list[dict[str, Any]], told: Sequence[tuple[str, str, str | None]]) -> list[Spec]:
    """A bar for each row, and on it the interval from its ``low`` to its ``high``, where it has one."""
    known = [each for each in told if any(value.get(each[0]) is not None for value in values)]
    ends = layer("rule", {"y": row_axis(), **between("x", "low", "high")}, strokeWidth=1.5)
    return [bars(x, values, known), *([ends] if any(value.get("low") is not None for value in values) else [])]


def on_circle(number: int, count: int, radius: float) -> tuple[float, float]:
    """Where the ``number``-th of ``count`` spokes, counted from the top by the clock, is so far from the middle."""
    angle = 2 * math.pi * number / count
    return radius * math.sin(angle), radius * math.cos(angle)


def rule_at(value: float, axis: str = "x") -> Spec:
    """A dashed line at a value that means something."""
    encoding = {axis: {"field": "at", "type": "quantitative"}}
    return layer("rule", encoding, values=[{"at": value}], strokeDash=[4, 3], color="gray")
