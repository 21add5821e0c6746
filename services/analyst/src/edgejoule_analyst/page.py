"""Pages with live charts: one file each, which loads nothing from anywhere and says everything without its scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgejoule_analyst import drawing
from edgejoule_analyst.charts import Chart

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif"


def render(
    template: str,
    name: str,
    figures: Sequence[Chart],
    csv_table: list[list[str]],
    filters: dict[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """A page from a template that extends ``layout.html.j2``.

    Args:
        name: of the run; files that a reader saves begin with it.
        csv_table: what is saved as CSV: a header, and lines by the row's name, which may repeat.
    """
    environment = Environment(
        loader=PackageLoader("edgejoule_analyst"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"in_script": _in_script, "breakable": _breakable, **(filters or {})}
    return environment.get_template(template).render(
        name=name,
        figures=figures,
        drawn={chart.name: Markup(drawing.svg(chart.spec, f"{chart.name}-")) for chart in figures},
        specs={chart.name: chart.spec for chart in figures},
        themes={"light": drawing.theme(dark=False, font=FONT), "dark": drawing.theme(dark=True, font=FONT)},
        vega=Markup(drawing.script()),
        csv_table=csv_table,
        **values,
    )


def _breakable(name: str) -> Markup:
    """A name that breaks where its parts end, if it must."""
    parts = re.split(r"(?<=[_/-])", name)
    return Markup("<wbr>").join(parts)


def _in_script(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
