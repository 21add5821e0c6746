from dataclasses import replace

import numpy as np
import pytest

from edgejoule.records import Preconditioning
from edgejoule_analyst.figures import METRICS, OVER_IMAGES
from edgejoule_analyst.rows import make_row
from edgejoule_analyst.words import row_name


def row_of(results, variant="fp32", model="nanodet_m"):
    return next(row for row in results.rows if (row.variant, row.model) == (variant, model))


def test_energy_of_zero_leaves_no_map_per_joule_and_the_analysis_goes_on(cells, analyze_cells) -> None:
    results, _ = analyze_cells(replace(cells.fp32, power_w=2.0, energy_factor=0.0))
    (row,) = results.rows
    assert (row.energy_mj, row.map_per_joule) == (0, None)
    assert row.absent["map_per_joule"] == "the energy is 0 mJ, of which no accuracy per joule can be told"


def test_ok_row_has_status_ok_and_no_reason(usual) -> None:
    row = row_of(usual[0])
    assert (row.status, row.reason) == ("ok", None)


def test_row_pools_all_trials_and_derives_fps(usual) -> None:
    row = row_of(usual[0])
    assert (row.latency_ms.n, row.latency_ms.trials) == (600, 3)
    assert row.fps == pytest.approx(1000 / row.latency_ms.mean)


def test_row_tells_why_a_null_is_null(usual) -> None:
    row = row_of(usual[0])
    assert row.power_w is None
    assert "RAPL" in row.absent["power_w"]
    assert "RAPL" in row.absent["map_per_joule"]
    assert "no object of this size" in row.absent["ap_large"]


def test_unsupported_row_keeps_its_reason_and_explains_every_null(usual) -> None:
    row = row_of(usual[0], "fp16")
    assert row.status == "unsupported"
    assert "disguise" in row.reason
    assert row.latency_ms is None
    assert "disguise" in row.absent["latency_ms"]
    assert "disguise" in row.absent["ap"]


def test_failed_row_takes_the_reason_of_its_most_upstream_step(usual) -> None:
    row = row_of(usual[0], "int8-ptq", "nanodet_m_416")
    assert row.status == "failed"
    assert "diverged" in row.reason


def test_hashes_name_what_was_made_and_only_quantized_rows_have_a_calibration_set(usual) -> None:
    fp32, fp16, int8 = (row_of(usual[0], variant).hashes for variant in ("fp32", "fp16", "int8-ptq"))
    assert fp32.weights == int8.weights
    assert fp32.onnx != int8.onnx
    assert fp16.engine is None
    assert fp32.engine is not None
    assert fp32.calibration is None
    assert int8.calibration is not None
    assert fp32.data == int8.data


def test_row_keeps_its_latency_when_only_scoring_failed(cells, analyze_cells) -> None:
    unscored = replace(cells.fp32, ended={"score": ("failed", "a shard is missing")})
    row = row_of(analyze_cells(unscored)[0])
    assert (row.status, row.reason) == ("failed", "a shard is missing")
    assert row.latency_ms is not None
    assert row.absent["ap"] == "nothing was scored: a shard is missing"
    assert row.pareto is None


def test_throttled_row_keeps_its_figures_and_says_which_trials(cells, analyze_cells) -> None:
    row = row_of(analyze_cells(replace(cells.fp32, throttled="yes"))[0])
    assert row.status == "throttled"
    assert "trial 0, 1, 2" in row.reason
    assert row.latency_ms is not None
    assert row.pareto is None


def test_outcome_of_an_unknown_kind_counts_as_failed(cells, analyze_cells) -> None:
    row = row_of(analyze_cells(replace(cells.fp32, ended={"build": ("interrupted", "power cut")}))[0])
    assert (row.status, row.reason) == ("failed", "power cut")


def test_row_has_energy_and_efficiency_when_power_was_measured(cells, analyze_cells) -> None:
    row = row_of(analyze_cells(replace(cells.fp32, power_w=2.0))[0])
    assert row.energy_mj == pytest.approx(18.0)
    assert row.map_per_joule == pytest.approx(100 * row.ap50 / 0.018)
    # the three trials state 0.3 and 0.4 and do not differ
    assert row.energy_uncertainty_mj == pytest.approx(0.3)
    assert (row.energy_above_idle_mj, row.energy_above_idle_uncertainty_mj) == (5.0, pytest.approx(0.4))
    assert row.execution_ms is None
    assert row.absent["execution_ms"] == "no such sensor"


def test_row_of_a_batch_tells_latency_of_all_its_images_and_the_rest_by_the_image(cells, analyze_cells) -> None:
    alone = replace(cells.fp32, power_w=2.0, environment={"max_frequency_khz": 3_000_000})
    four = replace(alone, model="nanodet_m-b4", batch=4, latency_ms=30.0)
    results, folder = analyze_cells(alone, four)
    one, row = results.rows
    assert (one.batch, row.batch) == (1, 4)
    assert row.latency_ms.mean == pytest.approx(one.latency_ms.mean * 30 / 9)
    assert row.fps == pytest.approx(4000 / row.latency_ms.mean)
    assert row.energy_mj == pytest.approx(60.0)  # of one inference
    assert row.map_per_joule == pytest.approx(100 * row.ap50 / 0.015)
    assert (one.pareto, row.pareto) == (True, False)  # as accurate, and who waits for an answer waits longer
    energies = [METRICS["energy"].estimate(each, results.evidence[row_name(each)], 0.95).value for each in (one, row)]
    assert energies == pytest.approx([18.0, 15.0])
    checks = results.evidence[row_name(row)].checks
    assert any(f"2 x 4 x 0.36 GMACs / {row.latency_ms.mean:.4g} ms" in check.said for check in checks)
    assert (results.evidence[row_name(row)].load_memory_mb, row.memory_peak_mb) == (31.5, 210)
    page = (folder / "report").read_text(encoding="utf-8")
    for said in (
        "Rows -bN: an inference takes N images",
        "; batch 4; ran as",
        "Energy, mJ/image",
        "600 inferences of 4 images in 3 trials",
        '<td data-value="15.0" data-figure="energy">15.0 ± 0.1<small>1.2 ± 0.1</small></td>',
        "32 MB, the runtime's libraries too",
        "at batch 1 and 4 (rows -bN: of N images)",
    ):
        assert said in page


def test_row_of_trials_that_took_no_time_has_no_rate_and_says_why(cells, read_measurements) -> None:
    cell, measured = read_measurements(cells.fp32)
    still = [replace(trial, samples_ms=np.zeros_like(trial.samples_ms)) for trial in measured.trials]
    row = make_row(cell, replace(measured, trials=still), None)
    assert (row.latency_ms.mean, row.fps) == (0.0, None)
    assert row.absent["fps"] == "the mean latency is 0 ms, of which no rate can be told"


def test_row_that_took_no_energy_has_no_accuracy_per_joule_and_says_why(cells, analyze_cells) -> None:
    results, folder = analyze_cells(cells.int8, replace(cells.fp32, power_w=2.0, energy_factor=0.0))
    row = row_of(results)
    assert (row.energy_mj, row.map_per_joule) == (0.0, None)
    assert row.absent["map_per_joule"] == "the energy is 0 mJ, of which no accuracy per joule can be told"
    assert row.absent["map_per_joule"] in (folder / "report").read_text(encoding="utf-8")


WARM = Preconditioning(
    waited_s=310, temp_c=71, slope_c_min=-3.1, reached="no", words="71.0 °C, changing by -3.1 °C/min; asked for are ..."
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steady": True}, "latency does not vary"),
        ({"contended": True}, "contended: other processes ran in 3 of 3 trials, with up to 31%"),
        ({"throttled": "unknown"}, "whether the device throttled is unknown"),
        ({"simulated": True}, "simulated"),
        ({"preconditioning": WARM}, "not cool and steady before trial 0, 1, 2: 71.0 °C, changing by -3.1 °C/min"),
        ({"power_w": 2.0, "energy_factor": 2.0}, "far from power times latency"),
        ({"ap_shift": 0.01}, "to the scorer"),
    ],
)
def test_flag_says_what_is_implausible(cells, analyze_cells, change, said) -> None:
    flags = row_of(analyze_cells(replace(cells.fp32, **change))[0]).flags
    assert len(flags) == 1
    assert said in flags[0]


def test_plain_row_has_no_flag(usual) -> None:
    assert row_of(usual[0]).flags == []


def test_pareto_looks_at_ok_rows_of_one_device_only(cells, analyze_cells) -> None:
    slow = replace(cells.fp32, model="slow", latency_ms=20.0, skill=0.5)
    elsewhere = replace(slow, device="board")
    results, _ = analyze_cells(cells.fp32, slow, elsewhere, cells.fp16)
    assert [row.pareto for row in results.rows] == [True, False, True, None]


def test_hypervolume_of_each_devices_front_is_told_with_its_reference_point(cells, analyze_cells) -> None:
    slow = replace(cells.fp32, model="slow", latency_ms=20.0, skill=0.9)
    results, _ = analyze_cells(cells.fp32, slow, replace(cells.fp32, device="board"), replace(cells.fp16, device="x"))
    assert [found.device for found in results.fronts] == ["host", "board"]
    fast, better = (next(row for row in results.rows if row.model == name) for name in ("nanodet_m", "slow"))
    host = results.fronts[0]
    assert host.rows == ["nanodet_m/fp32/host", "slow/fp32/host"]
    assert host.reference_latency_ms == pytest.approx(1.1 * better.latency_ms.mean)
    area = fast.ap * (better.latency_ms.mean - fast.latency_ms.mean) + better.ap * 0.1 * better.latency_ms.mean
    assert host.hypervolume_ap_ms == pytest.approx(area)


def test_difference_pairs_each_row_with_fp32_of_its_model_and_device(cells, analyze_cells) -> None:
    other = replace(cells.fp32, model="other")
    results, _ = analyze_cells(cells.fp32, cells.int8, other, cells.fp16)
    assert {(d.row, d.against) for d in results.differences} == {("nanodet_m/int8-ptq/host", "nanodet_m/fp32/host")}
    assert {d.metric for d in results.differences} == {"ap", "ap50"}
    ap = next(d for d in results.differences if d.metric == "ap")
    assert ap.difference == pytest.approx(row_of(results, "int8-ptq").ap - row_of(results).ap)
    assert ap.low < ap.difference < ap.high < 0
    assert ap.verdict == "lower"


def test_equal_engines_show_no_evidence_of_a_difference(cells, analyze_cells) -> None:
    same = replace(cells.int8, skill=cells.fp32.skill)
    results, _ = analyze_cells(cells.fp32, same)
    assert {d.verdict for d in results.differences} == {"no evidence of a difference"}


def test_holm_is_over_all_differences_of_a_run_of_both_metrics(cells, analyze_cells) -> None:
    others = [replace(cells.fp32, model=f"m{number}") for number in range(3)]
    others += [replace(cells.int8, model=f"m{number}", skill=cells.fp32.skill) for number in range(3)]
    results, _ = analyze_cells(cells.fp32, cells.int8, *others)
    p = [found.p for found in results.differences]
    assert len(p) == 8
    for found in results.differences:  # Holm's definition, spelled out: the greatest of what those at or under it cost
        steps = [(len(p) - place) * each for place, each in enumerate(sorted(p)) if each <= found.p]
        assert found.p_holm == pytest.approx(min(1.0, max(steps)))
        assert (found.verdict == "no evidence of a difference") == (found.p_holm > 0.05)
    assert {found.verdict for found in results.differences} == {"lower", "no evidence of a difference"}


def test_verdict_is_by_the_corrected_test_and_not_by_the_interval(cells, analyze_cells) -> None:
    """One small loss is evidence on its own, and none among many questions."""
    loss = replace(cells.int8, skill=0.746)
    others = [replace(cells.fp32, model=f"m{number}") for number in range(4)]
    others += [replace(cells.int8, model=f"m{number}", skill=cells.fp32.skill) for number in range(4)]
    alone, among = (analyze_cells(cells.fp32, loss, *more)[0].differences[0] for more in ([], others))
    assert (alone.low, alone.high, alone.p) == (among.low, among.high, among.p)
    assert among.high < 0
    assert (alone.verdict, among.verdict) == ("lower", "no evidence of a difference")


@pytest.mark.parametrize("figure", OVER_IMAGES)
def test_interval_of_a_figure_over_images_is_in_the_evidence(usual, figure) -> None:
    value, found = (
        getattr(row_of(usual[0]), figure),
        getattr(usual[0].evidence["nanodet_m/fp32/host"], f"{figure}_interval"),
    )
    if figure == "ap_large":
        assert value is found is None  # no object of that size
    else:
        assert found.low < value < found.high
    assert getattr(usual[0].evidence["nanodet_m/fp16/host"], f"{figure}_interval") is None


def test_evidence_keeps_the_curve_of_latency_and_the_means_of_trials(usual) -> None:
    evidence = usual[0].evidence["nanodet_m/fp32/host"]
    assert len(evidence.latency_curve_ms) == 101
    assert len(evidence.trial_means_ms) == 3


def test_all_cells_without_result_still_make_results(cells, analyze_cells) -> None:
    results, folder = analyze_cells(cells.fp16, cells.failed)
    assert [row.status for row in results.rows] == ["unsupported", "failed"]
    assert "diverged" in (folder / "report").read_text(encoding="utf-8")


def test_analysis_is_byte_for_byte_repeatable(cells, analyze_cells) -> None:
    _, first = analyze_cells(cells.fp32, cells.int8)
    before = [(first / name).read_bytes() for name in ("results", "report")]
    _, again = analyze_cells(cells.fp32, cells.int8)
    assert [(again / name).read_bytes() for name in ("results", "report")] == before


def test_qat_that_has_the_graph_of_ptq_says_so(cells, analyze_cells) -> None:
    unchanged = replace(cells.qat, graph="int8-ptq")
    results, _ = analyze_cells(cells.fp32, cells.int8, unchanged)
    assert [row.variant for row in results.rows if any("training brought nothing" in flag for flag in row.flags)] == [
        "int8-qat"
    ]
    results, _ = analyze_cells(cells.fp32, cells.int8, cells.qat)
    assert not [flag for row in results.rows for flag in row.flags if "training brought nothing" in flag]
