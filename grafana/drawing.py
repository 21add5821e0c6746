"""Panels as SVG: a panel's JSON and a Prometheus' answers in, a picture of about what Grafana would show out.

Axes come from Vega-Lite, figures, tables and bars are drawn here. Only what ``panels.py`` uses of Grafana is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import vl_convert

PAPER, PANEL, EDGE, INK, FAINT = "#111217", "#181b1f", "#34383e", "#d8d9e0", "#9fa3ab"  # Grafana's dark theme
FONT = "Liberation Sans, Arial, sans-serif"
CLASSIC = ("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9")  # Grafana's, for unnamed series
HOLD_S = 10.0  # that a state is drawn after the last word of it
LEGEND_BESIDE = 250.0  # pixels
ROWS_HIGH = {"sm": 27.0, "md": 31.5, "lg": 36.0}  # of a table, pixels: Grafana's 36, 42 and 48
GAP_S = 15.0  # over which a line is broken: panels.graph's span_nulls


class Series(NamedTuple):
    """One series of an answer; values that are no number are left out, so that they are gaps."""

    name: str
    labels: Mapping[str, str]
    times_s: list[float]
    values: list[float]


class Region(NamedTuple):
    """Something that an annotation tells of: from when to when."""

    text: str
    begin_s: float
    end_s: float
    colour: str


class Drawn(NamedTuple):
    """All that a panel is drawn from; one list of series for each of its queries."""

    panel: Mapping[str, Any]
    answers: Sequence[Sequence[Series]]
    regions: Sequence[Region]
    span_s: tuple[float, float]
    width: float
    height: float

    @property
    def series(self) -> list[Series]:
        return [one for answer in self.answers for one in answer]

    @property
    def defaults(self) -> Mapping[str, Any]:
        return self.panel.get("fieldConfig", {}).get("defaults", {})

    def overridden(self, name: str, key: str) -> Any:
        """The last override of a series or column called ``name``; None: there is none."""
        found = None
        for override in self.panel.get("fieldConfig", {}).get("overrides", ()):
            matcher = override["matcher"]
            pattern = re.escape(matcher["options"]) if matcher["id"] == "byName" else matcher["options"].strip("/")
            if re.fullmatch(pattern, name):
                for each in override["properties"]:
                    found = each["value"] if each["id"] == key else found
        return found

    def colour(self, name: str, number: int) -> str:
        given = self.overridden(name, "color")
        return given["fixedColor"] if given else CLASSIC[number % len(CLASSIC)]

    def said(self, value: float, unit: str | None = None) -> tuple[str, str]:
        """Text and colour of a value: by mapping, else by unit and threshold."""
        for mapping in self.defaults.get("mappings", ()):
            options = mapping["options"]
            if mapping["type"] == "range":
                if options["from"] <= value and (options["to"] is None or value <= options["to"]):
                    return in_unit(value, self.defaults["unit"], 0), options["result"]["color"]
            elif (known := options.get(f"{value:g}")) is not None:
                return known["text"], known["color"]
        steps = self.defaults.get("thresholds", {}).get("steps", [{"value": None, "color": INK}])
        colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        return in_unit(value, unit or self.defaults.get("unit", "none"), self.defaults.get("decimals")), colour


# --- numbers ------------------------------------------------------------------------------------------

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
SCALES: Mapping[str, Sequence[tuple[float, str]]] = {
    "s": ((86400.0, " d"), (3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs")),
    "watt": [(factor, f" {prefix}W") for factor, prefix in PREFIXES],
    "joule": [(factor, f" {prefix}J") for factor, prefix in PREFIXES],
    "hertz": [(factor, f" {prefix}Hz") for factor, prefix in PREFIXES[:4]],
    "bytes": [(2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"), (1.0, " B")],
    "celsius": [(1.0, " °C")],
    "percentunit": [(0.01, "%")],
    "none": [(1.0, "")],
}


def scale_of(greatest: float, unit: str) -> tuple[float, str]:
    """What to divide by so that the greatest of some values is of a handy size, and the unit to write behind.

    >>> scale_of(0.004, "s"), scale_of(918e6, "hertz"), scale_of(0.0, "watt")
    ((0.001, ' ms'), (1000000.0, ' MHz'), (1.0, ' W'))
    """
    scales = SCALES[unit]
    if greatest == 0:
        return next((scale for scale in scales if scale[0] == 1.0), scales[0])
    return next((scale for scale in scales if abs(greatest) >= scale[0]), scales[-1])


def in_unit(value: float, unit: str, decimals: int | None = None) -> str:
    """A value in words.

    >>> in_unit(0.00412, "s"), in_unit(4.5314, "watt", 2), in_unit(0.123, "percentunit", 0), in_unit(3, "none")
    ('4.12 ms', '4.53 W', '12%', '3')
    """
    factor, suffix = scale_of(value, unit)
    scaled = value / factor
    if decimals is None:
        decimals = 0 if float(scaled).is_integer() else max(0, 2 - math.floor(math.log10(abs(scaled))))
    return f"{scaled:.{decimals}f}{suffix}"


# --- SVG ----------------------------------------------------------------------------------------------


def text(x: float, y: float, words: str, size: float = 12, colour: str = INK, **look: Any) -> str:
    """A line of text; ``anchor`` (start), ``weight``, and ``room``: pixels after which it is cut off."""
    room = look.get("room")
    if room is not None and width_of(words, size) > room:
        words = words[: max(1, int(len(words) * room / width_of(words, size)) - 1)] + "…"
    style = f'font-family="{FONT}" font-size="{size:.1f}" font-weight="{look.get("weight", "normal")}"'
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" {style} fill="{colour}" '
        f'text-anchor="{look.get("anchor", "start")}">{escape(words)}</text>'
    )


def width_of(words: str, size: float) -> float:
    """About how wide a text is."""
    return size * (0.54 * len(words) + 0.13 * sum(letter.isupper() for letter in words))


def box(x: float, y: float, width: float, height: float, colour: str, **look: Any) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in look.items())
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}"{more}/>'


def placed(svg: str, x: float, y: float) -> str:
    return f'<g transform="translate({x:.1f},{y:.1f})">{svg}</g>'


def readable_on(colour: str) -> str:
    """Black or white, whichever is told from ``colour`` more easily (WCAG 2.1, relative luminance)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return "#000000" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "#ffffff"


_charts = iter(range(10**9))


def chart(width: float, height: float, layers: list[dict[str, Any]], **spec: Any) -> str:
    """A Vega-Lite chart of these outer measures, as SVG to be placed."""
    axis = {"labelColor": FAINT, "titleColor": FAINT, "gridColor": EDGE, "domain": False, "tickColor": EDGE}
    axis = {**axis, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelFont": FONT}
    config = {"axis": axis, "view": {"stroke": None}, "font": FONT}
    whole = {"width": width, "height": height, "autosize": {"type": "fit", "contains": "padding"}, "padding": 4}
    svg = vl_convert.vegalite_to_svg({**whole, "background": None, "config": config, "layer": layers, **spec})
    number = next(_charts)  # clip paths are named alike in every chart
    svg = re.sub(r'(id="|url\(#)(clip|gradient)', rf"\g<1>c{number}-\g<2>", svg)
    return svg


def time_axis(span_s: tuple[float, float], **more: Any) -> dict[str, Any]:
    domain = [1e3 * moment for moment in span_s]
    axis = {"format": "%H:%M", "tickCount": 8, "title": None, "grid": True}
    return {"type": "temporal", "scale": {"type": "utc", "domain": domain, "nice": False}, "axis": axis, **more}


def value_axis(suffix: str, title: str | None = None) -> dict[str, Any]:
    return {"title": title, "labelExpr": f"datum.label + '{suffix}'", "tickCount": 5}


def nothing(drawn: Drawn) -> str:
    words = drawn.defaults.get("noValue", "No data")
    return text(drawn.width / 2, drawn.height / 2 + 5, words, 18, FAINT, anchor="middle")


# --- panels -------------------------------------------------------------------------------------------


def timeseries(drawn: Drawn) -> str:
    if not drawn.series:
        return nothing(drawn)
    greatest = max(abs(value) for one in drawn.series for value in one.values)
    factor, suffix = scale_of(greatest, drawn.defaults["unit"])
    names = list(dict.fromkeys(one.name for one in drawn.series))
    colours = {name: drawn.colour(name, number) for number, name in enumerate(names)}
    dashes = {name: (drawn.overridden(name, "custom.lineStyle") or {}).get("dash", [1, 0]) for name in names}
    rows = [row for one in drawn.series for row in _points(one, factor)]
    least = drawn.defaults.get("custom", {}).get("axisSoftMin")
    scale: dict[str, Any] = {"zero": False} if least is None else {"domainMin": min(0, *(row["v"] for row in rows))}
    if "max" in drawn.defaults:
        scale["domainMax"] = drawn.defaults["max"] / factor
    else:  # air above the highest line, which would lie on the edge
        most = max(row["v"] for row in rows)
        below = scale.get("domainMin", min(row["v"] for row in rows))
        scale["domainMax"] = most + 0.06 * ((most - below) or abs(most) or 1.0)
    scale["nice"] = False
    by_name = {"field": "name", "legend": None, "scale": {"domain": names, "range": list(colours.values())}}
    lines = {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 2, "clip": True},
        "encoding": {
            "x": {"field": "t", **time_axis(drawn.span_s)},
            "y": {"field": "v", "type": "quantitative", "scale": scale, "axis": value_axis(suffix)},
            "color": by_name,
            "detail": {"field": "piece"},
            "strokeDash": {"field": "name", "legend": None, "scale": {"domain": names, "range": list(dashes.values())}},
        },
    }
    bands = {
        "data": {"values": [{"b": 1e3 * one.begin_s, "e": 1e3 * one.end_s, "c": one.colour} for one in drawn.regions]},
        "mark": {"type": "rect", "opacity": 0.12, "clip": True},
        "encoding": {
            "x": {"field": "b", **time_axis(drawn.span_s)},
            "x2": {"field": "e"},
            "color": {"field": "c", "scale": None},
        },
    }
    beside = drawn.panel["options"]["legend"]["placement"] == "right"
    lines_of_legend = _in_lines(drawn, names)
    across = LEGEND_BESIDE if beside else 0.0
    down = 0.0 if beside else 18.0 * len(lines_of_legend) + 4
    layers = [bands, lines] if drawn.regions else [lines]
    svg = chart(drawn.width - across, drawn.height - down, layers, resolve={"scale": {"color": "independent"}})
    if beside:
        lines_of_legend = [[name] for name in names]
    at = (drawn.width - across + 10, 20.0) if beside else (10.0, drawn.height - down + 14)
    return svg + _legend(drawn, lines_of_legend, colours, dashes, at)


def _points(one: Series, factor: float) -> Iterator[dict[str, Any]]:
    piece, before = 0, -math.inf
    for time_s, value in zip(one.times_s, one.values, strict=True):
        piece += time_s - before > GAP_S
        before = time_s
        yield {"t": 1e3 * time_s, "v": value / factor, "name": one.name, "piece": f"{one.name} {piece}"}


def _last(drawn: Drawn) -> dict[str, str]:
    return {one.name: f"{one.name}  {in_unit(one.values[-1], drawn.defaults['unit'])}" for one in drawn.series}


def _in_lines(drawn: Drawn, names: Sequence[str]) -> list[list[str]]:
    """A legend's names, in as many lines as they need."""
    words, lines, x = _last(drawn), [[]], 10.0  # type: tuple[dict[str, str], list[list[str]], float]
    for name in names:
        if lines[-1] and x + 20 + width_of(words[name], 11.5) > drawn.width:
            lines.append([])
            x = 10.0
        lines[-1].append(name)
        x += 36 + width_of(words[name], 11.5)
    return lines


def _legend(
    drawn: Drawn,
    lines: Sequence[Sequence[str]],
    colours: Mapping[str, str],
    dashes: Mapping[str, list[int]],
    at: tuple[float, float],
) -> str:
    words, parts = _last(drawn), []
    for number, names in enumerate(lines):
        x, y = at[0], at[1] + 18 * number
        for name in names:
            dash = 'stroke-dasharray="4 3"' if dashes[name] != [1, 0] else ""
            parts.append(
                f'<path d="M{x:.1f},{y:.1f}h14" stroke="{colours[name]}" stroke-width="3" {dash}/>'
                + text(x + 19, y + 4, words[name], 11.5, INK, room=drawn.width - x - 19)
            )
            x += 36 + width_of(words[name], 11.5)
    return "".join(parts)


def stat(drawn: Drawn) -> str:
    if not drawn.series:
        return nothing(drawn)
    tile = drawn.width / len(drawn.series)
    return "".join(placed(_tile(drawn, one, tile), number * tile, 0) for number, one in enumerate(drawn.series))


def _tile(drawn: Drawn, one: Series, width: float) -> str:
    options, height = drawn.panel["options"], drawn.height
    words, colour = drawn.said(one.values[-1])
    names = options["textMode"] in ("name", "value_and_name")
    if options["textMode"] == "name":
        words = one.name
    size = min(0.5 * height, 60.0, (width - 16) / (0.56 * max(len(words), 1)))
    middle = height / 2 + size * 0.35
    svg = text(width / 2, middle, words, size, colour, anchor="middle", weight="bold")
    if names and options["textMode"] != "name":
        svg += text(width / 2, middle - size, one.name, 14, INK, anchor="middle", room=width - 8)
    if options["graphMode"] == "area" and len(one.values) > 1:
        svg = _spark(one, width, height, colour, drawn.span_s) + svg
    return svg


def _spark(one: Series, width: float, height: float, colour: str, span_s: tuple[float, float]) -> str:
    least, most = min(one.values), max(one.values)
    deep = 0.3 * height
    points = [
        (
            (time_s - span_s[0]) / (span_s[1] - span_s[0]) * width,
            height - deep * (0.1 + 0.9 * (value - least) / (most - least or 1)),
        )
        for time_s, value in zip(one.times_s, one.values, strict=True)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    closed = f"{points[0][0]:.1f},{height:.1f} {line} {points[-1][0]:.1f},{height:.1f}"
    return (
        f'<polygon points="{closed}" fill="{colour}" opacity="0.18"/>'
        f'<polyline points="{line}" fill="none" stroke="{colour}" opacity="0.7"/>'
    )


def bargauge(drawn: Drawn) -> str:
    if not drawn.series:
        return nothing(drawn)
    most = drawn.defaults.get("max") or max(one.values[-1] for one in drawn.series) or 1.0
    high = min(64.0, drawn.height / len(drawn.series))
    named = min(0.45 * drawn.width, 12 + max(width_of(one.name, 12) for one in drawn.series))
    room, parts = drawn.width - named - 84, []
    for number, one in enumerate(drawn.series):
        words, colour = drawn.said(one.values[-1])
        y, thick = number * high, high * 0.7
        parts += [
            text(named - 6, y + thick / 2 + 4, one.name, 12, INK, anchor="end", room=named - 8),
            box(named, y, room, thick, "#22252b"),
            box(named, y, room * min(1.0, one.values[-1] / most), thick, colour),
            text(named + room + 8, y + thick / 2 + 5, words, 14, INK, weight="bold"),
        ]
    return "".join(parts)


def state_timeline(drawn: Drawn) -> str:
    if not drawn.series:
        return nothing(drawn)
    rows = []
    for one in drawn.series:
        ends = [*one.times_s[1:], drawn.span_s[1]]
        for time_s, end_s, value in zip(one.times_s, ends, one.values, strict=True):
            word, colour = drawn.said(value)
            end_s = min(end_s, time_s + HOLD_S)
            if rows and rows[-1]["name"] == one.name and rows[-1]["word"] == word and rows[-1]["e"] >= 1e3 * time_s:
                rows[-1]["e"] = 1e3 * end_s
            else:
                rows.append({"name": one.name, "word": word, "c": colour, "b": 1e3 * time_s, "e": 1e3 * end_s})
    for row in rows:
        room = (row["e"] - row["b"]) / 1e3 / (drawn.span_s[1] - drawn.span_s[0]) * drawn.width
        row["shown"] = row["word"] if width_of(row["word"], 12) + 8 < room else ""
        row["ink"] = readable_on(row["c"])
    x = {"field": "b", **time_axis(drawn.span_s)}
    y = {"field": "name", "type": "nominal", "title": None, "scale": {"paddingInner": 0.2, "paddingOuter": 0.1}}
    bars = {
        "mark": {"type": "bar", "opacity": 0.9, "clip": True},
        "encoding": {"x": x, "x2": {"field": "e"}, "y": y, "color": {"field": "c", "scale": None}},
    }
    words = {
        "mark": {"type": "text", "align": "left", "dx": 5, "clip": True, "font": FONT, "fontSize": 12},
        "encoding": {"x": x, "y": y, "text": {"field": "shown"}, "color": {"field": "ink", "scale": None}},
    }
    return chart(drawn.width, drawn.height, [bars, words], data={"values": rows})


def heatmap(drawn: Drawn) -> str:
    """Prometheus' buckets are cumulative: each less the one below is what fell into it."""
    bounds = sorted(drawn.series, key=lambda one: float(one.labels["le"]))
    rows, order, below = [], [], {}
    for one in bounds:
        name = "+Inf" if one.labels["le"] == "+Inf" else in_unit(float(one.labels["le"]), "s")
        order.insert(0, name)
        for time_s, value in zip(one.times_s, one.values, strict=True):
            count = value - below.get(time_s, 0.0)
            below[time_s] = value
            if count > 1e-9:
                rows.append({"t": 1e3 * time_s, "e": 1e3 * (time_s + 5), "name": name, "n": count})
    if not rows:
        return nothing(drawn)
    encoding = {
        "x": {"field": "t", **time_axis(drawn.span_s)},
        "x2": {"field": "e"},
        "y": {"field": "name", "type": "ordinal", "sort": order, "title": None, "scale": {"domain": order}},
        "color": {
            "field": "n",
            "type": "quantitative",
            "scale": {"scheme": "cividis", "domainMin": 0},
            "legend": {"title": None, "labelColor": FAINT, "gradientLength": drawn.height - 60, "format": "~s"},
        },
    }
    return chart(
        drawn.width,
        drawn.height,
        [{"mark": {"type": "rect", "clip": True}, "encoding": encoding}],
        data={"values": rows},
    )


def xychart(drawn: Drawn) -> str:
    pairs = [[one[axis]["matcher"]["options"] for axis in ("x", "y")] for one in drawn.panel["options"]["series"]]
    across, up = pairs[0]
    found = []
    for row in rows_of(drawn):
        for x, y in pairs:
            if x in row and y in row:
                values = {across: row[x], up: row[y], "series": y}
                found.append({**{key: value for key, value in row.items() if key not in (x, y)}, **values})
    if not found:
        return nothing(drawn)
    axes = {}
    for axis, name in (("x", across), ("y", up)):
        factor, suffix = scale_of(max(row[name] for row in found), drawn.overridden(name, "unit"))
        for row in found:
            row[axis] = row[name] / factor
        most = 1.1 * max(row[axis] for row in found)
        title = drawn.overridden(name, "custom.axisLabel")
        scale = {"domain": [0, most], "nice": False}
        axes[axis] = {"field": axis, "type": "quantitative", "axis": value_axis(suffix, title), "scale": scale}
    middle = max(row["x"] for row in found) / 2
    first = [row for row in found if row["series"] == up]  # the others lie on points that have a name
    for number, row in enumerate(sorted(first, key=lambda row: float(row["x"]))):
        row["place"] = f"{'right' if row['x'] > middle else 'left'} {number % 2}"
        row["label"] = row.get("cell") or " ".join(
            str(v) for k, v in row.items() if k not in (across, up, "x", "y", "place", "series")
        )
    points, keys, at = [], [], 10.0
    for _, name in pairs:
        colour = (drawn.overridden(name, "color") or drawn.defaults["color"])["fixedColor"]
        shape = drawn.overridden(name, "custom.pointShape") or "circle"
        size = (drawn.overridden(name, "custom.pointSize") or drawn.defaults["custom"]["pointSize"])["fixed"] ** 2
        mark = {"type": "point", "shape": shape, "size": size, "color": colour, "filled": True, "opacity": 0.9}
        points.append({"transform": [{"filter": {"field": "series", "equal": name}}], "mark": mark, "encoding": axes})
        keys.append(box(at, drawn.height - 13, 11, 11, colour, rx=0 if shape == "square" else 5.5))
        keys.append(text(at + 17, drawn.height - 3, name, 12, INK))
        at += 45 + width_of(name, 12)
    names = [  # on alternate sides of their points, so that fewer lie on each other
        {
            "transform": [{"filter": {"field": "place", "equal": f"{side} {turn}"}}],
            "mark": {
                "type": "text",
                "align": side,
                "dx": -4 if side == "right" else 4,
                "dy": dy,
                "color": INK,
                "fontSize": 11,
            },
            "encoding": {**axes, "text": {"field": "label"}},
        }
        for side in ("left", "right")
        for turn, dy in ((0, 18), (1, -14))
    ]
    down = 18.0 if drawn.panel["options"]["legend"]["showLegend"] else 0.0
    svg = chart(drawn.width, drawn.height - down, [*points, *names], data={"values": found})
    return svg + "".join(keys) if down else svg


def table(drawn: Drawn) -> str:
    shown = _in_matrix(drawn) if "groupingToMatrix" in _transformations(drawn) else rows_of(drawn)
    if not shown:
        return nothing(drawn)
    for field in drawn.panel.get("options", {}).get("sortBy") or ():
        shown.sort(key=lambda row: row.get(field["displayName"], -math.inf), reverse=field["desc"])
    columns = list(dict.fromkeys(name for row in shown for name in row))
    coloured = bool(drawn.defaults.get("mappings"))
    head, high, parts = 27.0, ROWS_HIGH[drawn.panel["options"].get("cellHeight", "sm")], []
    places = _columns(drawn, columns)
    for name, (left, wide) in places.items():
        parts.append(text(left + 8, 17, name, 12, "#6e9fff", weight="bold", room=wide - 12))
    fitting = int((drawn.height - head) / high)
    for line, row in enumerate(shown[:fitting]):
        y = head + line * high
        parts.append(box(0, y, drawn.width, 1, EDGE))
        for number, (name, (left, wide)) in enumerate(places.items()):
            words, ink = _cell(drawn, name, row.get(name)), INK
            mapped = drawn.defaults["mappings"][0]["options"].get(words) if coloured and number else None
            if mapped:
                parts.append(box(left + 1, y + 1, wide - 2, high - 2, mapped["color"]))
                words, ink = mapped["text"], readable_on(mapped["color"])
            parts.append(text(left + 8, y + high / 2 + 4.5, words, 12.5, ink, room=wide - 12))
    if len(shown) > fitting:
        parts.append(text(drawn.width - 8, drawn.height - 2, f"{len(shown) - fitting} more …", 11, FAINT, anchor="end"))
    return "".join(parts)


def _columns(drawn: Drawn, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where each column begins and how wide it is: as wide as it is set, or an equal part of the rest."""
    given = {name: drawn.overridden(name, "custom.width") for name in names}
    fixed = [width for width in given.values() if width is not None]
    rest = (drawn.width - sum(fixed)) / max(len(names) - len(fixed), 1)
    places, left = {}, 0.0
    for name in names:
        places[name] = (left, rest if given[name] is None else given[name])
        left += places[name][1]
    return places


def _cell(drawn: Drawn, column: str, value: Any) -> str:
    if isinstance(value, float):
        return in_unit(value, drawn.overridden(column, "unit") or "none")
    return str(value) if value is not None else str(drawn.defaults.get("noValue", ""))


def _transformations(drawn: Drawn) -> dict[str, Mapping[str, Any]]:
    return {each["id"]: each["options"] for each in drawn.panel.get("transformations", ())}


def _in_matrix(drawn: Drawn) -> list[dict[str, Any]]:
    fields = _transformations(drawn)["groupingToMatrix"]
    row, column, value = fields["rowField"], fields["columnField"], fields["valueField"]
    columns = list(dict.fromkeys(one.labels[column] for one in drawn.series))
    found: dict[str, dict[str, Any]] = {}
    for one in drawn.series:
        corner = {f"{row}\\{column}": one.labels[row], **dict.fromkeys(columns, "")}
        found.setdefault(one.labels[row], corner)[one.labels[column]] = one.labels[value]
    return list(found.values())


def rows_of(drawn: Drawn) -> list[dict[str, Any]]:
    """The rows of a table: labels and values, after "merge" and "organize" as Grafana does them.

    Merge joins rows of several queries that are alike in all columns which the queries share, ``__name__`` among them.
    """
    found: list[dict[str, Any]] = []
    several = len(drawn.answers) > 1
    shared = set.intersection(*({name for one in answer for name in one.labels} for answer in drawn.answers))
    for letter, answer in zip("ABCDEFGH", drawn.answers, strict=False):
        for one in answer:
            row = {**dict(sorted(one.labels.items())), f"Value #{letter}" if several else "Value": one.values[-1]}
            like = [
                old
                for old in (found if several else ())
                if all(old.get(name) == row.get(name) for name in shared)
                and not any(name in old and old[name] != row[name] for name in row)
            ]
            if like:
                like[0].update(row)
            else:
                found.append(row)
    options = _transformations(drawn).get("organize", {})
    hidden, names = options.get("excludeByName", {}), options.get("renameByName", {})
    places = options.get("indexByName", {})
    rows = [sorted(row.items(), key=lambda item: places.get(item[0], len(places))) for row in found]
    return [{names.get(key, key): value for key, value in row if not hidden.get(key)} for row in rows]


KINDS: Mapping[str, Callable[[Drawn], str]] = {
    "timeseries": timeseries,
    "stat": stat,
    "bargauge": bargauge,
    "state-timeline": state_timeline,
    "heatmap": heatmap,
    "xychart": xychart,
    "table": table,
}
