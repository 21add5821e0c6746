import io
import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
import typer
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from edgejoule.errors import DataError
from edgejoule.records import Results
from edgejoule_analyst.bootstrap import NO_EVIDENCE
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.commands import app, hash_of_results, read_results
from edgejoule_analyst.headline import Speed, comparisons, size_in_words, speed_in_words
from edgejoule_analyst.measurements import Cell, Ended, read_cell, read_ending
from edgejoule_analyst.report import in_short, render_report
from edgejoule_analyst.sensitivity import sensitivity_class
from edgejoule_analyst.significance import holm
from edgejoule_analyst.table import render_table
from edgejoule_analyst.words import row_name

SHA256 = "5" * 64

VOID = {"meta", "br", "img", "link", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Every tag, id and reference of a page; fails when tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def shown(results: Results, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render_table(results.model_dump(mode="json")))
    return console.file.getvalue()


# --- the report ---


def test_report_is_well_formed_and_every_reference_inside_it_leads_somewhere(usual) -> None:
    page = Page((usual[1] / "report").read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = [
        name
        for _, attributes in page.tags
        for key in ("aria-labelledby", "href")
        for name in attributes.get(key, "").replace("#", "").split()
    ]
    assert wanted
    assert set(wanted) <= set(ids)


def test_report_forbids_itself_to_load_anything(usual) -> None:
    page = Page((usual[1] / "report").read_text(encoding="utf-8"))
    (policy,) = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert not any("src" in attributes or tag == "link" for tag, attributes in page.tags)


def test_report_says_everything_without_its_scripts(usual) -> None:
    text = re.sub(r"<script.*?</script>", "", (usual[1] / "report").read_text(encoding="utf-8"), flags=re.DOTALL)
    drawn = Page(text)
    assert len([tag for tag, _ in drawn.tags if tag == "figure"]) == len(all_charts(usual[0]))
    for row in usual[0].rows:
        if row.ap is not None:
            assert f"{100 * row.ap:.1f}<small>" in text
            assert row.hashes.engine[:12] in text
    assert not re.search(r"url\((?!#)|@import", text)


def test_every_plot_says_in_words_what_it_shows(usual) -> None:
    page = Page((usual[1] / "report").read_text(encoding="utf-8"))
    drawn = [attributes for _, attributes in page.tags if attributes.get("class") == "drawn"]
    assert [attributes["role"] for attributes in drawn] == ["img"] * len(all_charts(usual[0]))
    for attributes, chart in zip(drawn, all_charts(usual[0]), strict=True):
        assert attributes["aria-label"] == f"{chart.title}. {chart.said}"


def test_report_says_the_answer_and_the_reasons(usual) -> None:
    text = (usual[1] / "report").read_text(encoding="utf-8")
    assert escape(comparisons(usual[0])[0].sentence) in text
    for said in ("unsupported", "disguise", "failed", "diverged", "RAPL", "not measured", "truncated JPEG"):
        assert said in text


def test_report_tells_the_facts_of_a_probe_one_by_one(usual) -> None:
    text = (usual[1] / "report").read_text(encoding="utf-8")
    assert "<dt>governor</dt><dd>not told</dd>" in text
    assert "<dt>processor</dt><dd>Example CPU (6/143/8)</dd>" in text


def test_rows_of_one_reason_are_told_as_the_group_that_they_are(usual) -> None:
    first = usual[0].rows[0]
    none = {"ap": None, "latency_ms": None}
    rows = [
        first.model_copy(update={"model": model, "variant": variant, "device": device, **figures})
        for device in ("host", "nano")
        for model in ("a", "b", "c")
        for variant, figures in (("fp32", {}), ("int8-ptq", none if device == "nano" else {}))
    ]
    names = {device: [row_name(row) for row in rows if row.device == device] for device in ("host", "nano")}
    int8 = [name for name in names["nano"] if "int8" in name]
    assert in_short(names["host"], rows) == "every row on host"
    assert in_short([*names["host"], *int8], rows) == "every row on host, int8-ptq of every model on nano"
    with_figures = [name for name in names["nano"] if name not in int8]
    assert in_short(with_figures, rows) == "every row with figures on nano"
    assert in_short(int8[:2], rows) == "a/int8-ptq/nano, b/int8-ptq/nano"


def test_report_of_a_quick_simulated_run_carries_both_banners(cells, analyze_cells) -> None:
    _, folder = analyze_cells(replace(cells.fp32, protocol="quick", simulated=True))
    text = (folder / "report").read_text(encoding="utf-8")
    assert "Not comparable." in text
    assert "Simulated." in text


def test_report_of_a_standard_run_carries_no_banner(cells, analyze_cells) -> None:
    _, folder = analyze_cells(cells.fp32)
    text = (folder / "report").read_text(encoding="utf-8")
    assert "Not comparable." not in text
    assert "Simulated." not in text


def test_report_escapes_what_it_did_not_write(cells, analyze_cells) -> None:
    results, folder = analyze_cells(replace(cells.fp16, ended={"build": ("failed", "<script>alert(1)</script>")}))
    assert "<script>alert" not in (folder / "report").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in render_report(results, SHA256)
    assert "\\u003cscript>alert" in render_report(results, SHA256), "in the data of the table"


def test_report_is_made_from_results_json_alone(usual) -> None:
    results, folder = usual
    again = Results.model_validate_json(results.model_dump_json())
    assert render_report(again, hash_of_results(folder / "results")) == (folder / "report").read_text(encoding="utf-8")


def test_report_tells_errors_by_size_at_the_operating_point(usual) -> None:
    results, folder = usual
    section = (folder / "report").read_text(encoding="utf-8").partition('aria-label="Errors by size"')[2]
    scored = [row for row in results.rows if row.operating_point]
    assert section.partition("</table>")[0].count('scope="rowgroup"') == len(scored) == 2
    small = scored[0].operating_point.by_size["small"]
    found = results.evidence[row_name(scored[0])].errors_by_size["small"]
    recall, wrong = found.recall, found.false_positives_per_image
    cells = f"<td>{small.objects}</td><td>{small.found}</td>"
    cells += f"<td>30.0<small>[{100 * recall.low:.1f}, {100 * recall.high:.1f}]</small></td><td>{small.shown}</td>"
    cells += f"<td>{small.false_positives}</td><td>0.80<small>[{wrong.low:.2f}, {wrong.high:.2f}]</small></td>"
    assert cells in section  # 64 wrong ones on 80 images
    assert "undefined" in section  # recall of no large objects


@pytest.mark.parametrize("missing", ["score", "benchmark"])
def test_report_stands_rows_that_were_measured_in_part(cells, analyze_cells, missing) -> None:
    for whole, partial in ((cells.fp32, cells.int8), (cells.int8, cells.fp32)):
        _, folder = analyze_cells(whole, replace(partial, ended={missing: ("failed", "a board fell off the table")}))
        text = (folder / "report").read_text(encoding="utf-8")
        Page(text)
        assert "a board fell off the table" in text


def test_report_stands_many_rows_and_two_devices(cells, analyze_cells) -> None:
    many = [
        replace(c, model=f"m{n}", device=d)
        for n in range(4)
        for d in ("host", "board")
        for c in (cells.fp32, cells.int8)
    ]
    _, folder = analyze_cells(*many)
    Page((folder / "report").read_text(encoding="utf-8"))


# --- words ---


@pytest.mark.parametrize(
    ("speed", "said"),
    [
        (Speed(1.3, 1.2, 1.4, 0.01, 0.02), "1.30× as fast (95 % interval 1.20× to 1.40×, p = 0.020 after Holm)"),
        (Speed(0.8, 0.7, 0.9, 0.01, 0.02), "0.80× as fast (95 % interval 0.70× to 0.90×, p = 0.020 after Holm)"),
        (
            Speed(1.3, 1.2, 1.4, 0.03, 0.06),
            "no evidence of a difference in speed (1.30×; 95 % interval 1.20× to 1.40×, p = 0.060 after Holm)",
        ),
        (Speed(1.3, None, None, None, None, "one trial"), "speed is not judged (1.30×): one trial"),
        ("no clock", "speed was not compared: no clock"),
    ],
)
def test_speed_in_words_is_sure_only_where_the_corrected_test_is(speed, said) -> None:
    assert speed_in_words(speed) == said


def test_speed_is_welchs_test_of_the_trials_logarithms_corrected_over_the_run(cells, make_results) -> None:
    results = make_results([cells.fp32, cells.int8, cells.qat])
    trials = {name: np.log(found.trial_means_ms) for name, found in results.evidence.items()}
    found = comparisons(results)
    theirs = [stats.ttest_ind(trials[c.ap.against], trials[c.ap.row], equal_var=False) for c in found]
    assert [c.speed.p for c in found] == pytest.approx([each.pvalue for each in theirs])
    assert [c.speed.p_holm for c in found] == holm([c.speed.p for c in found])
    for c, each in zip(found, theirs, strict=True):
        assert (c.speed.low, c.speed.high) == pytest.approx(tuple(np.exp(each.confidence_interval(0.95))))


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([6.8], "one trial does not tell how far another would differ"),
        ([6.8, 6.8], "the trials of each are alike to the last digit"),
    ],
)
def test_speed_of_one_trial_or_of_trials_alike_is_not_judged(cells, make_results, trials, said) -> None:
    results = make_results([cells.fp32, cells.int8])
    evidence = {
        name: found.model_copy(update={"trial_means_ms": trials if "int8" in name else [9.0] * len(trials)})
        for name, found in results.evidence.items()
    }
    results = results.model_copy(update={"evidence": evidence})
    (found,) = comparisons(results)
    assert (found.speed.verdict, found.speed.low, found.speed.value) == ("not judged", None, pytest.approx(9 / 6.8))
    assert f"speed is not judged (1.32×): {said}" in found.sentence
    Page(render_report(results, SHA256))


@pytest.mark.parametrize("hot", ["fp32", "int8"])
def test_speed_against_a_throttled_row_is_not_told(cells, analyze_cells, hot) -> None:
    pair = {name: replace(getattr(cells, name), throttled="yes" if name == hot else "no") for name in ("fp32", "int8")}
    results, folder = analyze_cells(*pair.values())
    (found,) = comparisons(results)
    said = f"speed was not compared: {pair[hot].name} is throttled: the device throttled in trial 0, 1, 2"
    assert said in found.sentence
    assert said.partition(": ")[2] in (folder / "report").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("size", "said"), [(3.5, "3.50× smaller"), (0.5, "2.00× larger"), (None, "size was not compared")]
)
def test_size_in_words_names_the_direction(size, said) -> None:
    assert size_in_words(size) == said


# --- the table ---


def test_table_fits_100_columns(cells, analyze_cells) -> None:
    results, _ = analyze_cells(
        cells.fp32,
        cells.int8,
        replace(cells.int8, model="a_model_with_a_very_long_name_indeed", device="jetson-orin-nano-8gb-number-2"),
    )
    assert max(map(len, shown(results, width=160).splitlines())) <= 100


def test_table_shows_status_reason_spread_and_interval(usual) -> None:
    text = " ".join(shown(usual[0]).split())
    for said in ("unsupported", "disguise", "diverged", "9.30 ± 0.20", "[−1.41, −0.45]", "★", "95 % interval"):
        assert said in text


def test_table_shows_energy_where_it_was_measured_in_place_of_frames_per_second(cells, analyze_cells) -> None:
    results, _ = analyze_cells(cells.fp32, replace(cells.int8, power_w=4.0))
    (row,) = (row for row in results.rows if row.energy_mj is not None)
    text = shown(results)
    assert f"{row.energy_mj:.1f} ± {row.energy_uncertainty_mj:.1f}" in text
    assert "mJ/image" in text
    assert "FPS" not in text
    assert "FPS" in shown(analyze_cells(cells.fp32)[0])


def test_table_tells_rows_of_batches_apart_and_their_energy_by_the_image(cells, analyze_cells) -> None:
    alone = replace(cells.fp32, power_w=4.0)
    four = replace(alone, model="nanodet_m-b4", batch=4, latency_ms=30.0)
    results, _ = analyze_cells(alone, four)
    text = " ".join(shown(results).split())
    one, many = results.rows
    assert "nanodet_m-b4/fp32" in text
    for row, share in ((one, one.energy_mj), (many, many.energy_mj / 4)):
        assert f"{row.latency_ms.mean:.2f} ± {row.latency_ms.std:.2f} {share:.1f} ± " in text
    assert "latency of rows -bN: of one inference, which takes N images" in text
    assert "-bN" not in shown(analyze_cells(alone)[0])


def test_table_of_a_quick_run_is_marked(cells, analyze_cells) -> None:
    assert "NOT COMPARABLE" in shown(analyze_cells(replace(cells.fp32, protocol="quick"))[0])


# --- the command ---


def edgejoule() -> typer.Typer:
    main = typer.Typer()
    main.add_typer(app, name="report")
    main.command("other")(lambda: None)
    return main


def test_command_writes_the_report_again_from_a_runs_folder(usual, tmp_path) -> None:
    (tmp_path / "results.json").write_bytes((usual[1] / "results").read_bytes())
    answer = CliRunner().invoke(edgejoule(), ["report", str(tmp_path), "--html", str(tmp_path / "again.html")])
    assert answer.exit_code == 0
    assert "nanodet_m/int8-ptq" in answer.output
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == (usual[1] / "report").read_text(encoding="utf-8")


def test_command_answers_json(usual) -> None:
    answer = CliRunner().invoke(edgejoule(), ["report", "--json", str(usual[1] / "results")])
    assert answer.exit_code == 0
    assert json.loads(answer.output) == json.loads((usual[1] / "results").read_bytes())


@pytest.mark.parametrize(
    ("content", "said"), [(None, "there is no"), ("{", "no results file"), ('{"format": 7}', "no results file")]
)
def test_command_says_what_is_wrong_with_its_file(tmp_path, content, said) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=said):
        read_results(tmp_path)


# --- the inputs ---


def test_outcome_file_is_told_from_blobs_that_begin_like_one(tmp_path) -> None:
    path = tmp_path / "input"
    path.write_text('{"outcome": "oom", "reason": "8 GB", "step": "build/x"}')
    assert read_ending(path) == Ended("oom", "8 GB", "build/x")
    for blob in (b"{\x00\xff binary", b'{"precision": "int8"}', b"PK\x03\x04"):
        path.write_bytes(blob)
        assert read_ending(path) is None


def test_record_that_is_none_is_named_with_its_file(usual, tmp_path) -> None:
    path = tmp_path / "record"
    path.write_text('{"precision": "int3"}')
    with pytest.raises(DataError, match=r"record is no ScoreRecord: accuracy: .*; run the step again"):
        read_cell(0, {"score-0": path}, quantized=False)


def test_cell_of_a_plan_reads_as_such() -> None:
    with pytest.raises(ValueError, match="extra"):
        Cell.model_validate({"name": "n", "extra": 1})


def test_many_comparisons_become_a_table_with_ptq_as_a_reference_of_qat(cells, analyze_cells) -> None:
    variants = (cells.fp32, cells.int8, cells.qat)
    models = ("nanodet_m", "yolov5s")
    lossy = replace(cells.int8, model="yolov5s", skill=0.5)
    results, folder = analyze_cells(
        *(
            lossy if (model, cell) == ("yolov5s", cells.int8) else replace(cell, model=model)
            for model in models
            for cell in variants
        )
    )
    pairs = {(d.row, d.against) for d in results.differences}
    for model in models:
        assert (f"{model}/int8-qat/host", f"{model}/fp32/host") in pairs
        assert (f"{model}/int8-qat/host", f"{model}/int8-ptq/host") in pairs
    assert len(pairs) == 6
    report = (folder / "report").read_text(encoding="utf-8")
    Page(report)
    assert report.count('<td class="text short">int8-ptq</td>') == 2
    lost_pp = [100 * (c.against.ap50 - c.row.ap50) for c in comparisons(results) if c.row.variant == "int8-ptq"]
    of_ptq = [c for c in comparisons(results) if c.sensitivity]
    assert "lower" in {c.ap50.verdict for c in of_ptq}
    classes = [sensitivity_class(pp) for pp in lost_pp]
    assert [c.sensitivity for c in of_ptq] == [
        of_loss if c.ap50.verdict == "lower" else "not shown" for c, of_loss in zip(of_ptq, classes, strict=True)
    ]
    assert all(f'<td class="text short">{c.sensitivity}</td>' in report for c in of_ptq)
    assert 'class="tiles' not in report
    assert "ΔAP" in shown(results)


@pytest.mark.parametrize(
    ("lost", "low", "high", "verdict", "said"),
    [
        (0.03, -0.07, 0.01, NO_EVIDENCE, "not shown"),
        (0.03, -0.05, -0.01, "lower", "High"),
        (0.002, -0.008, 0.004, NO_EVIDENCE, "Low"),
        (0.002, -0.016, 0.004, NO_EVIDENCE, "not shown"),
    ],
)
def test_sensitivity_is_shown_by_the_corrected_test_or_by_a_whole_interval(
    usual, lost, low, high, verdict, said
) -> None:
    (found,) = comparisons(usual[0])
    row = found.row.model_copy(update={"ap50": found.against.ap50 - lost})
    ap50 = found.ap50.model_copy(update={"difference": -lost, "low": low, "high": high, "verdict": verdict})
    assert replace(found, row=row, ap50=ap50).sensitivity == said


def test_what_several_rows_have_to_say_is_said_once(cells, analyze_cells) -> None:
    crowded = [replace(cells.fp32, model=model, contended=True) for model in ("nanodet_m", "yolov5s")]
    results, folder = analyze_cells(*crowded, *(replace(cells.fp16, model=cell.model) for cell in crowded))
    text = shown(results)
    assert text.count("contended:") == 1
    assert "nanodet_m/fp32/host and 1 more: contended" in text
    assert text.count("fp32 in disguise") == 1
    report = (folder / "report").read_text(encoding="utf-8")
    assert "<strong>nanodet_m/fp32/host, yolov5s/fp32/host</strong>: contended" in report
    assert "nanodet_m/fp16/host, yolov5s/fp16/host: unsupported." in report
