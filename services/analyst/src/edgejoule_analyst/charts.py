"""The report's plots as inline SVG: text stays text, colours come from the page, equal results give equal bytes.

Colour says the variant and shape says the model, so that neither must be told from colour alone where it matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgejoule.records import Interval, Results, Row
from edgejoule_analyst.words import VARIANTS, points, row_name, signed_points, variant_name

WIDTH = 480
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 28, 40
"""Margins of the plot area, in the units of the drawing (about a CSS pixel)."""
FOREST_TOP = 4
LINE = 15
"""Height of a line of text."""
LABELLED_POINTS = 3
"""More points than these get no name beside them, which would lie on the bars of others; the legend tells."""
DASHES = ("none", "7 4", "2 3", "9 3 2 3", "9 3 2 3 2 3")
PANELS = (
    ("ap", "AP"),
    ("ap50", "AP50"),
    ("ap75", "AP75"),
    ("ap_small", "small"),
    ("ap_medium", "medium"),
    ("ap_large", "large"),
)


@dataclass(frozen=True)
class Scale:
    """Data to drawing, linear."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round values in the range.

        >>> Scale(0, 11, 0, 100).ticks()
        [0.0, 2.5, 5.0, 7.5, 10.0]
        """
        rough = (self.high - self.low) / count
        magnitude: float = 10.0 ** math.floor(math.log10(rough))
        step = next(magnitude * nice for nice in (1, 2, 2.5, 5, 10) if magnitude * nice >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]


def accuracy_against_latency(results: Results, device: str) -> Markup:
    """AP over mean latency, with the front; a row's bars are AP's interval and the 10th to 90th percentile."""
    rows = [row for row in results.rows if row.device == device and row.ap is not None and row.latency_ms is not None]
    marks = [_Spot.of(row, results) for row in rows]
    height = 300
    x = Scale(0, 1.12 * max(mark.x_high for mark in marks), LEFT, WIDTH - RIGHT)
    y = _padded(min(mark.y_low for mark in marks), max(mark.y_high for mark in marks), height - BOTTOM, TOP)
    front = sorted((mark.x, mark.y) for mark, row in zip(marks, rows, strict=True) if row.pareto)
    body = [_x_axis(x, height, "mean latency, ms (less is better)"), _y_axis(y, "AP (more is better)", _whole)]
    body.append(_front_line(front, x, y))
    for mark, row in zip(marks, rows, strict=True):
        body.append(_cross(mark, row, x, y, _shape_of(row, results)))
    if len(rows) <= LABELLED_POINTS:
        body += _labels(marks, rows, x, y)
    best = ", ".join(row_name(row) for row in rows if row.pareto) or "none"
    return _svg(
        f"pareto-{_slug(device)}",
        f"AP against latency on {device}",
        f"One mark per row with its intervals. On the Pareto front: {best}.",
        height,
        body,
    )


def difference_forest(results: Results) -> Markup:
    """Each difference with its interval, on one axis around zero: AP filled, AP50 hollow."""
    shown = results.differences
    rows = {row_name(row): row for row in results.rows}
    each = 40
    height = FOREST_TOP + each * len(shown) + BOTTOM + 10
    reach = 1.1 * max(max(abs(d.low), abs(d.high), 0.002) for d in shown)
    x = Scale(-reach, reach, 14, WIDTH - RIGHT)
    body = [_x_axis(x, height, "points less  |  points more", signed_points)]
    body.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{FOREST_TOP}" y2="{height - BOTTOM}"/>')
    for number, d in enumerate(shown):
        y = FOREST_TOP + each * number + 30
        metric, name = d.metric.upper(), f"{rows[d.row].model} {rows[d.row].variant} − {rows[d.against].variant}"
        text = f"{signed_points(d.difference)} [{signed_points(d.low)}, {signed_points(d.high)}]"
        body.append(
            f'<g class="{class_of(rows[d.row])}"><title>{escape(d.row)}, {metric}: {text}, {escape(d.verdict)}</title>'
            f'<text class="name" x="14" y="{y - 11}">{escape(name)}, {metric}</text>'
            f'<text class="value name" x="{WIDTH - RIGHT}" y="{y - 11}" text-anchor="end">{escape(d.verdict)}</text>'
            f'<line class="whisker" x1="{x(d.low)}" x2="{x(d.high)}" y1="{y}" y2="{y}"/>'
            f'<rect class="dot{" hollow" if d.metric == "ap50" else ""}" x="{x(d.difference) - 5:.2f}" y="{y - 5}"'
            ' width="10" height="10"/></g>'
        )
    said = "; ".join(
        f"{d.row} − {rows[d.against].variant} {d.metric.upper()} {signed_points(d.difference)}, "
        f"{signed_points(d.low)} to {signed_points(d.high)}"
        for d in shown
    )
    return _svg("differences", "Differences in accuracy", f"Points with intervals: {said}.", height, body)


def accuracy_bars(results: Results, model: str, device: str) -> Markup:
    """AP, AP50, AP75 and AP by object size of every scored variant of one model, from zero."""
    rows = [row for row in results.rows if (row.model, row.device) == (model, device) and row.ap is not None]
    height = 250
    top = max(_top_of(row, metric, results) for row in rows for metric, _ in PANELS)
    y = Scale(0, max(top, 0.01), height - BOTTOM, TOP + 14)
    group = (WIDTH - LEFT - RIGHT) / len(PANELS)
    bar = group * 0.78 / len(rows)
    body = [_y_axis(y, "points", _whole)]
    for number, (metric, label) in enumerate(PANELS):
        start = LEFT + group * (number + 0.11)
        body.append(_middle("tick", start + group * 0.39, height - BOTTOM + 16, label))
        for place, row in enumerate(rows):
            body.append(_bar(row, metric, label, results, start + place * bar, bar, y, len(rows)))
    body.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0)}" y2="{y(0)}"/>')
    body.append(_middle("label", LEFT + group * 4.5, height - 8, "AP by object size"))
    said = "; ".join(f"{variant_name(row.variant)} AP {points(row.ap)}" for row in rows if row.ap is not None)
    return _svg(
        f"accuracy-{_slug(model)}-{_slug(device)}", f"Accuracy of {model} on {device}", f"{said}.", height, body
    )


def latency_distribution(results: Results, device: str) -> Markup:
    """The share of inferences done within a time, per row, up to the greatest 99th percentile."""
    rows = _timed(results, device)
    height = 270
    low = min(_curve(row, results)[0] for row in rows)
    high = max(_curve(row, results)[99] for row in rows)
    margin = 0.06 * (high - low) or 0.05 * high
    x = Scale(max(0.0, low - margin), high + margin, LEFT, WIDTH - RIGHT)
    y = Scale(0, 1, height - BOTTOM, TOP)
    body = [_x_axis(x, height, "latency, ms"), _y_axis(y, "share of inferences", lambda share: f"{share:.0%}")]
    for share in (0.5, 0.9, 0.99):
        body.append(f'<line class="guide" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(share)}" y2="{y(share)}"/>')
    for row in rows:
        path = " L".join(f"{x(ms)},{y(share / 100)}" for share, ms in enumerate(_curve(row, results)) if ms <= x.high)
        latency = row.latency_ms
        assert latency is not None
        told = f"p50 {latency.p50:.2f} ms, p90 {latency.p90:.2f} ms, p99 {latency.p99:.2f} ms"
        body.append(
            f'<path class="curve {class_of(row)}" stroke-dasharray="{_dash_of(row, results)}" d="M{path}">'
            f"<title>{escape(row_name(row))}: {told}</title></path>"
        )
    said = "; ".join(f"{row_name(r)} median {r.latency_ms.p50:.2f} ms" for r in rows if r.latency_ms)
    return _svg(f"latency-{_slug(device)}", f"Distribution of latency on {device}", f"{said}.", height, body)


def real_time_line(results: Results, device: str, least_fps: float = 30.0) -> Markup:
    """FPS of every timed row as a bar, and the line of real time: the paper's Figure 7."""
    rows = sorted(_timed(results, device), key=lambda row: -(row.fps or 0))
    each = 30
    height = TOP + each * len(rows) + BOTTOM
    x = Scale(0, 1.15 * max(least_fps, *(row.fps or 0 for row in rows)), 14, WIDTH - RIGHT)
    body = [_x_axis(x, height, "frames per second (more is better)")]
    for number, row in enumerate(rows):
        y, fps = TOP + each * number, row.fps or 0.0
        meets = "meets" if fps >= least_fps else "misses"
        told = f"{row_name(row)}: {fps:.1f} FPS, {meets} {least_fps:g}"
        body.append(
            f'<g class="{class_of(row)}"><title>{escape(told)}</title>'
            f'<rect class="bar" x="{x(0)}" y="{y + 15}" width="{x(fps) - x(0):.2f}" height="9"/>'
            f'<text class="name" x="{x(0)}" y="{y + 11}">{escape(row.model)} {escape(row.variant)}</text>'
            f'<text class="value name" x="{WIDTH - RIGHT}" y="{y + 11}" text-anchor="end">{fps:.1f}, {meets}</text></g>'
        )
    body.append(f'<line class="zero" x1="{x(least_fps)}" x2="{x(least_fps)}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    body.append(_middle("tick", x(least_fps), TOP - 6, f"{least_fps:g} FPS"))
    said = "; ".join(f"{row_name(row)} {row.fps or 0:.1f} FPS" for row in rows)
    return _svg(f"real-time-{_slug(device)}", f"Real time on {device}", f"{said}.", height, body)


def has_power(results: Results, device: str) -> bool:
    """Whether any timed row of the device has a power."""
    return any(row.power_w is not None for row in _timed(results, device))


def power_against_latency(results: Results, device: str) -> Markup:
    """Power over mean latency, with lines of equal energy through the rows: the paper's Figure 8."""
    points_of = [
        (row, row.latency_ms.mean, row.power_w)
        for row in _timed(results, device)
        if row.latency_ms is not None and row.power_w is not None
    ]
    height = 300
    x = Scale(0, 1.12 * max(ms for _, ms, _ in points_of), LEFT, WIDTH - RIGHT)
    y = Scale(0, 1.12 * max(watts for _, _, watts in points_of), height - BOTTOM, TOP)
    body = [_x_axis(x, height, "mean latency, ms (less is better)")]
    body.append(_y_axis(y, "power, W (less is better)", lambda watts: f"{watts:g}"))
    for _, ms, watts in points_of:
        steps = [x.high * step / 60 for step in range(1, 61)]
        path = " L".join(f"{x(at)},{y(ms * watts / at)}" for at in steps if ms * watts / at <= y.high)
        body.append(f'<path class="front" d="M{path}"/>')
    for row, ms, watts in points_of:
        told = f"{row_name(row)}: {watts:.2f} W, {ms:.2f} ms, {watts * ms:.1f} mJ"
        mark = _SHAPES[_shape_of(row, results)](x(ms), y(watts), 6)
        body.append(f'<g class="{class_of(row)}"><title>{escape(told)}</title>{mark}</g>')
    said = "; ".join(f"{row_name(row)} {watts:.2f} W at {ms:.2f} ms" for row, ms, watts in points_of)
    return _svg(f"power-{_slug(device)}", f"Power against latency on {device}", f"{said}.", height, body)


def interval_bar(low: float, value: float, high: float) -> Markup:
    """A small difference with its interval around zero, for a tile; the words beside it say the same."""
    reach = 1.1 * max(abs(low), abs(high), 1e-4)
    x = Scale(-reach, reach, 2, 158)
    return Markup(
        '<svg class="spark" viewBox="0 0 160 18" aria-hidden="true">'
        f'<line class="zero" x1="80" x2="80" y1="1" y2="17"/>'
        f'<line class="whisker" x1="{x(low)}" x2="{x(high)}" y1="9" y2="9"/>'
        f'<rect class="dot" x="{x(value) - 4}" y="5" width="8" height="8"/></svg>'
    )


def marks_legend(results: Results, device: str) -> Markup:
    """What the colours and shapes of a device's plane of AP and latency mean."""
    rows = _timed(results, device)
    return _legend([(row, _name_in(rows, row), _SHAPES[_shape_of(row, results)](9, 9, 5.5)) for row in rows])


def curves_legend(results: Results, device: str) -> Markup:
    """What the colours and dashes of a device's latency curves mean."""
    rows = _timed(results, device)
    line = '<path class="curve" stroke-dasharray="{}" d="M0,9 H18"/>'
    return _legend([(row, _name_in(rows, row), line.format(_dash_of(row, results))) for row in rows])


def variants_legend(results: Results, model: str, device: str) -> Markup:
    """What the colours of one model's bars mean."""
    rows = [row for row in results.rows if (row.model, row.device) == (model, device) and row.ap is not None]
    return _legend([(row, variant_name(row.variant), _square(9, 9, 6)) for row in rows])


def _legend(entries: Sequence[tuple[Row, str, str]]) -> Markup:
    items = (
        f'<li><svg viewBox="0 0 18 18" aria-hidden="true" class="{class_of(row)}">{shape}</svg>{escape(name)}</li>'
        for row, name, shape in entries
    )
    return Markup(f'<ul class="legend">{"".join(items)}</ul>')


@dataclass(frozen=True)
class _Spot:
    """A row in the plane of latency and AP, with its bars."""

    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float

    @classmethod
    def of(cls, row: Row, results: Results) -> _Spot:
        assert row.ap is not None
        assert row.latency_ms is not None
        evidence = results.evidence[row_name(row)]
        curve = evidence.latency_curve_ms
        interval = evidence.ap_interval
        mean = row.latency_ms.mean
        return cls(
            x=mean,
            x_low=min(curve[10], mean),
            x_high=max(curve[90], mean),
            y=row.ap,
            y_low=min(interval.low, row.ap) if interval else row.ap,
            y_high=max(interval.high, row.ap) if interval else row.ap,
        )


def _cross(mark: _Spot, row: Row, x: Scale, y: Scale, shape: int) -> str:
    told = f"{row_name(row)}: AP {points(mark.y)} [{points(mark.y_low)}, {points(mark.y_high)}], {mark.x:.2f} ms"
    return (
        f'<g class="{class_of(row)}"><title>{escape(told)}</title>'
        f'<line class="whisker" x1="{x(mark.x)}" x2="{x(mark.x)}" y1="{y(mark.y_low)}" y2="{y(mark.y_high)}"/>'
        f'<line class="whisker" x1="{x(mark.x_low)}" x2="{x(mark.x_high)}" y1="{y(mark.y)}" y2="{y(mark.y)}"/>'
        f"{_SHAPES[shape](x(mark.x), y(mark.y), 6)}</g>"
    )


def _labels(marks: Sequence[_Spot], rows: Sequence[Row], x: Scale, y: Scale) -> list[str]:
    """Names beside the marks, pushed down where they would lie on each other."""
    several = len({row.model for row in rows}) > 1
    labels, lowest = [], {"start": -math.inf, "end": -math.inf}
    for mark, row in sorted(zip(marks, rows, strict=True), key=lambda pair: y(pair[0].y)):
        anchor = "start" if x(mark.x) < LEFT + 0.6 * (WIDTH - LEFT - RIGHT) else "end"
        lowest[anchor] = max(y(mark.y) - 9, lowest[anchor] + LINE)
        at = x(mark.x) + (10 if anchor == "start" else -10)
        name = f"{row.model} {row.variant}" if several else row.variant
        labels.append(
            f'<text class="name" x="{at}" y="{lowest[anchor]:.2f}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    return labels


def _front_line(front: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    """The border of what is beaten: a step from each member of the front to the next, then on to the right."""
    if not front:
        return ""
    path = f"M{x(front[0][0])},{y(front[0][1])}"
    for to_x, to_y in front[1:]:
        path += f" H{x(to_x)} V{y(to_y)}"
    return f'<path class="front" d="{path} H{WIDTH - RIGHT}"/>'


def _interval_of(row: Row, metric: str, results: Results) -> Interval | None:
    evidence = results.evidence[row_name(row)]
    return {"ap": evidence.ap_interval, "ap50": evidence.ap50_interval}.get(metric)


def _top_of(row: Row, metric: str, results: Results) -> float:
    value: float = getattr(row, metric) or 0.0
    interval = _interval_of(row, metric, results)
    return max(value, interval.high) if interval else value


def _bar(row: Row, metric: str, label: str, results: Results, left: float, width: float, y: Scale, count: int) -> str:
    value: float | None = getattr(row, metric)
    centre = round(left + width / 2, 2)
    if value is None:
        return _middle("on-bar", centre, y(0) - 5, "–")
    interval = _interval_of(row, metric, results)
    told = f"{variant_name(row.variant)}, {label}: {points(value)}"
    parts = [
        f'<g class="{class_of(row)}"><title>{escape(told)}</title>',
        f'<rect class="bar" x="{left + 1:.2f}" y="{y(value)}" width="{width - 2:.2f}" height="{y(0) - y(value):.2f}"/>',
    ]
    if interval:
        parts.append(
            f'<line class="error" x1="{centre}" x2="{centre}" y1="{y(interval.low)}" y2="{y(interval.high)}"/>'
        )
    if count <= 2:
        above = y(_top_of(row, metric, results)) - 5
        parts.append(_middle("on-bar", centre, above, points(value)))
    return "".join(parts) + "</g>"


def _x_axis(x: Scale, height: float, label: str, written: Callable[[float], str] = lambda value: f"{value:g}") -> str:
    base = height - BOTTOM
    parts = [f'<line class="axis" x1="{x.start}" x2="{x.end}" y1="{base}" y2="{base}"/>']
    for tick in x.ticks():
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{TOP}" y2="{base}"/>')
        parts.append(_middle("tick", x(tick), base + 16, written(tick)))
    parts.append(_middle("label", (x.start + x.end) / 2, height - 6, label))
    return "".join(parts)


def _y_axis(y: Scale, label: str, written: Callable[[float], str]) -> str:
    parts = []
    for tick in y.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{written(tick)}</text>')
    parts.append(f'<text class="label" x="2" y="12">{escape(label)}</text>')
    return "".join(parts)


def _middle(kind: str, x: float, y: float, text: str) -> str:
    """Text centred on ``x``."""
    return f'<text class="{kind}" x="{x:.2f}" y="{y:.2f}" text-anchor="middle">{escape(text)}</text>'


def _whole(fraction: float) -> str:
    """An accuracy on an axis, in points, without digits that all ticks share."""
    return f"{100 * fraction:.4g}"


def _padded(low: float, high: float, start: float, end: float) -> Scale:
    margin = 0.1 * (high - low) or 0.01
    return Scale(max(0.0, low - margin), high + margin, start, end)


def _svg(name: str, title: str, description: str, height: float, body: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
        f"{''.join(body)}</svg>"
    )


def _circle(x: float, y: float, radius: float) -> str:
    return f'<circle class="dot" cx="{x}" cy="{y}" r="{radius}"/>'


def _square(x: float, y: float, radius: float) -> str:
    return f'<rect class="dot" x="{x - radius:.2f}" y="{y - radius:.2f}" width="{2 * radius}" height="{2 * radius}"/>'


def _triangle(x: float, y: float, radius: float) -> str:
    return f'<path class="dot" d="M{x},{y - radius:.2f} l{radius},{2 * radius} h{-2 * radius} z"/>'


def _diamond(x: float, y: float, radius: float) -> str:
    return (
        f'<path class="dot" d="M{x},{y - radius:.2f} l{radius},{radius} l{-radius},{radius} l{-radius},{-radius} z"/>'
    )


def _upturned(x: float, y: float, radius: float) -> str:
    return f'<path class="dot" d="M{x},{y + radius:.2f} l{radius},{-2 * radius} h{-2 * radius} z"/>'


_SHAPES = (_circle, _square, _triangle, _diamond, _upturned)


def _shape_of(row: Row, results: Results) -> int:
    return _models(results).index(row.model) % len(_SHAPES)


def _dash_of(row: Row, results: Results) -> str:
    return DASHES[_models(results).index(row.model) % len(DASHES)]


def _timed(results: Results, device: str) -> list[Row]:
    return [row for row in results.rows if row.device == device and row.latency_ms is not None]


def _name_in(rows: Sequence[Row], row: Row) -> str:
    """The variant, and the model where there are several."""
    name = variant_name(row.variant)
    return f"{row.model}, {name}" if len({other.model for other in rows}) > 1 else name


def _models(results: Results) -> list[str]:
    return list(dict.fromkeys(row.model for row in results.rows))


def class_of(row: Row) -> str:
    """The style class that colours a row's marks."""
    return f"v-{row.variant}" if row.variant in VARIANTS else "v-other"


def _curve(row: Row, results: Results) -> list[float]:
    return results.evidence[row_name(row)].latency_curve_ms


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)
