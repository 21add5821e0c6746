"""Histograms and the choice of scales, against searches written out in full."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgejoule_trainer.quantize.scales import (
    BINS,
    CALIBRATORS,
    Histogram,
    Statistics,
    choose_scale_entropy,
    choose_scale_minmax,
    choose_scale_mse,
    choose_scale_percentile,
    clipping_divergence,
    mean_squared_error,
)

numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


def histogram_of(*batches: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def heavy_tailed(count: int = 20_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(count, generator=generator)
    values[:20] *= 12
    return values


@settings(max_examples=60)
@given(st.lists(st.lists(numbers, min_size=1, max_size=8), min_size=1, max_size=6), st.randoms())
def test_histogram_does_not_depend_on_order_or_batching(batches, random) -> None:
    one = histogram_of(*(torch.tensor(batch) for batch in batches))
    values = [value for batch in batches for value in batch]
    random.shuffle(values)
    other = histogram_of(*(torch.tensor([value]) for value in values))
    assert one.upper == other.upper
    assert one.maximum == other.maximum == max(map(abs, values))
    np.testing.assert_array_equal(one.counts, other.counts)


@settings(max_examples=60)
@given(st.lists(numbers, min_size=1, max_size=50))
def test_histogram_puts_each_value_in_the_bin_that_holds_it(values) -> None:
    histogram = histogram_of(torch.tensor(values))
    expected = np.zeros(BINS)
    for value in values:
        expected[math.floor(abs(value) / histogram.bin_width)] += 1
    np.testing.assert_array_equal(histogram.counts, expected)


def test_histogram_sums_weights_instead_of_counting() -> None:
    histogram = Histogram()
    histogram.add(torch.tensor([1.0, -1.0, 3.0]), torch.tensor([0.5, 0.25, 2.0]))
    assert histogram.counts.sum() == 2.75
    assert histogram.counts[math.floor(1 / histogram.bin_width)] == 0.75


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_histogram_refuses_what_is_not_finite(bad) -> None:
    with pytest.raises(ValueError, match="largest magnitude"):
        Histogram().add(torch.tensor([1.0, bad]))


def test_minmax_clips_nothing() -> None:
    assert choose_scale_minmax(histogram_of(torch.tensor([0.5, -2.54]))) == pytest.approx(0.02)


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.9])
def test_percentile_is_within_a_bin_of_the_sorted_values(percent) -> None:
    values = heavy_tailed()
    histogram = histogram_of(values)
    ordered = np.sort(values.abs().numpy())
    exact = ordered[math.ceil(percent / 100 * len(ordered)) - 1]
    assert 0 <= 127 * choose_scale_percentile(histogram, percent) - exact <= histogram.bin_width


def test_mse_is_least_among_all_thresholds_by_direct_quantization() -> None:
    values = heavy_tailed()
    histogram = histogram_of(values)

    def error(scale: float) -> float:
        restored = torch.clamp(torch.round(values.abs() / scale), max=127) * scale
        return float((values.abs() - restored).square().mean())

    best = min(error(histogram.maximum * k / 400 / 127) for k in range(1, 401))
    assert error(choose_scale_mse(histogram)) == pytest.approx(best, rel=0.02)


def test_mean_squared_error_agrees_with_direct_quantization() -> None:
    values = heavy_tailed()
    fake = torch.fake_quantize_per_tensor_affine(values, 0.03, 0, -128, 127)
    expected = float((values - fake).square().mean())
    # the one value of asymmetry, -128, is not in the magnitudes' model
    assert mean_squared_error(histogram_of(values), 0.03) == pytest.approx(expected, rel=0.02)


def test_clipping_divergence_equals_the_definition_written_in_loops() -> None:
    counts = np.abs(np.random.default_rng(1).normal(size=700)).cumsum()[::-1].round()
    counts[200:230] = 0
    for width in (128, 200, 333, 700):
        clipped = list(counts[:width])
        clipped[-1] += sum(counts[width:])
        spread = [0.0] * width
        for level in range(128):
            bins = [i for i in range(width) if i * 128 // width == level]
            filled = [i for i in bins if counts[i] > 0]
            for i in filled:
                spread[i] = sum(counts[j] for j in bins) / len(filled)
        expected = sum(
            p / sum(clipped) * math.log((p / sum(clipped)) / (q / sum(spread)))
            for p, q in zip(clipped, spread, strict=True)
            if p > 0
        )
        assert clipping_divergence(counts, width) == pytest.approx(expected)


def test_entropy_clips_a_long_tail_and_keeps_a_flat_range() -> None:
    tailed = histogram_of(heavy_tailed())
    assert choose_scale_entropy(tailed) < 0.8 * choose_scale_minmax(tailed)
    flat = histogram_of(torch.linspace(0, 1, 50_000))
    assert choose_scale_entropy(flat) == pytest.approx(choose_scale_minmax(flat), rel=0.02)


def test_sensitivity_clips_large_values_that_the_outputs_hardly_depend_on() -> None:
    values = heavy_tailed()
    even, uneven = Statistics(), Statistics()
    for statistics, weight in ((even, 1.0), (uneven, 1e-4)):
        statistics.values.add(values)
        statistics.sensitivity.add(values, torch.where(values.abs() > 4, weight, 1.0))
    choose = CALIBRATORS["sensitivity"]
    assert choose(even) == CALIBRATORS["mse"](even)
    assert choose(uneven) < 0.5 * choose(even)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-30], [5.0], [1.0, 1e6]])
def test_every_calibrator_gives_a_positive_scale_for_odd_tensors(name, values) -> None:
    statistics = Statistics()
    statistics.values.add(torch.tensor(values))
    statistics.sensitivity.add(torch.tensor(values), torch.zeros(len(values)))
    scale = CALIBRATORS[name](statistics)
    assert math.isfinite(scale)
    assert 0 < scale <= max(max(values), 1.0) / 127 * (1 + 1e-9)
