"""Our pages as people meet them: in a real Chromium, by day and by night, on a phone, on paper.

The report of 200 cells, the page of what the paper claims, and that of two runs side by side.
"""

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
from edgejoule_analyst import claims_charts
from edgejoule_analyst.charts import all_charts, rank
from edgejoule_analyst.claims import load_known, load_paper
from edgejoule_analyst.claims_page import render_claims
from edgejoule_analyst.comparison_page import render_comparison
from edgejoule_analyst.exports import rows_table, to_csv
from edgejoule_analyst.figures import METRICS
from edgejoule_analyst.regression import Gate, compare
from edgejoule_analyst.report import render_report
from edgejoule_analyst.words import row_name

SHA256 = "5" * 64

expect = pytest.importorskip("playwright.sync_api").expect
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
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
    """200 cells: two devices, one of them simulated; an unsupported variant; INT8 by several seeds on the host."""
    made = _synthetic()
    seeds = {"int8-ptq": (0.004, -0.003), "int8-qat": (0.002, 0.001)}
    few = [
        replace(
            cell,
            model=model,
            device=device,
            simulated=device.startswith("sim"),
            power_w=power_w,
            by_seed=seeds.get(cell.variant, ()) if device == "host" else (),
        )
        for device, power_w in (("host", None), ("sim-nano", 4.0))
        for model in ("nanodet_m", "yolov5s")
        for cell in (made.FP32, made.FP16, made.INT8, made.QAT)
    ]
    return made.multiplied(made.analyzed(few, tmp_path_factory.mktemp("few"))[0], 200)


DETECTORS = (
    ("ssd_mobilenet_v2", 2.1, 0.8),
    ("ssdlite_mobilenet_v3", 1.7, 0.6),
    ("yolov5s", 4.2, 8.2),
    ("efficientdet_d0", 5.5, 2.5),
    ("nanodet_m-320", 1.0, 0.36),
    ("nanodet_m-416", 1.7, 0.61),
)
"""What a spec of all five makes, one of them at two input sizes: name, times as slow as NanoDet-m, GMACs."""
NO_INT8 = ("unsupported", "this GPU (compute capability 5.3) does not multiply 8 bits")


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Five detectors in four precisions on this host, and on a simulated board that has no INT8."""
    made = _synthetic()
    fp16 = replace(made.FP32, variant="fp16", precision="fp16", latency_ms=7.6, size_mb=2.0)
    cells = [
        replace(
            cell,
            model=model,
            device=device,
            latency_ms=cell.latency_ms * slower,
            size_mb=cell.size_mb * slower,
            gmacs=gmacs,
            side=416 if model.endswith("-416") else 320,
            skill=cell.skill - 0.04 * number,
            simulated=device != "host",
            power_w=None if device == "host" else 4.0 + 0.2 * number,
            ended={"build": NO_INT8} if device != "host" and cell.precision == "int8" else cell.ended,
        )
        for device in ("host", "sim-jetson-nano")
        for number, (model, slower, gmacs) in enumerate(DETECTORS)
        for cell in (made.FP32, made.FP16 if device == "host" else fp16, made.INT8, made.QAT)
    ]
    return made.analyzed(cells, tmp_path_factory.mktemp("detectors"))[0]


@pytest.fixture(scope="module")
def pages(results: Results, detectors: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of our pages, by what it is of."""
    few = results.model_copy(update={"rows": results.rows[:8]})
    slower = {
        name: found.model_copy(update={"trial_means_ms": [1.2 * ms for ms in found.trial_means_ms]})
        for name, found in few.evidence.items()
    }
    later = few.model_copy(update={"run": "later", "evidence": slower})
    answer = compare(few, later, [Gate.parse("latency:5%")], 0.95, lambda cell, metric: "no store was asked")
    texts = {
        "report": render_report(results, SHA256),
        "detectors": render_report(detectors, SHA256),
        "claims": render_claims(load_paper(), load_known()),
        "comparison": render_comparison(few, later, answer),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """``visit(of, **how)``: a page in a window of its own. At the end nothing was asked of a network or went wrong."""
    opened, wrong = [], []

    def visit(of: str = "report", **how: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **how})
        page = context.new_page()
        opened.append(context)
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(pages[of].as_uri())
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


def all_alive(page: Any) -> Any:
    """Every chart of a page, when each is live; on the page that lets choose, all are."""
    if page.locator("#choose").count():
        page.locator("#choose select").select_option("")
    figures = page.locator("figure[data-chart]")
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
    expect(page.locator("figure.is-live")).to_have_count(figures.count())
    return figures


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
    page.get_by_role("button", name="Latency, ms").click()
    page.get_by_role("button", name="Latency, ms").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    saved = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [line["row"] for line in saved] == column(page, 0), "in the order on the page"


def test_comparison_saves_the_lines_that_are_left_though_names_repeat(visit) -> None:
    page = visit("comparison")
    choice = page.locator("select[name=verdict]")
    verdict = choice.locator("option").nth(1).inner_text()
    choice.select_option(verdict)
    left = page.locator("#matrix tbody tr:visible").count()
    assert 0 < left < page.locator("#matrix tbody tr").count()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    saved = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [line["verdict"] for line in saved] == [verdict] * left


def test_wheel_over_a_chart_scrolls_the_page(visit) -> None:
    page = visit()
    figure = page.locator("figure[data-chart]").first
    figure.scroll_into_view_if_needed()
    page.wait_for_selector("figure.is-live")
    box = figure.locator(".live svg.marks").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = page.evaluate("window.scrollY")
    page.mouse.wheel(0, 120)
    page.wait_for_function("before => window.scrollY > before", arg=before)


def test_live_chart_has_the_words_of_the_drawn_one(visit) -> None:
    page = visit()
    figure = page.locator("figure[data-chart]").first
    figure.scroll_into_view_if_needed()
    page.wait_for_selector("figure.is-live")
    words = figure.locator(".drawn").get_attribute("aria-label")
    assert figure.locator(f'.live [aria-label="{words}"]').count() == 1


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
    assert shown.evaluate("shown => shown === document.activeElement")
    found = Axe().run(page).response["violations"]
    assert [broken["id"] for broken in found if broken["impact"] in ("serious", "critical")] == []
    page.keyboard.press("Escape")
    assert not shown.is_visible()


@pytest.mark.parametrize("of", ["report", "claims", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_comes_alive_and_nothing_serious_hinders_anyone(visit, results, of, scheme) -> None:
    page = visit(of, color_scheme=scheme)
    figures = all_alive(page)
    if of != "comparison":
        assert figures.count() == len(all_charts(results) if of == "report" else claims_charts.CHARTS)
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


@pytest.mark.parametrize("of", ["report", "claims", "comparison"])
def test_paper_shows_the_drawn_charts_by_day(visit, of) -> None:
    page = visit(of, color_scheme="dark")
    page.locator("figure[data-chart]").first.scroll_into_view_if_needed()
    page.wait_for_selector("figure.is-live")
    page.emulate_media(media="print")
    assert page.locator("figure.is-live .drawn").first.is_visible()
    assert not page.locator("figure.is-live .live").first.is_visible()
    assert not page.locator("#controls").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 36, 48)"
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("of", ["report", "claims", "comparison"])
def test_phone_needs_no_scrolling_sideways(visit, of) -> None:
    page = visit(of, viewport={"width": 360, "height": 740}, has_touch=True)
    all_alive(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_charts_name_every_detector_in_full_in_legend_axis_and_tooltip(visit, detectors) -> None:
    page = visit("detectors")
    all_alive(page)
    assert page.locator(".live svg text").filter(has_text="…").count() == 0
    for chart in all_charts(detectors):
        models = {value["model"] for value in chart.spec["data"]["values"] if "model" in value}
        told = page.locator(f"#figure-{chart.name} .live .role-legend-label text").all_text_contents()
        encodings = [
            layer["encoding"].get(name, {}) for layer in chart.spec["layer"] for name in ("shape", "strokeDash")
        ]
        if any(encoding.get("field") == "model" for encoding in encodings):
            assert [told.count(model) for model in models] == [1] * len(models), chart.name
    names = page.locator("#figure-real-time-host .live .role-axis-label text").all_text_contents()
    bars = page.locator("#figure-real-time-host .live path[aria-roledescription=bar]")
    rows = [name for name in names if " " in name]
    assert len(rows) == bars.count() == 3 * len(DETECTORS)
    for number, row in enumerate(rows):
        bars.nth(number).hover()
        expect(page.locator("#vg-tooltip-element")).to_contain_text(row)


def test_a_model_at_two_input_sizes_is_two_models_on_the_chart_of_models(visit) -> None:
    page = visit("detectors")
    all_alive(page)
    figure = page.locator("#figure-characteristics")
    names = figure.locator(".live .role-legend-label text").all_text_contents()
    assert [name for name in names if name[0].isalpha()] == [name for name, *_ in DETECTORS]
    marks = figure.locator(".live path[aria-roledescription=point]")
    told = marks.evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert sorted(label.partition("model: ")[2].partition(";")[0] for label in told) == sorted(names[-len(DETECTORS) :])
    line = page.get_by_role("region", name="What the models are").get_by_role("row").filter(has_text="nanodet_m-416")
    assert line.get_by_role("cell").all_inner_texts() == ["0.95", "416 × 416", "0.61", f"{0.61e6 / 416**2:.2f}"]


def test_ranking_follows_the_readers_weights_and_paper_has_them(visit, detectors) -> None:
    page = visit("detectors")
    form = page.get_by_role("form", name="Weights, host")
    place = page.locator("[data-weigh]").first
    table = page.get_by_role("region", name="Ranking by your own weights, host")
    ranked = rank(detectors, "host", [row for row in detectors.rows if row.device == "host"])
    assert form.get_by_role("slider").count() == len(ranked.metrics)

    def shown() -> list[list[str]]:
        lines = table.locator("tbody tr:visible")
        return [
            [cell.strip() for cell in line.all_inner_texts()]
            for line in (lines.nth(number).locator("th, td") for number in range(lines.count()))
        ]

    equal = shown()
    assert len(equal) == min(10, len(ranked.shares))
    for number, metric in enumerate(ranked.metrics):
        form.get_by_label(METRICS[metric].title, exact=True).fill("100" if number == 0 else "0")
    best = sorted(ranked.normalized.values(), key=lambda figures: -figures[0])
    assert [line[1] for line in shown()] == [f"{figures[0]:.2f}" for figures in best[:10]]
    expect(place.locator("p").first).to_contain_text("AP50 100 %, mean latency 0 %")
    form.get_by_label(METRICS[ranked.metrics[0]].title, exact=True).fill("0")
    expect(place.locator("p").first).to_have_text("Give at least one figure a weight above 0.")
    form.get_by_role("button", name="Equal weights").click()
    expect(place.locator("p").first).to_contain_text(f"AP50 {100 / len(ranked.metrics):.0f} %")
    assert shown() == equal
    page.emulate_media(media="print")
    assert not form.is_visible()
    assert place.locator("p").first.is_visible()


def test_chart_of_layers_tells_each_by_name_and_the_table_leads_to_it(visit, detectors) -> None:
    page = visit("detectors")
    all_alive(page)
    page.get_by_role("region", name="Quantization error by layer").get_by_role("link", name="yolov5s").first.click()
    figure = page.locator("#figure-layers-yolov5s")
    assert figure.evaluate("one => one.getBoundingClientRect().top") < 900
    marks = figure.locator(".live g.mark-symbol.role-mark path")
    assert marks.count() == 2 * 2 * 11
    marks.last.hover()  # no other lies on it
    expect(page.locator("#vg-tooltip-element")).to_contain_text("block.12.conv")


def test_board_without_int8_says_so_and_its_charts_say_simulated(visit, detectors) -> None:
    page = visit("detectors")
    all_alive(page)
    said = page.locator(".banner.unsupported, .banner").filter(has_text=NO_INT8[1]).inner_text()
    assert "int8-ptq of every model on sim-jetson-nano" in said
    for chart in all_charts(detectors):
        if chart.name.endswith("sim-jetson-nano"):
            assert page.locator(f"#figure-{chart.name} .live svg text").filter(has_text="SIMULATED").count() == 1


@pytest.mark.parametrize("of", ["detectors", "claims", "comparison"])
def test_phone_cuts_no_word_of_a_chart_off(visit, of) -> None:
    page = visit(of, viewport={"width": 390, "height": 844}, has_touch=True)
    all_alive(page)
    cut = page.evaluate(
        "[...document.querySelectorAll('figure.is-live')].flatMap(figure => {"
        "  const edge = figure.getBoundingClientRect();"
        "  return [...figure.querySelectorAll('.live svg text')].filter(text => {"
        "    const at = text.getBoundingClientRect();"
        "    return at.width && (at.left < edge.left || at.right > edge.right);"
        "  }).map(text => `${figure.dataset.chart}: ${text.textContent}`);"
        "})"
    )
    assert cut == []


def test_page_without_scripts_still_shows_everything(visit, results) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator("#matrix tbody tr").count() == len(results.rows)
    assert page.locator(".drawn").first.is_visible()
    assert not page.locator("#controls").is_visible()
    assert not page.locator("#theme").is_visible()


# --- what the paper claims ---


def test_claimed_rows_are_sorted_filtered_and_saved_each_labelled(visit) -> None:
    page = visit("claims")
    assert page.locator("#count").inner_text() == "15 rows"
    assert page.locator("#matrix tbody .tag").all_inner_texts() == ["claimed"] * 15
    page.get_by_role("button", name="Energy, mJ").click()
    energies = [float(value) for value in column(page, 8)]
    assert energies == sorted(float(row.energy_mj) for row in load_paper().efficiency.rows)
    page.get_by_role("button", name="Size, MB").click()
    assert column(page, 10)[-5:] == [""] * 5, "what is not printed is last"
    page.locator("#controls").get_by_label("Model").select_option("YOLOv5s")
    page.get_by_role("searchbox").fill("int8")
    assert sorted(column(page, 0)) == ["YOLOv5s/int8-ptq", "YOLOv5s/int8-qat"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    saved = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(line["label"], line["row"]) for line in saved] == [
        ("claimed", "YOLOv5s/int8-ptq"),
        ("claimed", "YOLOv5s/int8-qat"),
    ]
    assert "366.7 GFLOPS" in saved[0]["findings"]


def test_claimed_figure_under_the_pointer_tells_where_it_is_printed_and_what_is_found_of_it(visit) -> None:
    page = visit("claims")
    row = page.locator('#matrix tbody tr[data-row="YOLOv5s/int8-ptq"]')
    row.locator("td[data-figure=latency_ms]").hover()
    page.wait_for_selector("#card:not([hidden])")
    told = page.locator("#card").inner_text()
    assert told.startswith("YOLOv5s/int8-ptq claimed")
    assert "Table 7" in told
    assert "cannot be: YOLOv5s int8-ptq: 16.5 GFLOP / 45 ms = 366.7 GFLOPS" in told
    row.locator("td[data-figure=latency_ms] a").first.click()
    target = page.url.partition("#")[2]
    expect(page.locator(f"#{target}")).to_be_in_viewport()
    assert "YOLOv5s" in page.locator(f"#{target}").inner_text()


def test_phone_tells_whose_claimed_figures_these_are_however_far_they_are_scrolled(visit) -> None:
    page = visit("claims", viewport={"width": 390, "height": 500}, has_touch=True)
    page.get_by_label("What is printed of YOLOv5s/int8-qat").first.tap()
    shown = page.locator("[popover]:popover-open")
    for scrolled in (0, 9999):
        shown.evaluate("(it, to) => it.scrollTo(0, to)", scrolled)
        assert (shown.evaluate("it => it.scrollTop") > 0) == (scrolled > 0)
        expect(shown.locator("h3")).to_be_in_viewport(ratio=1)
        expect(shown.locator("h3")).to_have_text("YOLOv5s/int8-qat claimed")


def test_claims_table_keeps_its_rows_names_when_moved_on_a_phone(visit) -> None:
    page = visit("claims", viewport={"width": 390, "height": 844}, has_touch=True)
    scroll = page.locator(".scroll").filter(has=page.locator("#matrix"))
    scroll.evaluate("it => it.scrollTo(9999, 0)")
    name, last = (scroll.locator("tbody tr").first.locator(cell) for cell in ("th", "td >> nth=-1"))
    name.scroll_into_view_if_needed()
    assert scroll.evaluate("it => it.scrollLeft") > 0
    expect(last).to_be_in_viewport(ratio=1)
    expect(name).to_be_in_viewport(ratio=1)
    assert name.bounding_box()["x"] + name.bounding_box()["width"] <= last.bounding_box()["x"]


def test_claims_are_told_without_scripts_too(visit) -> None:
    page = visit("claims", java_script_enabled=False)
    assert page.locator("#matrix tbody tr").count() == 15
    assert page.locator(".finding").first.is_visible()
    assert not page.locator("#controls").is_visible()


# --- two runs side by side ---


def test_metric_of_the_changes_drawn_is_chosen_with_the_keyboard_alone(visit) -> None:
    page = visit("comparison")
    charts = page.locator("figure[data-metric]")
    metrics = [chart.get_attribute("data-metric") for chart in charts.all()]
    assert metrics[:2] == ["latency", "latency-p50"]
    assert [chart.is_visible() for chart in charts.all()] == [True] + [False] * (len(metrics) - 1)
    select = page.locator("#choose").get_by_label("Figure")
    select.focus()
    page.keyboard.press("ArrowDown")
    chosen = page.locator("figure[data-metric=latency-p50]")
    expect(chosen).to_have_class("is-live")
    assert [chart.get_attribute("data-metric") for chart in charts.all() if chart.is_visible()] == ["latency-p50"]
    expect(chosen.locator(".live")).to_be_visible()
    assert page.locator("figure[data-chart^=moves]").first.is_visible()
    page.keyboard.press("End")
    assert all(chart.is_visible() for chart in charts.all())


def test_all_changes_are_there_on_paper_and_without_scripts_whatever_was_chosen(visit) -> None:
    page = visit("comparison")
    page.locator("#choose select").select_option("size")
    page.emulate_media(media="print")
    assert all(chart.is_visible() for chart in page.locator("figure[data-metric]").all())
    assert not page.locator("#choose").is_visible()
    plain = visit("comparison", java_script_enabled=False)
    assert all(chart.is_visible() for chart in plain.locator("figure[data-metric] .drawn").all())
    assert not plain.locator("#choose").is_visible()
