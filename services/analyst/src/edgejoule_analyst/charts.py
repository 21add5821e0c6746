"""The figures of a report, each a Vega-Lite specification made from results alone: equal results give equal charts.

Colour says the variant and shape says the model, so that neither must be told from colour alone. The counterparts of
the paper's Figures 3 to 11 are here; ``Chart.paper`` says which is which. How they look is ``pictures``; what lets a
page or a file show them is ``drawing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgejoule.decisions import Share
from edgejoule.records import GraphError, Results, Row
from edgejoule_analyst import chart_parts as parts
from edgejoule_analyst import layer_errors, paper_tables, pictures, ranking
from edgejoule_analyst.chart_parts import Spec
from edgejoule_analyst.figures import METRICS, Known, Metric, interval_of
from edgejoule_analyst.pictures import FEW, REAL_TIME_FPS
from edgejoule_analyst.words import level, model_name, p_value, row_name, signed_points

SIZES = (("ap_small", "small"), ("ap_medium", "medium"), ("ap_large", "large"))
CONFIDENCE = 0.975
"""One-sided, so that both bounds together leave out 5 %."""
MOST_LAYER_MARKS = 2500
"""In all charts of layers together, so that a page grows by no megabytes; five detectors by two kinds of INT8 fit."""
WORDS_OF = {"weights": "weights", "input": "what it reads"}
"""What the charts call ``layer_errors.TENSORS``."""
RADAR = ("ap50", "latency", "energy", "memory", "size")
"""What the radar and the ranking weigh, where every row that takes part has it."""


@dataclass(frozen=True)
class Chart:
    """One figure."""

    name: str
    """Unique within a report; also the name of its file."""
    title: str
    caption: str
    said: str
    """What it shows, in words, for who cannot see it."""
    spec: Spec
    paper: int | None = None
    """The paper's figure that it is the counterpart of."""
    metric: str | None = None
    """The one of ``figures.METRICS`` that it is of, where a page lets one choose between such charts."""


def all_charts(results: Results) -> list[Chart]:
    """Every figure that the results have something to draw for, in the order of reading."""
    rows = results.rows
    devices = list(dict.fromkeys(row.device for row in rows if row.ap is not None or row.latency_ms is not None))
    found: list[Chart | None] = []
    for device in devices:
        here = [row for row in rows if row.device == device]
        found += [chart(results, device, here) for chart in OF_A_DEVICE]
    found += [_characteristics(results), _seeds(results), *_layers(results)]
    models = list(dict.fromkeys(name for row in rows for name in (model_name(row), row.model)))
    return [replace(chart, spec=parts.of_models(chart.spec, models)) for chart in found if chart is not None]


# --- one device ------------------------------------------------------------------------------------


def _pareto(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values = []
    for row in rows:
        if row.ap is not None and row.latency_ms is not None:
            evidence = results.evidence[row_name(row)]
            interval, mean = evidence.ap_interval, row.latency_ms.mean
            curve = evidence.latency_curve_ms or [mean] * 101
            values.append(
                parts.named(row)
                | {"ap": _points(row.ap), "latency": mean, "fast": min(curve[10], mean), "slow": max(curve[90], mean)}
                | {"low": _points(min(interval.low, row.ap) if interval else row.ap)}
                | {"high": _points(max(interval.high, row.ap) if interval else row.ap)}
                | {"front": bool(row.pareto)}
            )
    if not values:
        return None
    best = ", ".join(value["row"] for value in values if value["front"]) or "none"
    area = "".join(
        f" Its hypervolume, the area that it covers down to AP {found.reference_ap:g} and out to"
        f" {found.reference_latency_ms:.3g} ms, is {found.hypervolume_ap_ms:.3g} AP·ms (AP from 0 to 1; more is"
        " better)."
        for found in results.fronts
        if found.device == device
    )
    return Chart(
        f"pareto-{slug(device)}",
        f"Accuracy against latency, {of_device(device, rows)}",
        "Up and left is better. Vertical bars: interval of AP over images. Horizontal bars: 10th to 90th percentile of"
        " single inferences. Dashed: the Pareto front, of rows that no other beats in both."
        f"{area} The intervals of two rows share their images; whether they differ is told by the differences, not by"
        " their overlap." + _of_batches(rows),
        f"One mark per row with its intervals. On the Pareto front: {best}.",
        parts.spec(parts.marks_of(rows), values, pictures.pareto(values, "AP", ("10 % below", "90 % below"))),
        paper=6,
    )


def _accuracy(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values = []
    for row in rows:
        if row.ap50 is not None:
            interval = results.evidence[row_name(row)].ap50_interval
            bounds = (interval.low, interval.high) if interval else (row.ap50, row.ap50)
            values.append(
                parts.named(row) | {"ap50": _points(row.ap50), "low": _points(bounds[0]), "high": _points(bounds[1])}
            )
    if not values:
        return None
    return Chart(
        f"accuracy-{slug(device)}",
        f"Accuracy by precision, {of_device(device, rows)}",
        "AP50 of every scored row. Lines: interval over images; whether two rows differ is told by the differences.",
        "; ".join(f"{value['row']} AP50 {value['ap50']:.1f}" for value in values) + ".",
        parts.spec(parts.marks_of(rows), values, pictures.accuracy(values)),
        paper=4,
    )


def _sizes(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values = [
        parts.named(row) | {"size": size, "ap": _points(ap)}
        for row in rows
        for field, size in SIZES
        if (ap := getattr(row, field)) is not None
    ]
    if not values:
        return None
    shape = parts.nominal(
        "size",
        scale={"domain": [size for _, size in SIZES], "range": ["circle", "square", "triangle-up"]},
        legend={"title": "Objects"},
    )
    place = {"x": parts.quantitative("ap", "AP, points"), "y": parts.row_axis(), "color": parts.colour(values)}
    told = [("size", "objects", None), ("ap", "AP", ".1f")]
    layers = [
        parts.layer("line", {**place, "detail": {"field": "row"}}, opacity=0.5),
        parts.layer(
            "point", {**place, "shape": shape, "tooltip": parts.tooltip(told)}, filled=True, opacity=1, size=75
        ),
    ]
    return Chart(
        f"sizes-{slug(device)}",
        f"Accuracy by size of the objects, {of_device(device, rows)}",
        "COCO's sizes: small under 32² square pixels, large from 96² on. No mark: no object of that size.",
        "; ".join(f"{value['row']} {value['size']} {value['ap']:.1f}" for value in values) + ".",
        parts.spec(parts.marks_of(rows), values, layers, rows_high=True),
    )


def _real_time(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    timed = sorted((row for row in rows if row.fps is not None), key=lambda row: -(row.fps or 0))
    values = [
        parts.named(row) | {"fps": row.fps, "ms": row.latency_ms.mean} | _ends("fps", row, results)
        for row in timed
        if row.latency_ms
    ]
    if not values:
        return None
    misses = [row_name(row) for row in timed if (row.fps or 0) < REAL_TIME_FPS]
    return Chart(
        f"real-time-{slug(device)}",
        f"Real time, {of_device(device, rows)}",
        f"Frames per second of inference alone, {_at_a_time(timed)}; the line is {REAL_TIME_FPS:g} FPS: a frame of a"
        " usual camera every 33.3 ms. What comes before and after is not in it; Practical FPS in the tables has it."
        " Lines: 95 % interval (Student's t) over the trials, where there are two or more.",
        f"{len(timed) - len(misses)} of {len(timed)} rows reach {REAL_TIME_FPS:g} FPS"
        f"{'; not: ' + ', '.join(misses) if misses else ''}.",
        parts.spec(parts.marks_of(rows), values, pictures.real_time(values), rows_high=True),
        paper=7,
    )


def _ends(metric: str, row: Row, results: Results) -> dict[str, float | None]:
    """``low`` and ``high`` of a figure's interval; null where it has none."""
    found = interval_of(metric, row, results.evidence[row_name(row)])
    return {"low": found.low, "high": found.high} if isinstance(found, Known) else {"low": None, "high": None}


def _at_a_time(rows: Sequence[Row]) -> str:
    """How many frames an inference takes."""
    if all(row.batch == 1 for row in rows):
        return "one frame at a time"
    return "one inference at a time (rows -bN: of N frames, which the camera must have delivered first)"


def _of_batches(rows: Sequence[Row]) -> str:
    """What latency is of where some rows take several images at once; nothing where none does."""
    if all(row.batch == 1 for row in rows):
        return ""
    return " Latency is of one inference, in rows -bN with all its N images."


def _distribution(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values, timed = [], [row for row in rows if results.evidence[row_name(row)].latency_curve_ms]
    if not timed:
        return None
    curves = {row_name(row): results.evidence[row_name(row)].latency_curve_ms for row in timed}
    slowest = max(curve[99] for curve in curves.values())
    for row in timed:
        for share, ms in enumerate(curves[row_name(row)]):
            if ms <= slowest:
                values.append(parts.named(row) | {"ms": ms, "share": share / 100})
    x = parts.quantitative("ms", "latency, ms", zero=False)
    y = parts.quantitative("share", "share of inferences") | {"axis": {"format": "%"}}
    encoding = {
        "x": x,
        "y": y,
        "color": parts.colour(values, "stroke"),
        "strokeDash": parts.nominal("model", legend=parts.dash_legend(values)),
        "opacity": parts.picked(),
        "detail": {"field": "row"},
        "order": {"field": "share"},
        "tooltip": parts.tooltip([("share", "done by then", ".0%"), ("ms", "ms", ".2f")]),
    }
    line = parts.layer("line", encoding, params=[parts.legend(), parts.zoomable()], strokeWidth=2)
    said = "; ".join(f"{row_name(row)} median {row.latency_ms.p50:.2f} ms" for row in timed if row.latency_ms)
    return Chart(
        f"latency-{slug(device)}",
        f"Distribution of latency, {of_device(device, rows)}",
        "Share of single inferences done within a time, all trials together. Drawn up to the greatest 99th percentile;"
        f" what is slower is in the table only as p99.{_of_batches(timed)}",
        said + ".",
        parts.spec(parts.marks_of(rows), values, [line]),
    )


def _power(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values = [
        parts.named(row) | {"ms": row.latency_ms.mean, "watts": row.power_w, "mj": row.latency_ms.mean * row.power_w}
        for row in rows
        if row.latency_ms is not None and row.power_w is not None
    ]
    if not values:
        return None
    said = "; ".join(f"{value['row']} {value['watts']:.2f} W at {value['ms']:.2f} ms" for value in values)
    return Chart(
        f"power-{slug(device)}",
        f"Power against latency, {of_device(device, rows)}",
        "Power at work. Down and left is better; along a dashed line an inference takes the same energy."
        + _of_batches(rows),
        said + ".",
        parts.spec(parts.marks_of(rows), values, pictures.power(values)),
        paper=8,
    )


def _energy(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values = []
    for row in sorted(rows, key=lambda row: row.per_image(row.energy_mj) or 0):
        if (energy_mj := row.per_image(row.energy_mj)) is not None:
            half_width = row.per_image(row.energy_uncertainty_mj) or 0
            ends = {"low": energy_mj - half_width, "high": energy_mj + half_width}
            above = row.per_image(row.energy_above_idle_mj)
            values.append(parts.named(row) | {"mj": energy_mj, "above": above} | ends)
    if not values:
        return None
    tick = {"x": {"field": "above", "type": "quantitative"}, "y": parts.row_axis()}
    layers = [*pictures.energy(values, "image"), parts.layer("tick", tick, thickness=2, color="gray")]
    return Chart(
        f"energy-{slug(device)}",
        f"Energy per image, {of_device(device, rows)}",
        "Lines: half-width at 95 %. Grey ticks: what is above idling for as long.",
        "; ".join(f"{value['row']} {value['mj']:.1f} mJ" for value in values) + ".",
        parts.spec(parts.marks_of(rows), values, layers, rows_high=True),
        paper=9,
    )


def _map_per_joule(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values = []
    for row in sorted(rows, key=lambda row: -(row.map_per_joule or 0)):
        if row.map_per_joule is not None:
            values.append(parts.named(row) | {"per_joule": row.map_per_joule} | _ends("map-per-joule", row, results))
    if not values:
        return None
    return Chart(
        f"map-per-joule-{slug(device)}",
        f"Accuracy per energy, {of_device(device, rows)}",
        "AP50 in percent over the energy per image in joules. Lines: 95 % interval, from the images, the trials and, as"
        " far as it is known, the power sensor's own error.",
        "; ".join(f"{value['row']} {value['per_joule']:.0f}" for value in values) + ".",
        parts.spec(parts.marks_of(rows), values, pictures.map_per_joule(values), rows_high=True),
        paper=10,
    )


def _improvements(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    values = [
        parts.named(ratio.row) | {"speed": ratio.speed, "size": ratio.size}
        for ratio in paper_tables.ratios(results)
        if ratio.row.device == device and ratio.size is not None and ratio.speed is not None
    ]
    if not values:
        return None
    said = (f"{v['row']} {v['speed']:.2f} times as fast, {v['size']:.2f} times as small" for v in values)
    return Chart(
        f"improvements-{slug(device)}",
        f"Speed and size against FP32, {of_device(device, rows)}",
        "Up and right is better; the dashed lines are the model's FP32 on the same device.",
        "; ".join(said) + ".",
        parts.spec(parts.marks_of(rows), values, pictures.improvements(values)),
        paper=5,
    )


def _radar(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    candidates = [row for row in rows if row.status == "ok"]
    on_front = [row for row in candidates if row.pareto]
    shown = candidates if len(candidates) <= FEW else on_front[:FEW]
    metrics, known = _common(results, shown)
    if len(shown) < 2 or len(metrics) < 3:
        return None
    best = {
        name: (max if METRICS[name].higher_is_better else min)(known[row_name(row)][name] for row in shown)
        for name in metrics
    }
    of_rows = {name: [known[row_name(row)][name] for row in shown] for name in metrics}
    axes = {
        METRICS[name].title: [
            (share_of_best(value, best[name], METRICS[name]), METRICS[name].show(value)) for value in of
        ]
        for name, of in of_rows.items()
    }
    values, layers = pictures.radar([parts.named(row) for row in shown], axes)
    said = (
        f"{name}: " + ", ".join(METRICS[metric].show(known[name][metric]) for metric in metrics)
        for name in map(row_name, shown)
    )
    return Chart(
        f"radar-{slug(device)}",
        f"Overall, {of_device(device, rows)}",
        "Each figure as a share of the best that was measured: further out is better. Areas mean nothing, since they"
        " hang on the order of the axes."
        + (" Only rows on the Pareto front." if len(shown) < len(candidates) else "")
        + _of_batches(shown),
        "; ".join(said) + ".",
        parts.spec(parts.marks_of(rows), values, layers) | parts.ROUND,
        paper=11,
    )


@dataclass(frozen=True)
class Ranking:
    """The rows of a device by weighted normalized metrics."""

    device: str
    metrics: list[str]
    """Those of ``RADAR`` that every row has."""
    normalized: dict[str, list[float]]
    """Row name to each metric from 0, the worst of the rows, to 1."""
    shares: list[Share]


def rank(results: Results, device: str, rows: Sequence[Row]) -> Ranking | None:
    """The rows that ended well, by every weighting; None where there are no two rows or no two metrics."""
    candidates = [row for row in rows if row.status == "ok"]
    metrics, known = _common(results, candidates)
    if len(candidates) < 2 or len(metrics) < 2:
        return None
    values = {name: [known[name][metric] for metric in metrics] for name in map(row_name, candidates)}
    higher = [METRICS[metric].higher_is_better for metric in metrics]
    scaled = ranking.normalized(list(values.values()), higher).tolist()
    return Ranking(device, metrics, dict(zip(values, scaled, strict=True)), ranking.weigh(values, higher))


def _ranking(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    found = rank(results, device, rows)
    if found is None:
        return None
    by_name = {row_name(row): row for row in rows}
    values = [
        parts.named(by_name[share.name]) | {"share": share.share, "equal": share.equal_weights_score}
        for share in found.shares
        if share.share > 0
    ]
    weighed = ", ".join(METRICS[metric].title for metric in found.metrics)
    batches = _of_batches([by_name[name] for name in found.normalized])
    return Chart(
        f"ranking-{slug(device)}",
        f"Who wins, whatever one weighs how, {of_device(device, rows)}",
        f"Of all ways to weigh {weighed} against each other, each scaled from the worst row to the best: the exact part"
        f" under which each row comes first. Rows that never win are left out.{batches}",
        "; ".join(f"{value['row']} {value['share']:.0%}" for value in values) + ".",
        parts.spec(parts.marks_of(rows), values, pictures.ranking(values), rows_high=True),
    )


def _differences(results: Results, device: str, rows: Sequence[Row]) -> Chart | None:
    by_name = {row_name(row): row for row in rows}
    differences = [d for d in results.differences if d.row in by_name]
    if not differences:
        return None
    values = []
    for d in differences:
        row, against = by_name[d.row], by_name[d.against]
        label = f"{row.model} {row.variant} − {against.variant}"
        tests = {name: None if p is None else p_value(p) for name, p in (("p", d.p), ("p_holm", d.p_holm))}
        ends = {"difference": _points(d.difference), "low": _points(d.low), "high": _points(d.high)}
        values.append(
            parts.named(row) | {"label": label, "metric": d.metric.upper(), "verdict": d.verdict} | ends | tests
        )
    x = parts.quantitative("difference", "points less  |  points more")
    place: Spec = {
        "y": parts.nominal("label", axis={"labelLimit": 260}),
        "yOffset": parts.nominal("metric"),
        "color": parts.colour(values),
    }
    shape = parts.nominal("metric", scale={"domain": ["AP", "AP50"], "range": ["square", "circle"]})
    told = [
        *(("label", "between", None), ("metric", "metric", None), ("difference", "points", "+.2f")),
        *(("low", "from", "+.2f"), ("high", "to", "+.2f"), ("p", "p", None), ("p_holm", "p after Holm", None)),
        ("verdict", "verdict", None),
    ]
    mark = {**place, "x": x, "shape": shape, "tooltip": parts.tooltip(told)}
    layers = [
        parts.rule_at(0.0),
        parts.layer("rule", {**place, **parts.between("x", "low", "high")}, strokeWidth=2),
        parts.layer("point", mark, filled=True, size=60, opacity=1),
    ]
    first = differences[0]
    said = "; ".join(
        f"{d.row} − {by_name[d.against].variant} {d.metric.upper()} {signed_points(d.difference)}, "
        f"{signed_points(d.low)} to {signed_points(d.high)}"
        for d in differences
    )
    return Chart(
        f"differences-{slug(device)}",
        f"Differences in accuracy, {of_device(device, rows)}",
        f"{level(first.level)} intervals, paired bootstrap over {first.images} images, {first.resamples} resamples, not"
        " corrected. The verdict is by a paired permutation test, corrected by Holm over all differences of the run, so"
        " an interval may leave out 0 without evidence of a difference. No evidence is not evidence of none.",
        f"Points with intervals: {said}.",
        parts.spec(parts.marks_of(rows), values, layers) | {"height": 13 * len(values)},
    )


OF_A_DEVICE = (
    _pareto,
    _accuracy,
    _real_time,
    _improvements,
    _power,
    _energy,
    _map_per_joule,
    _radar,
    _ranking,
    _sizes,
    _differences,
    _distribution,
)


# --- the whole run ---------------------------------------------------------------------------------


def _characteristics(results: Results) -> Chart | None:
    floats = [row for row in results.rows if row.variant == "fp32" and row.params_m is not None and row.ap is not None]
    # one for all devices and batches: weights at an input size are one model
    floats = list({(row.hashes.weights or row.model, row.gmacs): row for row in reversed(floats)}.values())[::-1]
    if len(floats) < 2:
        return None
    values = [
        {"row": (name := model_name(row)), "model": name, "variant": row.variant, "ap": _points(row.ap or 0)}
        | {"params": row.params_m, "cost": row.gmacs}
        | ({"input": f"{size.width} × {size.height}"} if (size := results.evidence[row_name(row)].input) else {})
        for row in floats
    ]
    said = (f"{v['model']}: {v['params']:.2f} M parameters, {v['cost']:.2f} GMACs, AP {v['ap']:.1f}" for v in values)
    return Chart(
        "characteristics",
        "What the models are",
        "Eq. 1 counts twice the MACs. Accuracy is of FP32, on the first device of the spec.",
        "; ".join(said) + ".",
        parts.spec(parts.marks_of(floats), values, pictures.characteristics(values, "GMACs", "image", "AP")),
        paper=3,
    )


def _seeds(results: Results) -> Chart | None:
    fp32 = {(row.model, row.device): row.ap50 for row in results.rows if row.variant == "fp32"}
    rows = [row for row in results.rows if row.repeats]
    several = len({row.device for row in rows}) > 1
    values = []
    for row in rows:
        named = parts.named(row)
        named["row"] += f", {row.device}" if several else ""
        scores = [again.ap50 for again in row.repeats or ()]
        base = fp32.get((row.model, row.device))
        common = {"mean": _points(sum(scores) / len(scores)), "fp32": None if base is None else _points(base)}
        for again in row.repeats or ():
            values.append(named | common | {"seed": str(again.seed), "ap50": _points(again.ap50)})
    if not values:
        return None
    of_rows = (
        f"{row_name(row)}: {', '.join(f'{_points(again.ap50):.2f}' for again in row.repeats or ())}" for row in rows
    )
    return Chart(
        "seeds",
        "AP50 of INT8 by other seeds",
        "Each ring: INT8 made by one seed, scored on the same images. Coloured tick: their mean. Grey tick: the model's"
        " FP32, which no seed changes.",
        "; ".join(of_rows) + ".",
        parts.spec(parts.marks_of(rows), values, pictures.seeds(values), rows_high=True),
    )


def _layers(results: Results) -> list[Chart]:
    """Of one model after the other, as long as there is room for their marks."""
    graphs: dict[str, list[GraphError]] = {}
    for graph in results.quantization:
        if graph.error is not None:
            graphs.setdefault(graph.model, []).append(graph)
    found, marks = [], 0
    for model, of in graphs.items():
        chart = _layers_of(model, of)
        marks += len(chart.spec["data"]["values"]) if chart else 0
        if marks > MOST_LAYER_MARKS:
            break
        found += [chart] if chart else []
    return found


def layers_figure(model: str) -> str:
    """Name of the chart of a model's layers."""
    return f"layers-{slug(model)}"


def _layers_of(model: str, graphs: Sequence[GraphError]) -> Chart | None:
    values, ranked, in_float, said = [], [], {}, []
    for graph in graphs:
        assert graph.error is not None
        parts_of_graph = list(layer_errors.parts_of(graph.error))
        for part in parts_of_graph:
            at = {"layer": part.layer, "number": part.number, "of": WORDS_OF[part.tensor], "db": round(part.sqnr_db, 1)}
            values.append({"variant": graph.variant, **at})
        worst = layer_errors.worst(parts_of_graph)
        for rank, part in enumerate(worst, 1):
            ranked.append({"variant": graph.variant, "number": part.number, "db": part.sqnr_db, "rank": str(rank)})
        for number, layer in enumerate(graph.error.layers, 1):
            if layer.float_because is not None:
                in_float[number] = {"layer": layer.name, "number": number, "why": layer.float_because}
        told = (
            f"{rank} {part.layer} ({WORDS_OF[part.tensor]}, {part.sqnr_db:.1f} dB)"
            for rank, part in enumerate(worst, 1)
        )
        said.append(f"{graph.variant}: {', '.join(told)}")
    if not values:
        return None
    stays = f" Grey: {len(in_float)} layers that stay in float." if in_float else ""
    worst_first = f"Worst of {'; of '.join(said)}."
    return Chart(
        layers_figure(model),
        f"Quantization error by layer, {model}",
        "Ratio of a tensor's power to its MSQE, in the order in which the network runs its layers; 6 dB are a bit."
        f" {worst_first}{stays}",
        worst_first,
        parts.spec([], values, pictures.layers(values, ranked, list(in_float.values()))),
    )


# --- what a device's rows have in common ---------------------------------------------------------------


def _common(results: Results, rows: Sequence[Row]) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Metrics of the radar that every row has, and their values by row."""
    known: dict[str, dict[str, float]] = {}
    for row in rows:
        evidence = results.evidence[row_name(row)]
        estimates = {name: METRICS[name].estimate(row, evidence, CONFIDENCE).value for name in RADAR}
        known[row_name(row)] = {name: value for name, value in estimates.items() if value is not None}
    return [name for name in RADAR if rows and all(name in values for values in known.values())], known


def share_of_best(value: float, best: float, metric: Metric) -> float:
    first, second = (value, best) if metric.higher_is_better else (best, value)
    return 0.0 if second == 0 else first / second


def _points(fraction: float) -> float:
    return 100 * fraction


def of_device(device: str, rows: Sequence[Row]) -> str:
    return f"{device}, simulated" if any(row.simulated for row in rows) else device


def slug(name: str) -> str:
    """A name for files and elements, another for each name of a device or a model.

    >>> slug("nano_1"), slug("nano.1")
    ('nano_1', 'nano-2e-1')
    """
    return "".join(each if each.isalnum() or each in "_-" else f"-{ord(each):x}-" for each in name)
