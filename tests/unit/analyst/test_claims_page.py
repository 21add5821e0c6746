"""The page of a paper's claims: its figures as printed, each labelled, each with what the audit finds of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import vl_convert
from control_claims import control
from typer.testing import CliRunner

from edgejoule_analyst import audit, audit_commands, claims_charts, claims_page
from edgejoule_analyst.charts import REAL_TIME_FPS
from edgejoule_analyst.claims import load_known, load_paper
from edgejoule_analyst.drawing import draw

PAPER, KNOWN = load_paper(), load_known()
FINDINGS = audit.audit(PAPER, KNOWN)


@pytest.fixture(scope="module")
def text() -> str:
    return claims_page.render_claims(PAPER, KNOWN)


class Cells(HTMLParser):
    """The cells of the matrix, by row and column, each with its text and the findings it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[tuple[str, str], tuple[str, list[int]]] = {}
        self._row = self._at = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        attributes = dict(attrs)
        if tag == "tr":
            self._row = attributes.get("data-row", "")
        if tag == "td":
            self._at = attributes.get("data-figure", "")
            if self._row and self._at:
                self.found[self._row, self._at] = "", []
        if tag == "a" and self._row and self._at:
            self.found[self._row, self._at][1].append(int(attributes["href"].removeprefix("#finding-")))

    def handle_endtag(self, tag) -> None:
        if tag == "td":
            self._at = ""

    def handle_data(self, data) -> None:
        if self._row and self._at and not re.fullmatch(r"\s*(\[\d+\])?\s*", data):
            said, numbers = self.found[self._row, self._at]
            self.found[self._row, self._at] = said + data.strip(), numbers


def test_every_printed_figure_is_there_and_none_that_is_not_printed(text) -> None:
    cells = {place: said for place, (said, _) in Cells(text).found.items()}
    derived = {(row.model, row.variant): row for row in PAPER.efficiency.rows}
    expected = {}
    for (model, variant), row in PAPER.rows.items():
        name = f"{model}/{variant}"
        for column, std in (("ap50", row.ap50_std), ("latency_ms", row.latency_std_ms), ("power_w", row.power_std_w)):
            expected[name, column] = f"{getattr(row, column)} ± {std}"
        for column in ("fps", "dynamic_w", "energy_mj", "map_per_joule"):
            expected[name, column] = str(getattr(derived[model, variant], column))
        for column in ("size_mb", "to_fp32_pp", "to_ptq_pp"):
            if (value := getattr(row, column)) is not None:
                signed = f"{value:+}".replace("-", "−")
                expected[name, column] = signed if column.startswith("to_") else str(value)
    assert cells == expected
    assert ("YOLOv5s/int8-qat", "size_mb") not in cells  # Table 9 has no column of it


def test_figure_refers_to_what_the_audit_finds_of_it_and_a_sound_one_to_nothing(text) -> None:
    found = Cells(text).found
    titles = [finding.check for finding in audit.contradicted(FINDINGS)]

    def of(row: str, column: str) -> set[str]:
        return {titles[number - 1] for number in found[row, column][1]}

    assert of("YOLOv5s/int8-ptq", "latency_ms") == {"int8 hardware", "roofline", "identical latencies"}
    assert of("YOLOv5s/int8-ptq", "size_mb") == {"bytes per parameter"}
    assert of("SSD-Lite-MobileNetV3/int8-qat", "map_per_joule") == {"derived columns"}
    assert of("SSD-Lite-MobileNetV3/int8-qat", "to_ptq_pp") == {"differences"}
    assert "published accuracy" in of("YOLOv5s/fp32", "ap50")
    assert of("NanoDet-m/fp32", "map_per_joule") == set()
    for finding in FINDINGS:
        for line in finding.contradictions:
            for model, variant, column in line.of:
                if variant:
                    assert finding.check in of(f"{model}/{variant}", column), line


def test_every_reference_leads_to_a_finding_with_all_its_arithmetic(text) -> None:
    shown = re.sub(r"\s+", " ", text)
    numbers = {int(number) for number in re.findall(r'href="#finding-(\d+)"', text)}
    assert numbers == set(range(1, 1 + len(audit.contradicted(FINDINGS))))
    for number in numbers:
        assert text.count(f'id="finding-{number}"') == 1
    for finding in audit.contradicted(FINDINGS):
        for line in finding.contradictions:
            assert str(line.said).replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in shown


def test_every_row_every_chart_and_every_line_of_the_csv_says_claimed(text) -> None:
    assert "Claimed, not measured." in text
    assert text.count('<span class="tag claimed">claimed</span></small></th>') == 15 + 5
    for chart in claims_charts.all_charts(PAPER):
        assert "CLAIMED, NOT MEASURED" in draw(chart.spec, "svg").decode()
    head, *lines = claims_page._csv(list(claims_page._rows(PAPER, {})), PAPER)
    assert len(lines) == 15
    assert {line[head.index("label")] for line in lines} == {"claimed"}


def test_each_figure_of_the_paper_from_3_on_is_drawn_anew_from_its_tables() -> None:
    charts = {chart.paper: chart for chart in claims_charts.all_charts(PAPER)}
    assert set(charts) == {*range(3, 12), None}
    for chart in charts.values():
        vl_convert.vegalite_to_vega(chart.spec)
    printed = sorted(float(row.fps) for row in PAPER.efficiency.rows)
    assert sorted(value["fps"] for value in charts[7].spec["data"]["values"]) == printed
    reach = sum(fps >= REAL_TIME_FPS for fps in printed)
    assert charts[7].said.startswith(f"{reach} of 15 rows reach 30 FPS")
    on_front = {value["row"] for value in charts[6].spec["data"]["values"] if value["front"]}
    assert on_front == {  # by hand, from 7 to 142 ms: each is more accurate than all that are as fast
        *("NanoDet-m int8-qat", "SSD-Lite-MobileNetV3 int8-qat", "EfficientDet-D0 int8-qat"),
        *("YOLOv5s int8-qat", "YOLOv5s fp32"),
    }


def test_page_of_claims_that_agree_with_themselves_refers_to_nothing() -> None:
    text = claims_page.render_claims(*control())
    assert "0 of 28 checks find something" in text
    assert "#finding-" not in text
    assert all(not numbers for _, numbers in Cells(text).found.values())


def test_equal_claims_give_equal_pages(text) -> None:
    assert claims_page.render_claims(load_paper(), load_known()) == text


def test_command_writes_the_page(text, tmp_path) -> None:
    answer = CliRunner().invoke(audit_commands.app, ["paper", "--html", str(tmp_path / "paper.html")])
    assert answer.exit_code == 0
    assert (tmp_path / "paper.html").read_text(encoding="utf-8") == text
    assert f"Page: {tmp_path / 'paper.html'}" in answer.output
