"""How large one step of an 8-bit tensor is: histograms of its magnitudes, and five ways to choose from them.

Quantization is symmetric with zero point 0: x is stored as clip(round(x / scale), -128, 127), the paper's Eqs. 2
and 8 with Z = 0 (and rounding, where Eq. 8 prints a floor), and restored as scale times that, its Eq. 3. A scale is
said by its *threshold*, the largest magnitude that is not clipped: scale = threshold / 127.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 4096
LEVELS = 128  # magnitudes an int8 can tell apart: 0..127
_SEARCH_STEP = 16  # bins between two thresholds tried: 256 of them, 0.4 % of the range apart


class Histogram:
    """Counts, or summed weights, of |x| in equal bins over [0, upper), where ``upper`` is a power of two.

    Streaming and of fixed size: when a larger value comes, ``upper`` doubles and neighbouring bins are
    merged. Because the range is always a power of two this loses nothing: the histogram does not depend on
    the order or the batching of what was added.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros(BINS)
        self.upper = 2.0**-100
        self.maximum = 0.0

    @property
    def bin_width(self) -> float:
        return self.upper / BINS

    def add(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Count every element of ``values``, or add its weight (of the same shape).

        Raises:
            ValueError: a value is not finite.
        """
        magnitudes = values.detach().abs().flatten()
        largest = float(magnitudes.max())
        if not math.isfinite(largest):
            raise ValueError(f"the largest magnitude is {largest}")
        self.maximum = max(self.maximum, largest)
        self._grow_beyond(largest)
        bins = (magnitudes * (BINS / self.upper)).to(torch.int32)  # exact: the factor is a power of two
        self.counts += torch.bincount(
            bins, None if weights is None else weights.detach().flatten().double(), minlength=BINS
        ).numpy()

    def _grow_beyond(self, value: float) -> None:
        if value < self.upper:
            return
        upper = 2.0 ** math.frexp(value)[1]  # the smallest power of two above value
        merged = np.zeros_like(self.counts)
        factor = int(min(upper / self.upper, BINS))
        merged[: BINS // factor] = self.counts.reshape(-1, factor).sum(axis=1)
        self.counts, self.upper = merged, upper


def choose_scale_minmax(histogram: Histogram) -> float:
    """Nothing is clipped: the threshold is the largest magnitude seen."""
    return _scale(histogram.maximum)


def choose_scale_percentile(histogram: Histogram, percent: float) -> float:
    """At most ``100 - percent`` per cent of the values seen are clipped (Wu et al. 2020, arXiv 2004.09602, sec. 3.1).

    The threshold is the upper edge of the bin in which the percentile lies.
    """
    reached = np.searchsorted(np.cumsum(histogram.counts), percent / 100 * histogram.counts.sum())
    return _scale(min((int(reached) + 1) * histogram.bin_width, histogram.maximum))


def choose_scale_mse(histogram: Histogram) -> float:
    """The mean square of the paper's quantization noise x - x' (section 3.2, of Eq. 3) is smallest: its MSQE.

    Every 16th bin edge up to the maximum is tried; the values of a bin are taken at its centre.
    """
    if not histogram.maximum:
        return choose_scale_minmax(histogram)
    thresholds = _thresholds(histogram)
    errors = [mean_squared_error(histogram, threshold / (LEVELS - 1)) for threshold in thresholds]
    return _scale(float(thresholds[np.argmin(errors)]))


def mean_squared_error(histogram: Histogram, scale: float) -> float:
    """Mean of (x - DQ(Q(x)))^2 over what was counted, the values of a bin being taken at its centre.

    Q is the paper's Eq. 8 with Z = 0, DQ its Eq. 3, the root of a term its epsilon_q (section 4.1).

    >>> histogram = Histogram()
    >>> histogram.add(torch.tensor([1.0, -1.0]))
    >>> round(mean_squared_error(histogram, scale=0.75), 2)  # 1 is restored as .75
    0.06
    """
    filled = _filled_bins(histogram)
    counts = histogram.counts[:filled]
    centres = (np.arange(filled) + 0.5) * histogram.bin_width
    restored = np.minimum(np.rint(centres / scale), LEVELS - 1) * scale
    return float(((centres - restored) ** 2) @ counts / max(counts.sum(), np.finfo(float).tiny))


def choose_scale_entropy(histogram: Histogram) -> float:
    """The 128-level distribution is nearest, by Kullback-Leibler divergence, to the clipped one.

    Migacz, "8-bit Inference with TensorRT" (GTC 2017). The first bin, which holds the zeros that a
    rectifier makes, is given the count of the second, as NVIDIA's pytorch-quantization does: zeros
    are exact at every scale and would drown the rest.
    """
    filled = _filled_bins(histogram)
    counts = histogram.counts[:filled].copy()
    if filled > 1:
        counts[0] = counts[1]
    widths = np.rint(_thresholds(histogram) / histogram.bin_width).astype(int)
    widths = widths[widths >= LEVELS]
    if not len(widths):  # the range is less than 128 bins wide: each has its own level
        return choose_scale_minmax(histogram)
    divergences = [clipping_divergence(counts, int(width)) for width in widths]
    return _scale(min(float(widths[np.argmin(divergences)]) * histogram.bin_width, histogram.maximum))


def clipping_divergence(counts: NDArray[np.float64], width: int) -> float:
    """KL divergence (nats) of ``counts`` clipped to its first ``width`` bins from the same in 128 levels.

    Each level's count is spread evenly over its bins that are not empty. Infinite when clipping puts
    values into a bin that has none of its own.
    """
    kept = counts[:width]
    clipped = kept.copy()
    clipped[-1] += counts[width:].sum()
    levels = np.arange(len(kept)) * LEVELS // width
    per_level = np.bincount(levels, weights=kept, minlength=LEVELS)
    filled_per_level = np.bincount(levels, weights=kept > 0, minlength=LEVELS)
    spread = np.where(kept > 0, per_level[levels] / np.maximum(filled_per_level[levels], 1), 0.0)
    if not kept.sum() or np.any((clipped > 0) & (spread == 0)):
        return math.inf
    p, q = clipped / clipped.sum(), spread / spread.sum()
    mask = p > 0
    return float(np.sum(p[mask] * np.log(p[mask] / q[mask])))


def _thresholds(histogram: Histogram) -> NDArray[np.float64]:
    """Bin edges to try, smallest first, and the maximum itself."""
    edges = np.arange(_SEARCH_STEP, BINS + 1, _SEARCH_STEP) * histogram.bin_width
    return np.append(edges[edges < histogram.maximum], histogram.maximum)


def _filled_bins(histogram: Histogram) -> int:
    """How many bins there are up to the one that holds the maximum."""
    return int(histogram.maximum / histogram.bin_width) + 1


def _scale(threshold: float) -> float:
    """A tensor that is always zero has any scale; 1 / 127 keeps the arithmetic finite."""
    return (threshold or 1.0) / (LEVELS - 1)


@dataclass
class Statistics:
    """What calibration saw of one scale's tensors.

    ``sensitivity`` has the magnitudes weighted by the squared gradient of the network's raw outputs.
    """

    values: Histogram = field(default_factory=Histogram)
    sensitivity: Histogram = field(default_factory=Histogram)


def choose_scale_sensitivity(statistics: Statistics) -> float:
    """The error that reaches the network's outputs is smallest, to first order.

    An error e in a tensor moves the outputs by J e, so the expected squared movement is the sum of e^2 over
    the diagonal of J^T J: the squared error with each value weighted by the squared gradient it has. This is the
    diagonal Gauss-Newton form of the objective of "Up or Down?" (Nagel et al. 2020, arXiv 2004.10568, eq. 7-10)
    applied to the choice of a scale.
    """
    return choose_scale_mse(statistics.sensitivity)


CALIBRATORS: Mapping[str, Callable[[Statistics], float]] = {
    "minmax": lambda statistics: choose_scale_minmax(statistics.values),
    "percentile_99.9": lambda statistics: choose_scale_percentile(statistics.values, 99.9),
    "percentile_99.99": lambda statistics: choose_scale_percentile(statistics.values, 99.99),
    "percentile_99.999": lambda statistics: choose_scale_percentile(statistics.values, 99.999),
    "entropy": lambda statistics: choose_scale_entropy(statistics.values),
    "mse": lambda statistics: choose_scale_mse(statistics.values),
    "sensitivity": choose_scale_sensitivity,
}
"""Every calibrator by the name it has in records."""
