"""Does what a paper claims follow from itself, and can it be? Pure checks, each with its equation and its arithmetic.

A printed figure is good to half of its last place. A figure that is computed from printed ones is compared with what
is printed after the same rounding; where rounding of the *inputs* could explain a difference, the line says so and
still counts: a reader has nothing but what is printed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from edgejoule_analyst import hardware, plausibility
from edgejoule_analyst.claims import ClaimedRow, Claims, Figure, Known, KnownBoard, Quantity, Range, precision_of
from edgejoule_analyst.pareto import front
from edgejoule_analyst.sensitivity import sensitivity_class

Nature = Literal["cannot be", "is implausible", "contradicts itself", "differs from what is known"]
Verdict = Literal[Nature, "none found", "not checked"]

MIB_PER_MB = Decimal("1.048576")
"""A size "in MB" may be in 2**20 bytes: the reading that favours the paper."""

FAR_PP = Decimal(3)
"""AP50 of one checkpoint moves less than this between evaluators that agree on what AP is."""

FAR_SHARE = Decimal("0.15")
"""Counts of parameters or operations differ by conventions (heads, batch norm, biases), but by less than this."""


Place = tuple[str, str, str]
"""A printed figure: model, variant and column, by its name in ``claims``; what is of the model alone has no variant."""


@dataclass(frozen=True)
class Line:
    """One comparison: where it is printed, the arithmetic, whether it holds."""

    where: str
    said: str
    holds: bool
    of: Sequence[Place] = ()
    """The figures of the measured rows and of the models that it speaks of; none where it is of something else."""


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    check: str
    title: str
    equation: str
    nature: Nature
    lines: list[Line]
    unchecked: list[str] = field(default_factory=list)

    @property
    def contradictions(self) -> list[Line]:
        """The lines that do not hold."""
        return [line for line in self.lines if not line.holds]

    @property
    def verdict(self) -> Verdict:
        """``none found`` only where something was compared."""
        if self.contradictions:
            return self.nature
        return "none found" if self.lines else "not checked"


def audit(claims: Claims, known: Known) -> list[Finding]:
    """Every check, those that find nothing included."""
    return [check(claims, known) for check in CHECKS]


def contradicted(findings: Sequence[Finding]) -> list[Finding]:
    """The checks that found something."""
    return [finding for finding in findings if finding.contradictions]


# --- printed numbers -----------------------------------------------------------------------------


def half_unit(printed: Decimal) -> Decimal:
    """Half of the last printed place.

    >>> half_unit(Decimal("47.6")), half_unit(Decimal("873"))
    (Decimal('0.05'), Decimal('0.5'))
    """
    exponent = printed.as_tuple().exponent
    return Decimal(5).scaleb(int(exponent) - 1)


def agrees(printed: Decimal, computed: Decimal) -> bool:
    """Whether ``computed``, rounded as ``printed`` is, is ``printed``; a half may go either way.

    >>> agrees(Decimal("1574"), Decimal("1574.71")), agrees(Decimal("1575"), Decimal("1574.71"))
    (False, True)
    """
    return abs(printed - computed) <= half_unit(printed)


def reach(formula: Callable[..., Decimal], *printed: Decimal) -> tuple[Decimal, Decimal]:
    """Least and greatest value of a formula, monotone in each argument, over what the printed inputs may have been.

    >>> reach(lambda a, b: a - b, Decimal("2.1"), Decimal("1.2"))
    (Decimal('0.80'), Decimal('1.00'))
    """
    ends = [(value - half_unit(value), value + half_unit(value)) for value in printed]
    values = [formula(*corner) for corner in itertools.product(*ends)]
    return min(values), max(values)


def number(value: Decimal, digits: int = 4) -> str:
    """So many significant digits, without an exponent; whole numbers whole.

    >>> number(Decimal("1574.712643")), number(Decimal("0.02")), number(Decimal("12345.6")), number(Decimal(-0.25))
    ('1575', '0.02', '12346', '-0.25')
    """
    shown = f"{float(value):.{digits}g}"
    return f"{float(value):.0f}" if "e" in shown else shown


def _derived(
    where: str,
    name: str,
    text: str,
    printed: Decimal,
    formula: Callable[..., Decimal],
    *inputs: Decimal,
    of: Sequence[Place] = (),
) -> Line:
    """A printed figure beside the formula over its printed inputs."""
    computed = formula(*inputs)
    holds = agrees(printed, computed)
    said = f"{name}: {text} = {number(computed, 6)}; printed {printed}"
    if not holds:
        least, most = reach(formula, *inputs)
        within = least <= printed + half_unit(printed) and most >= printed - half_unit(printed)
        spread = f"{number(least, 5)} to {number(most, 5)}"
        said += f" (with the inputs' rounding {spread}: {'may be' if within else 'cannot be'} rounding)"
    return Line(where, said, holds, of)


# --- what the tables make of themselves -----------------------------------------------------------


def derived_columns(claims: Claims, _known: Known) -> Finding:
    lines = []
    where = claims.efficiency.where
    idle = claims.board.idle_power_w
    for row in claims.efficiency.rows:
        name, ap50 = f"{row.model} {row.variant}", claims.row(row.model, row.variant).ap50
        ms, watts, mj, dynamic = row.latency_ms, row.power_w, row.energy_mj, row.dynamic_w
        fps, power, energy, per_joule = (
            [(row.model, row.variant, column)] for column in ("fps", "dynamic_w", "energy_mj", "map_per_joule")
        )
        lines += [
            _derived(where, f"{name}, FPS", f"1000 / {ms}", row.fps, lambda t: 1000 / t, ms, of=fps),
            _derived(
                *(where, f"{name}, P_dynamic", f"{watts} - {idle}", dynamic, lambda p, i: p - i, watts, idle), of=power
            ),
            _derived(where, f"{name}, energy", f"{watts} W x {ms} ms", mj, lambda p, t: p * t, watts, ms, of=energy),
            _derived(
                *(where, f"{name}, mAP/J", f"{ap50} / ({mj} / 1000)", row.map_per_joule),
                *(lambda ap, e: ap / (e / 1000), ap50, mj),
                of=per_joule,
            ),
        ]
    return Finding(
        "derived columns",
        "Derived columns that do not follow from their own inputs",
        "FPS = 1000 / latency; P_dynamic = P_loaded - P_idle; E = P_loaded x latency; mAP/J = mAP / E",
        "contradicts itself",
        lines,
    )


def differences(claims: Claims, _known: Known) -> Finding:
    lines = [
        _derived(
            claims.surveyed.where,
            *(f"{row.model} on {row.platform}", f"{row.int8} - {row.fp32}", row.change_pp),
            *(lambda a, b: a - b, row.int8, row.fp32),
        )
        for row in claims.surveyed.rows
    ]
    for table in claims.measured:
        for row in table.rows:
            for column, variant in (("to_fp32_pp", "fp32"), ("to_ptq_pp", "int8-ptq")):
                printed = getattr(row, column)
                if printed is not None:
                    other = claims.row(row.model, variant).ap50
                    name = f"{row.model} {row.variant} against {variant}"
                    text = f"{row.ap50} - {other}"
                    of = [(row.model, row.variant, column)]
                    lines.append(_derived(table.where, name, text, printed, lambda a, b: a - b, row.ap50, other, of=of))
    return Finding(
        "differences",
        "Differences of accuracy that are not the difference",
        "difference = mAP of the row - mAP of what it is held against",
        "contradicts itself",
        lines,
    )


def repeated_figures(claims: Claims, _known: Known) -> Finding:
    lines = []
    for row in claims.efficiency.rows:
        first = claims.row(row.model, row.variant)
        for name in ("latency_ms", "latency_std_ms", "power_w", "power_std_w"):
            here, there = getattr(row, name), getattr(first, name)
            said = f"{row.model} {row.variant}, {name}: {here} and {there}"
            where = f"{claims.efficiency.where}, {claims.table_of[row.model, row.variant]}"
            lines.append(Line(where, said, here == there, [(row.model, row.variant, name.replace("_std", ""))]))
    for surveyed in claims.surveyed.rows:
        if (surveyed.model, "fp32") in claims.rows and surveyed.source == "this work":
            for here, variant in ((surveyed.fp32, "fp32"), (surveyed.int8, "int8-ptq")):
                there = claims.row(surveyed.model, variant).ap50
                said = f"{surveyed.model} {variant}, mAP: {here} and {there}"
                where = f"{claims.surveyed.where}, {claims.table_of[surveyed.model, variant]}"
                lines.append(Line(where, said, here == there, [(surveyed.model, variant, "ap50")]))
    return Finding(
        "repeated figures",
        "One figure in two tables, with two values",
        "what is printed twice is equal",
        "contradicts itself",
        lines,
    )


# --- what the text says of the tables ---------------------------------------------------------------


def quantity(claims: Claims, name: Quantity, model: str, variant: str) -> tuple[Callable[..., Decimal], list[Decimal]]:
    """How a quantity of a row follows from printed ones: the formula, and its inputs."""
    row = claims.row(model, variant)
    base = claims.row(model, "fp32")
    ms, watts = row.latency_ms, row.power_w
    if name == "fps":
        return lambda t: 1000 / t, [ms]
    if name == "energy_j":
        return lambda p, t: p * t / 1000, [watts, ms]
    if name == "inferences_per_joule":
        return lambda p, t: 1000 / (p * t), [watts, ms]
    if name == "loss_pp":
        return lambda a, b: a - b, [base.ap50, row.ap50]
    if name == "gain_pp":
        return lambda a, b: a - b, [row.ap50, claims.row(model, "int8-ptq").ap50]
    if name == "speedup":
        return lambda a, b: a / b, [base.latency_ms, ms]
    if name == "size_ratio":
        return lambda a, b: a / b, [_size(base.size_mb), _size(row.size_mb)]
    values: Mapping[str, Decimal | None] = {
        "ap50": row.ap50,
        "latency_ms": ms,
        "power_w": watts,
        "size_mb": row.size_mb,
    }
    return lambda a: a, [_size(values[name])]


def _size(value: Decimal | None) -> Decimal:
    if value is None:
        raise ValueError("the claims tell no size of a row that is compared by size")
    return value


QUANTITIES: Mapping[Quantity, str] = {
    "ap50": "mAP",
    "latency_ms": "latency, ms",
    "power_w": "power, W",
    "size_mb": "size, MB",
    "fps": "FPS",
    "energy_j": "energy per inference, J",
    "inferences_per_joule": "inferences per joule",
    "loss_pp": "mAP lost against FP32, points",
    "gain_pp": "mAP gained over PTQ, points",
    "size_ratio": "size of FP32 / size",
    "speedup": "latency of FP32 / latency",
}


COLUMNS: Mapping[Quantity, str] = {
    "ap50": "ap50",
    "latency_ms": "latency_ms",
    "power_w": "power_w",
    "size_mb": "size_mb",
    "fps": "fps",
    "energy_j": "energy_mj",
    "inferences_per_joule": "energy_mj",
    "loss_pp": "to_fp32_pp",
    "gain_pp": "to_ptq_pp",
    "size_ratio": "size_mb",
    "speedup": "latency_ms",
}
"""The column of the tables that a quantity of the text is held against, or follows from."""


def figures_in_text(claims: Claims, _known: Known) -> Finding:
    lines = []
    for figure in claims.figures:
        formula, inputs = quantity(claims, figure.quantity, figure.model, figure.variant)
        computed = formula(*inputs)
        said = f"{figure.model} {figure.variant}, {QUANTITIES[figure.quantity]}: the text says {figure.value}"
        said += f", its tables give {number(computed)}"
        of = [(figure.model, figure.variant, COLUMNS[figure.quantity])]
        lines.append(Line(figure.where, said, agrees(figure.value, computed), of))
    return Finding(
        "figures in the text",
        "Figures in the text that are not those of the tables",
        "a figure in the text = the table's, rounded as the text rounds",
        "contradicts itself",
        lines,
    )


def latencies_called_fps(claims: Claims, _known: Known) -> Finding:
    lines = [_called_fps(claims, figure) for figure in claims.figures if figure.quantity == "fps"]
    for told in claims.real_time:
        meets = told.fps >= told.least_fps
        word, sign = ("meets", ">=") if told.said else ("misses", "<")
        said = f"{told.subject} with {told.fps} FPS {word} {told.least_fps} FPS: {told.fps} {sign} {told.least_fps}"
        if meets != told.said:
            said += f" is false; read as ms, 1000 / {told.fps} = {number(1000 / told.fps, 3)} FPS makes it true"
        lines.append(Line(told.where, said, meets == told.said))
    return Finding(
        "latencies called FPS",
        "FPS in the text that are latencies in ms",
        "FPS = 1000 / latency; real time is so many FPS or more",
        "contradicts itself",
        lines,
    )


def _called_fps(claims: Claims, figure: Figure) -> Line:
    latency_ms = claims.row(figure.model, figure.variant).latency_ms
    fps, as_fps = 1000 / latency_ms, 1000 / figure.value
    is_latency = not agrees(figure.value, fps) and abs(figure.value - latency_ms) <= half_unit(latency_ms)
    said = f"{figure.model} {figure.variant}: {figure.value} FPS, where 1000 / {latency_ms} ms = {number(fps, 3)} FPS"
    if is_latency:
        said += f"; as a latency, 1000 / {figure.value} ms = {number(as_fps, 3)} FPS, it fits"
    return Line(figure.where, said, not is_latency, [(figure.model, figure.variant, "fps")])


def ranges_in_text(claims: Claims, _known: Known) -> Finding:
    return Finding(
        "ranges in the text",
        "Means and ranges in the text that the tables do not give",
        "mean = sum / n; a range runs from the least to the greatest",
        "contradicts itself",
        [_range(claims, told) for told in claims.ranges],
    )


def _range(claims: Claims, told: Range) -> Line:
    models = told.models or [model.model for model in claims.models.rows]
    formulas = {model: quantity(claims, told.quantity, model, told.variant) for model in models}
    values = {model: formula(*inputs) for model, (formula, inputs) in formulas.items()}
    each = ", ".join(f"{model} {number(value, 3)}" for model, value in values.items())
    name = f"{QUANTITIES[told.quantity]} of {told.variant}"
    printed = " to ".join(map(str, told.values))
    if told.statistic == "mean":
        mean = sum(values.values(), Decimal(0)) / len(values)
        ends = [reach(formula, *inputs) for formula, inputs in formulas.values()]
        least, most = (sum(side, Decimal(0)) / len(ends) for side in zip(*ends, strict=True))
        spread = f"rounding of the inputs allows {number(least, 3)} to {number(most, 3)}, all to one side"
        said = f"mean of {name}: ({each}) / {len(values)} = {number(mean, 3)}; said {printed}; {spread}"
        return Line(told.where, said, agrees(told.values[0], mean))
    actual = [max(values.values())] if told.statistic == "max" else [min(values.values()), max(values.values())]
    holds = all(agrees(said, value) for said, value in zip(told.values, actual, strict=True))
    found = " to ".join(number(value, 3) for value in actual)
    return Line(told.where, f"{told.statistic} of {name}: said {printed}, is {found} ({each})", holds)


def settings(claims: Claims, _known: Known) -> Finding:
    lines = []
    for setting in claims.settings:
        values: dict[str, list[str]] = {}
        for said in setting.said:
            values.setdefault(said.value, []).append(said.where)
        told = "; ".join(f"{value} ({'; '.join(places)})" for value, places in values.items())
        lines.append(Line(setting.said[0].where, f"{setting.name}: {told}", len(values) == 1))
    return Finding(
        "settings",
        "One thing, told in two ways",
        "what is said in several places is the same",
        "contradicts itself",
        lines,
    )


def formulas(claims: Claims, _known: Known) -> Finding:
    printed = claims.formulas
    best = max(claims.rows.values(), key=lambda row: row.ap50)
    is_mean = printed.mean_ap_is == "mean"
    said = f"mAP is the {printed.mean_ap_is} over {printed.classes} classes"
    if not is_mean:
        said += (
            f", without 1 / {printed.classes}: a mean of {best.ap50} % ({best.model} {best.variant}) would be a sum of"
            f" {printed.classes} x {best.ap50} % = {printed.classes * best.ap50} %"
        )
    lines = [Line(printed.mean_ap_where, said, is_mean)]
    is_unbeaten = printed.optimal_is == "not beaten"
    said = f"optimal is what is {printed.optimal_is}"
    if not is_unbeaten:
        said = (
            "x* is optimal for an x with f_i(x) <= f_i(x*) for all i and f_j(x) < f_j(x*) for some j; with f to reduce,"
        )
        said += " as the latency that it names, that x beats x*"
        for variant in dict.fromkeys(told.variant for told in claims.fronts):
            rows, on_front = _on_front(claims, variant)
            beaten = [
                f"{r.model} ({r.ap50} at {r.latency_ms} ms)"
                for r, is_on in zip(rows, on_front, strict=True)
                if not is_on
            ]
            said += f"; of {variant} it is {', '.join(beaten) or 'none'}"
    lines.append(Line(printed.optimal_where, said, is_unbeaten))
    return Finding(
        "formulas",
        "Formulas that define something else",
        "mAP = sum over classes of the integral of P dR / N; x is optimal when no other is at least as good in all"
        " objectives and better in one",
        "contradicts itself",
        lines,
    )


# --- choosing ---------------------------------------------------------------------------------------


def _on_front(claims: Claims, variant: str) -> tuple[list[ClaimedRow], list[bool]]:
    """The rows of a variant, and whether each is on the front of mAP against latency."""
    rows = [row for row in claims.rows.values() if row.variant == variant]
    on_front = front(maximise=[[float(r.ap50) for r in rows]], minimise=[[float(r.latency_ms) for r in rows]])
    return rows, on_front.tolist()


def pareto_lists(claims: Claims, _known: Known) -> Finding:
    lines = []
    for variant in dict.fromkeys(told.variant for told in claims.fronts):
        rows, on_front = _on_front(claims, variant)
        optimal = [row for row, is_on in zip(rows, on_front, strict=True) if is_on]
        computed = ", ".join(f"{r.model} ({r.ap50} at {r.latency_ms} ms)" for r in optimal)
        for told in claims.fronts:
            if told.variant == variant:
                holds = set(told.models) == {row.model for row in optimal}
                said = f"{variant}, on the front: said {', '.join(told.models)}; its own figures give {computed}"
                lines.append(Line(told.where, said, holds))
    return Finding(
        "Pareto lists",
        "Lists of Pareto-optimal models that are not the front",
        "x is optimal when no other has mAP >= and latency <= with one of them strictly (Eq. 10 as it is meant)",
        "contradicts itself",
        lines,
    )


def guidelines(claims: Claims, _known: Known) -> Finding:
    lines = []
    for guide in claims.guidelines.rows:
        row, base = claims.row(guide.model, guide.variant), claims.row(guide.model, "fp32")
        name, ms, loss = f"{guide.priority}: {guide.model} {guide.variant}", row.latency_ms, base.ap50 - row.ap50
        inside = guide.min_ms <= ms <= guide.max_ms
        said = f"{name} for {guide.min_ms} to {guide.max_ms} ms takes {ms} ms"
        lines.append(Line(claims.guidelines.where, said + ("" if inside else ", outside"), inside))
        if guide.max_loss_pp is not None:
            said = f"{name} for a loss of at most {guide.max_loss_pp} points loses {base.ap50} - {row.ap50} = {loss}"
            lines.append(Line(claims.guidelines.where, said, loss <= guide.max_loss_pp))
        better = [
            other
            for other in claims.rows.values()
            if other.variant == row.variant
            and other.ap50 > row.ap50
            and other.latency_ms < row.latency_ms
            and other.power_w < row.power_w
        ]
        figures = f"{row.ap50} mAP, {ms} ms, {row.power_w} W"
        said = f"{name} ({figures}): " + (
            "; ".join(f"{o.model} has more for less ({o.ap50} mAP, {o.latency_ms} ms, {o.power_w} W)" for o in better)
            or "nothing of that precision has more mAP in less time with less power"
        )
        lines.append(Line(claims.guidelines.where, said, not better))
    return Finding(
        "guidelines",
        "Recommendations that miss their own limits, or that another choice beats in everything",
        "least <= latency <= most; mAP of FP32 - mAP <= tolerated loss; no other is better in mAP, latency and power",
        "contradicts itself",
        lines,
    )


def prevalence(claims: Claims, _known: Known) -> Finding:
    shares = claims.prevalence.percent
    total = sum(shares.values(), Decimal(0))
    each = " + ".join(f"{share} % ({model})" for model, share in shares.items())
    said = f"{each} = {total} % of all situations, in each of which only one can be the best"
    return Finding(
        "prevalence",
        "More winners than situations",
        "sum over models of the share of situations in which each is best <= 100 %",
        "contradicts itself",
        [Line(claims.prevalence.where, said, total <= 100)] if shares else [],
    )


def sensitivity_classes(claims: Claims, _known: Known) -> Finding:
    lines = []
    for model in claims.models.rows:
        fp32, ptq = claims.row(model.model, "fp32").ap50, claims.row(model.model, "int8-ptq").ap50
        computed = sensitivity_class(float(fp32 - ptq))
        said = f"{model.model}: {fp32} - {ptq} = {fp32 - ptq} points is {computed}; said {model.ptq_sensitivity}"
        of = [(model.model, "", "ptq_sensitivity")]
        lines.append(Line(claims.models.where, said, computed == model.ptq_sensitivity, of))
    return Finding(
        "sensitivity classes",
        "Sensitivity classes that are not those of the losses",
        "Low below 1.5 points, Medium to 2.5, High above",
        "contradicts itself",
        lines,
    )


def practical_fps(claims: Claims, _known: Known) -> Finding:
    lines = []
    for told in claims.practical:
        infer_ms = claims.row(told.model, told.variant).latency_ms
        total_ms = 1000 / told.fps
        said = (
            f"{told.model} {told.variant}: 1000 / {told.fps} FPS = {number(total_ms, 3)} ms a frame, so"
            f" {number(total_ms - infer_ms, 3)} ms before and after {infer_ms} ms of inference; a stream of"
            f" {told.stream_fps} FPS loses {number(100 * (1 - told.fps / told.stream_fps), 2)} % of its frames"
        )
        lines.append(Line(told.where, said, told.fps >= told.stream_fps and total_ms >= infer_ms))
    return Finding(
        "practical FPS",
        "Called real time on a stream that is faster",
        "F = 1 / (t_pre + t_inf + t_post) (Eq. 11); F >= the stream's FPS",
        "contradicts itself",
        lines,
    )


def _by_model(claims: Claims) -> list[tuple[str, list[ClaimedRow]]]:
    """The measured rows of each model, in the order of Table 4."""
    rows = claims.rows.values()
    return [(m.model, [row for row in rows if row.model == m.model]) for m in claims.models.rows]


# --- accuracy ----------------------------------------------------------------------------------------


def overlap(claims: Claims, _known: Known) -> Finding:
    said = claims.accuracy
    lines = []
    if said.calibrated_on == said.split:
        common = plausibility.least_overlap(said.split_images, said.evaluated_images, said.calibration_images)
        text = (
            f"{said.calibration_images} images of {said.split} to calibrate on + {said.evaluated_images} of"
            f" {said.split} to evaluate on - {said.split_images} that there are = {common} at least in both,"
            f" {'said to be none' if said.said_disjoint else 'as said'}"
        )
        of = [(model, variant, "ap50") for model, variant in claims.rows if precision_of(variant) == "int8"]
        lines.append(Line(said.data_where, text, not (common and said.said_disjoint), of))
    else:
        lines.append(Line(said.data_where, f"calibrated on {said.calibrated_on}, evaluated on {said.split}", True))
    return Finding(
        "calibration overlap",
        "Calibrated on images that are evaluated on",
        "common images >= calibration + evaluation - all (inclusion and exclusion)",
        "contradicts itself",
        lines,
    )


def score_floor(claims: Claims, _known: Known) -> Finding:
    confidence, most = claims.accuracy.confidence, Decimal(str(plausibility.MAX_SCORE_FLOOR))
    sign = "<=" if confidence <= most else ">"
    said = f"detections below a confidence of {confidence} are dropped before AP; {confidence} {sign} {most}"
    return Finding(
        "score floor",
        "AP scored above a confidence that cuts the curve off",
        plausibility.EQUATIONS["score floor"],
        "differs from what is known",
        [
            Line(
                claims.accuracy.where,
                said,
                confidence <= most,
                [(model, variant, "ap50") for model, variant in claims.rows],
            )
        ],
    )


def spread_of_nothing(claims: Claims, _known: Known) -> Finding:
    said = claims.accuracy
    if not (said.same_checkpoint and said.seeded and said.evaluated_images == said.split_images):
        return Finding(*_SPREAD, [], ["the trials differ by checkpoint, seed or images, so they may spread"])
    how = f"{said.trials} trials of one checkpoint and one seed on all {said.split_images} images"
    lines = []
    for model, rows in _by_model(claims):
        each = ", ".join(f"{row.ap50} ± {row.ap50_std} ({row.variant})" for row in rows)
        of = [(row.model, row.variant, "ap50") for row in rows]
        lines.append(Line(said.trials_where, f"{model}: {each} over {how}", not any(row.ap50_std for row in rows), of))
    return Finding(*_SPREAD, lines)


_SPREAD: tuple[str, str, str, Nature] = (
    "spread of nothing",
    "Accuracy that varies where nothing does, and a t-test over it",
    "the same engine on the same images makes the same detections: standard deviation of mAP = 0",
    "cannot be",
)


def published_accuracy(claims: Claims, known: Known) -> Finding:
    lines, unchecked = [], []
    for model in claims.models.rows:
        theirs = known.detectors.get(model.model)
        if theirs is None or theirs.ap50 is None:
            unchecked.append(f"{model.model}: no AP50 of its authors is known here")
            continue
        ours = claims.row(model.model, "fp32").ap50
        said = f"{model.model} fp32: {ours}, its authors {theirs.ap50} ({theirs.source}): {ours - theirs.ap50:+} points"
        of = [(model.model, "fp32", "ap50")]
        lines.append(Line(claims.table_of[model.model, "fp32"], said, abs(ours - theirs.ap50) <= FAR_PP, of))
    return Finding(
        "published accuracy",
        "Accuracy far from what the authors of the same weights publish",
        f"|mAP of FP32 - AP50 of its authors| <= {FAR_PP} points",
        "differs from what is known",
        lines,
        unchecked,
    )


# --- models ------------------------------------------------------------------------------------------


def parameters(claims: Claims, known: Known) -> Finding:
    lines, unchecked = [], []
    for model in claims.models.rows:
        theirs = known.detectors.get(model.model)
        if theirs is None:
            unchecked.append(f"{model.model}: no figure of its authors is known here")
            continue
        far = abs(model.params_m / theirs.params_m - 1)
        times = number(model.params_m / theirs.params_m, 3)
        said = f"{model.model}: {model.params_m} M / {theirs.params_m} M = {times} times its authors' ({theirs.source})"
        lines.append(Line(claims.models.where, said, far <= FAR_SHARE, [(model.model, "", "params_m")]))
    return Finding(
        "parameters",
        "Parameters that the model does not have",
        f"|parameters / those of its authors - 1| <= {FAR_SHARE}",
        "differs from what is known",
        lines,
        unchecked,
    )


def operations(claims: Claims, known: Known) -> Finding:
    lines, unchecked = [], []
    per_mac = claims.flops_per_mac
    for model in claims.models.rows:
        theirs = known.detectors.get(model.model)
        if theirs is None:
            unchecked.append(f"{model.model}: no figure of its authors is known here")
            continue
        flops = per_mac * theirs.gmacs
        ratio = model.gflops / flops
        said = (
            f"{model.model}: {claims.flops_where} counts {per_mac} a MAC, {per_mac} x {theirs.gmacs} G ="
            f" {number(flops, 3)} G; printed {model.gflops} G, {number(ratio, 2)} of it"
        )
        lines.append(Line(claims.models.where, said, abs(ratio - 1) <= FAR_SHARE, [(model.model, "", "gflops")]))
    return Finding(
        "operations",
        "A column of FLOPs that counts some models in multiply-accumulates",
        "FLOPs = 2 x MACs (Eq. 1), for every model alike",
        "differs from what is known",
        lines,
        unchecked,
    )


def releases(claims: Claims, known: Known) -> Finding:
    lines = []
    for model in claims.models.rows:
        theirs = known.detectors.get(model.model)
        if model.release is not None and theirs is not None and theirs.newest_release is not None:
            newest = theirs.newest_release
            said = f"{model.model} v{model.release}; the newest that was tagged is v{newest} ({theirs.source})"
            of = [(model.model, "", "release")]
            lines.append(Line(claims.models.where, said, _version(model.release) <= _version(newest), of))
    return Finding(
        "releases",
        "Checkpoints of releases that do not exist",
        "release <= newest release",
        "differs from what is known",
        lines,
    )


# --- the board ---------------------------------------------------------------------------------------


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _of_board(
    claims: Claims, known: Known, lines_of: Callable[[KnownBoard], list[Line]]
) -> tuple[list[Line], list[str]]:
    """Lines that take what is known of the board, and why there are none."""
    board = known.boards.get(claims.board.name)
    if board is None:
        return [], [f"nothing is known here of {claims.board.name}"]
    try:
        return lines_of(board), []
    except hardware.UnknownError as why:
        return [], [str(why)]


def int8_hardware(claims: Claims, known: Known) -> Finding:
    def lines_of(board: KnownBoard) -> list[Line]:
        fast = hardware.has_fast_int8(board.sm)
        lines = []
        for model, rows in _by_model(claims):
            base = claims.row(model, "fp32").latency_ms
            int8 = [row for row in rows if precision_of(row.variant) == "int8"]
            times = ", ".join(
                f"{base} / {r.latency_ms} ms = {number(base / r.latency_ms, 3)} ({r.variant})" for r in int8
            )
            has = "has it" if fast else "has no 8-bit product"
            said = f"{model}, times as fast in INT8: {times}; compute capability {board.sm} {has}"
            of = [(row.model, row.variant, "latency_ms") for row in int8]
            lines.append(Line(claims.board.where, said, fast or all(base <= row.latency_ms for row in int8), of))
        return lines

    return Finding(
        "int8 hardware",
        "INT8 that is faster on hardware without INT8",
        plausibility.EQUATIONS["int8 hardware"],
        "cannot be",
        *_of_board(claims, known, lines_of),
    )


def roofline(claims: Claims, known: Known) -> Finding:
    def lines_of(board: KnownBoard) -> list[Line]:
        lines = []
        models = {model.model: model for model in claims.models.rows}
        for row in claims.rows.values():
            gflops = models[row.model].gflops
            precisions = [precision_of(row.variant)]
            peak = hardware.gpu_peak(board.gpu_cores, board.gpu_max_hz, board.sm, precisions)
            does = 1000 * gflops / row.latency_ms
            over = plausibility.exceeds_roofline(float(gflops) / 2, float(row.latency_ms), peak)
            said = (
                f"{row.model} {row.variant}: {gflops} GFLOP / {row.latency_ms} ms = {number(does)} GFLOPS"
                f" {'>' if over else '<='} {peak.said}"
            )
            if over and precision_of(row.variant) != "fp16":
                half = hardware.gpu_peak(board.gpu_cores, board.gpu_max_hz, board.sm, ["fp16"])
                share = number(does / Decimal(str(half.ops_s / 1e11)), 2)
                said += f"; were it FP16, which it is not said to be, {share} % of {half.ops_s / 1e9:.1f}"
            where = f"{claims.models.where}, {claims.table_of[row.model, row.variant]}"
            lines.append(Line(where, said, not over, [(row.model, row.variant, "latency_ms")]))
        return lines

    return Finding(
        "roofline",
        "Faster than the board's arithmetic units",
        "FLOPs / latency <= cores x operations per clock x clock",
        "cannot be",
        *_of_board(claims, known, lines_of),
    )


def bytes_per_parameter(claims: Claims, _known: Known) -> Finding:
    lines = []
    models = {model.model: model for model in claims.models.rows}
    for row in claims.rows.values():
        if row.size_mb is not None:
            params_m = models[row.model].params_m
            needs = plausibility.BYTES[precision_of(row.variant)]
            printed = row.size_mb / params_m
            most = (row.size_mb + half_unit(row.size_mb)) * MIB_PER_MB / (params_m - half_unit(params_m))
            holds = most >= Decimal(str(plausibility.FOLDED)) * needs
            said = (
                f"{row.model} {row.variant}: {row.size_mb} MB / {params_m} M = {number(printed, 3)} bytes a parameter"
                f" (at most {number(most, 3)} with rounding and MiB), where it takes {needs}"
            )
            where = f"{claims.models.where}, {claims.table_of[row.model, row.variant]}"
            lines.append(Line(where, said, holds, [(row.model, row.variant, "size_mb")]))
    return Finding(
        "bytes per parameter",
        "Engines smaller than their parameters",
        plausibility.EQUATIONS["bytes per parameter"],
        "cannot be",
        lines,
    )


def software(claims: Claims, known: Known) -> Finding:
    def lines_of(board: KnownBoard) -> list[Line]:
        pairs = (("TensorRT", claims.board.tensorrt, board.tensorrt), ("Python", claims.board.python, board.python))
        return [
            Line(
                claims.board.software_where,
                f"{name} {told} on {claims.board.name}, whose newest is {newest} ({board.software_source})",
                _version(told) <= _version(newest),
            )
            for name, told, newest in pairs
        ]

    return Finding(
        "software",
        "Software that never was released for the board",
        "release <= the newest that runs there",
        "cannot be",
        *_of_board(claims, known, lines_of),
    )


def throttling(claims: Claims, known: Known) -> Finding:
    def lines_of(board: KnownBoard) -> list[Line]:
        told, trip = claims.board.throttles_at_c, board.throttle_trip_c
        said = f"throttles at {told} °C, {trip - told} K below its trip point of {trip} °C ({board.throttle_source})"
        return [Line(claims.board.throttles_where, said, told >= trip)]

    return Finding(
        "throttling",
        "Throttling far below the temperature at which the board throttles",
        "temperature at which clocks fall >= passive trip point",
        "differs from what is known",
        *_of_board(claims, known, lines_of),
    )


def idle_power(claims: Claims, known: Known) -> Finding:
    def lines_of(board: KnownBoard) -> list[Line]:
        idle, (least, most) = claims.board.idle_power_w, board.idle_w
        said = f"{idle} W at rest, where owners read {least} to {most} W ({board.idle_source})"
        lines = [Line(claims.board.idle_where, said, idle >= least)]
        gflops = {model.model: model.gflops for model in claims.models.rows}
        peak = hardware.gpu_peak(board.gpu_cores, board.gpu_max_hz, board.sm, ["fp32"])
        for row in claims.rows.values():
            more, does = row.power_w - least, 1000 * gflops[row.model] / row.latency_ms
            fps = number(1000 / row.latency_ms)
            said = f"{row.model} {row.variant}: {fps} FPS at {row.power_w} W, {more} W above {least} W"
            best = Decimal(str(peak.ops_s / 1e9)) / board.gpu_busy_w
            holds = more > 0 and does / more <= best
            if more > 0:
                per_watt = f"{number(does / more, 3)} GFLOPS a watt, at most {number(best, 3)}"
                said += f": {number(does, 3)} GFLOPS / {more} W = {per_watt}"
            lines.append(
                Line(claims.table_of[row.model, row.variant], said, holds, [(row.model, row.variant, "power_w")])
            )
        return lines

    return Finding(
        "idle power",
        "Work at the power of an idle board",
        "P_idle >= the least that owners read; GFLOPS / (P - that) <= peak of the GPU / what it alone takes when busy",
        "is implausible",
        *_of_board(claims, known, lines_of),
    )


def missing_precision(claims: Claims, known: Known) -> Finding:
    def lines_of(board: KnownBoard) -> list[Line]:
        rates = hardware.rates_of(board.sm)
        has = {precision_of(row.variant) for row in claims.rows.values()}
        return [
            Line(
                ", ".join(table.where for table in claims.measured),
                f"{precision}: {rate} operations a core and clock, {rate / rates['fp32']:g} times fp32;"
                f" {'has rows' if precision in has else 'no row has it'}",
                precision in has or rate <= rates["fp32"],
            )
            for precision, rate in rates.items()
        ]

    return Finding(
        "missing precision",
        "The precision that the board is fast in is missing",
        "every precision with more operations per clock than FP32 has a row",
        "differs from what is known",
        *_of_board(claims, known, lines_of),
    )


def identical_latencies(claims: Claims, _known: Known) -> Finding:
    names = ("latency_ms", "latency_std_ms", "power_w", "power_std_w")
    lines = []
    for (model, variant), qat in claims.rows.items():
        if variant == "int8-qat" and (model, "int8-ptq") in claims.rows:
            ptq = claims.row(model, "int8-ptq")
            same = [name for name in names if getattr(qat, name) == getattr(ptq, name)]
            said = (
                f"{model}: PTQ {ptq.latency_ms} ± {ptq.latency_std_ms} ms, {ptq.power_w} ± {ptq.power_std_w} W; QAT"
                f" {qat.latency_ms} ± {qat.latency_std_ms} ms, {qat.power_w} ± {qat.power_std_w} W:"
                f" {len(same)} of {len(names)} figures equal"
            )
            where = ", ".join(claims.table_of[model, v] for v in ("int8-ptq", "int8-qat"))
            of = [(model, v, column) for v in ("int8-ptq", "int8-qat") for column in ("latency_ms", "power_w")]
            lines.append(Line(where, said, len(same) < len(names), of))
    return Finding(
        "identical latencies",
        "PTQ and QAT timed alike to the last digit",
        plausibility.EQUATIONS["identical latencies"],
        "is implausible",
        lines,
    )


CHECKS: tuple[Callable[[Claims, Known], Finding], ...] = (
    derived_columns,
    differences,
    repeated_figures,
    figures_in_text,
    ranges_in_text,
    latencies_called_fps,
    settings,
    formulas,
    pareto_lists,
    guidelines,
    prevalence,
    practical_fps,
    sensitivity_classes,
    overlap,
    score_floor,
    spread_of_nothing,
    published_accuracy,
    parameters,
    operations,
    releases,
    int8_hardware,
    software,
    roofline,
    bytes_per_parameter,
    idle_power,
    throttling,
    identical_latencies,
    missing_precision,
)
"""In the order in which they are told."""
