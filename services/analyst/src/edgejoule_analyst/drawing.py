"""Charts as files and on a page: Vega-Lite drawn without a browser, its colours by day and by night, its script.

vl-convert holds Vega, Vega-Lite, Vega-Embed and fonts, so that nothing is fetched and equal charts give equal bytes.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

import vl_convert

from edgejoule_analyst.chart_parts import Spec

Format = Literal["svg", "png", "pdf"]
PNG_SCALE = 3.0
"""Dots to a CSS pixel: 288 to the inch."""
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"

BY_DAY = ["#0067a8", "#8d3f8f", "#c44e00", "#007a5a", "#4a5fc1", "#b03a6f", "#66707c"]
BY_NIGHT = ["#5cb3f0", "#d493d6", "#ff9a55", "#3fcf9f", "#9aa8f5", "#f08bb8", "#9aa5b1"]
"""In the order of ``words.VARIANTS``, and one for all others; each 4.5:1 against its page, and told apart by the
colour-blind. The page's style has the same."""


def theme(dark: bool, font: str = FONT) -> dict[str, Any]:
    """Vega's config for a page by day, or by night."""
    ink, soft, grid = ("#e6eaf0", "#9eabb9", "#2a323c") if dark else ("#1b2430", "#56616f", "#e6eaee")
    return {
        "background": None,
        "font": font,
        "view": {"stroke": None},
        "padding": {"left": 5, "top": 5, "right": 18, "bottom": 5},
        "style": {"halo": {"stroke": "#171c23" if dark else "#ffffff", "strokeWidth": 3}},
        "axis": {"labelColor": soft, "titleColor": ink, "gridColor": grid, "domainColor": soft, "tickColor": soft}
        | {"titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12}
        # else the first and the last label move inwards, beside where they belong and into their neighbours
        | {"labelFlush": False, "labelSeparation": 6},
        "legend": {"labelColor": ink, "titleColor": soft, "titleFontWeight": "normal", "labelFontSize": 12}
        | {"orient": "top", "columns": 3, "labelLimit": 220}
        | {
            "symbolBaseFillColor": ink,
            "symbolBaseStrokeColor": ink,
            "layout": {"top": {"direction": "vertical", "anchor": "start", "margin": 2}},
        },
        "title": {"color": soft},
        "text": {"color": ink},
        "rule": {"color": ink},
        "range": {"category": BY_NIGHT if dark else BY_DAY},
    }


def draw(spec: Spec, form: Format) -> bytes:
    """A chart as a file, by day."""
    if form == "png":
        return bytes(
            vl_convert.vegalite_to_png(spec, scale=PNG_SCALE, config=theme(dark=False) | {"background": "white"})
        )
    if form == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(spec, config=theme(dark=False)))
    return svg(spec).encode()


def svg(spec: Spec, prefix: str = "") -> str:
    """A chart as SVG for a file, or, with a prefix that makes its ids unique, for a place in a page.

    Vega numbers its ids on from one chart to the next; here each begins anew, so that equal charts are equal.
    """
    drawn = str(vl_convert.vegalite_to_svg(spec, config=theme(dark=False)))
    names = {old: f"{prefix}{number}" for number, old in enumerate(re.findall(r'\bid="([^"]+)"', drawn), 1)}
    return re.sub(
        r'(\bid="|url\(#|href="#)([^")]+)',
        lambda found: found.group(1) + names.get(found.group(2), found.group(2)),
        drawn,
    )


@cache
def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which leaves ``window.vegaEmbed`` behind. About 0.9 MB."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
