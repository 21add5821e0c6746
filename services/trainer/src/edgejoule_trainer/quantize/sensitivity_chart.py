"""The sensitivity of layers as a picture: an SVG of bars, and a page that has the numbers under it.

A bar is the error of the network's output that the layer disturbs most, as a share of that output's size: tall is
bad, and bars compare by length, which decibels do not.
"""

from __future__ import annotations

from html import escape
from itertools import groupby

from edgejoule_trainer.quantize.sensitivity import NO_ERROR_DB, LayerSensitivity, Sensitivity

NAMED = 10  # the worst layers, numbered in the picture and named below it
BAR, GAP = 7, 2  # width of a bar and the space behind it, in units of the drawing (about a CSS pixel)
LEFT, RIGHT, TOP, PLOT, LINE = 52, 16, 58, 240, 17
MIN_WIDTH = 640
COLOURS = ("#4c78a8", "#72b7b2", "#b279a2", "#9d755d", "#54a24b", "#eeca3b")  # of the network's parts
WORST = "#d62728"

_STYLE = """
text{font:12px system-ui,sans-serif;fill:#222}.title{font-size:16px;font-weight:600}
.tick,.part{fill:#666;font-size:11px}.number{font-size:10px;font-weight:600;text-anchor:middle;fill:#d62728}.grid{stroke:#ddd}.axis{stroke:#888}
"""


def svg(found: Sensitivity, title: str) -> str:
    """All layers in the order in which they run, the worst named."""
    layers = found.layers
    worst = sorted(layers, key=lambda layer: layer.worst_db)[:NAMED]
    number = {layer.name: place for place, layer in enumerate(worst, start=1)}
    width = max(MIN_WIDTH, LEFT + len(layers) * (BAR + GAP) + RIGHT)
    height = TOP + PLOT + 40 + LINE * (len(worst) + 1) + 8
    top_percent = max(percent(layer) for layer in layers) or 1.0
    base = TOP + PLOT
    body = [
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
        f'<text class="tick" x="{LEFT}" y="40">RMS error of the network\'s output that a layer disturbs most, when it '
        "alone is in 8 bits; % of that output's RMS</text>",
    ]
    for tick in ticks(top_percent):
        y = base - PLOT * tick / top_percent
        body.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g} %</text>')
    left = float(LEFT)
    for index, (part, members) in enumerate(groupby(layers, key=lambda layer: layer.name.split(".")[0])):
        start, colour = left, COLOURS[index % len(COLOURS)]
        for layer in members:
            body.append(_bar(layer, left, base, top_percent, colour, number.get(layer.name)))
            left += BAR + GAP
        body.append(
            f'<rect x="{start:.1f}" y="{base + 3}" width="{left - start - GAP:.1f}" height="3" fill="{colour}"/>'
        )
        body.append(f'<text class="part" x="{start:.1f}" y="{base + 19 + 12 * (index % 2)}">{escape(part)}</text>')
    body.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{base}" y2="{base}"/>')
    for place, layer in enumerate(worst):
        y = base + 40 + LINE * (place + 1)
        body.append(f'<text class="number" x="{LEFT + 6}" y="{y}">{place + 1}</text>')
        body.append(f'<text x="{LEFT + 20}" y="{y}">{escape(_told(layer))}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(body)}</svg>\n'
    )


def html(found: Sensitivity, title: str) -> str:
    """A page of its own, without scripts: the picture, and every layer's numbers, one column for each output."""
    outputs = range(len(found.whole))
    head = "".join(f"<th>output {output} dB</th>" for output in outputs)
    whole = "".join(f"<td>{error.sqnr_db:.1f}</td>" for error in found.whole)
    rows = "".join(
        f"<tr><td>{escape(layer.name)}</td><td>{decibels(layer.own.sqnr_db)}</td><td>{layer.own.msqe:.3g}</td>"
        + "".join(f"<td>{decibels(error.sqnr_db)}</td>" for error in layer.outputs)
        + "</tr>"
        for layer in sorted(found.layers, key=lambda layer: layer.worst_db)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>'
        "body{font:14px system-ui,sans-serif;margin:2rem;color:#222}figure{margin:0;overflow-x:auto}"
        "table{border-collapse:collapse;margin-top:1.5rem}td,th{padding:2px 10px;text-align:right;"
        "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}</style>"
        f"<figure>{svg(found, title)}</figure>"
        "<p>SQNR in dB of the layer's own output and of each raw output of the network, and the own output's MSQE, "
        "when that layer alone is in 8 bits.</p>"
        f"<table><tr><th>layer</th><th>own dB</th><th>own MSQE</th>{head}</tr>{rows}"
        f"<tr><th>all in 8 bits</th><td></td><td></td>{whole}</tr></table></html>\n"
    )


def percent(layer: LayerSensitivity) -> float:
    """RMS error of the output that a layer disturbs most, in per cent of that output's RMS."""
    return 0.0 if layer.worst_db >= NO_ERROR_DB else 100 * 10 ** (-layer.worst_db / 20)


def decibels(value: float) -> str:
    """An SQNR in words; an output that a layer cannot reach has no error."""
    return "none" if value >= NO_ERROR_DB else f"{value:.1f}"


def ticks(top: float) -> list[float]:
    """Round values from 0 up to ``top``, four to nine of them.

    >>> ticks(5.6)
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    step = next(nice * 10.0**power for power in range(-6, 4) for nice in (1, 2, 5) if top / (nice * 10.0**power) <= 8)
    return [round(step * n, 9) for n in range(int(top / step) + 1)]


def _bar(layer: LayerSensitivity, left: float, base: float, top_percent: float, colour: str, number: int | None) -> str:
    height = PLOT * percent(layer) / top_percent
    told = f"{_told(layer)}; own output {decibels(layer.own.sqnr_db)} dB"
    bar = (
        f'<rect x="{left:.1f}" y="{base - height:.1f}" width="{BAR}" height="{max(height, 0.5):.1f}" '
        f'fill="{WORST if number else colour}"><title>{escape(told)}</title></rect>'
    )
    if number:
        bar += f'<text class="number" x="{left + BAR / 2:.1f}" y="{base - height - 4:.1f}">{number}</text>'
    return bar


def _told(layer: LayerSensitivity) -> str:
    return f"{layer.name}: {percent(layer):.2g} %, {decibels(layer.worst_db)} dB"
