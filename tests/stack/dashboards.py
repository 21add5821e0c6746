"""Ask a Prometheus every query of every dashboard, with every value of every variable; one without data fails, and so
does a variable without a value, whose queries nobody could ask.

    python tests/stack/dashboards.py http://127.0.0.1:9090 [--minutes 30]

For a stack that has just carried out a matrix, with a device that shows metrics. Grafana is not needed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "grafana"))
from queries import Prometheus, Refused, filled, pages, panels

STEP_S = 15

MAY_BE_EMPTY = {
    "Alerts that fire": "nothing may be wrong",
    "Sensors without a value": "every sensor may have one",
}
"""Panel, with its page where others are called so too, to why it may never have data in a stack that is well."""

EMPTY_AFTERWARDS = {
    "Device / Energy per inference": "a quick trial is over in less than the 20 s that the line of now takes",
    "Median latency by histogram, live: $device": "a quick trial may be over between two scrapes",
    "Latency over that of the same engine before": "no engine may have been measured twice",
}
"""The same of panels that have data only while something goes on, for who asks after it."""

BOARDS_ALONE = (
    *("Power", "Energy per inference", "Below throttling", "Power of the total", "Power of parts", "GPU load"),
    *("Clocks", "Temperature, and the board's own trip points", "Inferences per joule", "Energy against latency"),
    *("AP50 against energy", "Fan"),
)
"""Panels that a host without such sensors leaves empty: absent is absent."""


class NoChoice(Exception):
    """A variable has no value."""


def choices(page: dict[str, Any], server: Prometheus) -> Iterator[dict[str, str]]:
    """Every combination of values; of a variable that takes several, all at once too.

    Raises:
        NoChoice: a variable has none.
    """
    chosen: list[dict[str, str]] = [{}]
    for variable in page["templating"].get("list", ()):
        grown = []
        for before in chosen:
            query = filled(variable["query"], before)
            found = server.values(query)
            if not found:
                raise NoChoice(f"{page['title']} / variable {variable['name']} (no value): {query}")
            several = [".+"] if variable.get("includeAll") else []
            grown += [{**before, variable["name"]: value} for value in itertools.chain(found, several)]
        chosen = grown
    yield from chosen


def may_be_empty(line: str, *, host: bool, besides: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Whether a line of ``answers`` is as it may be.

    Args:
        host: it is of a device without a board's sensors.
        besides: panels that are excused too, to why.
    """
    panel = line.partition(" (")[0]
    title = panel.partition(" / ")[2]
    return bool({panel, title} & {*MAY_BE_EMPTY, *besides}) or (host and title in BOARDS_ALONE)


def has_data(server: Prometheus, expr: str, *, instant: bool, minutes: float) -> bool:
    now = time.time()
    return bool(server.instant(expr, now) if instant else server.range(expr, now - 60 * minutes, now, STEP_S))


def answers(server: Prometheus, minutes: float) -> dict[str, bool]:
    """Each query, in words, to whether it had data; and each variable without a value."""
    found = {}
    for page in pages().values():
        try:
            chosen_values = list(choices(page, server))
        except NoChoice as none:
            found[str(none)] = False
            continue
        for chosen in chosen_values:
            words = ", ".join(f"{name}={value}" for name, value in chosen.items())
            for panel in panels(page):
                for target in panel["targets"]:
                    expr = filled(target["expr"], chosen)
                    about = f"{page['title']} / {panel['title']} ({words}), {panel['type']}: {expr}"
                    try:
                        found[about] = has_data(server, expr, instant=bool(target.get("instant")), minutes=minutes)
                    except Refused as error:
                        found[f"{about} is refused: {error}"] = False
    return found


class Walk:
    """Asks every query of every dashboard again and again while the block lasts, and once more at its end.

    Args:
        minutes: how far back data count.
    """

    def __init__(self, server: Prometheus, minutes: float, every_s: float = 15.0) -> None:
        self._server, self._minutes, self._every_s = server, minutes, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._walk, name="walk")
        self._had_data: set[str] = set()
        self._last: dict[str, bool] = {}
        self.rounds = 0

    def __enter__(self) -> Walk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Ask each of them now."""
        self._last = answers(self._server, self._minutes)
        self._had_data |= {line for line, there in self._last.items() if there}
        self.rounds += 1

    @property
    def asked(self) -> int:
        """Queries of the last round."""
        return len(self._last)

    @property
    def empty(self) -> list[str]:
        """Those of them that had no data in any round."""
        return [line for line in self._last if line not in self._had_data]

    def _walk(self) -> None:
        while not self._over.wait(self._every_s):
            self.look()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--minutes", type=float, default=30.0, help="how far back data count (30)")
    parser.add_argument("--host", action="append", default=[], help="a device without a board's sensors")
    arguments = parser.parse_args()
    found = answers(Prometheus(arguments.url), arguments.minutes)
    empty, wrong = [line for line, there in found.items() if not there], []
    for line in empty:
        host = any(f"device={host}" in line for host in arguments.host)
        if may_be_empty(line, host=host, besides=EMPTY_AFTERWARDS):
            print(f"empty, as it may be: {line}")
        else:
            wrong.append(line)
    print(f"{len(found)} queries asked, {len(empty)} without data")
    if wrong:
        sys.exit("no data:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
