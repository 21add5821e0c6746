import importlib.util
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgejoule_agent.energy import Accuracy, Resolution, above_idle, integrate, still_tail, student_95
from edgejoule_agent.errors import SensorError

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def load_benchmark(name):
    """A script of benchmarks/, as a module: what it prints at length is asserted here."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(ROOT, "benchmarks", name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


coverage = load_benchmark("energy_coverage")
TIMES = np.arange(0.05, 14, 0.1)
WINDOW = (1.0, 13.0)


def test_stated_interval_holds_the_true_energy_of_a_thousand_waveforms():
    trials = coverage.run(1200, seed=20)
    by_family = {family: [each for each in trials if each.family == family] for family in coverage.FAMILIES}
    held = coverage.held(trials)
    assert len(held) >= 1000  # of those with an interval; rails that die have none
    assert held.mean() >= 0.95
    dropped = by_family["dropped"]
    assert len(coverage.held(dropped)) >= 0.95 * len(dropped)
    assert all("the rail" in each.reason for each in dropped if each.error is None)
    for family, least in (("constant", 0.99), ("ramp", 0.99), ("square", 0.93), ("noise", 0.93), ("dropped", 0.93)):
        assert coverage.held(by_family[family]).mean() >= least, family  # 171 each: within 2 σ of 95 %
    for family in ("constant", "ramp"):
        assert max(abs(each.error) for each in by_family[family]) < 0.005
    assert all(each.error is None and "the rail" in each.reason for each in by_family["dying"]), {
        each.reason for each in by_family["dying"]
    }
    assert all(each.error is not None for family in coverage.SHAPES for each in by_family[family])
    # not by being wide: medians of a deep square and of noise over 10-30 s
    assert np.median([each.half_width for each in by_family["square"]]) < 0.06
    assert np.median([each.half_width for each in by_family["noise"]]) < 0.03


def test_random_moments_see_a_load_that_repeats_with_the_sampler():
    """A regular sampler meets the same phase each time and is wrong without knowing it; ours is not."""
    edges = np.arange(0, 16, 0.05)
    waveform = coverage.Waveform(edges, np.tile([9.0, 3.0], 160)[:-1], np.tile([9.0, 3.0], 160)[:-1])
    random = np.random.RandomState(4)
    found = {}
    for regular in (True, False):
        times, powers = coverage.sample(random, waveform, 15, coverage.FINE, regular)
        found[regular] = integrate(times, powers, WINDOW)
    truth = waveform.joules(*WINDOW)
    assert truth == pytest.approx(72)
    assert abs(found[True].joules - truth) > 20 > found[True].uncertainty_j
    assert abs(found[False].joules - truth) < found[False].uncertainty_j < 8


@settings(max_examples=60)
@given(
    st.lists(st.floats(0.02, 0.2), min_size=80, max_size=120),
    st.floats(0.5, 20),
    st.floats(-0.2, 0.6),
    st.floats(0.3, 0.6),
)
def test_a_straight_line_is_integrated_exactly_at_any_times(steps, level, slope, cut):
    times = np.cumsum(steps)
    powers = level + 0.2 * times.max() + slope * times
    window = (times[3] + cut * 0.02, times[-4] + cut * 0.02)
    middle = level + 0.2 * times.max() + slope * np.mean(window)
    found = integrate(times, powers, window)
    assert found.joules == pytest.approx(middle * (window[1] - window[0]), rel=1e-9)
    assert found.uncertainty_j < 1e-6 * found.joules


def test_white_noise_is_stated_as_the_mean_of_its_samples():
    random = np.random.RandomState(0)
    found = [integrate(TIMES, 5 + 0.5 * random.standard_normal(len(TIMES)), WINDOW) for _ in range(300)]
    expected = 0.5 * 0.1 * np.sqrt(120)  # σ per sample, period, samples in the window
    assert np.std([each.joules for each in found]) == pytest.approx(expected, rel=0.1)
    assert np.sqrt(np.mean([each.sampling_j**2 for each in found])) == pytest.approx(expected, rel=0.05)
    assert 30 < np.median([each.freedom for each in found]) < 50  # a third of 120


def test_a_steady_reading_is_uncertain_by_its_step_and_no_less():
    found = integrate(TIMES, np.full(len(TIMES), 2.0), WINDOW, Resolution(0.04, 0.001))
    assert found.joules == pytest.approx(24)
    assert found.resolution_j == pytest.approx((0.04 + 0.002) / 2 * 12 / np.sqrt(3))
    assert found.uncertainty_j == pytest.approx(1.96 * found.resolution_j)
    assert (found.samples, found.max_gap_s, found.period_s) == (120, pytest.approx(0.1), pytest.approx(0.1))
    assert found.power_w == pytest.approx(2)


def test_a_gap_is_bounded_by_the_range_seen():
    powers = np.where(TIMES % 2 < 1, 3.0, 5.0)
    powers[(TIMES > 6.0) & (TIMES < 6.8)] = np.nan
    whole, found = integrate(TIMES, np.where(TIMES % 2 < 1, 3.0, 5.0), WINDOW), integrate(TIMES, powers, WINDOW)
    assert found.max_gap_s == pytest.approx(0.9)
    assert found.samples == whole.samples - 8
    assert found.gaps_j == pytest.approx(0.9 * 1 / np.sqrt(3))  # from 5 W to 3 W, 4 W between
    assert whole.gaps_j == 0
    assert abs(found.joules - whole.joules) < found.uncertainty_j


def test_a_window_that_the_samples_do_not_reach_has_a_gap_at_its_edge():
    inside = (TIMES > 1.5) & (TIMES < 12.4)
    found = integrate(TIMES[inside], (2 + TIMES / 10)[inside], WINDOW)
    assert found.gaps_j > 0
    assert abs(found.joules - 12 * 2.7) < found.uncertainty_j


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (0.0, "the rail reads 0 W from 6.0 s on, in a window of 12.0 s"),
        (np.nan, "the rail gives no reading any more from 6.0 s on"),
        (4.25, "the rail is stuck: it reads 4.250 W unchanged for the last 5.9 s"),
    ],
)
def test_a_rail_that_dies_gives_its_reason(after, reason):
    random = np.random.RandomState(1)
    powers = np.where(TIMES < 7, 5 + random.standard_normal(len(TIMES)) / 10, after)
    with pytest.raises(SensorError, match=reason):
        integrate(TIMES, powers, WINDOW)


@pytest.mark.parametrize(
    ("powers", "reason"),
    [
        (np.zeros(140), "the rail reads 0 W in the whole window of 12.0 s"),
        (np.full(140, np.nan), "the rail gives no reading in the whole window of 12.0 s"),
        (np.where(TIMES < 3.5, 0, 5.0), r"the rail read 0 W for the first 2.\d s"),
        (np.where((TIMES > 3.1) & (TIMES < 10.9), np.nan, 5.0), "no readings for 7.9 s of the 12.0 s window"),
    ],
)
def test_a_rail_that_hardly_lives_gives_its_reason(powers, reason):
    with pytest.raises(SensorError, match=reason):
        integrate(TIMES, powers, WINDOW)


def test_a_window_with_few_readings_gives_its_reason():
    with pytest.raises(SensorError, match=r"only 5 readings in a window of 0\.5 s, and 10 are needed: take it longer"):
        integrate(TIMES, np.full(140, 5.0), (1.0, 1.5))


def test_a_steady_load_is_not_taken_for_a_stuck_rail():
    burst = np.where(TIMES % 5 < 2.5, 3.0, 8.0 + np.sin(1e4 * TIMES))
    assert still_tail(np.full(100, 3.0)) == 0
    assert still_tail(burst[: np.flatnonzero(TIMES % 5 < 2.5)[-1] + 1]) == 0
    assert integrate(TIMES, burst, WINDOW).joules > 0


def test_energy_above_idle_subtracts_as_long_a_rest():
    random = np.random.RandomState(2)
    busy = integrate(TIMES, 5 + random.standard_normal(140) / 10, WINDOW)
    idle = integrate(TIMES, 2 + random.standard_normal(140) / 10, (1, 5))
    joules, uncertainty_j = above_idle(busy, idle)
    assert joules == pytest.approx(busy.joules - 3 * idle.joules)
    assert uncertainty_j == pytest.approx(np.hypot(busy.uncertainty_j, 3 * idle.uncertainty_j))


def test_the_sensors_own_error_is_stated_beside_the_uncertainty():
    plain = integrate(TIMES, 5 + TIMES / 100, WINDOW)
    found = integrate(TIMES, 5 + TIMES / 100, WINDOW, accuracy=Accuracy(gain=0.005, offset_w=0.08))
    assert plain.sensor_error_j is None
    assert found.uncertainty_j == plain.uncertainty_j
    assert found.sensor_error_j == pytest.approx(1.96 * np.hypot(0.005 * found.joules, 0.08 * 12) / np.sqrt(3))


def test_student_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4.5, 7, 12, 25, 70, 1e3, 1e9):
        assert student_95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.07 if freedom < 4 else 0.01)
