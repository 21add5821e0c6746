import numpy as np
import pytest

from edgejoule_agent import host
from edgejoule_agent.benchmark import benchmark, check_same
from edgejoule_agent.errors import ConditionsChangedError, ShardError
from edgejoule_agent.measure import memory_peak_mb, summarize

PROTOCOL = {"name": "quick", "warmup_iterations": 3, "iterations": 20}


def silent(done, total, unit):
    pass


@pytest.fixture
def built(tmp_path, toy, manifest):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "engine"
    path.write_bytes(toy().SerializeToString())
    return path, {"hardware": host.hardware_class("onnxruntime"), "options": {}, "model": manifest}


def parameters(**changes):
    return dict({"device": "host", "trial": 2, "threads": 1, "protocol": PROTOCOL}, **changes)


def test_benchmark_measures_one_trial_and_saves_every_latency(tmp_path, built, shard):
    engine, record = built
    told = []
    found = benchmark(engine, record, shard, tmp_path / "samples", parameters(), lambda *word: told.append(word))
    with np.load(str(tmp_path / "samples")) as saved:
        samples = saved["latency_ms"]
    assert samples.dtype == np.float64
    assert len(samples) == 20
    assert (samples > 0).all()
    assert found["latency_ms"] == summarize(samples)
    assert set(found["stages_ms"]) == {"pre", "infer", "post"}
    assert (found["trial"], found["iterations"], found["warmup_iterations"]) == (2, 20, 3)
    assert 10 < found["memory_peak_mb"] < 1000
    assert found["environment"] == host.probe()
    for field in ("power_w", "energy_mj", "idle_power_w", "temperature_c"):
        assert (found[field] is None) == (field in found["absent"])
    assert told[-1] == (3, 3, "images through all stages")


def test_benchmark_names_the_shard_when_it_is_empty(tmp_path, built, tar):
    engine, record = built
    with pytest.raises(ShardError, match=r"empty\.tar: holds no image"):
        benchmark(engine, record, tar(tmp_path / "empty.tar", []), tmp_path / "samples", parameters(), silent)


def test_benchmark_refuses_a_host_that_is_not_the_planned_one(tmp_path, built, shard):
    engine, record = built
    planned = dict(host.probe()["environment"], governor="performance!")
    with pytest.raises(ConditionsChangedError, match=r"since the plan was made: governor from 'performance!' to"):
        benchmark(engine, record, shard, tmp_path / "samples", parameters(environment=planned), silent)
    assert ConditionsChangedError.transient


def test_check_same_passes_equal_probes_and_names_missing_facts():
    check_same({"a": 1}, {"a": 1}, "during the trial")
    with pytest.raises(ConditionsChangedError, match="a from 1 to None, b from None to 2"):
        check_same({"a": 1}, {"b": 2}, "during the trial")


def test_summarize_gives_the_samples_moments_and_percentiles():
    found = summarize(np.arange(1.0, 101.0))
    assert found["mean"] == 50.5
    assert found["std"] == pytest.approx(29.0114919758820)  # sqrt(n (n + 1) / 12) of the first n numbers
    assert (found["p50"], found["p90"], found["n"], found["trials"]) == (50.5, pytest.approx(90.1), 100, 1)
    assert summarize(np.array([4.0]))["std"] == 0.0


def test_memory_peak_grows_with_what_is_held():
    before = memory_peak_mb()
    held = np.ones(int(before * 1e6 / 8) + 10**7)
    assert memory_peak_mb() > before
    assert held[0] == 1
