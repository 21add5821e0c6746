"""Latency of a row: every sample of every trial, pooled."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgejoule.errors import DataError
from edgejoule.records import Latency

FloatArray = NDArray[np.float64]


def load_samples_ms(path: Path, name: str = "latency_ms") -> FloatArray:
    """The samples of one trial, in milliseconds, in the order in which they were taken.

    Raises:
        DataError: the file is not an npz with a non-empty vector of that name, of positive numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            samples: FloatArray = arrays[name].astype(np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a samples file ({error}); run the benchmark step again") from error
    if samples.ndim != 1 or not samples.size or not np.all(np.isfinite(samples) & (samples > 0)):
        raise DataError(f"{path}: {name} is not a vector of positive numbers; run the benchmark step again")
    return samples


def pool(trials: Sequence[FloatArray]) -> Latency:
    """One latency record from the samples of all trials, in milliseconds.

    Trials of equal length weigh equally. ``std`` is that of a sample (n - 1), over iterations: the jitter a
    user meets, not the uncertainty of the mean.

    >>> pool([np.array([1.0, 2.0]), np.array([3.0, 4.0])]).mean
    2.5
    """
    samples = np.concatenate(trials)
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    return Latency(
        mean=float(samples.mean()),
        std=float(samples.std(ddof=1)) if samples.size > 1 else 0.0,
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        n=samples.size,
        trials=len(trials),
    )


def quantile_curve_ms(trials: Sequence[FloatArray]) -> list[float]:
    """The 0th, 1st, ..., 100th percentile of the pooled samples: all that a plot of the distribution needs."""
    return [float(value) for value in np.percentile(np.concatenate(trials), np.arange(101))]


def quantiles_by_trial_ms(trials: Sequence[FloatArray]) -> dict[str, list[float]]:
    """``trial_p50_ms``, ``trial_p90_ms`` and ``trial_p99_ms``: of each trial on its own.

    Inferences of one trial follow each other too closely to be independent; trials are, so their spread is what an
    interval of a quantile is made of.

    >>> quantiles_by_trial_ms([np.array([1.0, 2.0, 3.0]), np.array([2.0])])["trial_p50_ms"]
    [2.0, 2.0]
    """
    each = [[float(value) for value in np.percentile(samples, (50, 90, 99))] for samples in trials]
    return dict(zip(("trial_p50_ms", "trial_p90_ms", "trial_p99_ms"), map(list, zip(*each, strict=True)), strict=True))


def frames_per_second(latency_ms: float, batch: int = 1) -> float:
    """FPS = 1000 batch / latency (ms); at batch 1 as in section 4.1 of the paper. One inference at a time, and it only.

    >>> frames_per_second(8.0), frames_per_second(8.0, batch=4)
    (125.0, 500.0)
    """
    return 1000 * batch / latency_ms
