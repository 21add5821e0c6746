"""Energy per inference and accuracy per joule, as the paper defines them (section 4.1, Table 8)."""

from __future__ import annotations


def energy_per_inference_mj(power_w: float, latency_ms: float) -> float:
    """Energy/Inf. = P_loaded x latency, in millijoules. The board's whole draw, idle part included.

    >>> round(energy_per_inference_mj(1.8, 7.0), 1)  # the paper's NanoDet-m
    12.6
    """
    return power_w * latency_ms


def map_per_joule(ap50: float, energy_mj: float) -> float:
    """mAP/J = mAP@0.5 in percent / energy of one inference in joules.

    Args:
        ap50: AP50 as a fraction.
        energy_mj: energy of one inference in millijoules.

    >>> round(map_per_joule(0.374, 12.6))  # the paper's NanoDet-m, INT8 PTQ
    2968
    """
    return 100 * ap50 / (energy_mj / 1000)
