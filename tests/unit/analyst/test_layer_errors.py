"""Errors of layers: what the report tells of them is what the steps measured, drawn, tabulated and said why not."""

import csv
import io
import re
from dataclasses import replace

import pytest
import vl_convert

from edgejoule.errors import DataError
from edgejoule.records import LayerError, QuantizationError, Results, TensorError
from edgejoule_analyst import exports
from edgejoule_analyst.charts import MOST_LAYER_MARKS, all_charts
from edgejoule_analyst.figures import OLD_RESULTS
from edgejoule_analyst.layer_errors import graphs, parts_of, sqnr_db
from edgejoule_analyst.measurements import read_cell
from edgejoule_analyst.report import render_report

SHA256 = "5" * 64


@pytest.fixture(scope="module")
def results(make_results) -> Results:
    """FP32 and two kinds of INT8, on two devices and by ones and fours: two graphs; and one that was not made."""
    made = make_results
    cells = [replace(cell, device=device) for device in ("host", "nano") for cell in (made.fp32, made.int8, made.qat)]
    return made([*cells, replace(made.int8, model="nanodet_m-b4", batch=4), made.failed])


def section(results: Results) -> str:
    return render_report(results, SHA256).partition('<section aria-labelledby="layers">')[2].partition("</section>")[0]


def layer_charts(results: Results) -> list:
    return [chart for chart in all_charts(results) if chart.name.startswith("layers-")]


def test_each_graph_is_told_once_whatever_runs_it(results) -> None:
    told = {(graph.model, graph.variant): graph.absent.get("error") for graph in results.quantization}
    assert told == {
        ("nanodet_m", "int8-ptq"): None,
        ("nanodet_m", "int8-qat"): None,
        ("nanodet_m_416", "int8-ptq"): f"no graph was made: {results.rows[-1].reason}",
    }


def test_chart_draws_each_tensor_in_the_graphs_order_and_names_the_worst(results) -> None:
    (chart,) = layer_charts(results)
    for graph in results.quantization[:2]:
        values = [value for value in chart.spec["data"]["values"] if value["variant"] == graph.variant]
        for kind, of in (("weights", "weights"), ("what it reads", "input")):
            drawn = [(value["number"], value["layer"], value["db"]) for value in values if value["of"] == kind]
            assert drawn == [
                (number, layer.name, round(sqnr_db(getattr(layer, of)), 1))
                for number, layer in enumerate(graph.error.layers, 1)
                if getattr(layer, of)
            ]
        assert f"{graph.variant}: 1 block.8.conv (" in chart.caption
    rules, _, names = chart.spec["layer"]
    assert [value["layer"] for value in rules["data"]["values"]] == ["block.5.squeeze"]
    assert [value["rank"] for value in names["data"]["values"]] == ["1", "2", "3"] * 2
    assert {value["number"] for value in names["data"]["values"] if value["rank"] == "1"} == {8}
    vl_convert.vegalite_to_vega(chart.spec)


def test_training_leaves_less_error_and_the_table_tells_it_beside_the_reasons_of_float(results) -> None:
    before, after = graphs(results)
    for tensor in ("weights", "input"):
        assert after.medians_db[tensor] == pytest.approx(before.medians_db[tensor] + 4.77, abs=0.01)  # a third
    assert (before.eight_bit, before.in_float) == (11, {"it reads one cell": 1})
    assert [part.layer for part in before.worst] == ["block.8.conv", "block.3.conv", "block.7.conv"]
    text = section(results)
    assert 'href="#figure-layers-nanodet_m"' in text
    assert f"{before.medians_db['weights']:.1f}" in text
    assert "it reads one cell (nanodet_m: 1)" in text
    assert "not measured of nanodet_m_416 int8-ptq: no graph was made: calibration saw a NaN" in text


def test_csv_has_every_layer_with_the_figures_of_results_json(results) -> None:
    lines = list(csv.DictReader(io.StringIO(exports.to_csv(exports.layers_table(results)))))
    layers = [layer for graph in results.quantization[:2] for layer in graph.error.layers]
    assert [line["layer"] for line in lines] == [layer.name for layer in layers]
    for line, layer in zip(lines, layers, strict=True):
        if layer.weights is None:
            assert (line["weights_msqe"], line["input_sqnr_db"], line["float_because"]) == ("", "", layer.float_because)
        else:
            assert float(line["weights_msqe"]) == layer.weights.msqe
            assert float(line["input_sqnr_db"]) == sqnr_db(layer.input)


def test_tensor_without_error_or_without_a_value_has_no_ratio() -> None:
    exact, nothing = TensorError(msqe=0.0, power=1.0), TensorError(msqe=0.0, power=0.0)
    layer = LayerError(name="conv", weights=exact, input=nothing, float_because=None)
    assert list(parts_of(QuantizationError(images=1, layers=[layer]))) == []


def test_graph_without_any_error_is_tabled_and_not_drawn(results) -> None:
    exact = TensorError(msqe=0.0, power=1.0)
    layer = LayerError(name="conv", weights=exact, input=exact, float_because=None)
    error = QuantizationError(images=1, layers=[layer])
    none = results.model_copy(update={"quantization": [results.quantization[0].model_copy(update={"error": error})]})
    assert layer_charts(none) == []
    assert section(none).count("no error") == 2


def test_results_of_before_say_so_where_they_have_int8(results, make_results) -> None:
    old = results.model_copy(update={"quantization": []})
    assert layer_charts(old) == []
    assert f"nanodet_m int8-ptq, nanodet_m int8-qat, nanodet_m_416 int8-ptq: {OLD_RESULTS}" in section(old)
    assert section(make_results([make_results.fp32])) == ""


def test_pictures_of_a_huge_run_have_a_bound_and_its_table_has_all(results) -> None:
    layers = [layer.model_copy(update={"name": f"{n}.{layer.name}"}) for n in range(8) for layer in
              results.quantization[0].error.layers]  # fmt: skip
    error = QuantizationError(images=16, layers=layers)
    many = [results.quantization[0].model_copy(update={"model": f"m{n}", "error": error}) for n in range(100)]
    huge = results.model_copy(update={"quantization": many})
    charts = layer_charts(huge)
    assert [chart.name for chart in charts] == [f"layers-m{n}" for n in range(len(charts))]
    marks = sum(len(chart.spec["data"]["values"]) for chart in charts)
    assert MOST_LAYER_MARKS - 2 * len(layers) < marks <= MOST_LAYER_MARKS
    text = section(huge)
    assert text.count('<th scope="row">') == 100
    assert f"which the first {len(charts)} models have" in text
    with_layers, without = (len(render_report(each, SHA256)) for each in (huge, results))
    assert with_layers - without < 1_000_000


@pytest.mark.parametrize("told", ["", "{}", '{"quantization_error": {"images": 1}}', "[]"])
def test_record_that_tells_no_error_is_refused(tmp_path, usual, told) -> None:
    inputs = {path.name: path for path in usual[1].parent.iterdir() if path.is_file()}
    inputs["quantization-2"] = tmp_path / "record"
    inputs["quantization-2"].write_text(told)
    with pytest.raises(DataError, match="does not tell the quantization error of its layers; run the step again"):
        read_cell(2, inputs, quantized=True)


def test_no_word_of_a_program_in_the_section(results) -> None:
    assert not re.search(r">\s*(None|nan|inf|True|False)\b", section(results))
