"""Previews show every panel of every dashboard as Grafana would merge and name its data, and say what they are."""

from __future__ import annotations

import doctest
import html
import re
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vl_convert

sys.path.append(str(Path(__file__).resolve().parents[2] / "grafana"))
import drawing
import previews
from queries import pages, panels

END_S = 1_700_000_000.0
SPAN_S = (END_S - 600, END_S)
LABELS = {
    **dict.fromkeys(("detector", "cell"), "toy"),
    "precision": "fp16",
    "device": "orin",
    "shown": "orin (simulated)",
    "simulated": "true",
    "state": "running",
    "zone": "cpu-thermal",
    "clock": "gpu",
    "gpu": "gpu",
    "rail": "VDD_IN",
    "kind": "passive",
    "queue": "evaluate",
    "outcome": "ok",
    "name": "Orin Nano",
    "fan": "fan",
    "job": "device",
    "instance": "one",
    "volume": "state",
}


class Answering:
    """What a Prometheus answers whose every series is at 2 from begin to end, with a hole of two minutes."""

    def __init__(self, *, empty: bool = False) -> None:
        self._empty = empty

    def values(self, query: str) -> list[str]:
        return [LABELS[query.rpartition(" ")[2].rstrip(")")]]

    def _labels(self, expr: str) -> Iterator[dict[str, str]]:
        if self._empty:
            return
        if "by (le)" in expr:
            yield from ({"le": bound} for bound in ("0.001", "0.002", "+Inf"))
        else:
            yield LABELS

    def instant(self, expr: str, time_s: float) -> list[dict[str, Any]]:
        return [{"metric": labels, "value": [time_s, "2"]} for labels in self._labels(expr)]

    def range(self, expr: str, begin_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        moments = [begin_s + step_s * number for number in range(int((end_s - begin_s) / step_s))]
        points = [[at, "2"] for at in moments if not begin_s + 200 < at < begin_s + 320]
        return [{"metric": labels, "values": points} for labels in self._labels(expr)]


def drawn(panel: dict[str, Any], *answers: list[drawing.Series]) -> drawing.Drawn:
    return drawing.Drawn(panel, answers, [], SPAN_S, 400.0, 200.0)


def series(values: list[float], name: str = "a", step_s: float = 5.0, **labels: str) -> drawing.Series:
    return drawing.Series(name, labels, [SPAN_S[0] + step_s * number for number in range(len(values))], values)


@pytest.mark.parametrize("name", sorted(pages()))
@pytest.mark.parametrize("empty", [False, True])
def test_every_panel_is_drawn_and_the_picture_says_what_it_is(name: str, empty: bool) -> None:
    page = pages()[name]
    svg = previews.page_as_svg(page, {}, Answering(empty=empty), SPAN_S)
    tree = xml.etree.ElementTree.fromstring(svg)
    texts = {text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {panel["title"].replace("$device", "orin") for panel in panels(page)} <= texts
    assert any("preview, drawn from Prometheus' answers; Grafana itself was not run" in str(text) for text in texts)
    assert "SIMULATED: orin. Nothing that a simulated board shows was measured." in texts
    identifiers = re.findall(r'\bid="([^"]+)"', svg)
    assert len(set(identifiers)) == len(identifiers)
    assert vl_convert.svg_to_png(svg, scale=1).startswith(b"\x89PNG")


def test_repeated_panel_is_drawn_once_for_each_value_side_by_side() -> None:
    class Three(Answering):
        def values(self, query: str) -> list[str]:
            return ["host", "nano", "orin", "pi"] if query.endswith("device)") else super().values(query)

    page = pages()["compare"]
    (panel,) = [panel for panel in panels(page) if "repeat" in panel]
    drawn_once = list(previews.repeated(page, panel, {"detector": "toy", "device": ".+", "precision": ".+"}, Three()))
    places = [(of["device"], each["gridPos"]["x"], each["gridPos"]["w"]) for each, of in drawn_once]
    assert places == [("host", 0, 8), ("nano", 8, 8), ("orin", 16, 8), ("pi", 0, 8)]
    assert drawn_once[3][0]["gridPos"]["y"] == panel["gridPos"]["y"] + panel["gridPos"]["h"]
    chosen = list(previews.repeated(page, panel, {"detector": "toy", "device": "nano", "precision": ".+"}, Three()))
    assert [(of["device"], each["gridPos"]["w"]) for each, of in chosen] == [("nano", 24)]
    texts = previews.page_as_svg(page, {}, Three(), SPAN_S)
    assert [f"Median latency by histogram, live: {name}" in texts for name in ("host", "nano", "orin", "pi")] == [
        True
    ] * 4


def test_units_and_colours() -> None:
    assert doctest.testmod(drawing).failed == 0
    panel = {
        "fieldConfig": {
            "defaults": {"thresholds": {"steps": [{"value": None, "color": "b"}, {"value": 5, "color": "o"}]}}
        }
    }
    assert [drawn(panel).said(value)[1] for value in (-1.0, 4.9, 5.0)] == ["b", "b", "o"]
    over = [
        {
            "matcher": {"id": "byRegexp", "options": f"/^(?:{pattern})$/"},
            "properties": [{"id": "color", "value": {"fixedColor": colour}}],
        }
        for pattern, colour in (("fp.*", "first"), ("fp16", "last"))
    ]
    panel = {"fieldConfig": {"overrides": over}}
    assert [drawn(panel).colour(name, 0) for name in ("fp32", "fp16", "other")] == ["first", "last", drawing.CLASSIC[0]]


def test_merge_joins_what_is_alike_in_every_shared_column() -> None:
    panel = {
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value #B": "AP"}}},
        ]
    }
    first, second = [series([1.0], cell="a"), series([2.0], cell="b")], [series([0.5], cell="b")]
    assert drawing.rows_of(drawn(panel, first, second)) == [
        {"cell": "a", "Value #A": 1.0},
        {"cell": "b", "Value #A": 2.0, "AP": 0.5},
    ]
    named = [series([0.5], cell="b", __name__="ap")], [series([2.0], cell="b", __name__="latency")]
    assert len(drawing.rows_of(drawn(panel, *named))) == 2
    without = [*first, series([3.0], cell="c")], [], second
    assert [row["cell"] for row in drawing.rows_of(drawn(panel, *without))] == ["a", "b", "c"]


def test_points_that_stand_out_are_told_apart_and_named() -> None:
    (panel,) = [panel for panel in panels(pages()["overview"]) if panel["type"] == "xychart"]
    latency = [series([0.02], cell="first"), series([0.03], cell="second")]
    ap = [series([0.3], cell="first"), series([0.2], cell="second")]
    svg = drawing.xychart(drawn(panel, latency, ap, ap[:1]))
    assert {"first", "second", "every cell that is done", "on its device's Pareto front"} <= {
        html.unescape(words) for words in re.findall(r">([^<>]+)</text>", svg)
    }
    assert (svg.count("#E69F00"), svg.count("#0072B2")) == (2, 3)  # the points, and their keys in the legend
    assert svg.count(">first</text>") == 1


def test_rows_to_be_read_from_afar_are_higher() -> None:
    tables = {panel["title"]: panel for panel in panels(pages()["overview"]) if panel["type"] == "table"}
    many = [series([1.0], cell=f"cell {n}", precision="fp16", state="ok") for n in range(20)]
    left = {}
    for title, panel in tables.items():
        (more,) = re.findall(r">(\d+) more …</text>", drawing.table(drawn(panel, many)))
        left[title] = 20 - int(more)
    assert left == {"Cells": 4, "What cells came to, the most accurate first": 5, "Alerts that fire": 6}


def test_legend_names_every_line_however_many() -> None:
    names = [f"a thermal zone, number {number}" for number in range(9)]
    for many in (True, False):
        title = "Temperature, and the board's own trip points" if many else "Power of parts"
        (panel,) = [each for each in panels(pages()["device"]) if each["title"] == title]
        svg = drawing.timeseries(drawn(panel, [series([20.0, 21.0], name=name) for name in names]))
        assert all(f">{name}  21 {'°C' if many else 'W'}</text>" in svg for name in names)


def test_counts_have_the_colour_of_their_range_and_are_written() -> None:
    (panel,) = [each for each in panels(pages()["pipeline"]) if each["title"] == "Messages that wait"]
    said = [drawn(panel).said(value) for value in (0.0, 1.0, 4.0, 5.0, 24.0, 25.0, 4000.0)]
    assert [words for words, _ in said] == ["0", "1", "4", "5", "24", "25", "4000"]
    colours = [colour for _, colour in said]
    assert colours == ["#5A5A5A", "#56B4E9", "#56B4E9", "#0072B2", "#0072B2", "#E69F00", "#E69F00"]


def test_a_gap_is_a_gap() -> None:
    one = drawing.Series("a", {}, [0.0, 5.0, 15.0, 31.0], [1.0, 1.0, 1.0, 1.0])
    pieces = [point["piece"] for point in drawing._points(one, 1.0)]
    assert [pieces[0] == pieces[1] == pieces[2], pieces[2] == pieces[3]] == [True, False]


def test_what_is_no_number_is_left_out() -> None:
    found = {"metric": {"zone": "cpu"}, "values": [[1, "2.5"], [2, "NaN"], [3, "+Inf"]]}
    assert previews.series_of(found, "{{zone}} °C") == drawing.Series("cpu °C", {"zone": "cpu"}, [1.0], [2.5])


def test_buckets_are_what_fell_into_each(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(drawing, "chart", lambda *words, **spec: told.update(spec) or "")
    buckets = [series([count], le=bound) for bound, count in (("+Inf", 9.0), ("0.001", 4.0), ("0.002", 4.0))]
    drawing.heatmap(drawn({"type": "heatmap"}, buckets))
    assert {(row["name"], row["n"]) for row in told["data"]["values"]} == {("1 ms", 4.0), ("+Inf", 5.0)}
