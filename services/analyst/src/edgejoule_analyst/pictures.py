"""What the charts look like: marks and axes over values of which each tells the row, its model and its variant.

The same for the rows of a run and for those that a paper claims, so that the two are read alike. What the values are,
and what is said of them, is of ``charts`` and ``claims_charts``.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from edgejoule_analyst import chart_parts as parts
from edgejoule_analyst.chart_parts import Spec, on_circle

REAL_TIME_FPS = 30.0
FEW = 8
"""More curves of equal energy than these fill the chart; more polygons than these hide each other on a radar."""
LABEL_WIDTH = 12
"""Of a line of what an axis of the radar is called, in characters: a phone has room for no more."""
RINGS = (0.25, 0.5, 0.75, 1.0)

Values = list[dict[str, Any]]


def pareto(values: Values, accuracy: str, ends: tuple[str, str]) -> list[Spec]:
    """``ap`` with ``low`` and ``high``, against ``latency`` with ``fast`` and ``slow``; ``front``: whether it is there.

    Args:
        accuracy: what ``ap`` is called.
        ends: what ``fast`` and ``slow`` are called.
    """
    x = parts.quantitative("latency", "mean latency, ms (less is better)")
    y = parts.quantitative("ap", f"{accuracy}, points (more is better)", zero=False)
    told = [
        *(("ap", accuracy, ".1f"), ("low", "from", ".1f"), ("high", "to", ".1f")),
        *(("latency", "mean, ms", ".2f"), ("fast", f"{ends[0]}, ms", ".2f"), ("slow", f"{ends[1]}, ms", ".2f")),
    ]
    along = {"x": x, "y": y, "order": {"field": "latency"}}
    front = parts.layer("line", along, interpolate="step-after", strokeDash=[5, 4], color="gray")
    colour = {"color": parts.colour(values)}
    return [
        {"transform": [{"filter": "datum.front"}], **front},
        parts.layer("rule", {"x": x, **parts.between("y", "low", "high"), **colour}, opacity=0.55, strokeWidth=2),
        parts.layer("rule", {"y": y, **parts.between("x", "fast", "slow"), **colour}, opacity=0.55, strokeWidth=2),
        parts.dots(x, y, values, told),
    ]


def accuracy(values: Values) -> list[Spec]:
    """``ap50`` with ``low`` and ``high``: bars side by side, a group for each model."""
    place = {
        "x": parts.nominal("model", axis={"labelAngle": -18, "labelLimit": 140}),
        "xOffset": parts.nominal("variant", scale={"domain": parts.shown(values)}),
        "opacity": parts.picked(),
    }
    told = [("ap50", "AP50", ".1f"), ("low", "from", ".1f"), ("high", "to", ".1f")]
    shown = {"y": parts.quantitative("ap50", "AP50, points"), "color": parts.colour(values)}
    return [
        parts.layer("bar", {**place, **shown, "tooltip": parts.tooltip(told)}, params=[parts.legend()]),
        parts.layer("rule", {**place, **parts.between("y", "low", "high")}, strokeWidth=1.5),
    ]


def real_time(values: Values) -> list[Spec]:
    """``fps`` and ``ms``, ``low`` and ``high`` of FPS where they are known, the line of real time across."""
    x = parts.quantitative("fps", "frames per second (more is better)")
    told = [("fps", "FPS", ".1f"), ("low", "from", ".1f"), ("high", "to", ".1f"), ("ms", "mean latency, ms", ".2f")]
    return [*parts.bars_with_ends(x, values, told), parts.rule_at(REAL_TIME_FPS)]


def improvements(values: Values) -> list[Spec]:
    """``speed`` and ``size``: times as fast and as small as FP32."""
    x = parts.quantitative("speed", "times as fast as FP32", zero=False)
    y = parts.quantitative("size", "times as small as FP32", zero=False)
    told = [("speed", "times as fast", ".2f"), ("size", "times as small", ".2f")]
    return [parts.rule_at(1.0), parts.rule_at(1.0, "y"), parts.dots(x, y, values, told)]


def power(values: Values) -> list[Spec]:
    """``watts`` against ``ms``, their product ``mj``, and curves along which that is equal."""
    reach_ms, reach_w = (1.12 * max(value[name] for value in values) for name in ("ms", "watts"))
    most_mj = reach_ms * reach_w
    places: dict[float, float] = {}  # energy to where its name is, from 0 to 1 along the latency: low on its curve
    for mj in reversed(round_energies([value["mj"] for value in values])):
        place = min(1.0, math.sqrt(mj / (0.35 * most_mj)))
        apart = [max(abs(place - p) / 0.12, abs(mj / place - e / p) / (0.08 * most_mj)) for e, p in places.items()]
        if mj < 0.9 * most_mj and place > 0.15 and min(apart, default=1.0) >= 1:
            places[mj] = place
    equal = [
        {"ms": ms, "watts": mj / ms, "mj": mj}
        for mj in places
        for ms in (reach_ms * (mj / most_mj) ** (1 - step / 60) for step in range(61))
    ]
    names = [
        {"ms": reach_ms * place, "watts": mj / (reach_ms * place), "mj": mj, "energy": f"{mj:g} mJ"}
        for mj, place in places.items()
    ]
    x = parts.quantitative("ms", "mean latency, ms (less is better)")
    y = parts.quantitative("watts", "power, W (less is better)")
    told = [("watts", "W", ".2f"), ("ms", "mean, ms", ".2f"), ("mj", "power × latency, mJ", ".1f")]
    energy = {"field": "mj", "title": "mJ", "type": "quantitative"}
    curve = {"x": x, "y": y, "detail": {"field": "mj"}, "tooltip": energy}
    name = {"x": x, "y": y, "text": {"field": "energy"}}
    return [
        parts.layer("line", curve, values=equal, strokeDash=[5, 4], color="gray", opacity=0.6),
        parts.layer("text", name, values=names, align="right", baseline="top", dx=-3, dy=1, opacity=0.75),
        parts.dots(x, y, values, told),
    ]


def round_energies(values_mj: Sequence[float]) -> list[float]:
    """Round energies from below the least of some to above the greatest, few enough to be told apart. mJ.

    >>> round_energies([20.4, 30.1]), round_energies([93.0, 689.0]), round_energies([0.4, 689.0])
    ([20.0, 30.0, 50.0], [50.0, 100.0, 200.0, 500.0, 1000.0], [0.1, 1.0, 10.0, 100.0, 1000.0])
    """
    least, greatest = min(values_mj), max(values_mj)
    if least <= 0:
        return []
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(greatest)) + 1)
    for steps, most in (((1, 1.5, 2, 3, 5, 7), FEW // 2), ((1, 2, 5), FEW), ((1,), math.inf)):
        every = [float(f"{step}e{decade}") for decade in decades for step in steps]
        first = max(mj for mj in every if mj <= least)
        found = [mj for mj in every if first <= mj <= next((end for end in every if end >= greatest), every[-1])]
        if len(found) <= most:
            break
    return found


def energy(values: Values, of: str) -> list[Spec]:
    """``mj`` with ``low`` and ``high``; what is ``above`` idling, where it is told, shows under the pointer.

    Args:
        of: what the energy is of.
    """
    x = parts.quantitative("mj", f"energy of one {of}, mJ (less is better)")
    told = [("mj", "mJ", ".1f"), ("low", "from", ".1f"), ("high", "to", ".1f"), ("above", "above idle, mJ", ".1f")]
    return parts.bars_with_ends(x, values, told)


def map_per_joule(values: Values) -> list[Spec]:
    """``per_joule`` with ``low`` and ``high``."""
    x = parts.quantitative("per_joule", "mAP per joule (more is better)")
    told = [("per_joule", "mAP/J", ".0f"), ("low", "from", ".0f"), ("high", "to", ".0f")]
    return parts.bars_with_ends(x, values, told)


def ranking(values: Values) -> list[Spec]:
    """``share`` of all weightings that each wins, and its score by ``equal`` ones."""
    x = parts.quantitative("share", "share of all weightings under which it wins") | {"axis": {"format": "%"}}
    return [parts.bars(x, values, [("share", "wins", ".1%"), ("equal", "score by equal weights", ".2f")])]


def radar(
    rows: Sequence[Mapping[str, Any]], axes: Mapping[str, Sequence[tuple[float, str]]]
) -> tuple[Values, list[Spec]]:
    """A polygon for each row: the values and the layers.

    Args:
        axes: title to, for each of ``rows``, the share of the best and what is shown of the figure.
    """
    titles = list(axes)
    values = []
    for index, row in enumerate(rows):
        for number in range(len(titles) + 1):
            title = titles[number % len(titles)]
            share, shown = axes[title][index]
            right, up = on_circle(number, len(titles), share)
            values.append({**row, "x": right, "y": up, "order": number, "axis": title, "share": share, "value": shown})
    spokes = [
        {
            "x": round(x, 4),
            "y": round(y, 4),
            "axis": "\n".join(textwrap.wrap(title, LABEL_WIDTH)),
            "side": "left" if x > 0.2 else "right" if x < -0.2 else "center",
        }
        for number, title in enumerate(titles)
        for x, y in [on_circle(number, len(titles), 1.12)]
    ]
    rings = [
        {"x": x, "y": y, "ring": radius, "order": number}
        for radius in RINGS
        for number in range(len(titles) + 1)
        for x, y in [on_circle(number, len(titles), radius)]
    ]
    x, y = (
        {"field": name, "type": "quantitative", "axis": None, "scale": {"domain": [-end, end], "nice": False}}
        for name, end in (("x", 1.9), ("y", 1.27))  # beside it is room for names, and a ring is round
    )
    # between the last axis and the first, where no mark is
    half = math.pi / len(titles)
    shares = [
        {
            "x": -radius * math.cos(half) * math.sin(half),
            "y": radius * math.cos(half) ** 2,
            "share": f"{100 * radius:g} %",
        }
        for radius in RINGS
    ]
    place: Spec = {"x": x, "y": y, "order": {"field": "order"}}
    of_row = {**place, "color": parts.colour(values), "opacity": parts.picked()}
    dash = parts.nominal("model", legend=parts.dash_legend(values))
    told = parts.tooltip([("axis", "figure", None), ("value", "value", None), ("share", "of the best", ".0%")])
    round_it = {**place, "detail": {"field": "ring"}}
    polygon = {**of_row, "detail": {"field": "row"}, "strokeDash": dash}
    layers = [
        parts.layer("line", round_it, values=rings, color="gray", opacity=0.35, strokeWidth=1),
        *(
            parts.layer(
                "text",
                {"x": x, "y": y, "text": {"field": "axis"}},
                values=[spoke for spoke in spokes if spoke["side"] == side],
                align=side,
                baseline="middle",
                lineBreak="\n",
                fontSize=11,
            )
            for side in ("left", "center", "right")
        ),
        parts.layer("line", polygon, params=[parts.legend()], strokeWidth=2),
        parts.layer("point", {**of_row, "tooltip": told}, filled=True, size=45, opacity=1),
        *(
            parts.layer(
                "text",
                {"x": x, "y": y, "text": {"field": "share"}},
                values=shares,
                baseline="middle",
                fontSize=10,
                style=style,
            )
            for style in (["halo"], [])  # above the polygons, which would cross them out
        ),
    ]
    return values, layers


def seeds(values: Values) -> list[Spec]:
    """``ap50`` of each ``seed``, their ``mean``, and that of ``fp32`` where it is known."""
    x = parts.quantitative("ap50", "AP50, points", zero=False)
    place: Spec = {"y": parts.row_axis(), "color": parts.colour(values)}
    told = [
        ("seed", "seed", None),
        ("ap50", "AP50", ".2f"),
        ("mean", "mean of the seeds", ".2f"),
        ("fp32", "FP32", ".2f"),
    ]
    mark = {**place, "x": x, "tooltip": parts.tooltip(told)}
    mean = {**place, "x": {"field": "mean", "type": "quantitative"}}
    base = {"y": parts.row_axis(), "x": {"field": "fp32", "type": "quantitative"}}
    return [
        parts.layer("tick", base, thickness=2, color="gray"),
        parts.layer("tick", mean, thickness=2.5),
        parts.layer("point", mark, filled=False, size=55, strokeWidth=1.5, opacity=1),
    ]


def characteristics(values: Values, cost: str, of: str, accuracy: str) -> list[Spec]:
    """``params``, ``cost`` and ``ap`` of each model, and where it is told its ``input``.

    Args:
        cost: what ``cost`` is called.
        of: what it is of.
        accuracy: what ``ap`` is called.
    """
    x = parts.quantitative("cost", f"{cost} of one {of}")
    y = parts.quantitative("ap", f"{accuracy} of FP32, points", zero=False)
    most = max(value["params"] for value in values)
    sizes = [each for each in (1, 2, 4, 8, 16, 32, 64) if each <= most][-3:] or [round(most, 2)]
    size = {
        "field": "params",
        "type": "quantitative",
        "title": "parameters, millions",
        "scale": {"range": [0, 700], "zero": True, "domain": [0, most]},
        "legend": {"values": sizes, "symbolType": "circle", "symbolFillColor": "gray", "symbolStrokeColor": "gray"},
    }
    told: list[tuple[str, str, str | None]] = [("params", "parameters, M", ".2f"), ("cost", cost, ".2f")]
    told.append(("ap", f"{accuracy} of FP32", ".1f"))
    if any("input" in value for value in values):
        told.insert(0, ("input", "input, pixels", None))
    place: Spec = {"x": x, "y": y}
    bubble: Spec = {
        **place,
        "size": size,
        # not by names in the picture: lightweight detectors are so alike that these print over each other
        "shape": parts.model_shape(values),
        "color": {**parts.colour(values), "legend": None},
        "tooltip": parts.tooltip(told),
    }
    return [parts.layer("point", bubble, filled=True, opacity=0.85)]


def layers(values: Values, ranked: Values, in_float: Values) -> list[Spec]:
    """``db`` of weights and of inputs (``of``) against the ``number`` of their ``layer``.

    Args:
        ranked: the worst, by their ``rank``.
        in_float: ``number``, ``layer`` and ``why`` of those that stay in float.
    """
    x = parts.quantitative("number", "layer, as the network runs them", zero=False)
    y = parts.quantitative("db", "SQNR, dB (more is better)", zero=False)
    kinds = [kind for kind in ("weights", "what it reads") if any(value["of"] == kind for value in values)]
    shape = parts.nominal(
        "of", scale={"domain": kinds, "range": list(parts.SHAPES[: len(kinds)])}, legend={"title": None}
    )
    told: list[Spec] = [
        {"field": "layer", "title": "layer", "type": "nominal"},
        {"field": "variant", "title": "variant", "type": "nominal"},
        {"field": "of", "title": "of", "type": "nominal"},
        {"field": "db", "title": "SQNR, dB", "type": "quantitative", "format": ".1f"},
    ]
    colour, place = parts.colour(values), {"x": x, "y": y}
    mark = {**place, "color": colour, "shape": shape, "opacity": parts.picked(), "tooltip": told}
    why = [
        {"field": name, "title": title, "type": "nominal"} for name, title in (("layer", "in float"), ("why", "since"))
    ]
    number = {**place, "text": {"field": "rank", "type": "nominal"}, "color": colour}
    # no words for each of hundreds of marks, which would be half of the page: the chart as a whole has them
    return [
        *(
            [parts.layer("rule", {"x": x, "tooltip": why}, values=in_float, color="gray", opacity=0.3, aria=False)]
            if in_float
            else []
        ),
        parts.layer("point", mark, params=[parts.legend(), parts.zoomable()], filled=True, size=28, aria=False),
        parts.layer("text", number, values=ranked, dy=11, fontWeight="bold", aria=False),
    ]
