"""INT8 by several seeds: scipy is the oracle of the tests, from the accuracies that the records have."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from edgejoule_analyst.bootstrap import NO_EVIDENCE
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.repeats import scatters
from edgejoule_analyst.table import WIDTH, render_table

PTQ_BY_SEED = (0.004, -0.003, 0.001, -0.002)
QAT_BY_SEED = (0.005, 0.001)


@pytest.fixture
def by_seeds(cells, analyze_cells):
    """FP32, post-training INT8 by five seeds and quantization-aware INT8 by three; and where the outputs are."""
    return analyze_cells(cells.fp32, replace(cells.int8, by_seed=PTQ_BY_SEED), replace(cells.qat, by_seed=QAT_BY_SEED))


def row_of(results, variant):
    return next(row for row in results.rows if row.variant == variant)


def judged(results, variant, against, metric="ap"):
    names = f"nanodet_m/{variant}/host", f"nanodet_m/{against}/host", metric
    return next(test for test in results.seed_tests if (test.row, test.against, test.metric) == names)


def test_row_tells_accuracy_by_seed_and_keeps_its_own_figures(by_seeds) -> None:
    row = row_of(by_seeds[0], "int8-ptq")
    assert [repeat.seed for repeat in row.repeats] == [42, 43, 44, 45, 46]
    assert [repeat.ap - row.ap for repeat in row.repeats] == pytest.approx([0.0, *PTQ_BY_SEED])
    assert [repeat.ap50 - row.ap50 for repeat in row.repeats] == pytest.approx([0.0, *(2 * v for v in PTQ_BY_SEED)])
    fp32 = row_of(by_seeds[0], "fp32")
    assert fp32.repeats is None
    assert fp32.absent["repeats"] == "the spec does not ask for it"


def shown(results):
    """The terminal's table in one line."""
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None)
    console.print(render_table(results.model_dump(mode="json")))
    return " ".join(console.file.getvalue().split())


@pytest.mark.parametrize("metric", ["ap", "ap50"])
def test_training_is_held_against_calibration_pair_by_pair(by_seeds, metric) -> None:
    results, _ = by_seeds
    found = judged(results, "int8-qat", "int8-ptq", metric)
    qat = [getattr(repeat, metric) for repeat in row_of(results, "int8-qat").repeats]
    ptq = [getattr(repeat, metric) for repeat in row_of(results, "int8-ptq").repeats][:3]
    oracle = stats.ttest_rel(qat, ptq)
    assert (found.test, found.seeds, found.freedom) == ("paired", [42, 43, 44], 2)
    assert (found.t, found.p) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)), rel=1e-6)
    assert found.effect == pytest.approx(oracle.statistic / 3**0.5, rel=1e-6)  # t = d_z * sqrt(pairs)


@pytest.mark.parametrize("variant", ["int8-ptq", "int8-qat"])
def test_int8_is_held_against_the_one_value_of_fp32(by_seeds, variant) -> None:
    results, _ = by_seeds
    found = judged(results, variant, "fp32")
    oracle = stats.ttest_1samp([repeat.ap for repeat in row_of(results, variant).repeats], row_of(results, "fp32").ap)
    assert found.test == "one-sample"
    assert (found.t, found.p) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-6)


def test_p_values_are_corrected_over_all_tests_of_the_run(by_seeds) -> None:
    tests = by_seeds[0].seed_tests
    assert len(tests) == 6  # two metrics of PTQ and of QAT against FP32, and of QAT against PTQ
    oracle = closed([test.p for test in tests])
    assert [test.p_holm for test in tests] == pytest.approx(oracle, abs=1e-12)
    assert {test.verdict for test in tests if test.p_holm > 0.05} <= {NO_EVIDENCE}
    assert {test.verdict for test in tests if test.p_holm <= 0.05} <= {"lower", "higher"}


def closed(p_values):
    """Bonferroni's test of every subset that holds a hypothesis: what Holm's is a short cut of."""
    count = len(p_values)
    subsets = [[i for i in range(count) if mask >> i & 1] for mask in range(1, 2**count)]
    worst = [min(1.0, len(subset) * min(p_values[i] for i in subset)) for subset in subsets]
    return [max(p for p, subset in zip(worst, subsets, strict=True) if i in subset) for i in range(count)]


def test_small_and_scattered_difference_is_no_evidence(cells, analyze_cells) -> None:
    noise = replace(cells.qat, skill=cells.int8.skill, by_seed=(0.004, -0.005, 0.002))
    results, folder = analyze_cells(cells.fp32, replace(cells.int8, by_seed=(0.0, 0.001, 0.0)), noise)
    found = judged(results, "int8-qat", "int8-ptq")
    assert found.p_holm > 0.05
    assert found.verdict == "no evidence of a difference"
    assert "over 4 seeds: no evidence of a difference in AP (mean" in shown(results)
    assert "no evidence of a difference" in (folder / "report").read_text(encoding="utf-8").partition('id="seeds"')[2]


def test_clear_difference_is_told_with_its_direction(cells, analyze_cells) -> None:
    worse = replace(cells.int8, skill=0.3, by_seed=(0.001, -0.001, 0.002, 0.0))
    results, _ = analyze_cells(cells.fp32, worse)
    found = judged(results, "int8-ptq", "fp32")
    assert (found.verdict, found.difference < -0.05, found.effect < -3) == ("lower", True, True)
    assert "over 5 seeds: AP is lower (mean −" in shown(results)


def test_seeds_that_all_give_one_graph_are_not_judged(cells, analyze_cells) -> None:
    """Training that brought nothing, by any seed: no spread, so neither p nor evidence."""
    same = replace(cells.qat, skill=cells.int8.skill, by_seed=(0.001, -0.002))
    results, folder = analyze_cells(cells.fp32, replace(cells.int8, by_seed=(0.001, -0.002)), same)
    found = judged(results, "int8-qat", "int8-ptq")
    assert (found.difference, found.p, found.p_holm, found.verdict) == (
        pytest.approx(0, abs=1e-12),
        None,
        None,
        "not judged",
    )
    assert "no spread" in found.absent["p"]
    assert sum(test.p is not None for test in results.seed_tests) == 4
    assert "not judged" in (folder / "report").read_text(encoding="utf-8")
    assert "not judged: 0.00 points, and every seed gives the same" in shown(results)


def test_seed_without_a_score_is_noted_and_the_others_count(cells, analyze_cells) -> None:
    results, _ = analyze_cells(cells.fp32, replace(cells.int8, by_seed=(0.002, None, -0.001)))
    row = row_of(results, "int8-ptq")
    assert row.status == "ok"
    assert [repeat.seed for repeat in row.repeats] == [42, 43, 45]
    assert row.flags == []  # the row itself is as good as it was
    assert "without a score by seed 44, and tested without: the calibration by seed 44 diverged" in results.notes[-1]
    assert judged(results, "int8-ptq", "fp32").seeds == [42, 43, 45]


def test_engine_of_another_runtime_is_noted(cells, analyze_cells, by_seeds) -> None:
    results, _ = analyze_cells(cells.fp32, replace(cells.int8, by_seed=(0.002,), remade_for="onnxruntime"))
    said = "nanodet_m/int8-ptq/host: made for openvino as int8+fp32, but by seed 43 on onnxruntime as int8+fp32;"
    assert results.notes[-1].startswith(said)
    assert not any("runtime" in note for note in by_seeds[0].notes)


def test_row_of_which_no_repeat_has_a_score_says_why(cells, analyze_cells) -> None:
    results, _ = analyze_cells(cells.fp32, replace(cells.int8, by_seed=(None, None)))
    row = row_of(results, "int8-ptq")
    assert row.repeats is None
    assert "by seed 43 diverged" in row.absent["repeats"]
    assert results.seed_tests == []


def test_run_without_repeats_says_nothing_of_seeds(usual) -> None:
    results, folder = usual
    assert results.seed_tests == []
    text = (folder / "report").read_text(encoding="utf-8")
    assert 'id="seeds"' not in text
    assert "repeats" not in text.partition('id="gaps"')[2].partition("</section>")[0]


def test_report_and_notes_tell_what_the_tests_are(by_seeds) -> None:
    results, folder = by_seeds
    text = (folder / "report").read_text(encoding="utf-8")
    assert text.partition('id="seeds"')[2].partition("</section>")[0].count("one-sample</td>") == 4
    assert any("one-sample t-tests against FP32" in note for note in results.notes)


@pytest.mark.parametrize("metric", ["ap", "ap50"])
def test_report_tells_the_scatter_of_each_row_over_its_seeds(by_seeds, metric) -> None:
    results, folder = by_seeds
    section = (folder / "report").read_text(encoding="utf-8").partition('id="seeds"')[2].partition("</section>")[0]
    found = {row.variant: of[metric] for row, of in scatters(results)}
    assert set(found) == {"int8-ptq", "int8-qat"}
    for variant, scatter in found.items():
        values = [getattr(repeat, metric) for repeat in row_of(results, variant).repeats]
        assert (scatter.mean, scatter.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert (scatter.least, scatter.greatest) == (min(values), max(values))
        assert f"<td>{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}<small>" in section


def test_chart_has_a_mark_for_each_seed_beside_fp32(by_seeds, usual) -> None:
    results, _ = by_seeds
    (chart,) = [chart for chart in all_charts(results) if chart.name == "seeds"]
    marks = chart.spec["data"]["values"]
    assert {(mark["variant"], mark["seed"]) for mark in marks} == {
        (row.variant, str(repeat.seed)) for row in results.rows for repeat in row.repeats or ()
    }
    fp32 = row_of(results, "fp32")
    assert [mark["fp32"] for mark in marks] == pytest.approx([100 * fp32.ap50] * len(marks), rel=1e-5)
    assert not [chart for chart in all_charts(usual[0]) if chart.name == "seeds"]


def test_many_comparisons_are_counted_in_the_terminal(cells, analyze_cells) -> None:
    models = [
        cell
        for model in ("one", "two")
        for cell in (
            replace(cells.fp32, model=model),
            replace(cells.int8, model=model, by_seed=PTQ_BY_SEED),
            replace(cells.qat, model=model, by_seed=QAT_BY_SEED),
        )
    ]
    results, _ = analyze_cells(*models)
    told = shown(results)
    assert "AP over seeds, in 6 comparisons: " in told
    assert "the report has each" in told
    assert "d_z" not in told
