"""Ask a Prometheus every query of every dashboard, with every value of every variable; one without data fails, and so
does a variable without a value, whose queries nobody could ask.

    python tests/stack/dashboards.py http://127.0.0.1:9090 [--minutes 30]

For a stack that has just carried out a matrix, with a device that shows metrics. Grafana is not needed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "grafana"))
from queries import Prometheus, Refused, filled, pages, panels

STEP_S = 15

MAY_BE_EMPTY = {
    "Alerts that fire": "nothing may be wrong",
    "Sensors without a value": "every sensor may have one",
    "Fan": "a host and a Nano without a fan show none",
    "Latency over that of the same engine before": "no engine may have been measured twice",
}
"""Panel, with its page where others are called so too, to why it may never have data in a stack that is well."""

EMPTY_AFTERWARDS = {
    "Device / Energy per inference": "a quick trial is over in less than the 20 s that the line of now takes",
    "Median latency by histogram, live: $device": "a quick trial may be over between two scrapes",
}
"""The same of panels that have data only while something goes on, for who asks after it."""

BOARDS_ALONE = (
    *("Power", "Energy per inference", "Below throttling", "Power of the total", "Power of parts", "GPU load"),
    *("Clocks", "Temperature, and the board's own trip points", "Inferences per joule", "Energy against latency"),
    "AP50 against energy",
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


def may_be_empty(line: str, *, host: bool, afterwards: bool = True) -> bool:
    """Whether a line of ``empty_queries`` is as it may be.

    Args:
        host: it is of a device without a board's sensors.
        afterwards: it was asked for after the run alone; False: during the run too.
    """
    panel = line.partition(" (")[0]
    title = panel.partition(" / ")[2]
    excused = {*MAY_BE_EMPTY, *(EMPTY_AFTERWARDS if afterwards else ())}
    return bool({panel, title} & excused) or (host and title in BOARDS_ALONE)


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


def empty_queries(server: Prometheus, minutes: float) -> tuple[int, list[str]]:
    """How many queries were asked, and which had no data."""
    found = answers(server, minutes)
    return len(found), [about for about, there in found.items() if not there]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--minutes", type=float, default=30.0, help="how far back data count (30)")
    parser.add_argument("--host", action="append", default=[], help="a device without a board's sensors")
    arguments = parser.parse_args()
    asked, empty = empty_queries(Prometheus(arguments.url), arguments.minutes)
    wrong = []
    for line in empty:
        if may_be_empty(line, host=any(f"device={host}" in line for host in arguments.host)):
            print(f"empty, as it may be: {line}")
        else:
            wrong.append(line)
    print(f"{asked} queries asked, {len(empty)} without data")
    if wrong:
        sys.exit("no data:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
