"""The figures: what each shows is what the rows say, they draw, and they stand every odd run."""

from dataclasses import replace

import pytest
import vl_convert

from edgejoule.records import Results
from edgejoule_analyst.chart_parts import SHAPES
from edgejoule_analyst.charts import FEW, all_charts
from edgejoule_analyst.drawing import draw, svg
from edgejoule_analyst.pareto import front
from edgejoule_analyst.words import row_name

MODELS = (
    ("nanodet_m", 1.0, 0.0),
    ("ssd_mobilenet_v2", 1.6, 0.05),
    ("yolov5s", 4.0, -0.1),
    ("efficientdet_d0", 7.0, 0.2),
)


@pytest.fixture(scope="module")
def matrix(make_results) -> Results:
    """Four models, three variants, on this host and on a simulated board with power."""
    return make_results(
        replace(
            cell,
            model=model,
            device=device,
            power_w=4.0 if device == "nano" else None,
            simulated=device == "nano",
            latency_ms=cell.latency_ms * slower,
            skill=cell.skill - worse,
            gmacs=0.3 * slower,
        )
        for device in ("host", "nano")
        for model, slower, worse in MODELS
        for cell in (make_results.fp32, make_results.int8, make_results.qat)
    )


def charts_of(results: Results) -> dict[str, dict]:
    return {chart.name: chart.spec for chart in all_charts(results)}


def values_of(spec: dict, **wanted) -> list[dict]:
    return [value for value in spec["data"]["values"] if all(value[name] == one for name, one in wanted.items())]


def test_each_figure_of_the_paper_from_3_on_has_its_counterpart(matrix) -> None:
    assert {chart.paper for chart in all_charts(matrix) if chart.paper} == set(range(3, 12))


def test_every_chart_is_taken_by_vega_lite_and_draws_its_words(matrix) -> None:
    charts = all_charts(matrix)
    assert len({chart.name for chart in charts}) == len(charts)
    for chart in charts:
        vl_convert.vegalite_to_vega(chart.spec)
        drawn = draw(chart.spec, "svg").decode()
        axes = [layer["encoding"].get(axis, {}) for layer in chart.spec["layer"] for axis in ("x", "y")]
        for title in {axis["title"] for axis in axes if axis.get("title")}:
            assert title in drawn, chart.name
        assert chart.caption.endswith(".")
        assert chart.said.endswith(".")


def test_equal_results_give_equal_charts_and_files(matrix) -> None:
    again = Results.model_validate_json(matrix.model_dump_json())
    first, second = all_charts(matrix), all_charts(again)
    assert first == second
    for form, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<svg")):
        assert draw(first[0].spec, form).startswith(begins)
    assert draw(first[0].spec, "svg") == draw(second[0].spec, "svg")


def test_pareto_chart_draws_the_front_and_the_intervals_of_the_rows(matrix) -> None:
    spec = charts_of(matrix)["pareto-host"]
    rows = [row for row in matrix.rows if row.device == "host"]
    on_front = front(maximise=[[row.ap for row in rows]], minimise=[[row.latency_ms.mean for row in rows]])
    for row, is_on_front in zip(rows, on_front, strict=True):
        (value,) = values_of(spec, model=row.model, variant=row.variant)
        interval = matrix.evidence[row_name(row)].ap_interval
        assert value["front"] == is_on_front == row.pareto
        assert (value["ap"], value["low"], value["high"]) == pytest.approx(
            (100 * row.ap, 100 * interval.low, 100 * interval.high), rel=1e-5
        )
        assert value["fast"] <= value["latency"] <= value["slow"]


def test_simulated_and_quick_rows_say_so_in_the_picture_itself(matrix, make_results) -> None:
    charts = charts_of(matrix)
    assert "SIMULATED" in draw(charts["energy-nano"], "svg").decode()
    assert "SIMULATED" not in draw(charts["pareto-host"], "svg").decode()
    quick = charts_of(make_results([replace(make_results.fp32, protocol="quick")]))
    assert "NOT COMPARABLE" in draw(quick["pareto-host"], "svg").decode()
    assert "SIMULATED" in draw(charts["differences-nano"], "svg").decode()
    assert "SIMULATED" not in draw(charts["differences-host"], "svg").decode()


def test_radar_is_each_figure_as_a_share_of_the_best(matrix) -> None:
    charts = charts_of(matrix)
    values = charts["radar-nano"]["data"]["values"]
    best = min(row.latency_ms.mean for row in matrix.rows if row.device == "nano")
    for value in (value for value in values if value["axis"] == "mean latency"):
        (row,) = (
            r for r in matrix.rows if (r.model, r.variant, r.device) == (value["model"], value["variant"], "nano")
        )
        assert value["share"] == pytest.approx(best / row.latency_ms.mean, rel=1e-5)
        assert value["x"] ** 2 + value["y"] ** 2 == pytest.approx(value["share"] ** 2, rel=1e-4)
    assert len({value["row"] for value in values}) <= FEW


def test_radar_names_its_rings_above_the_polygons(matrix) -> None:
    spec = charts_of(matrix)["radar-nano"]
    drawn = vl_convert.vegalite_to_svg(spec)
    assert all(f">{share} %<" in drawn for share in (25, 50, 75, 100))
    assert spec["layer"][-1]["encoding"]["text"]["field"] == "share"


def test_a_model_has_one_shape_and_one_dash_in_all_charts_of_a_run(matrix) -> None:
    found: dict[str, set[tuple]] = {"shape": set(), "strokeDash": set()}
    for spec in charts_of(matrix).values():
        for layer in spec["layer"]:
            for channel, marks in found.items():
                of = layer["encoding"].get(channel, {})
                if of.get("field") == "model":
                    marks.add((tuple(of["scale"]["domain"]), str(of["scale"]["range"])))
                    there = {value["model"] for value in spec["data"]["values"]}
                    assert set(of["legend"]["values"]) == there
    assert all(len(marks) == 1 for marks in found.values())
    assert len(set(SHAPES)) == len(SHAPES)


def test_curves_of_equal_energy_are_round_and_each_is_named_once(matrix) -> None:
    curves, names, _ = charts_of(matrix)["power-nano"]["layer"]
    told = {value["mj"]: value["energy"] for value in names["data"]["values"]}
    assert len(told) == len(names["data"]["values"]) == len(set(told.values())) > 1
    assert {value["mj"] for value in curves["data"]["values"]} == set(told)
    for value in [*curves["data"]["values"], *names["data"]["values"]]:
        assert value["ms"] * value["watts"] == pytest.approx(value["mj"], rel=1e-4)
    assert all(f"{mj:g} mJ" == name and f"{mj:.0e}"[0] in "125" for mj, name in told.items())


def test_power_of_one_row_has_a_chart_too(make_results) -> None:
    spec = charts_of(make_results([replace(make_results.fp32, power_w=4.0)]))["power-host"]
    assert "4" in vl_convert.vegalite_to_svg(spec)


def test_ranking_shares_of_a_device_are_the_whole_simplex(matrix) -> None:
    shares = [value["share"] for value in charts_of(matrix)["ranking-nano"]["data"]["values"]]
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)


def test_energy_and_power_are_drawn_only_where_they_were_measured(matrix) -> None:
    names = charts_of(matrix)
    for kind in ("energy", "power", "map-per-joule"):
        assert f"{kind}-nano" in names
        assert f"{kind}-host" not in names


def test_rows_of_a_batch_are_marks_of_their_own_with_energy_by_the_image(make_results) -> None:
    alone = [replace(cell, power_w=4.0) for cell in (make_results.fp32, make_results.int8, make_results.qat)]
    fours = [replace(cell, model="nanodet_m-b4", batch=4, latency_ms=3 * cell.latency_ms) for cell in alone]
    results = make_results([*alone, *fours])
    charts = {chart.name: chart for chart in all_charts(results)}
    energies = {value["row"]: value["mj"] for value in charts["energy-host"].spec["data"]["values"]}
    for row in results.rows:
        assert energies[f"{row.model} {row.variant}"] == pytest.approx(row.energy_mj / row.batch, rel=1e-5)
        (fps,) = values_of(charts["real-time-host"].spec, row=f"{row.model} {row.variant}")
        assert fps["fps"] == pytest.approx(1000 * row.batch / row.latency_ms.mean, rel=1e-5)
    labels = {value["label"] for value in charts["differences-host"].spec["data"]["values"]}
    assert {label.partition(" ")[0] for label in labels} == {"nanodet_m", "nanodet_m-b4"}
    for name in ("pareto-host", "latency-host", "power-host", "radar-host", "ranking-host"):
        assert "in rows -bN with all its N images" in charts[name].caption
    assert not any("-bN" in chart.caption for chart in all_charts(make_results(alone)))
    assert "characteristics" not in charts  # one model, at whatever batch


def test_models_are_told_apart_by_a_legend_not_by_names_over_each_other(matrix) -> None:
    spec = charts_of(matrix)["characteristics"]
    (layer,) = spec["layer"]
    assert layer["mark"]["type"] == "point"
    drawn = vl_convert.vegalite_to_svg(spec)
    assert all(drawn.count(f">{name}<") == 1 for name, *_ in MODELS)


def test_a_variant_has_one_colour_in_every_chart(matrix) -> None:
    domains = [
        tuple(layer["encoding"]["color"]["scale"]["domain"])
        for spec in charts_of(matrix).values()
        for layer in spec["layer"]
        if "color" in layer["encoding"]
    ]
    assert len(set(domains)) == 1


def test_nothing_measured_is_nothing_drawn(make_results) -> None:
    assert all_charts(make_results([make_results.fp16, make_results.failed])) == []


@pytest.mark.parametrize("missing", ["score", "benchmark"])
def test_rows_measured_in_part_are_drawn_where_they_can_be(make_results, missing) -> None:
    partial = replace(make_results.int8, ended={missing: ("failed", "a board fell off the table")})
    for chart in all_charts(make_results([make_results.fp32, partial])):
        draw(chart.spec, "svg")


def test_equal_rows_all_lie_on_the_front_and_draw(make_results) -> None:
    results = make_results(replace(make_results.fp32, model=f"m{number}") for number in range(3))
    assert all(row.pareto for row in results.rows)
    charts = charts_of(results)
    assert sum(value["share"] for value in charts["ranking-host"]["data"]["values"]) == pytest.approx(1.0, abs=1e-4)
    for spec in charts.values():
        draw(spec, "svg")


def test_ids_of_a_drawing_in_a_page_are_its_own(matrix) -> None:
    spec = charts_of(matrix)["pareto-host"]
    drawn = svg(spec, "here-")
    assert drawn.count('id="') == drawn.count('id="here-')
    assert drawn.count("url(#") == drawn.count("url(#here-")
