import numpy as np
import pytest

from edgejoule.errors import DataError
from edgejoule_analyst.efficiency import energy_per_inference_mj, map_per_joule
from edgejoule_analyst.latency import frames_per_second, load_samples_ms, pool, quantile_curve_ms

PAPER_TABLE_8 = [  # latency ms, FPS, power W, energy mJ, mAP % of Table 7, mAP/J
    (7, 142.9, 1.8, 12.6, 37.4, 2968),
    (9, 111.1, 2.9, 26.1, 39.7, 1521),
    (11, 90.9, 3.2, 35.2, 37.6, 1068),
    (28, 35.7, 5.3, 148.4, 40.1, 270),
    (45, 22.2, 8.1, 364.5, 43.0, 118),
]


@pytest.mark.parametrize(("latency", "fps", "power", "energy", "ap50", "efficiency"), PAPER_TABLE_8)
def test_formulas_reproduce_the_papers_table_8(latency, fps, power, energy, ap50, efficiency) -> None:
    assert frames_per_second(latency) == pytest.approx(fps, abs=0.05)
    assert frames_per_second(3 * latency, batch=3) == pytest.approx(fps, abs=0.05)
    assert energy_per_inference_mj(power, latency) == pytest.approx(energy, abs=0.05)
    assert map_per_joule(ap50 / 100, energy) == pytest.approx(efficiency, abs=0.6)


def test_pool_takes_every_sample_of_every_trial() -> None:
    trials = [np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0])]
    latency = pool(trials)
    assert (latency.n, latency.trials) == (5, 2)
    assert latency.mean == pytest.approx(7.2)
    assert latency.std == pytest.approx(np.std([1, 2, 3, 10, 20], ddof=1))
    assert latency.p50 == 3
    assert latency.p50 <= latency.p90 <= latency.p99 <= 20


def test_pool_of_one_sample_has_no_spread() -> None:
    assert pool([np.array([4.0])]).std == 0


def test_quantile_curve_runs_from_the_least_to_the_greatest_sample() -> None:
    curve = quantile_curve_ms([np.array([3.0, 1.0]), np.array([2.0])])
    assert len(curve) == 101
    assert (curve[0], curve[50], curve[100]) == (1, 2, 3)


def test_load_samples_gives_milliseconds_as_written(tmp_path) -> None:
    np.savez(tmp_path / "samples", latency_ms=np.array([1.5, 2.5]))
    assert load_samples_ms(tmp_path / "samples.npz").tolist() == [1.5, 2.5]


@pytest.mark.parametrize("samples", [[], [1.0, -1.0], [np.nan], [[1.0]]])
def test_load_samples_refuses_what_cannot_be_latencies(tmp_path, samples) -> None:
    np.savez(tmp_path / "samples", latency_ms=np.array(samples, dtype=float))
    with pytest.raises(DataError, match="run the benchmark step again"):
        load_samples_ms(tmp_path / "samples.npz")
