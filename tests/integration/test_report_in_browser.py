"""The report as people meet it: in a real Chromium, with 200 cells, by day and by night, on a phone, on paper."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgejoule.records import Results
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.exports import rows_table, to_csv
from edgejoule_analyst.report import render_report
from edgejoule_analyst.words import row_name

expect = pytest.importorskip("playwright.sync_api").expect
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; CHROMIUM may name one"),
    pytest.mark.timeout(240),
]


def _synthetic() -> Any:
    """The made-up cells of the analyst's tests."""
    name = "analyst_cells"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "unit" / "analyst" / "conftest.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """200 cells: four devices, two of them simulated, 25 models, an unsupported one among the variants."""
    made = _synthetic()
    few = [
        replace(cell, model=model, device=device, simulated=device.startswith("sim"), power_w=power_w)
        for device, power_w in (("host", None), ("sim-nano", 4.0))
        for model in ("nanodet_m", "yolov5s")
        for cell in (made.FP32, made.FP16, made.INT8, made.QAT)
    ]
    small = made.analyzed(few, tmp_path_factory.mktemp("few"))[0]
    rows, evidence = list(small.rows), dict(small.evidence)
    while len(rows) < 200:  # copies with figures of their own; resampling 200 would only take time
        number = len(rows)
        source = small.rows[number % len(small.rows)]
        latency = source.latency_ms and source.latency_ms.model_copy(update={"mean": source.latency_ms.mean + number})
        fps = None if latency is None else 1000 / latency.mean
        row = source.model_copy(update={"model": f"model_{number}", "latency_ms": latency, "fps": fps, "pareto": None})
        row = row.model_copy(update={"absent": {**row.absent, "pareto": "made up"}})
        rows.append(row)
        evidence[row_name(row)] = small.evidence[row_name(source)]
    return small.model_copy(update={"rows": rows, "evidence": evidence})


@pytest.fixture(scope="module")
def page_file(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(results), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any, page_file: Path) -> Iterator[Any]:
    """``visit(**how)``: the report in a window of its own. At the end nothing was asked of a network or went wrong."""
    opened, wrong = [], []

    def visit(**how: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **how})
        page = context.new_page()
        opened.append(context)
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(page_file.as_uri())
        return page

    yield visit
    for context in opened:
        context.close()
    assert wrong == []


def column(page: Any, number: int) -> list[str]:
    """What the visible rows have in a column, as they sort."""
    return page.evaluate(
        "n => [...document.querySelectorAll('#matrix tbody tr')].filter(row => !row.hidden)"
        ".map(row => row.cells[n]?.dataset.value ?? '')",
        number,
    )


def test_matrix_sorts_both_ways_and_leaves_what_nobody_measured_last(visit, results) -> None:
    page = visit()
    heading = page.locator("#matrix thead th").nth(4)
    for direction, reverse in (("ascending", False), ("descending", True)):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == direction
        found = column(page, 4)
        measured = [float(value) for value in found if value]
        assert measured == sorted(measured, reverse=reverse)
        assert sorted(measured) == sorted(row.latency_ms.mean for row in results.rows if row.latency_ms)
        assert set(found[len(measured) :]) == {""}
    page.locator("#matrix thead th").nth(0).get_by_role("button").press("Enter")
    assert column(page, 0) == sorted(column(page, 0), key=str.lower)


def test_matrix_filters_by_words_and_choices_and_saves_what_is_left(visit, results) -> None:
    page = visit()
    assert page.locator("#count").inner_text() == "200 rows"
    page.get_by_label("Find").fill("YOLO int8")
    page.get_by_label("Device").select_option("sim-nano")
    wanted = [
        row_name(row)
        for row in results.rows
        if "yolo" in row.model and "int8" in row.variant and row.device == "sim-nano"
    ]
    assert column(page, 0) == wanted
    assert page.locator("#count").inner_text() == f"{len(wanted)} of 200 rows"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    saved = Path(download.value.path()).read_text(encoding="utf-8")
    head, *lines = rows_table(results)
    assert saved == to_csv([head, *(line for line in lines if line[0] in wanted)])
    assert [line["row"] for line in csv.DictReader(io.StringIO(saved))] == wanted
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#count")).to_have_text("200 rows")


def test_figure_under_the_pointer_says_where_it_comes_from(visit, results) -> None:
    page = visit()
    row = results.rows[0]
    page.locator("#matrix tbody tr").nth(0).locator("td[data-figure=latency]").first.hover()
    page.wait_for_selector("#card:not([hidden])")
    told = page.locator("#card").inner_text()
    assert row.hashes.engine[:12] in told
    assert "3 trials" in told
    assert "scored by" not in told
    page.locator("#matrix tbody tr").nth(0).locator("td[data-figure=accuracy]").first.hover()
    expect(page.locator("#card")).to_contain_text("scored by")
    page.get_by_label(f"Where {row_name(row)} comes from").first.click()
    shown = page.locator("#about-1")
    assert shown.is_visible()
    assert row.hashes.weights[:12] in shown.inner_text()
    page.keyboard.press("Escape")
    assert not shown.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_comes_alive_and_nothing_serious_hinders_anyone(visit, results, scheme) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(color_scheme=scheme)
    figures = page.locator("figure[data-chart]")
    assert figures.count() == len(all_charts(results))
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
    expect(page.locator("figure.is-live")).to_have_count(figures.count())
    found = Axe().run(page).response["violations"]
    assert [broken["id"] for broken in found if broken["impact"] in ("serious", "critical")] == []
    page.get_by_role("button", name="Light / dark").click()
    assert page.locator("html").get_attribute("data-theme") == ("dark" if scheme == "light" else "light")


def test_chart_is_saved_as_a_picture(visit) -> None:
    page = visit()
    figure = page.locator("figure[data-chart]").first
    figure.scroll_into_view_if_needed()
    figure.locator("summary").click()
    with page.expect_download() as download:
        figure.get_by_text("Save as PNG").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    assert download.value.suggested_filename.startswith("synthetic-pareto")


def test_paper_shows_the_drawn_charts_by_day(visit) -> None:
    page = visit(color_scheme="dark")
    page.locator("figure[data-chart]").first.scroll_into_view_if_needed()
    page.wait_for_selector("figure.is-live")
    page.emulate_media(media="print")
    assert page.locator("figure.is-live .drawn").first.is_visible()
    assert not page.locator("figure.is-live .live").first.is_visible()
    assert not page.locator("#controls").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 36, 48)"
    assert page.pdf().startswith(b"%PDF")


def test_phone_needs_no_scrolling_sideways(visit) -> None:
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True)
    figures = page.locator("figure[data-chart]")
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_page_without_scripts_still_shows_everything(visit, results) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator("#matrix tbody tr").count() == len(results.rows)
    assert page.locator(".drawn").first.is_visible()
    assert not page.locator("#controls").is_visible()
    assert not page.locator("#theme").is_visible()
