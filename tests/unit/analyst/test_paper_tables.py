"""The paper's tables from a run, held against the paper's own figures where those follow from their inputs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgejoule_analyst import charts, paper_tables
from edgejoule_analyst.claims import load_paper
from edgejoule_analyst.exports import models_latex, models_table
from edgejoule_analyst.paper_tables import Loss

PAPER = load_paper()


@pytest.mark.parametrize("model", [model.model for model in PAPER.models.rows])
def test_losses_are_those_of_the_papers_tables(model) -> None:
    fp32, ptq, qat = (PAPER.row(model, variant) for variant in ("fp32", "int8-ptq", "int8-qat"))
    loss = Loss(model, "nano", *(float(row.ap50) / 100 for row in (fp32, ptq, qat)), is_certain=True)
    assert -100 * loss.ptq_loss == pytest.approx(float(ptq.to_fp32_pp))
    assert -100 * loss.qat_loss == pytest.approx(float(qat.to_fp32_pp))
    # Table 9 prints 2.2 for SSD-Lite-MobileNetV3, which its own figures contradict
    printed = 1.4 if model == "SSD-Lite-MobileNetV3" else float(qat.to_ptq_pp)
    assert 100 * loss.gain == pytest.approx(printed)


def test_nothing_lost_leaves_nothing_to_bring_back() -> None:
    sure = {"is_certain": True, "gain_is_certain": True}
    assert Loss("m", "d", fp32=0.4, ptq=0.41, qat=0.42, **sure).recovered is None
    lost = Loss("m", "d", fp32=0.4, ptq=0.38, qat=0.39, **sure)
    assert lost.recovered == pytest.approx(0.5)
    assert replace(lost, is_certain=False).recovered is None
    assert replace(lost, gain_is_certain=False).recovered is None
    assert Loss("m", "d", fp32=0.4, ptq=None, qat=0.42, is_certain=True).gain is None


def results_of(check_cells, *cells):
    rows, evidence = check_cells(*cells)
    return SimpleNamespace(rows=rows, evidence=evidence, differences=[], fronts=[], quantization=[])


def test_tables_of_a_run_follow_from_its_rows(cells, check_cells) -> None:
    fp32, int8, qat = (replace(cell, power_w=2.0) for cell in (cells.fp32, cells.int8, cells.qat))
    results = results_of(check_cells, fp32, int8, qat)
    base, ptq, aware = results.rows
    (loss,) = paper_tables.losses(results)
    assert (loss.fp32, loss.ptq, loss.qat) == (base.ap50, ptq.ap50, aware.ap50)
    first, _ = paper_tables.ratios(results)
    assert first.size == pytest.approx(3.9 / 1.1)
    assert first.speed == pytest.approx(base.latency_ms.mean / ptq.latency_ms.mean)
    efficiency = paper_tables.efficiencies(results)[0]
    assert efficiency.dynamic_w == pytest.approx(0.8)
    assert efficiency.row.stages_ms
    pre, infer, post = (efficiency.row.stages_ms[name] for name in ("pre", "infer", "post"))
    assert efficiency.practical_fps == pytest.approx(1000 / (pre + infer + post))
    assert efficiency.images_per_joule == pytest.approx(1000 / 18.0)


@pytest.mark.parametrize(("said", "is_certain"), [("lower", True), ("no evidence of a difference", False)])
def test_loss_is_certain_by_the_corrected_test_whatever_its_interval(cells, check_cells, said, is_certain) -> None:
    results = results_of(check_cells, cells.fp32, cells.int8)
    pair = {"row": "nanodet_m/int8-ptq/host", "against": "nanodet_m/fp32/host"}
    results.differences = [SimpleNamespace(metric="ap50", **pair, low=-0.03, high=-0.01, verdict=said)]
    assert paper_tables.losses(results)[0].is_certain is is_certain


@pytest.mark.parametrize(("said", "recovered"), [("higher", True), ("no evidence of a difference", False)])
def test_share_that_training_brought_back_asks_for_a_certain_gain(cells, check_cells, said, recovered) -> None:
    results = results_of(check_cells, cells.fp32, cells.int8, cells.qat)
    fp32, ptq, qat = (f"nanodet_m/{variant}/host" for variant in ("fp32", "int8-ptq", "int8-qat"))
    results.differences = [
        SimpleNamespace(metric="ap50", row=ptq, against=fp32, verdict="lower"),
        SimpleNamespace(metric="ap50", row=qat, against=ptq, verdict=said),
    ]
    assert (paper_tables.losses(results)[0].recovered is not None) is recovered


def test_mean_ratio_is_missing_where_one_model_is(cells, check_cells) -> None:
    other = [replace(cell, model="other") for cell in (cells.fp32, cells.int8)]
    unmeasured = replace(other[1], ended={"benchmark": ("failed", "the device went away")})
    whole = results_of(check_cells, cells.fp32, cells.int8, *other)
    part = results_of(check_cells, cells.fp32, cells.int8, other[0], unmeasured)
    ((_, _, count, size, speed),) = paper_tables.mean_ratios(paper_tables.ratios(whole))
    assert count == 2
    assert size == pytest.approx(3.9 / 1.1)
    assert speed is not None
    ((_, _, _, size, speed),) = paper_tables.mean_ratios(paper_tables.ratios(part))
    assert size == pytest.approx(3.9 / 1.1)
    assert speed is None


def test_speed_against_a_throttled_row_is_none_and_its_size_is(cells, check_cells) -> None:
    hot = replace(cells.fp32, throttled="yes")
    (found,) = paper_tables.ratios(results_of(check_cells, hot, cells.int8))
    assert (found.speed, found.size) == (None, pytest.approx(3.9 / 1.1))


def test_tables_are_empty_where_there_is_nothing(cells, check_cells) -> None:
    results = results_of(check_cells, cells.fp16, cells.failed)
    assert (paper_tables.losses(results), paper_tables.ratios(results), paper_tables.efficiencies(results)) == (
        [],
        [],
        [],
    )


def test_real_time_line_says_who_meets_it(cells, check_cells) -> None:
    results = results_of(check_cells, cells.fp32, replace(cells.int8, latency_ms=40.0))
    (chart,) = (chart for chart in charts.all_charts(results) if chart.paper == 7)
    assert chart.said == "1 of 2 rows reach 30 FPS; not: nanodet_m/int8-ptq/host."


def test_power_against_latency_draws_rows_with_power_only(cells, check_cells) -> None:
    results = results_of(check_cells, replace(cells.fp32, power_w=2.0), cells.int8)
    (chart,) = (chart for chart in charts.all_charts(results) if chart.paper == 8)
    assert [value["variant"] for value in chart.spec["data"]["values"]] == ["fp32"]
    without = charts.all_charts(results_of(check_cells, cells.int8))
    assert not [chart for chart in without if chart.paper == 8]


def test_models_are_told_once_for_all_devices_variants_and_batches_at_each_input(make_results) -> None:
    fp32, int8 = make_results.fp32, make_results.int8
    larger = replace(fp32, model="nanodet_m-416", side=416, gmacs=0.61)
    results = make_results(
        [fp32, int8, replace(fp32, device="nano"), replace(fp32, model="nanodet_m-b4", batch=4), larger]
    )
    found = paper_tables.models(results)
    assert [facts.model for facts in found] == ["nanodet_m", "nanodet_m-416"]
    assert [facts.kmacs_per_pixel for facts in found] == pytest.approx([0.36e6 / 320**2, 0.61e6 / 416**2])
    head, *lines = models_table(results)
    assert [dict(zip(head, line, strict=True))["input_width"] for line in lines] == ["320", "416"]
    assert "320 $\\times$ 320" in models_latex(results)


def test_models_of_results_without_inputs_have_no_kmacs_per_pixel(make_results) -> None:
    results = make_results([make_results.fp32])
    old = {name: found.model_copy(update={"input": None}) for name, found in results.evidence.items()}
    (facts,) = paper_tables.models(results.model_copy(update={"evidence": old}))
    assert (facts.gmacs, facts.kmacs_per_pixel) == (0.36, None)
