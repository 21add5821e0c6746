"""Previews of the dashboards, drawn from a Prometheus' answers without Grafana: one PNG for each.

    python grafana/previews.py http://127.0.0.1:9090 docs/images [--minutes 10] [--choose device=orin] [--only device]

Every query of every panel is asked as Grafana would ask it, with the first value of each variable unless ``--choose``
says another. What is drawn says that it is no picture of Grafana's, and names every device that is simulated.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import vl_convert
from drawing import EDGE, INK, KINDS, PANEL, PAPER, Drawn, Region, Series, box, placed, text, width_of
from queries import Prometheus, filled, pages, panels

WIDTH = 1600.0
ROW, GUTTER = 30.0, 8.0  # of Grafana's grid
COLUMNS = 24
HEAD = 76.0
STEP_S = 5.0  # the scrape interval
RATE_INTERVAL = "20s"  # what Grafana makes of $__rate_interval there: four scrapes
PINK = "#CC79A7"


def series_of(found: Mapping[str, Any], legend: str) -> Series:
    """One series of an answer, named as its legend says; a value that is no number is left out."""
    labels = found["metric"]
    name = legend
    for label, value in labels.items():
        name = name.replace("{{" + label + "}}", value)
    name = re.sub(r"\{\{\w+\}\}", "", name)
    points = [(float(at), float(value)) for at, value in found.get("values") or [found["value"]]]
    points = [point for point in points if math.isfinite(point[1])]
    return Series(name, labels, [at for at, _ in points], [value for _, value in points])


def answers_of(
    panel: Mapping[str, Any], chosen: Mapping[str, str], server: Prometheus, span_s: tuple[float, float]
) -> list[list[Series]]:
    """What the server answers to each query of a panel."""
    found = []
    for target in panel["targets"]:
        expr = filled(target["expr"], chosen, RATE_INTERVAL)
        whole = server.instant(expr, span_s[1]) if target.get("instant") else server.range(expr, *span_s, STEP_S)
        answer = [series_of(one, target["legendFormat"]) for one in whole]
        found.append([one for one in answer if one.values])
    return found


def regions_of(
    page: Mapping[str, Any], chosen: Mapping[str, str], server: Prometheus, span_s: tuple[float, float]
) -> list[Region]:
    """The stretches for which a query of an annotation has a value."""
    found = []
    for each in page["annotations"].get("list", ()):
        if "expr" not in each:  # of Grafana itself
            continue
        for one in server.range(filled(each["expr"], chosen), *span_s, STEP_S):
            moments = [float(at) for at, _ in one["values"]]
            begins = [at for before, at in zip([-math.inf, *moments], moments, strict=False) if at - before > STEP_S]
            ends = [at for at, after in zip(moments, [*moments[1:], math.inf], strict=True) if after - at > STEP_S]
            found += [Region(str(one["metric"]), *both, each["iconColor"]) for both in zip(begins, ends, strict=True)]
    return found


def chosen_for(page: Mapping[str, Any], given: Mapping[str, str], server: Prometheus) -> dict[str, str]:
    """A value for each variable: the one given, all of them where that is the default, else the first."""
    chosen: dict[str, str] = {}
    for variable in page["templating"].get("list", ()):
        name = variable["name"]
        values = server.values(filled(variable["query"], chosen))
        chosen[name] = variable["allValue"] if variable.get("includeAll") else given.get(name) or next(iter(values), "")
    return chosen


def repeated(
    page: Mapping[str, Any], panel: dict[str, Any], chosen: Mapping[str, str], server: Prometheus
) -> Iterator[tuple[dict[str, Any], Mapping[str, str]]]:
    """A panel and what is chosen for it; one that is repeated for a variable as often as that has values."""
    name, grid = panel.get("repeat"), panel["gridPos"]
    values = []
    for variable in page["templating"].get("list", ()):
        if variable["name"] == name:
            values = [
                value for value in server.values(filled(variable["query"], chosen)) if chosen[name] in (".+", value)
            ]
    if not values:
        yield panel, chosen
    for number, value in enumerate(values):
        down, along = divmod(number, int(panel["maxPerRow"]))
        width = COLUMNS // min(len(values), int(panel["maxPerRow"]))
        place = {**grid, "x": along * width, "y": grid["y"] + down * grid["h"], "w": width}
        yield {**panel, "gridPos": place}, {**chosen, name: value}


def head(title: str, chosen: Mapping[str, str], simulated: Sequence[str], span_s: tuple[float, float]) -> str:
    """Which page this is, what it is not, and what on it is simulated."""
    x, parts = 12.0, [text(12, 30, f"Edgejoule / {title}", 20, INK, weight="bold")]
    x += width_of(f"Edgejoule / {title}", 20) + 30
    for name, value in chosen.items():
        words = f"{name}: {'All' if value == '.+' else value}"
        parts += [box(x, 13, width_of(words, 13) + 16, 24, PANEL, stroke=EDGE, rx=3), text(x + 8, 30, words, 13, INK)]
        x += width_of(words, 13) + 26
    begin, end = (datetime.fromtimestamp(moment, timezone.utc) for moment in span_s)
    when = f"{begin:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"
    label = "preview, drawn from Prometheus' answers; Grafana itself was not run"
    parts.append(text(WIDTH - 12, 30, f"{when} · {label}", 14, "#E69F00", anchor="end"))
    if simulated:
        words = f"SIMULATED: {', '.join(simulated)}. Nothing that a simulated board shows was measured."
        parts += [box(12, 46, WIDTH - 24, 22, PINK, rx=3), text(22, 62, words, 14, "#000000", weight="bold")]
    return "".join(parts)


def page_as_svg(
    page: Mapping[str, Any], given: Mapping[str, str], server: Prometheus, span_s: tuple[float, float]
) -> str:
    """A whole dashboard."""
    chosen = chosen_for(page, given, server)
    regions = regions_of(page, chosen, server, span_s)
    simulated = server.values('label_values(edgejoule_device_info{simulated="true"}, device)')
    parts, bottom = [head(page["title"], chosen, simulated, span_s)], 0.0
    column = (WIDTH - GUTTER) / COLUMNS
    for panel, of_panel in (each for one in panels(page) for each in repeated(page, one, chosen, server)):
        grid = panel["gridPos"]
        x, y = GUTTER + grid["x"] * column, HEAD + grid["y"] * (ROW + GUTTER)
        width, height = grid["w"] * column - GUTTER, grid["h"] * (ROW + GUTTER) - GUTTER
        bottom = max(bottom, y + height)
        inside = Drawn(
            panel, answers_of(panel, of_panel, server, span_s), regions, span_s, width=width - 16, height=height - 38
        )
        parts.append(box(x, y, width, height, PANEL, stroke=EDGE, rx=2))
        title = filled(panel["title"], of_panel)
        parts.append(text(x + 9, y + 21, title, 14, INK, weight="bold", room=width - 16))
        parts.append(placed(KINDS[panel["type"]](inside), x + 8, y + 32))
    height = bottom + GUTTER
    sizes = f'width="{WIDTH:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {sizes}>{box(0, 0, WIDTH, height, PAPER)}{"".join(parts)}</svg>'


def compressed(png: bytes) -> bytes:
    """The same picture in a fifth of the bytes: vl-convert is in a hurry."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def draw(
    url: str, folder: Path, minutes: float, given: Mapping[str, str], only: str = "", end_s: float | None = None
) -> list[Path]:
    """Draw every dashboard into ``folder``; gives the files.

    Args:
        end_s: seconds since 1970, if not now.
    """
    server, end_s = Prometheus(url), math.floor(time.time() if end_s is None else end_s)
    files = []
    for name, page in pages().items():
        if only in ("", name):
            svg = page_as_svg(page, given, server, (end_s - 60 * minutes, end_s))
            files.append(folder / f"dashboard-{name}.png")
            files[-1].write_bytes(compressed(vl_convert.svg_to_png(svg, scale=1)))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="how far back to look (10)")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="draw a moment that has passed, since 1970 (now)")
    parser.add_argument("--choose", action="append", default=[], metavar="VARIABLE=VALUE")
    parser.add_argument("--only", default="", metavar="DASHBOARD")
    arguments = parser.parse_args()
    given = dict(each.split("=", 1) for each in arguments.choose)
    for file in draw(arguments.url, arguments.folder, arguments.minutes, given, arguments.only, arguments.end):
        print(file)


if __name__ == "__main__":
    main()
