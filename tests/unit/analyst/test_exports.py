"""What a run leaves for a paper: tables whose figures are those of results.json, methods, BibTeX, files."""

import csv
import io
import re
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from edgejoule_analyst import commands, exports
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.methods import bibtex, methods
from edgejoule_analyst.report import render_report
from edgejoule_analyst.words import row_name


@pytest.fixture(scope="module")
def results(make_results):
    awkward = replace(make_results.int8, model="a_model,_with 50 % & a 'comma'", power_w=4.0, simulated=True)
    return make_results([make_results.fp32, make_results.fp16, make_results.int8, make_results.failed, awkward])


def test_csv_has_every_row_with_the_figures_of_results_json(results) -> None:
    read = list(csv.DictReader(io.StringIO(exports.to_csv(exports.rows_table(results)))))
    assert [line["row"] for line in read] == [row_name(row) for row in results.rows]
    for line, row in zip(read, results.rows, strict=True):
        for field in ("ap", "ap50", "size_mb", "energy_mj", "map_per_joule", "memory_peak_mb"):
            value = getattr(row, field)
            assert line[field] == "" if value is None else float(line[field]) == value
        if row.latency_ms:
            assert float(line["latency_p99_ms"]) == row.latency_ms.p99
        assert line["simulated"] == str(row.simulated).lower()


def test_csv_says_why_a_figure_is_missing(results) -> None:
    read = list(csv.DictReader(io.StringIO(exports.to_csv(exports.rows_table(results)))))
    assert "disguise" in read[1]["reason"]
    assert "energy_mj: " in read[0]["reason"]


def test_latex_has_as_many_cells_in_every_line_and_escapes_what_tex_would_read(results) -> None:
    for text in (exports.rows_latex(results), exports.differences_latex(results)):
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1))
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
        assert not any(re.search(r"(?<!\\)[_#]", line) for line in lines)
        assert text.isascii()
    assert r"a\_model,\_with 50 \% \& a 'comma'" in exports.rows_latex(results)
    assert "(simulated)" in exports.rows_latex(results)
    assert "% nanodet_m/fp16/host: unsupported:" in exports.rows_latex(results)


def test_methods_tell_what_the_record_tells(results, make_results) -> None:
    text = methods(results)
    for said in ("80 images", "3 trials", "2000 resamples", "simulated", "INT8 (post-training)", "openvino"):
        assert said in text, said
    assert "2 of 5 combinations have no result" in text
    quick = methods(make_results([replace(make_results.fp32, protocol="quick")]))
    assert "should not be quoted" in quick
    assert "Energy was not measured" in quick
    assert "simulated" not in quick


def test_run_without_rows_is_written_all_the_same(results) -> None:
    nothing = results.model_copy(update={"rows": [], "differences": [], "evidence": {}})
    assert "no rows" in methods(nothing)
    assert "had nothing to compare" in render_report(nothing)
    assert exports.rows_latex(nothing).count(r"\\") == 1


def test_bibtex_names_the_results_by_their_hash_and_balances_its_braces(results, make_results) -> None:
    text = bibtex(results)
    assert text.count("{") == text.count("}")
    assert re.search(r"SHA-256 of its results: [0-9a-f]{64}\. Some figures are simulated", text)
    assert bibtex(make_results([make_results.fp32])) != text


def test_command_writes_every_figure_in_three_forms_and_the_tables(results, tmp_path) -> None:
    (tmp_path / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    main = typer.Typer()
    main.add_typer(commands.app, name="report")
    main.command("other")(lambda: None)
    out = tmp_path / "paper"
    answer = CliRunner().invoke(main, ["report", str(tmp_path), "--export", str(out)])
    assert answer.exit_code == 0, answer.output
    names = {chart.name for chart in all_charts(results)}
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{name}.{form}" for name in names for form in ("svg", "png", "pdf")
    }
    assert (out / "tables" / "rows.csv").read_text(encoding="utf-8") == exports.to_csv(exports.rows_table(results))
    assert {path.name for path in out.iterdir()} == {"figures", "tables", "methods.txt", "cite.bib"}


def test_export_into_a_file_is_one_sentence(results, tmp_path) -> None:
    (tmp_path / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    main = typer.Typer()
    main.add_typer(commands.app, name="report")
    main.command("other")(lambda: None)
    answer = CliRunner().invoke(main, ["report", str(tmp_path), "--export", str(tmp_path / "results.json")])
    assert "cannot be written" in str(answer.exception)
    assert "name another place" in str(answer.exception)
