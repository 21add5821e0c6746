"""What a run leaves for a paper: tables whose figures are those of results.json, methods, BibTeX, files."""

import csv
import hashlib
import io
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from edgejoule.records import InputSize
from edgejoule_analyst import commands, exports
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.figures import AT_OPERATING_POINT, NOTHING_SHOWN, OLD_RESULTS, OVER_IMAGES
from edgejoule_analyst.methods import bibtex, methods
from edgejoule_analyst.report import render_report
from edgejoule_analyst.words import points, row_name

SHA256 = "5" * 64


@pytest.fixture(scope="module")
def results(make_results):
    awkward = replace(make_results.int8, model="a_model,_with 50 % & a 'comma'", power_w=4.0, simulated=True)
    return make_results([make_results.fp32, make_results.fp16, make_results.int8, make_results.failed, awkward])


def lines_of(table):
    """The lines of a table's CSV."""
    return list(csv.DictReader(io.StringIO(exports.to_csv(table))))


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
    for table, latex in exports.TABLES.values():
        text = latex(results).partition(r"\bottomrule")[0]
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1))
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(lines) == len(table(results))
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
        assert not any(re.search(r"(?<!\\)[_#]", line) for line in lines)
        assert text.isascii()
    assert r"a\_model,\_with 50 \% \& a 'comma'" in exports.rows_latex(results)
    assert "(simulated)" in exports.rows_latex(results)
    assert "% nanodet_m/fp16/host: unsupported:" in exports.rows_latex(results)


def test_differences_have_p_before_and_after_holm(results) -> None:
    head, *lines = exports.differences_table(results)
    told = [dict(zip(head, line, strict=True)) for line in lines]
    assert [(line["p"], line["p_holm"]) for line in told] == [(str(d.p), str(d.p_holm)) for d in results.differences]
    first = results.differences[0]
    assert f"& {exports.p_value(first.p)} & {exports.p_value(first.p_holm)} &".replace("<", "$<$") in (
        exports.differences_latex(results)
    )


def test_intervals_of_latency_and_fps_are_students_over_the_trials(results) -> None:
    line = next(csv.DictReader(io.StringIO(exports.to_csv(exports.rows_table(results)))))
    evidence = results.evidence[line["row"]]
    fps = [1000 / ms for ms in evidence.trial_means_ms]
    for ends, trials in {
        ("latency_mean_low_ms", "latency_mean_high_ms"): evidence.trial_means_ms,
        ("latency_p99_low_ms", "latency_p99_high_ms"): evidence.trial_p99_ms,
        ("fps_low", "fps_high"): fps,
    }.items():
        theirs = stats.t.interval(0.95, len(trials) - 1, np.mean(trials), stats.sem(trials))
        assert [float(line[end]) for end in ends] == pytest.approx(theirs)
    assert line["map_per_joule_low"] == ""


def test_map_per_joule_has_its_interval_and_the_page_tells_it(results) -> None:
    read = list(csv.DictReader(io.StringIO(exports.to_csv(exports.rows_table(results)))))
    line, row = next((line, row) for line, row in zip(read, results.rows, strict=True) if row.map_per_joule)
    assert float(line["map_per_joule_low"]) < row.map_per_joule < float(line["map_per_joule_high"])
    assert "mAP/J, 95 % interval</dt>" in render_report(results, SHA256)


def test_power_and_energy_have_the_intervals_that_the_page_tells(results) -> None:
    name, row = next((row_name(row), row) for row in results.rows if row.power_w)
    powers, energies = ([value * share for share in (0.98, 1.0, 1.02)] for value in (row.power_w, row.energy_mj))
    varied = results.evidence[name].model_copy(update={"trial_powers_w": powers, "trial_energies_mj": energies})
    again = results.model_copy(update={"evidence": {**results.evidence, name: varied}})
    read = {line["row"]: line for line in csv.DictReader(io.StringIO(exports.to_csv(exports.rows_table(again))))}
    low, high = (float(read[name][f"power_{end}_w"]) for end in ("low", "high"))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, np.mean(powers), stats.sem(powers)))
    of_trials = stats.t.interval(0.95, 2, np.mean(energies), stats.sem(energies))
    assert float(read[name]["energy_per_image_low_mj"]) <= of_trials[0] * (1 + 1e-9)
    assert float(read[name]["energy_per_image_high_mj"]) >= of_trials[1] * (1 - 1e-9)
    assert f"power at work, 95 % interval</dt><dd>{low:.2f} W to {high:.2f} W</dd>" in render_report(again, SHA256)
    unmeasured = read[row_name(results.rows[0])]
    assert unmeasured["power_low_w"] == unmeasured["energy_per_image_high_mj"] == ""


def test_one_trial_has_no_interval_and_says_why(results) -> None:
    first = row_name(results.rows[0])
    evidence = results.evidence[first]
    of_trials = [name for name in type(evidence).model_fields if name.startswith("trial_")]
    one = evidence.model_copy(update={name: getattr(evidence, name)[:1] for name in of_trials})
    alone = results.model_copy(update={"evidence": {**results.evidence, first: one}})
    line = next(csv.DictReader(io.StringIO(exports.to_csv(exports.rows_table(alone)))))
    assert (line["fps_low"], line["latency_p99_high_ms"]) == ("", "")
    assert "interval of mean latency, " in line["reason"]
    assert "images per second: one trial does not tell" in line["reason"]
    assert "p99, 95 % interval</dt><dd>none: one trial does not tell" in render_report(alone, SHA256)


def test_every_figure_over_images_has_the_interval_that_the_page_tells(results) -> None:
    rows = {line["row"]: line for line in lines_of(exports.rows_table(results))}
    accuracy = {line["row"]: line for line in lines_of(exports.accuracy_table(results))}
    assert set(accuracy) == {row_name(row) for row in results.rows if row.ap is not None}
    name = row_name(results.rows[0])
    page, latex = render_report(results, SHA256), exports.accuracy_latex(results)
    for field in OVER_IMAGES:
        found = getattr(results.evidence[name], f"{field}_interval")
        if field == "ap_large":
            assert rows[name]["ap_large_low"] == accuracy[name]["ap_large_high"] == ""
            assert "<dt>AP large</dt><dd>none: the evaluation set has no object of this size</dd>" in page
            continue
        for told in (rows[name], accuracy[name]):
            assert [float(told[f"{field}{end}"]) for end in ("_low", "_high")] == [found.low, found.high]
        ends = [points(end) for end in (getattr(results.rows[0], field), found.low, found.high)]
        assert "{} [{}, {}]".format(*ends) in latex
        assert "<dd>{}, 95 % interval {} to {}</dd>".format(*ends) in page


def test_figures_of_the_operating_point_have_the_interval_that_the_page_tells(results) -> None:
    rows = {line["row"]: line for line in lines_of(exports.rows_table(results))}
    deployed = lines_of(exports.deployed_table(results))
    page, latex = render_report(results, SHA256), exports.deployed_latex(results)
    for told in deployed:
        evidence = results.evidence[told["row"]]
        for field in AT_OPERATING_POINT:
            found = getattr(evidence, f"{field}_interval")
            assert found.low < float(told[field]) < found.high
            for end in ("", "_low", "_high"):
                assert told[f"{field}{end}"] == rows[told["row"]][f"{field}{end}"]
            assert f"55.0 [{points(found.low)}, {points(found.high)}]" in latex
            assert f"<td>55.0<small>[{points(found.low)}, {points(found.high)}]</small></td>" in page


def test_figure_that_does_not_exist_says_why(results) -> None:
    first = results.rows[0]
    blind = first.operating_point.model_copy(update={"precision": None, "detections": 0})
    rows = [first.model_copy(update={"operating_point": blind}), *results.rows[1:]]
    line = lines_of(exports.rows_table(results.model_copy(update={"rows": rows})))[0]
    assert line["precision"] == line["precision_low"] == ""
    assert f"interval of precision: {NOTHING_SHOWN}" in line["reason"]


def test_results_of_before_an_interval_was_made_say_so(results) -> None:
    first = row_name(results.rows[0])
    older = results.evidence[first].model_copy(update={"ap75_interval": None, "ar100_interval": None})
    before = results.model_copy(update={"evidence": {**results.evidence, first: older}})
    line = lines_of(exports.rows_table(before))[0]
    assert (line["ap75_low"], line["ar100_high"]) == ("", "")
    assert f"interval of AP75, AR100: {OLD_RESULTS}" in line["reason"]
    assert f"interval: none, {OLD_RESULTS}" in render_report(before, SHA256).replace("&#39;", "'")


def test_fronts_are_told_with_what_their_volume_reaches_to(results) -> None:
    head, *lines = exports.fronts_table(results)
    assert len(lines) == len(results.fronts) > 0
    for line, found in zip(lines, results.fronts, strict=True):
        told = dict(zip(head, line, strict=True))
        assert float(told["hypervolume_ap_ms"]) == found.hypervolume_ap_ms
        assert told["rows"].split("; ") == found.rows


def test_methods_tell_what_the_record_tells(results, make_results) -> None:
    text = methods(results)
    for said in ("80 images", "3 trials", "2000 resamples", "simulated", "INT8 (post-training)", "openvino"):
        assert said in text, said
    assert "2 of 5 combinations have no result" in text
    throttled = [row.model_copy(update={"status": "throttled"}) for row in results.rows]
    assert "2 of 5 combinations have no result" in methods(results.model_copy(update={"rows": throttled}))
    quick = methods(make_results([replace(make_results.fp32, protocol="quick")]))
    assert "should not be quoted" in quick
    assert "Energy was not measured" in quick
    assert "simulated" not in quick


def test_methods_tell_what_the_device_is_and_what_it_was_fed(results) -> None:
    board = {
        "environment": {"model": "Jetson Orin Nano", "l4t": "36.4.3", "power_mode": "15W", "clocks_locked": True},
        "hardware": {"processor": "its own"},
        "id": "host",
    }
    told = {"environment": board, "input": InputSize(height=320, width=416)}
    evidence = {name: found.model_copy(update=told) for name, found in results.evidence.items()}
    data = {"sets": {"calibration": {"images": 48, "source": "shapes-train"}}}
    text = methods(results.model_copy(update={"evidence": evidence, "data": data}))
    at = results.rows[0].operating_point
    for said in (
        *("Jetson Orin Nano", "L4T 36.4.3", "power mode 15W", "clocks locked", "416 × 320 pixels (nanodet_m, "),
        *("calibrated on 48 images of shapes-train", f"a confidence of {at.confidence:g}"),
    ):
        assert said in text, said


def test_every_table_says_which_of_its_figures_are_simulated(results) -> None:
    assert {row.simulated for row in results.rows} == {True, False}
    board = results.model_copy(
        update={
            "rows": [row.model_copy(update={"device": "nano"}) if row.simulated else row for row in results.rows],
            "evidence": {
                row_name(row.model_copy(update={"device": "nano"}) if row.simulated else row): results.evidence[
                    row_name(row)
                ]
                for row in results.rows
            },
            "differences": [
                difference.model_copy(update={"row": difference.row.replace("/host", "/nano")})
                if difference.row.startswith("a_model")
                else difference
                for difference in results.differences
            ],
        }
    )
    for name, (table, latex) in exports.TABLES.items():
        head, *lines = table(board)
        if name == "models":
            continue  # what a model is, wherever it runs
        told = {line[head.index("simulated")] for line in lines if any("nano" in cell.split("/") for cell in line)}
        assert told <= {"true"}, name
        assert latex(board).count("(simulated)") == sum(line[head.index("simulated")] == "true" for line in lines), name


def test_latex_marks_rows_that_something_speaks_against(results, make_results) -> None:
    assert "dagger" not in exports.rows_latex(results)
    throttled = [row.model_copy(update={"status": "throttled"}) for row in results.rows[:1]]
    text = exports.rows_latex(results.model_copy(update={"rows": [*throttled, *results.rows[1:]]}))
    row, note = (line for line in text.splitlines() if "dagger" in line)
    assert row.startswith(r"nanodet\_m$\dagger$ & fp32")
    assert "rows.csv says what" in note
    quick = make_results([replace(make_results.fp32, protocol="quick")])
    assert "Protocol quick: for looking" in exports.rows_latex(quick)
    assert "Protocol quick: for looking" in exports.efficiency_latex(quick)


def test_methods_name_every_runtime_and_count_of_iterations(results) -> None:
    (name, first), *_ = ((name, found) for name, found in results.evidence.items() if name.endswith("/host"))
    other = first.model_copy(
        update={
            "hardware": first.hardware.model_copy(update={"runtime": "onnxruntime", "runtime_version": "1.2.3"}),
            "iterations": first.iterations + 1,
        }
    )
    text = methods(results.model_copy(update={"evidence": results.evidence | {name: other}}))
    assert f"onnxruntime 1.2.3 and {first.hardware.runtime} {first.hardware.runtime_version}" in text
    assert f"of {first.iterations + 1} and {first.iterations} timed inferences" in text


def test_run_without_rows_is_written_all_the_same(results) -> None:
    nothing = results.model_copy(update={"rows": [], "differences": [], "evidence": {}})
    assert "no rows" in methods(nothing)
    assert "had nothing to compare" in render_report(nothing, SHA256)
    assert exports.rows_latex(nothing).count(r"\\") == 1


def test_bibtex_names_the_results_by_their_hash_and_balances_its_braces(results, make_results) -> None:
    text = bibtex(results, SHA256)
    assert text.count("{") == text.count("}")
    assert f"SHA-256 of its results.json: {SHA256}. Some figures are simulated" in text
    assert text.count("author ") == text.count("@misc{") == 2
    assert text.count("year ") == 2
    assert "simulated" not in bibtex(make_results([make_results.fp32]), SHA256)


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
    sha256 = hashlib.sha256((tmp_path / "results.json").read_bytes()).hexdigest()
    assert sha256 in (out / "cite.bib").read_text(encoding="utf-8")
    assert {path.name for path in (out / "tables").iterdir()} == {
        *(f"{name}.{form}" for name in exports.TABLES if name != "seed_tests" for form in ("csv", "tex")),
        "layers.csv",
    }


def test_paper_tables_are_written_as_the_report_has_them(results) -> None:
    def read(table):
        return list(csv.DictReader(io.StringIO(exports.to_csv(table(results)))))

    rows = {row_name(row): row for row in results.rows}
    (loss,) = read(exports.losses_table)
    base, ptq = rows["nanodet_m/fp32/host"], rows["nanodet_m/int8-ptq/host"]
    assert float(loss["ptq_loss"]) == base.ap50 - ptq.ap50
    assert (loss["qat"], loss["gain"]) == ("", "")
    assert f"{100 * (ptq.ap50 - base.ap50):+.2f}".replace("-", "$-$") in exports.losses_latex(results)
    (ratio,) = read(exports.ratios_table)
    assert float(ratio["size_ratio"]) == pytest.approx(base.size_mb / ptq.size_mb)
    timed = {line["row"]: line for line in read(exports.efficiency_table)}
    assert set(timed) == {name for name, row in rows.items() if row.latency_ms}
    (measured,) = [line for line in timed.values() if line["energy_per_image_mj"]]
    assert float(measured["images_per_joule"]) == pytest.approx(1000 / float(measured["energy_per_image_mj"]))
    errors = {(line["row"], line["size"]): line for line in read(exports.errors_table)}
    small, found = ptq.operating_point.by_size["small"], results.evidence[row_name(ptq)].errors_by_size["small"]
    told = errors[row_name(ptq), "small"]
    assert int(told["false_positives"]) == small.false_positives
    ends = [float(told[f"false_positives_per_image_{end}"]) for end in ("low", "high")]
    assert ends == [found.false_positives_per_image.low, found.false_positives_per_image.high]
    assert ends[0] < float(told["false_positives_per_image"]) < ends[1]
    assert "0.80 [{:.2f}, {:.2f}]".format(*ends) in exports.errors_latex(results)
    assert errors[row_name(ptq), "large"]["recall_low"] == ""


def test_batches_are_told_apart_in_every_table_and_energy_of_an_image_from_that_of_an_inference(make_results) -> None:
    made = make_results.int8, make_results.fp32
    alone = [replace(cell, power_w=4.0, idle_w=1.0) for cell in made]
    fours = [replace(cell, model="nanodet_m-b4", batch=4, latency_ms=3 * cell.latency_ms) for cell in alone]
    results = make_results([*alone, *fours])
    for table, _ in exports.TABLES.values():
        lines = table(results)[1:]
        assert len({tuple(line) for line in lines}) == len(lines)
    rows = list(csv.DictReader(io.StringIO(exports.to_csv(exports.rows_table(results)))))
    assert [(line["model"], line["batch"]) for line in rows] == [("nanodet_m", "1")] * 2 + [("nanodet_m-b4", "4")] * 2
    for line in rows:
        batch, of_inference = int(line["batch"]), float(line["energy_mj"])
        assert float(line["energy_per_image_mj"]) == pytest.approx(of_inference / batch)
        assert float(line["fps"]) == pytest.approx(1000 * batch / float(line["latency_mean_ms"]))
        assert float(line["energy_per_image_uncertainty_mj"]) <= float(line["energy_uncertainty_mj"])
    efficiency = list(csv.DictReader(io.StringIO(exports.to_csv(exports.efficiency_table(results)))))
    assert [line["batch"] for line in efficiency] == ["1", "1", "4", "4"]
    for line, row in zip(efficiency, results.rows, strict=True):
        assert float(line["images_per_joule"]) == pytest.approx(1000 * row.batch / row.energy_mj)
    ratios = list(csv.DictReader(io.StringIO(exports.to_csv(exports.ratios_table(results)))))
    speeds = [float(line["speed_ratio"]) for line in ratios]
    assert speeds[0] == pytest.approx(speeds[1])  # each against its own batch
    for latex in (exports.rows_latex, exports.efficiency_latex):
        assert "% Latency is of one inference" in latex(results)
        assert "% Latency is of one inference" not in latex(make_results(alone))
    against = {(found.row, found.against) for found in results.differences}
    assert against == {(f"{model}/int8-ptq/host", f"{model}/fp32/host") for model in ("nanodet_m", "nanodet_m-b4")}


@pytest.fixture(scope="module")
def by_seeds(make_results):
    """INT8 by three seeds, its training by two that give what it began with: one test is judged, one is not."""
    same = replace(make_results.qat, skill=make_results.int8.skill, by_seed=(0.004,))
    return make_results([make_results.fp32, replace(make_results.int8, by_seed=(0.004, -0.003)), same])


def test_accuracy_by_seed_and_the_tests_over_them_are_written(by_seeds, tmp_path) -> None:
    exports.export(by_seeds, SHA256, tmp_path, lambda done, total: None)
    read = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "tables").iterdir()}
    by_seed = list(csv.DictReader(io.StringIO(read["seeds.csv"])))
    repeats = {(row_name(row), again.seed): again for row in by_seeds.rows for again in row.repeats or ()}
    assert len(by_seed) == len(repeats) == 5
    for line in by_seed:
        again = repeats[line["row"], int(line["seed"])]
        assert (float(line["ap"]), float(line["ap50"]), line["runtime"]) == (again.ap, again.ap50, again.runtime)
    tests = list(csv.DictReader(io.StringIO(read["seed_tests.csv"])))
    assert len(tests) == len(by_seeds.seed_tests) == 6
    for line, test in zip(tests, by_seeds.seed_tests, strict=True):
        assert [int(seed) for seed in line["seeds"].split()] == test.seeds
        for name in ("difference", "low", "high", "effect", "p", "p_holm"):
            value = getattr(test, name)
            assert line[name] == "" if value is None else float(line[name]) == value
        assert bool(line["reason"]) == (test.p is None)
    assert {bool(line["reason"]) for line in tests} == {True, False}


def test_latex_of_the_tests_over_seeds_has_as_many_cells_in_every_line(by_seeds) -> None:
    text = exports.seed_tests_latex(by_seeds)
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1))
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(by_seeds.seed_tests)
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
    assert text.isascii()
    assert "not judged" in text


def test_methods_tell_of_seeds_where_there_were_several(by_seeds, results) -> None:
    judged = sum(test.p is not None for test in by_seeds.seed_tests)
    assert "made anew by 2 to 3 seeds" in methods(by_seeds)
    assert f"Holm's correction over all {judged} tests" in methods(by_seeds)
    assert "seeds" not in methods(results)


def test_interrupted_export_says_how_far_it_came_and_leaves_whole_files(results, tmp_path) -> None:
    (tmp_path / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    out = tmp_path / "paper"
    words = [Path(sys.executable).with_name("edgejoule"), "report", "results.json", "--export", "paper"]
    program = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background job ignores
    )
    until = time.monotonic() + 60
    while not (out / "figures").exists() and time.monotonic() < until:
        time.sleep(0.02)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 130
    told = re.search(r"Stopped with (\d+) of (\d+) files written into paper\. The same command writes them all\.", err)
    assert told, err
    written = [path for path in out.rglob("*") if path.is_file()]
    assert int(told[1]) <= len(written) <= int(told[1]) + 1 < int(told[2])
    whole = tmp_path / "whole"
    exports.export(results, commands.hash_of_results(tmp_path), whole, lambda done, total: None)
    for path in written:
        if path.suffix not in (".pdf", ".png"):  # which tell when they were made
            assert path.read_bytes() == (whole / path.relative_to(out)).read_bytes()


def test_export_into_a_file_is_one_sentence(results, tmp_path) -> None:
    (tmp_path / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    main = typer.Typer()
    main.add_typer(commands.app, name="report")
    main.command("other")(lambda: None)
    answer = CliRunner().invoke(main, ["report", str(tmp_path), "--export", str(tmp_path / "results.json")])
    assert "cannot be written" in str(answer.exception)
    assert "name another place" in str(answer.exception)
