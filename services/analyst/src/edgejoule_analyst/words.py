"""Figures as people read them: accuracy in points of a hundred, a true minus sign, units beside every number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgejoule.records import Difference, Row

VARIANTS = {
    "fp32": "FP32",
    "fp16": "FP16",
    "int8-ptq": "INT8 (post-training)",
    "int8-qat": "INT8 (quantization-aware)",
    "fp32-qat": "FP32 of quantization-aware weights",
    "fp16-qat": "FP16 of quantization-aware weights",
}


FIELDS = {
    "int8_share": "share of compute in INT8",
    "stages_ms": "time per stage",
    "power_w": "power",
    "energy_mj": "energy",
    "energy_uncertainty_mj": "uncertainty of energy",
    "energy_above_idle_mj": "energy above idle",
    "energy_above_idle_uncertainty_mj": "its uncertainty",
    "execution_ms": "execution alone",
    "map_per_joule": "mAP/J",
    "memory_peak_mb": "peak memory",
    "latency_ms": "latency",
    "fps": "FPS",
    "size_mb": "size",
    "params_m": "parameters",
    "gmacs": "MACs",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ar100": "AR100",
    "f1": "F1",
}
"""Fields of a row whose name alone reads badly."""

NO_GAPS = ("pareto", "repeats")
"""Fields of a row whose null is no figure that was not measured."""


def field_name(field: str) -> str:
    """
    >>> field_name("energy_mj"), field_name("ap_small")
    ('energy', 'AP small')
    """
    return FIELDS.get(field, field.replace("ap_", "AP ").replace("_", " "))


def variant_name(variant: str) -> str:
    """A variant in words; what has none is called as the spec calls it."""
    return VARIANTS.get(variant, variant)


def row_name(row: Row) -> str:
    """``model/variant/device``, as in ``Results.evidence`` and ``Difference.row``."""
    return f"{row.model}/{row.variant}/{row.device}"


def simulated_devices(rows: Iterable[Row]) -> set[str]:
    """Devices whose figures come from no real one."""
    return {row.device for row in rows if row.simulated}


def facts(probe: Mapping[str, Any]) -> dict[str, Any]:
    """A probe's facts by name, those of its sections brought to the top.

    >>> facts({"id": "host", "environment": {"l4t": "36.4.3"}})
    {'id': 'host', 'l4t': '36.4.3'}
    """
    found: dict[str, Any] = {}
    for name, value in probe.items():
        found |= facts(value) if isinstance(value, dict) else {name: value}
    return found


def model_name(row: Row) -> str:
    """What a row's model is called at batch 1: with its input size, where the spec gives it several."""
    return row.model.removesuffix(f"-b{row.batch}")


def points(fraction: float) -> str:
    """An accuracy in points of a hundred.

    >>> points(0.2341)
    '23.4'
    """
    return f"{100 * fraction:.1f}"


def signed_points(fraction: float) -> str:
    """A difference of accuracies in points.

    >>> signed_points(-0.0041), signed_points(0.0)
    ('−0.41', '0.00')
    """
    text = f"{100 * fraction:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def level(fraction: float) -> str:
    """
    >>> level(0.95), level(0.975), level(0.501)
    ('95 %', '97.5 %', '50.1 %')
    """
    return f"{100 * fraction:g} %"


def interval(difference: Difference) -> str:
    """Where a difference lies, in points: ``95 % interval −1.41 to −0.45``."""
    return f"{level(difference.level)} interval {signed_points(difference.low)} to {signed_points(difference.high)}"


def p_value(p: float) -> str:
    """
    >>> p_value(0.0312), p_value(0.00002), p_value(1.0)
    ('0.031', '< 0.001', '1.000')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def after_holm(p_holm: float) -> str:
    """
    >>> after_holm(0.0312), after_holm(0.00002)
    ('p = 0.031 after Holm', 'p < 0.001 after Holm')
    """
    said = p_value(p_holm)
    return f"p {said} after Holm" if said.startswith("<") else f"p = {said} after Holm"


def factor(ratio: float) -> str:
    """
    >>> factor(1.3111)
    '1.31×'
    """
    return f"{ratio:.2f}×"
