"""Two runs held against each other, from real analyze steps on made-up cells, by the commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgejoule.cli import main
from edgejoule.errors import EdgejouleError
from edgejoule_analyst.decision_commands import compare_app, recommend_app
from edgejoule_analyst.figures import METRICS
from edgejoule_analyst.methods import methods
from edgejoule_analyst.regression import GATES, Gate, compare, unlike
from edgejoule_analyst.words import row_name


def call(app: Any, *words: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    if isinstance(result.exception, EdgejouleError):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def change(answer: dict[str, Any], variant: str, metric: str) -> dict[str, Any]:
    (found,) = [c for c in answer["changes"] if f"/{variant}/" in c["cell"] and c["metric"] == metric]
    return found


def test_same_run_passes_every_gate_that_can_be_judged(runs) -> None:
    gates = [f"--fail-on={gate}" for gate in GATES if gate not in ("energy", "power")]
    code, answer = call(compare_app, runs["was"], runs["was"], *gates)
    assert (code, answer["answer"]) == (0, "passed")
    assert {c["verdict"] for c in answer["changes"]} == {"same", "not judged"}
    assert all(
        c["absent"]["change"].startswith("the host shows no RAPL") for c in answer["changes"] if c["change"] is None
    )


def test_worse_accuracy_and_latency_are_found_and_fail(runs) -> None:
    code, answer = call(compare_app, runs["was"], runs["worse"], "--fail-on=ap50", "--fail-on=latency:5%")
    assert (code, answer["answer"]) == (3, "regressed")
    ap50, latency = change(answer, "int8-ptq", "ap50"), change(answer, "int8-ptq", "latency")
    assert ap50["fails"]
    assert ap50["high"] < 0
    assert ap50["p"] <= ap50["p_holm"] <= 0.05
    assert latency["fails"]
    assert latency["low"] > 1.2
    assert change(answer, "fp32", "ap50")["verdict"] == "same"


def slow(trials: Sequence[float]) -> Callable[[dict[str, Any]], None]:
    """The FP32 row's trials of latency made ``trials``, times what they were."""

    def change(results: dict[str, Any]) -> None:
        evidence = results["evidence"]["nanodet_m/fp32/host"]
        for name in ("trial_means_ms", "trial_p50_ms", "trial_p90_ms", "trial_p99_ms"):
            evidence[name] = [ms * factor for ms, factor in zip(evidence[name], trials, strict=True)]

    return change


def test_gated_metrics_are_corrected_for_each_other_and_all_else_for_every_test(runs, altered) -> None:
    slower = altered(slow((2.4, 3.0, 3.7)))
    _, free = call(compare_app, runs["was"], slower)
    code, gated = call(compare_app, runs["was"], slower, "--fail-on=latency:5%")
    p, loose, strict = (change(answer, "fp32", "latency") for answer in (gated, free, gated))
    tests = sum(c["p"] is not None for c in free["changes"])
    assert strict["p_holm"] == pytest.approx(2 * p["p"])  # of two rows
    assert loose["p_holm"] > 0.05 > strict["p_holm"]
    assert (code, strict["verdict"]) == (3, "worse")
    assert f"over the 2 tests of what --fail-on names, all others over the {tests} tests" in gated["notes"][0]
    others = [[c["p_holm"] for c in a["changes"] if c["metric"] != "latency"] for a in (free, gated)]
    assert others[0] == others[1]


def test_interval_beyond_the_tolerance_without_evidence_is_too_few_trials(runs, altered) -> None:
    slower = altered(slow((2.1, 3.0, 4.1)))
    code, answer = call(compare_app, runs["was"], slower, "--fail-on=latency:5%", "--fail-on=latency-p50")
    found = change(answer, "fp32", "latency")
    assert found["low"] > 1.05
    assert (code, found["verdict"]) == (4, "no evidence of a difference")
    assert answer["not_judged"] == [
        "latency of nanodet_m/fp32/host: its interval lies wholly beyond the tolerance, yet p (Holm) is no evidence:"
        " too few trials"
    ]
    assert any(note.startswith("latency-p50 of nanodet_m/fp32/host may be worse") for note in answer["notes"])
    loose, _ = call(compare_app, runs["was"], slower, "--fail-on=latency:300%", "--fail-on=latency-p50:300%")
    assert loose == 0


def test_trials_without_any_scatter_are_not_judged_unless_they_are_equal(runs, altered) -> None:
    """Three times 100.0 MB and three times 100.1 MB: nothing tells that the next would not come to the other."""

    def peaks(*mb: float) -> Callable[[dict[str, Any]], None]:
        def change(results: dict[str, Any]) -> None:
            results["evidence"]["nanodet_m/fp32/host"]["trial_memory_peaks_mb"] = list(mb)

        return change

    was, now, scattered = (altered(peaks(*mb)) for mb in ((100.0,) * 3, (100.1,) * 3, (100.1, 100.1, 100.2)))
    code, answer = call(compare_app, was, now, "--fail-on=memory")
    assert (code, answer["answer"]) == (4, "not judged")
    assert change(answer, "fp32", "memory")["absent"]["p"].startswith("every trial of a run came to the same figure")
    assert call(compare_app, was, was, "--fail-on=memory")[0] == 0
    assert change(call(compare_app, was, scattered)[1], "fp32", "memory")["p"] > 0


def test_tolerance_lets_a_smaller_worsening_pass(runs) -> None:
    code, answer = call(compare_app, runs["was"], runs["worse"], "--fail-on=latency:50%")
    assert (code, change(answer, "int8-ptq", "latency")["verdict"]) == (0, "worse")


def test_better_is_no_regression(runs) -> None:
    code, answer = call(compare_app, runs["worse"], runs["was"], "--fail-on=ap50", "--fail-on=latency")
    assert (code, change(answer, "int8-ptq", "ap50")["verdict"]) == (0, "better")


def test_gate_on_what_nobody_measured_is_neither_passed_nor_regressed(runs) -> None:
    code, answer = call(compare_app, runs["was"], runs["was"], "--fail-on=energy")
    assert (code, answer["answer"]) == (4, "not judged")


@pytest.fixture
def altered(runs, tmp_path):
    """``altered(change, run="was")``: that run's folder, its results changed as JSON; its matches stay in the store."""

    def make(change: Callable[[dict[str, Any]], None], run: str = "was") -> Path:
        results = json.loads((runs[run] / "results.json").read_text(encoding="utf-8"))
        change(results)
        folder = tmp_path / f"altered-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
        return folder

    return make


def throttle(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        if row["status"] == "ok":
            row.update(status="throttled", reason="the device throttled in every trial")


def empty(results: dict[str, Any]) -> None:
    results.update(rows=[], evidence={}, differences=[], fronts=[])


def rename(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        row["model"] = "another"
    results.update(evidence={}, differences=[], fronts=[])


@pytest.mark.parametrize("change", [throttle, empty, rename])
def test_rows_that_are_lost_leave_every_gate_but_status_not_judged_and_are_named(runs, altered, change) -> None:
    lost = altered(change)
    code, answer = call(compare_app, runs["was"], lost, "--fail-on=latency:5%", "--fail-on=ap50")
    assert (code, answer["answer"]) == (4, "not judged")
    assert answer["not_judged"] == [
        "latency, ap50: 2 rows were ok in run A, and not ok or not there in run B:"
        " nanodet_m/fp32/host, nanodet_m/int8-ptq/host"
    ]
    shown = CliRunner().invoke(compare_app, [str(runs["was"]), str(lost), "--fail-on=latency:5%"]).stdout
    assert "not judged, latency: 2 rows were ok in run A" in " ".join(shown.split())
    assert "Passed" not in shown
    assert call(compare_app, runs["was"], lost, "--fail-on=latency", "--fail-on=status")[0] == 3
    assert call(compare_app, runs["was"], lost)[0] == 0  # nothing was asked


def test_run_without_a_row_to_hold_against_is_not_judged(runs, altered) -> None:
    code, answer = call(compare_app, altered(empty), runs["was"], "--fail-on=latency")
    assert code == 4
    assert answer["not_judged"] == ["latency: no row of run A is ok, so there is nothing to hold run B against"]


def test_row_that_is_gone_fails_the_status_gate_and_leaves_the_others_open(runs) -> None:
    code, answer = call(compare_app, runs["was"], runs["less"], "--fail-on=ap50")
    assert (code, answer["answer"]) == (4, "not judged")
    assert answer["not_judged"] == [
        "ap50: 1 row was ok in run A, and not ok or not there in run B: nanodet_m/int8-ptq/host"
    ]
    code, answer = call(compare_app, runs["was"], runs["less"], "--fail-on=status")
    assert code == 3
    assert [s["cell"] for s in answer["statuses"] if s["fails"]] == ["nanodet_m/int8-ptq/host"]  # fp16 never ran


def test_without_its_matches_an_ap_is_not_judged_and_the_reason_says_what_to_do(runs, tmp_path) -> None:
    (tmp_path / "results.json").write_bytes((runs["worse"] / "results.json").read_bytes())
    code, answer = call(compare_app, runs["was"], tmp_path, "--fail-on=ap50")
    assert code == 4
    assert change(answer, "int8-ptq", "ap50")["absent"]["change"].endswith("name it by --store")
    assert call(compare_app, runs["was"], tmp_path, "--fail-on=ap50", "--store", runs["was"].parent / ".store")[0] == 3


def test_accuracies_on_evaluation_sets_that_differ_in_anything_are_not_judged(runs, altered) -> None:
    """Boxes that were moved leave ids and counts as they were."""

    def moved_boxes(results: dict[str, Any]) -> None:
        for row in results["rows"]:
            row["hashes"]["data"] = "0" * 64

    store = runs["was"].parent / ".store"
    code, answer = call(compare_app, runs["was"], altered(moved_boxes, "worse"), "--fail-on=ap50", "--store", store)
    assert (code, answer["answer"]) == (4, "not judged")
    assert change(answer, "int8-ptq", "ap50")["absent"]["change"] == (
        "the evaluation sets of the two runs are not the same bytes: pictures, annotations or names differ"
    )
    assert change(answer, "fp32", "ap50")["verdict"] == "same"  # whatever changed, its matches did not


def test_rows_of_two_gpus_are_not_held_against_each_other(make_results) -> None:
    results = make_results([make_results.fp32])
    (row,) = results.rows
    evidence = results.evidence[row_name(row)]

    def on(gpu):
        hardware = evidence.hardware.model_copy(update={"gpu": gpu})
        return row, evidence.model_copy(update={"hardware": hardware})

    assert unlike(on("NVIDIA L4"), on("NVIDIA A2")) == "measured on different hardware: NVIDIA L4 and NVIDIA A2"
    assert unlike(on("NVIDIA L4"), on("NVIDIA L4")) is None
    beside = results.model_copy(update={"evidence": {row_name(row): on("NVIDIA L4")[1]}})
    assert "Example CPU (6/143/8), NVIDIA L4; inference by" in methods(beside)


@pytest.mark.parametrize(
    ("fact", "was", "now", "said"),
    [
        ("power_mode", "MAXN", "5W", "measured with power mode MAXN and with power mode 5W"),
        ("power_mode", "MAXN", None, "measured with power mode MAXN and with power mode not told"),
        ("clocks_locked", True, False, "measured with locked clocks on and with locked clocks off"),
        ("l4t", "32.7.4", "32.7.6", "measured with L4T 32.7.4 and with L4T 32.7.6"),
    ],
)
def test_rows_of_one_board_under_unlike_conditions_are_not_judged(runs, altered, fact, was, now, said) -> None:
    def under(value):
        def change(results: dict[str, Any]) -> None:
            for evidence in results["evidence"].values():
                evidence.get("environment", {}).get("environment", {})[fact] = value

        return change

    a, b = altered(under(was)), altered(under(now))
    code, answer = call(compare_app, a, b, "--fail-on=latency", "--store", runs["was"].parent / ".store")
    assert (code, answer["answer"]) == (4, "not judged")
    assert change(answer, "fp32", "latency")["absent"]["change"] == said
    assert change(answer, "fp32", "ap50")["verdict"] == "same"
    assert call(compare_app, a, a, "--fail-on=latency")[0] == 0


def test_another_machine_of_the_same_kind_is_told_in_a_note(runs, altered) -> None:
    def on(machine):
        def change(results: dict[str, Any]) -> None:
            for evidence in results["evidence"].values():
                evidence.get("environment", {}).get("environment", {})["machine_id"] = machine

        return change

    def notes(a, b):
        return [note for note in call(compare_app, a, b)[1]["notes"] if "another machine" in note]

    one, other = altered(on("0123456789ab")), altered(on("ba9876543210"))
    assert notes(one, other) == [
        "Run B measured nanodet_m/fp32/host, nanodet_m/int8-ptq/host on another machine than run A: how far two of one"
        " kind differ is in no interval."
    ]
    assert notes(one, one) == notes(one, altered(on(None))) == []


@pytest.mark.parametrize(("error_mj", "verdict"), [(0.0, "worse"), (0.9, "no evidence of a difference")])
def test_energy_and_power_of_two_boards_differ_by_their_sensors_errors_too(make_results, error_mj, verdict) -> None:
    """4 % more where trials scatter by .1 %; between two sensors of ± 5 % each that is nothing."""
    was = replace(make_results.fp32, power_w=2.0, sensor_error_mj=error_mj, power_scatter=0.001)
    now = replace(was, power_w=2.08, environment={"machine_id": "another"})
    answers = [
        compare(make_results([was]), make_results([run]), [], 0.95, lambda *_: "no matches")
        for run in (now, replace(now, environment={}))
    ]
    (other, same) = (
        {c.metric: c.verdict for c in answer.changes if c.metric in ("energy", "power")} for answer in answers
    )
    assert same == {"energy": "worse", "power": "worse"}
    assert other == {"energy": verdict, "power": verdict}


def test_energies_of_two_boards_whose_sensors_error_nobody_knows_are_noted(make_results) -> None:
    was = replace(make_results.fp32, power_w=2.0, power_scatter=0.001)
    notes = [
        compare(make_results([was]), make_results([replace(was, environment=on)]), [], 0.95, lambda *_: "none").notes
        for on in ({"machine_id": "another"}, {})
    ]
    assert ["which no data sheet tells" in " ".join(each) for each in notes] == [True, False]


def test_terminal_shows_table_and_outcome(runs) -> None:
    result = CliRunner().invoke(compare_app, [str(runs["was"]), str(runs["worse"]), "--fail-on=ap50"])
    assert result.exit_code == 3
    assert "Regressed." in result.stdout
    assert "✗ nanodet_m/int8-ptq/host: AP50 is worse" in result.stdout


@pytest.mark.parametrize("gate", ["speed", "ap50:much", "status:5", "latency:-1"])
def test_gate_that_is_none_is_refused_with_what_there_is(gate: str) -> None:
    with pytest.raises(EdgejouleError, match="is not METRIC or METRIC:TOLERANCE"):
        Gate.parse(gate)


def test_gate_whose_tolerance_could_be_misread_is_refused() -> None:
    with pytest.raises(EdgejouleError, match=r"^--fail-on ap50:5%: ap50 takes points of 100, .* of itself: ap50:5$"):
        Gate.parse_all(["ap50:5%"])
    with pytest.raises(EdgejouleError, match="names latency more than once, as latency:5% and latency:50%; give it"):
        Gate.parse_all(["latency:5%", "ap50", "latency:50%"])
    assert Gate.parse_all(["ap50:5", "latency:5%"]) == [Gate("ap50", 0.05), Gate("latency", 0.05)]


def test_row_measured_at_another_batch_under_the_same_name_is_not_judged_by_what_batch_decides(runs, tmp_path) -> None:
    results = json.loads((runs["was"] / "results.json").read_text(encoding="utf-8"))
    for row in results["rows"]:
        row["batch"] = 4
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    code, answer = call(
        compare_app, runs["was"], tmp_path, "--fail-on=latency", "--store", runs["was"].parent / ".store"
    )
    assert (code, answer["answer"]) == (4, "not judged")
    assert change(answer, "fp32", "latency")["absent"]["change"] == "measured at batch 1 and at batch 4"
    assert change(answer, "fp32", "ap50")["verdict"] == "same"


def test_samples_of_zero_are_not_judged_and_no_crash(runs, altered) -> None:
    nothing = altered(slow((0, 0, 0)))
    code, answer = call(compare_app, runs["was"], nothing, "--fail-on=latency")
    assert code == 4
    assert answer["not_judged"] == ["latency of nanodet_m/fp32/host: mean latency of 0 ms allows no ratio"]
    code, answer = call(recommend_app, nothing, "--min-fps", 10)
    (reason,) = next(cell["reasons"] for cell in answer["cells"] if cell["name"] == "nanodet_m/fp32/host")
    assert reason.endswith("a trial's mean latency is 0 ms, of which no rate can be told")
    assert (code, answer["best"]) == (0, "nanodet_m/int8-ptq/host")
    _, answer = call(recommend_app, nothing, "--objective", "latency")
    assert answer["runner_up_needs"].startswith("its mean latency would have to be 100% lower, past 0.00 ms")


def test_engine_of_no_bytes_is_not_judged(runs, altered) -> None:
    def no_bytes(results: dict[str, Any]) -> None:
        for row in results["rows"]:
            row["size_mb"] = None if row["size_mb"] is None else 0.0

    code, answer = call(compare_app, altered(no_bytes), runs["was"], "--fail-on=size")
    assert code == 4
    assert answer["not_judged"][0].endswith("size of the engine of 0 MB allows no ratio")


# --- recommend, by its command ------------------------------------------------------------------------


def test_recommendation_by_command_pairs_through_the_store(runs) -> None:
    code, answer = call(recommend_app, runs["worse"], "--max-latency", 15)
    # the made-up host does not say whether it throttled in no trial: nothing is flagged
    assert (code, answer["answer"], answer["best"]) == (0, "deployable", "nanodet_m/fp32/host")
    assert not answer["notes"]
    assert answer["against_best"][0]["tie"] is False
    blocked = {cell["name"]: cell["reasons"] for cell in answer["cells"] if cell["verdict"] == "blocked"}
    assert list(blocked) == ["nanodet_m/fp16/host"]


def test_recommendation_exits_by_what_it_found(runs) -> None:
    assert call(recommend_app, runs["was"], "--max-latency", 1)[0] == 3
    assert call(recommend_app, runs["was"], "--max-energy", 30)[0] == 4


def test_recommendation_ranks_by_ones_own_weights_and_by_no_others(runs) -> None:
    _, usual = call(recommend_app, runs["was"])
    assert usual["weighting"]["weights"] is None
    assert usual["weighting"]["absent"] == {"weights": "none were asked for"}
    assert len(usual["weighting"]["metrics"]) > 2
    best = {}
    for ap50, latency in ((9, 1), (1, 9)):
        code, answer = call(recommend_app, runs["was"], f"--weight=ap50:{ap50}", f"--weight=latency:{latency}")
        assert answer["weighting"]["weights"] == pytest.approx({"ap50": ap50 / 10, "latency": latency / 10})
        first = answer["weighting"]["shares"][0]
        best[ap50] = first["name"]
        assert first["score"] == pytest.approx(0.9)  # of two rows each is the best in one
        assert sum(share["share"] for share in answer["weighting"]["shares"]) == pytest.approx(1)
        assert (code, answer["best"]) == (0, usual["best"])  # which is by the objective
    assert best == {9: "nanodet_m/fp32/host", 1: "nanodet_m/int8-ptq/host"}
    _, by_p99 = call(recommend_app, runs["was"], "--latency=p99", "--weight=ap50:1", "--weight=latency:1")
    assert by_p99["weighting"]["metrics"] == ["ap50", "latency-p99"]


def test_weight_of_what_a_row_lacks_is_no_ranking_and_says_so(runs) -> None:
    words = ["--weight=ap50:1", "--weight=energy:1"]
    _, answer = call(recommend_app, runs["was"], *words)
    assert answer["weighting"]["shares"] is None
    why = answer["weighting"]["absent"]["shares"]
    assert why.startswith("energy per image is to be weighed, and is not known of nanodet_m/fp32/host: the host shows")
    said = " ".join(CliRunner().invoke(recommend_app, [str(runs["was"]), *words]).stdout.split())
    assert "Not ranked by your weights (AP50 50%, energy per image 50%): energy per image is to be weighed" in said


def test_recommendation_in_words_names_best_runner_up_and_what_blocks(runs) -> None:
    result = CliRunner().invoke(recommend_app, [str(runs["was"]), "--max-latency", "15", "--objective", "latency"])
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "Best by mean latency: nanodet_m/int8-ptq/host" in said
    assert "Runner-up: nanodet_m/fp32/host; it would have to be 1.32 times as fast" in said
    assert "nanodet_m/fp16/host (blocked): unsupported: this CPU computes" in said
    assert "By your weights" not in said
    words = ["--weight", "ap50:1", "--weight", "latency:3"]
    said = " ".join(CliRunner().invoke(recommend_app, [str(runs["was"]), *words]).stdout.split())
    assert "By your weights (AP50 25%, mean latency 75%), of 1: 1. nanodet_m/int8-ptq/host 0.75, 2. nanodet_m/f" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--confidence", "1"], "not above 0.5"),
        (["--objective", "beauty"], "is not one of ap50"),
        (["--min-ap50", "40"], "a fraction from 0 to 1"),
        (["--latency", "max"], "is not one of mean"),
        (["--device", "nano"], "its devices are: host"),
        (["--store", "nowhere"], "there is no store nowhere"),
    ],
)
def test_wrong_question_is_answered_by_one_sentence(runs, words: list[str], said: str) -> None:
    with pytest.raises(EdgejouleError, match=said):
        call(recommend_app, runs["was"], *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recommend", "RUN", "--min-ap50", "40"], "the limit of ap50 is 40; give a fraction"),
        (["recommend", "RUN", "--objective", "foo"], "--objective foo is not one of ap50"),
        (["recommend", "RUN", "--device", "nano"], "its devices are: host"),
        (["recommend", "RUN", "extra"], "edgejoule recommend takes RUN and options; 'extra' is too many"),
        (
            ["compare", "RUN", "RUN", "extra"],
            "edgejoule compare takes RUN_A and RUN_B and options; 'extra' is too many",
        ),
        (["compare", "RUN", "RUN", "--confidence", "95"], "--confidence 95 is not above 0.5"),
        (["compare", "RUN", "RUN", "--fail-on", "foo"], "--fail-on foo is not METRIC"),
        (["compare", "RUN", "RUN", "--unheard-of"], "No such option"),
    ],
)
def test_wrong_usage_exits_with_2(runs, capsys, words: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(runs["was"]) if word == "RUN" else word for word in words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_is_no_wrong_usage_exits_with_1(runs, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["recommend", str(runs["was"].parent / "elsewhere")])
    assert ended.value.code == 1
    assert "there is no" in capsys.readouterr().err


def test_comparison_is_written_as_a_page_with_every_change(runs, tmp_path) -> None:
    page = tmp_path / "change.html"
    code, answer = call(compare_app, runs["was"], runs["worse"], "--fail-on=ap50", "--html", page)
    text = page.read_text(encoding="utf-8")
    assert code == 3
    assert "Regressed." in text
    for one in answer["changes"]:
        assert f'data-row="{one["cell"]}" data-verdict="{one["verdict"]}"' in text
    (lost,) = [one for one in answer["changes"] if "/int8-ptq/" in one["cell"] and one["metric"] == "ap50"]
    assert f"{100 * lost['change']:+.2f}".replace("-", "−") in text
    figures = re.findall(r'<figure data-chart="([\w-]+)"', text)
    drawn = dict.fromkeys(one["metric"] for one in answer["changes"] if one["low"] is not None)
    assert figures == ["moves-host", *(f"changes-{metric}" for metric in METRICS if metric in drawn)]
    with pytest.raises(EdgejouleError, match=r"cannot be written .*: name another place"):
        call(compare_app, runs["was"], runs["worse"], "--html", tmp_path / "nowhere" / "change.html")
