import json
import os
import threading
import time

import numpy as np
import pytest

from edgejoule_agent import benchmark as measuring
from edgejoule_agent import conditions, host, live, measure
from edgejoule_agent.benchmark import benchmark, check_same
from edgejoule_agent.engines import Engine, open_engine
from edgejoule_agent.errors import ConditionsChangedError, ShardError
from edgejoule_agent.exporter import cells
from edgejoule_agent.measure import memory_peak_mb, summarize
from edgejoule_agent.simulation import trees

PROTOCOL = {
    "name": "quick",
    "warmup_iterations": 3,
    "iterations": 20,
    "power_sampling_ms": 20,
    "power_window_s": 1.5,
    "idle_s": 1.5,
    "cool_down_s": 0.0,
    "start_temp_c": [5.0, 60.0],
    "start_slope_c_min": 2.0,
    "start_wait_s": 0.0,
}
POWER = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input"


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
    assert 0 < found["load_memory_mb"] < found["memory_peak_mb"]
    assert found["batch"] == 1
    assert found["environment"] == host.probe()
    assert {name for name, value in found.items() if value is None} == set(found["absent"])
    assert "onnxruntime does not time its execution" in found["absent"]["execution_ms"]
    assert "takes the device as it is" in found["absent"]["preconditioning"]
    assert found["protocol_values"]["power_window_s"] == 1.5
    assert told[-1] == (3, 3, "images through all stages")


def test_openvino_takes_a_picture_that_is_read_only(toy):
    pytest.importorskip("openvino")
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    image = np.random.RandomState(0).uniform(0, 255, (1, 3, 32, 48)).astype(np.float32)
    with open_engine("openvino", toy().SerializeToString(), options, 1) as engine:
        free = [part.copy() for part in engine.infer(image)]
        image.setflags(write=False)
        assert all(np.array_equal(*each) for each in zip(free, engine.infer(image)))


def test_openvino_tells_its_execution_apart_from_the_call(tmp_path, built, shard):
    pytest.importorskip("openvino")
    engine, record = built
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    record = dict(record, hardware=host.hardware_class("openvino"), options=options)
    found = benchmark(engine, record, shard, tmp_path / "samples", parameters(), lambda *word: None)
    with np.load(str(tmp_path / "samples")) as saved:
        assert found["execution_ms"] == summarize(saved["execution_ms"])
        assert (saved["execution_ms"] > 0).all()
        assert (saved["execution_ms"] <= saved["latency_ms"]).all()
    assert "execution_ms" not in found["absent"]


def test_a_trial_of_a_batch_fills_it_with_images_of_the_shard(shard, manifest):
    images = measure.first_batch(shard, {"model": manifest, "batch": 5})
    assert images.shape == (5, 3, 32, 48)
    assert np.array_equal(images[:1], measure.first_batch(shard, {"model": manifest}))
    assert np.array_equal(images[3:], images[:2])  # it has three
    assert not np.array_equal(images[0], images[1])


class Slow(Engine):
    """Finds nothing, and takes 50 ms for it, however many images there are."""

    batches = ()

    def infer(self, image):
        time.sleep(0.05)
        self.batches += (len(image),)
        return np.zeros((len(image), 1, 4), np.float32), np.zeros((len(image), 1, 2), np.float32)


def test_stages_tell_of_an_inference_an_images_share(manifest):
    engine, pictures = Slow(), [np.zeros((48, 72, 3), np.uint8)] * 3
    told = []
    found = measure._stages(engine, pictures, {"model": manifest, "batch": 2}, lambda *said: told.append(said))
    assert engine.batches == (2, 2)
    assert 25 <= found["infer"] < 50
    assert told == [(2, 3, "images through all stages"), (3, 3, "images through all stages")]


@pytest.fixture
def trial(tmp_path, built, shard):
    """A function that measures a trial in this process, on the board whose files lie under a root."""
    engine, record = built

    def run(root, progress=silent, **changes):
        request = {
            "engine": str(engine),
            "engine_record": record,
            "shard": str(shard),
            "samples": str(tmp_path / "samples"),
            "threads": 1,
            "protocol": dict(PROTOCOL, **changes),
            "stage_images": 1,
            "root": root,
        }
        return measure.trial(request, progress)

    return run


class Rail(threading.Thread):
    """Writes a rail's power so often, two steps of its sensor about a level, that it is alive."""

    def __init__(self, root, milliwatts):
        super().__init__(daemon=True)
        self.path, self.level, self.over = os.path.join(root, POWER), milliwatts, threading.Event()

    def run(self):
        step = 0
        while not self.over.wait(0.02):
            step = 40 - step
            with open(self.path + ".new", "w") as file:
                file.write(str(self.level - 20 + step))
            os.replace(self.path + ".new", self.path)


class Played:
    """The clock of a module that asks ``time`` for it, as its engine's inferences move it on."""

    def __init__(self):
        self.now_s = 100.0
        self.perf_counter = self.monotonic = lambda: self.now_s


class Ticking(Engine):
    """Takes 0.4 s of a played clock for an inference."""

    def __init__(self, clock):
        self.clock = clock

    def infer(self, image):
        self.clock.now_s += 0.4


@pytest.mark.parametrize(("timed_s", "more"), [(0.0, 4), (0.4, 3), (1.4, 1), (1.5, 0), (9.0, 0)])
def test_inferring_goes_on_until_the_powers_window_is_full_and_no_longer(monkeypatch, timed_s, more):
    clock = Played()
    monkeypatch.setattr(measure, "time", clock)
    told = []
    begin_s = clock.now_s - timed_s
    done = measure._keep_busy(Ticking(clock), None, begin_s, 1.5, lambda *said: told.append(said))
    assert done == more
    assert clock.now_s >= begin_s + 1.5
    assert clock.now_s < begin_s + 1.5 + 0.4 or not more
    assert [unit for _, _, unit in told] == ["seconds of the power's window"] * (more // 2)  # told twice a second


def test_trial_on_a_board_tells_the_energy_of_a_window_that_is_full(tmp_path, trial):
    """At the sampler's usual period: a reading may be late by a period and a half, and on a crowded machine 20 ms are
    not enough for that; three are taken for each that a window needs."""
    root = trees.write("nano_jp4", tmp_path / "nano")
    rail = Rail(root, 3000)
    rail.start()
    found = trial(root, power_sampling_ms=100, power_window_s=3.0, idle_s=3.0)
    rail.over.set()
    rail.join()
    assert found["latency_ms"]["n"] == 20
    assert set(found["absent"]) <= {"execution_ms", "preconditioning", "throughput", "device_memory_mb", "states"}
    assert found["window_s"] >= 3.0
    assert found["window_inferences"] >= 20
    # at 3 W all the time: joules by power and time alone
    assert found["energy_mj"] * found["window_inferences"] / 1e3 == pytest.approx(3 * found["window_s"], rel=0.01)
    assert found["idle_power_w"] == pytest.approx(3.0, abs=0.02)
    # idle and at work the rail is within two steps of 3 W, so what lies between them is at most twice that
    assert abs(found["energy_above_idle_mj"]) * found["window_inferences"] / 1e3 <= 0.04 * found["window_s"]
    assert found["energy_above_idle_uncertainty_mj"] > 0
    assert found["power_of"].startswith("rail POM_5V_IN; not in it")
    assert 10 <= found["sampling"]["samples"] <= 10 * found["window_s"] + 2  # one in each slot
    assert found["sampling"]["realtime"] != "not asked for"
    assert found["throttled"] == "no"
    assert "saw nothing" in found["throttled_evidence"]


def test_cell_is_at_work_as_long_as_its_inferences_are_counted_and_no_longer(tmp_path, trial, monkeypatch):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_text(json.dumps({"step": "benchmark/toy/fp32/nano/0", "kind": "benchmark"}))
    (tmp_path / "job" / "log").touch()
    monkeypatch.setenv(live.VARIABLE, str(tmp_path))
    seen = {}

    def look(done, total, unit):
        found = cells.readings(str(tmp_path))
        seen.setdefault(unit, []).extend(labels["stage"] for labels, _ in found.get("edgejoule_cell_info", []))

    trial(trees.write("nano_jp4", tmp_path / "nano"), look)
    assert set(seen["seconds of the power's window"]) == {"power"}
    assert seen["images through all stages"] == []


def test_trial_on_a_board_without_a_power_monitor_says_why_and_wastes_no_time(tmp_path, trial):
    found = trial(trees.write("nano_2gb_jp4", tmp_path / "nano"), idle_s=1000.0, power_window_s=1000.0)
    for name in measure.POWER:
        assert found[name] is None
        assert found["absent"][name] == "a Jetson Nano 2 GB has no power monitor"
    assert found["latency_ms"]["n"] == 20


def warm(seconds, temps_c):
    return list(zip(seconds, temps_c))


@pytest.mark.parametrize(
    ("seen", "reached", "slope_c_min"),
    [
        (warm(range(31), np.full(31, 42.0)), "yes", 0.0),
        (warm(range(31), 42 - np.arange(31) / 40), "yes", -1.5),
        (warm(range(31), 42 + np.arange(31) / 20), "no", 3.0),
        (warm(range(31), np.full(31, 75.0)), "no", 0.0),
        (warm(range(31), np.full(31, 0.0)), "no", 0.0),
        (warm(range(10), np.full(10, 42.0)), "unknown", None),
        # the end decides: it fell fast, and stands now
        (warm(range(61), np.concatenate([np.linspace(80, 42, 36), np.full(25, 42.0)])), "yes", 0.0),
        ([], "unknown", None),
    ],
)
def test_a_device_has_settled_within_the_band_and_under_the_slope(seen, reached, slope_c_min):
    found = conditions.judge(seen, (5.0, 60.0), 2.0)
    assert found.reached == reached
    assert found.slope_c_min == (None if slope_c_min is None else pytest.approx(slope_c_min, abs=1e-6))


def test_settling_waits_for_the_temperature_and_no_longer_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(conditions, "SPAN_S", 0.4)
    monkeypatch.setattr(conditions, "LOOK_S", 0.05)
    root = trees.write("nano_jp4", tmp_path / "nano")
    asked = dict(PROTOCOL, cool_down_s=0.1, start_wait_s=3.0)
    found, _ = conditions.settle(asked, silent, root)
    assert (found["reached"], found["slope_c_min"]) == ("yes", pytest.approx(0.0, abs=1e-9))
    assert 0.4 <= found["waited_s"] < 2.0
    assert conditions.settle(dict(asked, start_wait_s=0.0), silent, root)[0]["reached"] == "unknown"
    hot, _ = conditions.settle(dict(asked, start_temp_c=[5.0, 10.0], start_wait_s=0.6), silent, root)
    assert hot["reached"] == "no"
    assert "asked for are 5 to 10 °C" in hot["words"]
    assert 0.7 <= hot["waited_s"] < 1.5
    blind, _ = conditions.settle(asked, silent, str(tmp_path / "nothing"))
    assert (blind["reached"], blind["temp_c"]) == ("unknown", None)
    assert "no temperature can be read: no CPU sensor" in blind["words"]
    assert blind["waited_s"] < 1.0
    assert conditions.settle(PROTOCOL, silent, root)[0] is None


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


@pytest.mark.parametrize("throttled", ["yes", "no"])
def test_clocks_that_heat_caps_void_no_trial_that_says_it_throttled(monkeypatch, tmp_path, built, shard, throttled):
    """The kernel's cooling lowers scaling_max_freq, which the environment has. Played are the probes, not the trial."""
    engine, record = built
    probes = [host.probe(), host.probe()]
    probes[1]["environment"]["max_frequency_khz"] = 1
    monkeypatch.setattr(host, "probe", lambda: probes.pop(0))
    real = measuring.run
    monkeypatch.setattr(measuring, "run", lambda *asked, **more: dict(real(*asked, **more), throttled=throttled))
    if throttled == "yes":
        assert benchmark(engine, record, shard, tmp_path / "samples", parameters(), silent)["throttled"] == "yes"
    else:
        with pytest.raises(ConditionsChangedError, match="max_frequency_khz"):
            benchmark(engine, record, shard, tmp_path / "samples", parameters(), silent)


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
