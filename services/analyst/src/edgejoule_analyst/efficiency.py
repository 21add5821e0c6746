"""Energy per inference and accuracy per joule, as the paper defines them (section 4.1, Table 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.stats import t as student

LEVEL = 0.95


def energy_per_inference_mj(power_w: float, latency_ms: float) -> float:
    """Energy/Inf. = P_loaded x latency, in millijoules. The board's whole draw, idle part included.

    >>> round(energy_per_inference_mj(1.8, 7.0), 1)  # the paper's NanoDet-m
    12.6
    """
    return power_w * latency_ms


def practical_fps(stages_ms: Mapping[Literal["pre", "infer", "post"], float]) -> float:
    """F_prac = 1 / (t_pre + t_inf + t_post), the paper's Eq. 11: pictures per second, one after the other.

    Args:
        stages_ms: of one image, in milliseconds, from its decoded pixels to its detections.

    >>> round(practical_fps({"pre": 20.0, "infer": 7.0, "post": 10.0}), 1)  # the 30 ms that the paper's 27 FPS imply
    27.0
    """
    return 1000 / sum(stages_ms.values())


def map_per_joule(ap50: float, energy_mj: float) -> float:
    """mAP/J = mAP@0.5 in percent / energy per image in joules; at batch 1 that of an inference, as in the paper.

    Args:
        ap50: AP50 as a fraction.
        energy_mj: energy per image in millijoules.

    >>> round(map_per_joule(0.374, 12.6))  # the paper's NanoDet-m, INT8 PTQ
    2968
    """
    return 100 * ap50 / (energy_mj / 1000)


def uncertainty(own: float, trials: Sequence[float]) -> float:
    """Half-width at 95 % of the mean of several trials' energies.

    Two parts add as squares (GUM 5.1.2): what each trial states, as the mean, since steps of one sensor err alike in
    all of them; and how far the mean may be off by their scatter, t s / sqrt(n) with n - 1 degrees of freedom (GUM
    4.2.3, G.3). One trial shows no scatter.

    >>> uncertainty(0.3, [10.0]), round(uncertainty(0.3, [10.0, 10.4, 10.2, 10.1, 10.3]), 3)
    (0.3, 0.359)
    """
    n = len(trials)
    scatter = float(student.ppf((1 + LEVEL) / 2, n - 1) * np.std(trials, ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return float(np.hypot(own, scatter))
