"""Ask a Prometheus every query of every dashboard, with every value of every variable; one without data fails.

    python tests/stack/dashboards.py http://127.0.0.1:9090 [--minutes 30]

For a stack that has just carried out a matrix, with a device that shows metrics. Grafana is not needed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "grafana" / "dashboards"
STEP_S = 15

MAY_BE_EMPTY = {
    "Alerts that fire": "nothing may be wrong",
    "Sensors without a value": "every sensor may have one",
    "Fan": "a host and a Nano without a fan show none",
}
"""Panel to why it may have no data in a stack that is well."""

BOARDS_ALONE = (
    *("Power", "Energy per inference", "Below throttling", "Power of the whole board", "Power of parts", "GPU load"),
    *("Clocks", "Temperature, and the board's own trip points", "Inferences per joule", "Energy against latency"),
    "AP50 against energy",
)
"""Panels that a host without such sensors leaves empty: absent is absent."""


class Refused(Exception):
    """What the server says of a query that it does not answer."""


class Prometheus:
    """The HTTP API of one server (prometheus.io, "HTTP API")."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def get(self, path: str, **parameters: str | float) -> Any:
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error).get("error", str(error))) from error

    def values(self, query: str) -> list[str]:
        """What a variable's ``label_values(series, label)`` gives."""
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]
        return sorted({found[label] for found in self.get("series", **{"match[]": series}) if label in found})

    def has_data(self, expr: str, *, instant: bool, minutes: float) -> bool:
        now = time.time()
        if instant:
            return bool(self.get("query", query=expr, time=now)["result"])
        start = now - 60 * minutes
        return bool(self.get("query_range", query=expr, start=start, end=now, step=STEP_S)["result"])


def panels(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in page["panels"]:
        yield panel
        yield from panel.get("panels", ())


def filled(text: str, chosen: dict[str, str]) -> str:
    """A query with its variables' values."""
    for name, value in {**chosen, "__rate_interval": "1m"}.items():
        text = text.replace(f"${name}", value)
    return text


def choices(page: dict[str, Any], server: Prometheus) -> Iterator[dict[str, str]]:
    """Every combination of values; of a variable that takes several, all at once too."""
    chosen: list[dict[str, str]] = [{}]
    for variable in page["templating"].get("list", ()):
        grown = []
        for before in chosen:
            found = server.values(filled(variable["query"], before))
            several = [".+"] if variable.get("includeAll") else []
            grown += [{**before, variable["name"]: value} for value in itertools.chain(found, several)]
        chosen = grown
    yield from chosen


def empty_queries(server: Prometheus, minutes: float) -> tuple[int, list[str]]:
    """How many queries were asked, and which had no data."""
    asked, empty = 0, []
    for path in sorted(FOLDER.glob("*.json")):
        page = json.loads(path.read_text(encoding="utf-8"))
        for chosen in choices(page, server):
            for panel in panels(page):
                for target in panel["targets"]:
                    asked += 1
                    expr = filled(target["expr"], chosen)
                    words = ", ".join(f"{name}={value}" for name, value in chosen.items())
                    about = f"{page['title']} / {panel['title']} ({words}): {expr}"
                    try:
                        there = server.has_data(expr, instant=bool(target.get("instant")), minutes=minutes)
                    except Refused as error:
                        there, about = False, f"{about} is refused: {error}"
                    if not there:
                        empty.append(about)
    return asked, empty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--minutes", type=float, default=30.0, help="how far back data count (30)")
    parser.add_argument("--host", action="append", default=[], help="a device without a board's sensors")
    arguments = parser.parse_args()
    asked, empty = empty_queries(Prometheus(arguments.url), arguments.minutes)
    wrong = []
    for line in empty:
        title = line.partition(" / ")[2].partition(" (")[0]
        of_host = any(f"device={host}" in line for host in arguments.host)
        if title in MAY_BE_EMPTY or (of_host and title in BOARDS_ALONE):
            print(f"empty, as it may be: {line}")
        else:
            wrong.append(line)
    print(f"{asked} queries asked, {len(empty)} without data")
    if wrong:
        sys.exit("no data:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
