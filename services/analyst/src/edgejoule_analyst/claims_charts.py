"""The figures of a paper drawn anew from its tables, as those of a run are; each says in itself that it is claimed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgejoule_analyst import chart_parts as parts
from edgejoule_analyst import pictures, ranking
from edgejoule_analyst.chart_parts import Spec
from edgejoule_analyst.charts import Chart, share_of_best
from edgejoule_analyst.claims import ClaimedEfficiency, Claims
from edgejoule_analyst.figures import METRICS
from edgejoule_analyst.pareto import front
from edgejoule_analyst.pictures import REAL_TIME_FPS, Values

MARKS = ("CLAIMED, NOT MEASURED",)
RANKED = "int8-qat"
"""The precision that the paper ranks."""
WEIGHED = ("ap50", "latency", "power", "energy")
"""What is weighed against each other: all that is printed of every row of that precision."""


def all_charts(claims: Claims) -> list[Chart]:
    """Every figure, in the order of reading."""
    models = [model.model for model in claims.models.rows]
    return [replace(made, spec=parts.of_models(made.spec, models)) for made in (chart(claims) for chart in CHARTS)]


def _pareto(claims: Claims) -> Chart:
    rows = list(claims.rows.values())
    on_front = front(
        maximise=[[float(row.ap50) for row in rows]], minimise=[[float(row.latency_ms) for row in rows]]
    ).tolist()
    values = [
        _named(row.model, row.variant)
        | {"ap": float(row.ap50), "latency": float(row.latency_ms), "front": is_on}
        | {"low": float(row.ap50 - row.ap50_std), "high": float(row.ap50 + row.ap50_std)}
        | {"fast": float(row.latency_ms - row.latency_std_ms), "slow": float(row.latency_ms + row.latency_std_ms)}
        for row, is_on in zip(rows, on_front, strict=True)
    ]
    best = ", ".join(value["row"] for value in values if value["front"])
    return Chart(
        "pareto",
        "Accuracy against latency",
        "Up and left is better. Bars: one printed standard deviation to each side. Dashed: the Pareto front of the"
        " printed figures, of rows that no other beats in both.",
        f"One mark per row. On the Pareto front: {best}.",
        _spec(values, pictures.pareto(values, "AP50", ("1 deviation less", "1 more"))),
        paper=6,
    )


def _accuracy(claims: Claims) -> Chart:
    values = [
        _named(row.model, row.variant)
        | {"ap50": float(row.ap50), "low": float(row.ap50 - row.ap50_std), "high": float(row.ap50 + row.ap50_std)}
        for row in claims.rows.values()
    ]
    return Chart(
        "accuracy",
        "Accuracy by precision",
        "Lines: one printed standard deviation to each side.",
        "; ".join(f"{value['row']} AP50 {value['ap50']:.1f}" for value in values) + ".",
        _spec(values, pictures.accuracy(values)),
        paper=4,
    )


def _real_time(claims: Claims) -> Chart:
    rows = sorted(claims.efficiency.rows, key=lambda row: -row.fps)
    values = [_named(row.model, row.variant) | {"fps": float(row.fps), "ms": float(row.latency_ms)} for row in rows]
    misses = [value["row"] for value in values if value["fps"] < REAL_TIME_FPS]
    return Chart(
        "real-time",
        "Real time",
        f"Frames per second as printed in {claims.efficiency.where}; the line is the paper's {REAL_TIME_FPS:g} FPS.",
        f"{len(values) - len(misses)} of {len(values)} rows reach {REAL_TIME_FPS:g} FPS"
        f"{'; not: ' + ', '.join(misses) if misses else ''}.",
        _spec(values, pictures.real_time(values), rows_high=True),
        paper=7,
    )


def _improvements(claims: Claims) -> Chart:
    values = []
    for row in claims.rows.values():
        base = claims.rows.get((row.model, "fp32"))
        if row.variant != "fp32" and base is not None and base.size_mb is not None and row.size_mb is not None:
            ratios = {"speed": float(base.latency_ms / row.latency_ms), "size": float(base.size_mb / row.size_mb)}
            values.append(_named(row.model, row.variant) | ratios)
    return Chart(
        "improvements",
        "Speed and size against FP32",
        "Up and right is better; the dashed lines are the model's FP32. Rows whose size is not printed are left out.",
        "; ".join(f"{v['row']} {v['speed']:.2f} times as fast, {v['size']:.2f} times as small" for v in values) + ".",
        _spec(values, pictures.improvements(values)),
        paper=5,
    )


def _power(claims: Claims) -> Chart:
    values = [
        _named(row.model, row.variant)
        | {"ms": float(row.latency_ms), "watts": float(row.power_w), "mj": float(row.latency_ms * row.power_w)}
        for row in claims.rows.values()
    ]
    return Chart(
        "power",
        "Power against latency",
        "Power under load. Down and left is better; along a dashed line an inference takes the same energy.",
        "; ".join(f"{value['row']} {value['watts']:.1f} W at {value['ms']:g} ms" for value in values) + ".",
        _spec(values, pictures.power(values)),
        paper=8,
    )


def _energy(claims: Claims) -> Chart:
    rows = sorted(claims.efficiency.rows, key=lambda row: row.energy_mj)
    values = [_named(row.model, row.variant) | {"mj": float(row.energy_mj)} for row in rows]
    return Chart(
        "energy",
        "Energy of one inference",
        f"As printed in {claims.efficiency.where}: power times latency. No uncertainty is printed.",
        "; ".join(f"{value['row']} {value['mj']:g} mJ" for value in values) + ".",
        _spec(values, pictures.energy(values, "inference"), rows_high=True),
        paper=9,
    )


def _map_per_joule(claims: Claims) -> Chart:
    rows = sorted(claims.efficiency.rows, key=lambda row: -row.map_per_joule)
    values = [_named(row.model, row.variant) | {"per_joule": float(row.map_per_joule)} for row in rows]
    return Chart(
        "map-per-joule",
        "Accuracy per energy",
        f"As printed in {claims.efficiency.where}: AP50 in percent over joules. No uncertainty is printed.",
        "; ".join(f"{value['row']} {value['per_joule']:g}" for value in values) + ".",
        _spec(values, pictures.map_per_joule(values), rows_high=True),
        paper=10,
    )


def _radar(claims: Claims) -> Chart:
    weighed = _weighed(claims)
    axes = {}
    for name, metric in ((name, METRICS[name]) for name in WEIGHED):
        values = [figures[name] for figures in weighed.values()]
        best = max(values) if metric.higher_is_better else min(values)
        axes[metric.title] = [(share_of_best(value, best, metric), metric.show(value)) for value in values]
    drawn, layers = pictures.radar([_named(model, RANKED) for model in weighed], axes)
    said = (
        f"{model}: " + ", ".join(METRICS[name].show(figures[name]) for name in WEIGHED)
        for model, figures in weighed.items()
    )
    return Chart(
        "radar",
        f"Overall, {RANKED}",
        "Each figure as a share of the best that is printed: further out is better. Areas mean nothing, since they hang"
        " on the order of the axes. Size is not among them: it is not printed of these rows.",
        "; ".join(said) + ".",
        _spec(drawn, layers) | parts.ROUND,
        paper=11,
    )


def _ranking(claims: Claims) -> Chart:
    weighed = _weighed(claims)
    higher = [METRICS[name].higher_is_better for name in WEIGHED]
    shares = ranking.weigh({model: [figures[name] for name in WEIGHED] for model, figures in weighed.items()}, higher)
    values = [
        _named(share.name, RANKED) | {"share": share.share, "equal": share.equal_weights_score}
        for share in shares
        if share.share > 0
    ]
    of = ", ".join(METRICS[name].title for name in WEIGHED)
    said = " and ".join(f"{share} % ({model})" for model, share in claims.prevalence.percent.items())
    return Chart(
        "ranking",
        f"Who wins, whatever one weighs how, {RANKED}",
        f"Of all ways to weigh {of} against each other: the exact part under which each row comes first. Rows that"
        f" never win are left out. The paper says of how many situations each is the best in: {said}.",
        "; ".join(f"{value['row']} {value['share']:.0%}" for value in values) + ".",
        _spec(values, pictures.ranking(values), rows_high=True),
    )


def _characteristics(claims: Claims) -> Chart:
    values = [
        {"row": model.model, "model": model.model, "variant": "fp32", "ap": float(base.ap50)}
        | {"params": float(model.params_m), "cost": float(model.gflops)}
        for model in claims.models.rows
        if (base := claims.rows.get((model.model, "fp32"))) is not None
    ]
    return Chart(
        "characteristics",
        "What the models are",
        f"As printed in {claims.models.where}; what the audit finds of these figures stands beside them in the table.",
        "; ".join(
            f"{v['model']}: {v['params']:g} M parameters, {v['cost']:g} GFLOPs, AP50 {v['ap']:.1f}" for v in values
        )
        + ".",
        _spec(values, pictures.characteristics(values, "GFLOPs", "inference", "AP50")),
        paper=3,
    )


def _weighed(claims: Claims) -> dict[str, dict[str, float]]:
    """Model to what is weighed, by metric; AP50 as a fraction, as everywhere in the metrics."""
    derived: dict[tuple[str, str], ClaimedEfficiency] = {
        (row.model, row.variant): row for row in claims.efficiency.rows
    }
    return {
        model: {
            "ap50": float(row.ap50) / 100,
            "latency": float(row.latency_ms),
            "power": float(row.power_w),
            "energy": float(derived[model, variant].energy_mj),
        }
        for (model, variant), row in claims.rows.items()
        if variant == RANKED and (model, variant) in derived
    }


def _named(model: str, variant: str) -> dict[str, Any]:
    return {"row": f"{model} {variant}", "model": model, "variant": variant}


def _spec(values: Values, layers: list[Spec], rows_high: bool = False) -> Spec:
    return parts.spec(MARKS, values, layers, rows_high)


CHARTS = (
    _pareto,
    _accuracy,
    _real_time,
    _improvements,
    _power,
    _energy,
    _map_per_joule,
    _radar,
    _ranking,
    _characteristics,
)
