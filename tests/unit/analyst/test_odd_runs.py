"""Tables, pictures and decisions of runs that are not as one imagines a run: huge, empty, equal, without any figure."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from edgejoule.errors import DataError
from edgejoule.records import Results
from edgejoule_analyst import exports
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.commands import read_results
from edgejoule_analyst.drawing import svg
from edgejoule_analyst.methods import bibtex, methods
from edgejoule_analyst.recommendation import Asked, candidates, recommend
from edgejoule_analyst.report import render_report
from edgejoule_analyst.rows import NO_RATE
from edgejoule_analyst.table import WIDTH, render_table
from edgejoule_analyst.words import row_name

SHA256 = "5" * 64

BOARD = {"device": "nano", "simulated": True, "power_w": 4.0}


def variants(made, **changes):
    return [replace(cell, **changes) for cell in (made.fp32, made.fp16, made.int8, made.qat)]


def several(made):
    """Two models on this host, on a board with power and on one that fell off the table."""
    gone = {"ended": {"benchmark": ("unreachable", "the board is out of reach")}}
    return [
        *variants(made),
        *variants(made, model="yolov5s", skill=0.6, latency_ms=30.0, contended=True),
        *variants(made, **BOARD),
        *variants(made, model="yolov5s", throttled="yes", **BOARD),
        *(replace(cell, device="lost", **gone) for cell in (made.fp32, made.int8)),
    ]


def batches(made):
    """By ones, fours and eights, where those of eight do not fit."""
    too_many = {"build": ("oom", "the board has 2 GB")}
    return [
        replace(cell, model=f"nanodet_m{'' if n == 1 else f'-b{n}'}", batch=n, latency_ms=ms, ended=ended, **BOARD)
        for n, ms, ended in ((1, 9.0, {}), (4, 20.0, {}), (8, 35.0, too_many))
        for cell in (made.fp32, made.int8)
    ]


def dominated(made):
    """One model that is faster and more accurate than all others."""
    others = [replace(made.fp32, model=f"m{n}", skill=0.6 - n / 50, latency_ms=20.0 + n) for n in range(4)]
    return [made.fp32, *others]


RUNS = {
    "300 rows of every kind": (several, 300),
    "several batches": (batches, None),
    "one detector": (lambda made: [made.fp32, made.int8, made.qat], None),
    "one row": (lambda made: [made.int8], None),
    "one device, 60 models": (lambda made: [made.fp32, made.int8], 120),
    "all but one dominated": (dominated, None),
    "all equal": (lambda made: [replace(made.fp32, model=f"m{n}", **BOARD) for n in range(4)], None),
    "nothing found, with joules": (lambda made: [replace(c, skill=0.0, **BOARD) for c in (made.fp32, made.int8)], None),
    "nothing measured": (lambda made: [made.fp16, made.failed], None),
    "not scored": (lambda made: [replace(made.fp32, ended={"score": ("failed", "no image could be read")})], None),
    "not timed": (lambda made: [replace(made.fp32, ended={"benchmark": ("oom", "the board has 2 GB")})], None),
}


@pytest.fixture(scope="module", params=list(RUNS))
def run(request, make_results) -> Results:
    make, count = RUNS[request.param]
    return make_results(make(make_results), count)


def test_page_and_files_stand_a_row_that_took_no_time(make_results) -> None:
    made = make_results([make_results.fp32, make_results.int8])
    first, other = made.rows
    still = first.latency_ms.model_copy(update=dict.fromkeys(("mean", "std", "p50", "p90", "p99"), 0.0))
    row = first.model_copy(update={"latency_ms": still, "fps": None, "absent": {**first.absent, "fps": NO_RATE}})
    evidence = made.evidence[row_name(row)].model_copy(
        update={"trial_means_ms": [0.0] * 3, "latency_curve_ms": [0.0] * 101}
    )
    results = made.model_copy(update={"rows": [row, other], "evidence": {**made.evidence, row_name(row): evidence}})
    page = render_report(results, SHA256)
    assert NO_RATE in page
    assert "speed was not compared" in page
    assert [chart for chart in all_charts(results) if chart.name == "real-time-host"]
    assert NO_RATE in exports.to_csv(exports.rows_table(results))


def dominates(other, row) -> bool:
    no_worse = other.ap >= row.ap and other.latency_ms.mean <= row.latency_ms.mean
    return no_worse and (other.ap > row.ap or other.latency_ms.mean < row.latency_ms.mean)


def test_front_is_what_nothing_else_of_its_device_beats(run) -> None:
    for row in run.rows:
        rivals = [other for other in run.rows if other.device == row.device and other.status == "ok"]
        expected = not any(dominates(other, row) for other in rivals) if row.status == "ok" else None
        assert row.pareto == expected, row_name(row)


def test_every_picture_draws_and_marks_each_row_that_has_its_figures(run) -> None:
    charts = {chart.name: chart for chart in all_charts(run)}
    for chart in charts.values():
        drawn = svg(chart.spec)
        assert "NaN" not in drawn, chart.name
        assert not re.search(r"\b(nan|None)\b", chart.said), chart.name
    for device in {row.device for row in run.rows}:
        rows = [row for row in run.rows if row.device == device]
        both = {(row.model, row.variant) for row in rows if row.ap is not None and row.latency_ms is not None}
        marks = charts[f"pareto-{device}"].spec["data"]["values"] if both else []
        assert {(mark["model"], mark["variant"]) for mark in marks} == both
        assert len(marks) == len(both)
        assert (f"pareto-{device}" in charts) == bool(both)


def test_page_has_every_row_and_no_word_of_a_program(run) -> None:
    text = re.sub(r"<script.*?</script>", "", render_report(run, SHA256), flags=re.DOTALL)
    matrix = text.partition('id="matrix"')[2].partition("</table>")[0]
    assert re.findall(r'<tr class="[^"]*" data-row="([^"]*)"', matrix) == [row_name(row) for row in run.rows]
    for row in run.rows:
        if row.status != "ok" and row.ap is None and row.latency_ms is None:
            assert row.reason in text
    assert not re.search(r">\s*(None|nan|inf|True|False)\b", text)


def test_terminal_has_every_row_in_100_columns(run) -> None:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(render_table(run.model_dump(mode="json")))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= WIDTH
    for model in {row.model for row in run.rows}:
        assert f"{model}/" in shown
    assert not re.search(r"\b(None|nan)\b", shown)


def test_files_for_a_paper_have_every_row(run) -> None:
    for name, (table, latex) in exports.TABLES.items():
        head, *lines = table(run)
        assert {len(line) for line in lines} <= {len(head)}, name
        assert "None" not in {cell for line in lines for cell in line}, name
        assert latex(run).partition(r"\bottomrule")[0].count(r"\\") == 1 + len(lines), name
    assert [line[0] for line in exports.rows_table(run)[1:]] == [row_name(row) for row in run.rows]
    assert methods(run).endswith(".")
    assert bibtex(run, SHA256).count("{") == bibtex(run, SHA256).count("}")


@pytest.mark.parametrize("objective", ["ap50", "latency", "fps", "map-per-joule"])
def test_recommendation_tells_of_every_row(run, objective) -> None:
    answer = recommend(run.run, candidates(run, 0.95), Asked([], objective, 0.95))
    assert [cell.name for cell in answer.cells] == [row_name(row) for row in run.rows]
    assert (answer.best is None) == ("best" in answer.absent)
    for cell in answer.cells:
        row = next(row for row in run.rows if row_name(row) == cell.name)
        assert (cell.verdict == "blocked") == (row.status != "ok")


def of_first_evidence(field: str, value: object):
    return lambda results: next(iter(results["evidence"].values())).update({field: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["rows"].append(r["rows"][0]), "row nanodet_m/fp32/host stands more than once"),
        (lambda r: r["differences"][0].update(against="x/y/z"), "differences names x/y/z, which is no row"),
        (lambda r: r["fronts"][0].update(rows=["x/y/z"]), "fronts names x/y/z, which is no row"),
        (lambda r: r["evidence"].update({"x/y/z": {}}), "evidence names x/y/z, which is no row"),
        (of_first_evidence("ap50_draws", [0.1, 0.2]), "2 percentiles where 101 are due"),
        (of_first_evidence("latency_curve_ms", [9.0] * 100), "100 percentiles where 101 are due"),
        (lambda r: r["rows"][0]["latency_ms"].update(mean=-3.0), "rows.0.latency_ms.mean: Input should be greater"),
    ],
)
def test_results_that_contradict_themselves_are_refused_with_what_is_wrong(usual, tmp_path, change, said) -> None:
    results = json.loads(usual[0].model_dump_json())
    change(results)
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(said)):
        read_results(tmp_path)


@pytest.mark.parametrize("evidence", [{}, {"nanodet_m/fp32/host": {}}])
def test_results_without_evidence_make_a_report_without_what_rests_on_it(make_results, tmp_path, evidence) -> None:
    results = json.loads(make_results([make_results.fp32]).model_dump_json()) | {"evidence": evidence}
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    read = read_results(tmp_path)
    assert "nanodet_m/fp32/host" in render_report(read, SHA256)
    assert not any(chart.name.startswith("latency-") for chart in all_charts(read))
