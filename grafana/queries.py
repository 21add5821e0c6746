"""What the dashboards ask of a Prometheus, without Grafana: their queries, their variables, and its answers."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"


class Refused(Exception):
    """What the server says of a query that it does not answer."""


class Prometheus:
    """The HTTP API of one server (prometheus.io, "HTTP API")."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, path: str, **parameters: str | float) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error).get("error", str(error))) from error

    def values(self, query: str) -> list[str]:
        """What a variable's ``label_values(series, label)`` gives."""
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]
        return sorted({found[label] for found in self.get("series", **{"match[]": series}) if label in found})

    def instant(self, expr: str, time_s: float) -> list[dict[str, Any]]:
        """Each series with its ``value``, [time, text]."""
        return self.get("query", query=expr, time=time_s)["result"]  # type: ignore[no-any-return]

    def range(self, expr: str, begin_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """Each series with its ``values``, [[time, text], ...]."""
        return self.get("query_range", query=expr, start=begin_s, end=end_s, step=step_s)["result"]  # type: ignore[no-any-return]


def pages() -> dict[str, dict[str, Any]]:
    """Every dashboard by the name of its file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in page["panels"]:
        yield panel
        yield from panel.get("panels", ())


def filled(text: str, chosen: Mapping[str, str], rate_interval: str = "1m") -> str:
    """A query with its variables' values."""
    for name, value in {**chosen, "__rate_interval": rate_interval}.items():
        text = text.replace(f"${name}", value)
    return text
