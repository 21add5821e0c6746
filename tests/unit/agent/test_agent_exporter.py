"""The exporter: golden scrapes of every board, what is wrong with sensors, and a trial seen while it runs.

Run as a program, it writes the golden scrapes anew: look at what changed.
"""

import json
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
import types
import urllib.request

import numpy as np
import pytest

from edgejoule_agent import live, measure, metrics, sensors
from edgejoule_agent.errors import SettingsError
from edgejoule_agent.exporter import cells
from edgejoule_agent.exporter.board import STUCK_RAIL_S, STUCK_ZONE_S, Board
from edgejoule_agent.exporter.exposition import Distribution, render
from edgejoule_agent.exporter.server import serving
from edgejoule_agent.simulation import trees

GOLDEN = pathlib.Path(__file__).with_name("scrapes")
TABLE = metrics.load()
RAIL = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/"
NANO_RAIL = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
THOR_RAIL = "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon4/"
ZONE = "sys/class/thermal/thermal_zone{}/temp"
CELL = {"detector": "nanodet_m", "precision": "int8-ptq"}


class Clock:
    """A clock that the tests turn."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def scraped(board):
    """A scrape's text as metric with labels -> value."""
    lines = [line for line in render(TABLE, board.readings()).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def golden(name, folder):
    """What a scrape says of a board's tree after three readings of its power, half a second apart."""
    root, clock = trees.write(name, folder), Clock()
    board = Board(root, agent="0.1.0", clock=clock)
    for step in range(3):
        clock.now_s += 0.5
        board.read_power()
        if step != 1:
            board.read_states()
    return render(TABLE, board.readings()).replace(root, "")


@pytest.fixture
def tree(tmp_path):
    """Makes a board's tree; gives its root, a board on it, and its clock."""

    def make(name):
        root, clock = trees.write(name, tmp_path / name), Clock()
        return root, clock, lambda: Board(root, agent="0.1.0", clock=clock)

    return make


def change(root, path, content):
    """Put other content into a file of a tree, take it away (None), or make it unreadable."""
    full = os.path.join(root, path)
    shutil.rmtree(full) if os.path.isdir(full) else os.remove(full)
    if content is not None:
        trees.Tree(root).file(path, content)


def read(board, clock, seconds=0.4):
    """Read everything, and power all the while."""
    board.read_states()
    for _ in range(int(seconds / 0.2) + 1):
        board.read_power()
        clock.now_s += 0.2
    return scraped(board)


def up(found, sensor, quantity):
    return found[f'edgejoule_sensor_up{{sensor="{sensor}",quantity="{quantity}"}}']


def powers_up(found):
    """Whether each rail is up, by its name."""
    start = 'edgejoule_sensor_up{sensor="'
    return {
        name.split('"')[1]: value
        for name, value in found.items()
        if name.startswith(start) and name.endswith('quantity="power"}')
    }


@pytest.mark.parametrize("name", sorted(trees.BOARDS))
def test_scrape_of_a_board_is_the_golden_one(name, tmp_path):
    expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert golden(name, tmp_path) == expected, "if it should be so: python tests/unit/agent/test_agent_exporter.py"


@pytest.mark.parametrize("name", sorted(trees.BOARDS))
def test_golden_scrape_is_one_by_another_parser_too(name):
    parser = pytest.importorskip("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families((GOLDEN / f"{name}.txt").read_text(encoding="utf-8")))
    assert families
    for family in families:
        declared = TABLE.get(family.name) or TABLE[family.name + "_total"]
        assert (family.type, family.documentation) == (declared["type"], declared["help"])
        assert all(set(sample.labels) == set(declared["labels"]) for sample in family.samples)
        assert len({tuple(sample.labels.items()) for sample in family.samples}) == len(family.samples)


@pytest.mark.parametrize(
    ("name", "power_w", "parts"),
    [
        ("nano_jp4", 1.714, ["POM_5V_CPU", "POM_5V_GPU"]),
        ("orin_nano_jp6", 4.976 * 0.904, ["VDD_CPU_GPU_CV", "VDD_SOC"]),
        ("thor", 22.0352, ["VDD_CPU_SOC_MSS", "VDD_GPU", "VIN_SYS_5V0"]),
    ],
)
def test_joules_of_the_board_are_of_its_total_rail_alone(tree, name, power_w, parts):
    _, clock, make = tree(name)
    found = read(make(), clock, seconds=2.0)
    seconds = found["edgejoule_board_energy_observed_seconds_total"]
    assert seconds == pytest.approx(2.0)
    assert found["edgejoule_board_energy_joules_total"] / seconds == pytest.approx(power_w)
    rails = [each.split('"')[1] for each in found if each.startswith("edgejoule_rail_energy_joules_total")]
    assert sorted(rails) == parts


def test_rails_that_do_not_overlap_are_added_where_there_is_no_total(tree):
    root, clock, make = tree("agx_orin_jp6")
    board = make()
    found = read(board, clock)
    rails = {
        rail: found[f'edgejoule_rail_energy_joules_total{{rail="{rail}"}}']
        for rail in ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
    }
    part = rails.pop("VDDQ_VDD2_1V8AO")  # of VIN_SYS_5V0
    assert part > 0
    assert found["edgejoule_board_energy_joules_total"] == pytest.approx(sum(rails.values()))
    (label,) = [path for path in pathlib.Path(root).rglob("in*_label") if path.read_text().strip() == "VDD_CPU_CV"]
    label.with_name(label.name.replace("label", "input")).write_text("0")
    found = read(board, clock)
    assert "edgejoule_board_energy_joules_total" not in found  # half a sum is no total


@pytest.mark.parametrize(
    ("name", "rail", "file", "content"),
    [
        *(
            ("orin_nano_jp6", "VDD_IN", RAIL + "in1_input", content)
            for content in ("0", "32760", "", "nonsense", None, trees.UNREADABLE)
        ),
        *(("orin_nano_jp6", "VDD_IN", RAIL + "curr1_input", content) for content in ("0", "-8", "65535", "")),
        *(
            ("nano_jp4", "POM_5V_IN", NANO_RAIL + "in_power0_input", content)
            for content in ("0", "-40", "900000", "4294967295", "n/a")
        ),
        *(("thor", "VIN", THOR_RAIL + "power1_input", content) for content in ("0", "2000000000", "1000000000000")),
    ],
)
def test_total_rail_that_cannot_be_read_or_true_is_absent_and_down_and_counts_on_later(tree, name, rail, file, content):
    root, clock, make = tree(name)
    board = make()
    before = read(board, clock)
    right = pathlib.Path(root, file).read_text().strip()
    change(root, file, content)
    found = read(board, clock)
    assert {sensor: value for sensor, value in powers_up(found).items() if not value} == {rail: 0}
    assert not [name for name in found if name.startswith("edgejoule_board_energy")]
    assert found[f'edgejoule_sensor_errors_total{{sensor="{rail}",quantity="power"}}'] == 3
    if content is not None:
        change(root, file, right)
        found = read(board, clock)
        assert powers_up(found) == powers_up(before)
        energy = "edgejoule_board_energy_joules_total"
        assert found[energy] == pytest.approx(2 * before[energy])


def test_load_that_a_thor_hides_is_said_and_absent(tree, caplog):
    _, clock, make = tree("thor")
    board = make()
    clock.now_s += 1
    board.read_states()
    found = scraped(board)
    assert found['edgejoule_sensor_up{sensor="gpu",quantity="load"}'] == 0
    assert not [name for name in found if name.startswith("edgejoule_gpu_load_ratio")]
    said = [record.getMessage() for record in caplog.records if "the load of gpu is left out" in record.getMessage()]
    assert len(said) == 1
    assert "on a Thor NVML tells it" in said[0]


@pytest.mark.parametrize(("by_nvml", "named"), [((), ["gpu"]), (("load",), ["gpu0"]), (("clock",), ["gpu"])])
def test_load_by_nvml_stands_in_for_the_file_that_a_thor_lacks(monkeypatch, by_nvml, named):
    units = {"load": "1", "clock": "Hz"}
    gpus = [sensors.Sensor("gpu0", quantity, units[quantity], lambda: 0.5) for quantity in by_nvml]
    monkeypatch.setattr("edgejoule_agent.sensors.nvml.find_gpus", lambda: (gpus, ""))
    monkeypatch.setattr("edgejoule_agent.sensors.state.jetson", types.SimpleNamespace(is_jetson=lambda root: True))
    monkeypatch.setattr("edgejoule_agent.sensors.state.gpu_load_file", lambda root: None)
    board = Board("/")
    board.read_states()
    up = [labels for labels, _ in board.readings()["edgejoule_sensor_up"]]
    assert [labels["sensor"] for labels in up if labels["quantity"] == "load"] == named


def test_total_of_0_w_is_said_once_and_its_return_too(tree, caplog):
    root, clock, make = tree("nano_jp4")
    board = make()
    caplog.set_level(logging.INFO, "edgejoule-agent")
    for content in ("0", "1714"):
        change(root, NANO_RAIL + "in_power0_input", content)
        read(board, clock)
    assert [record.getMessage() for record in caplog.records if "POM_5V_IN" in record.getMessage()] == [
        "the power of POM_5V_IN is left out: the rail POM_5V_IN reads 0 W, and the board runs",
        "the power of POM_5V_IN can be read again",
    ]


def test_rail_beside_the_total_may_be_at_0_w(tree):
    root, clock, make = tree("nano_jp4")
    change(root, NANO_RAIL + "in_power1_input", "0")  # the GPU's, which sleeps
    found = read(make(), clock)
    assert found['edgejoule_rail_energy_joules_total{rail="POM_5V_GPU"}'] == 0
    assert powers_up(found) == {"POM_5V_CPU": 1, "POM_5V_GPU": 1, "POM_5V_IN": 1}


@pytest.mark.parametrize("content", ["256", "9999", "-1"])
def test_fan_at_more_than_its_full_duty_is_absent_and_down(tree, content):
    root, clock, make = tree("nano_jp4")
    change(root, "sys/devices/pwm-fan/cur_pwm", content)
    found = read(make(), clock)
    assert up(found, "fan", "duty") == 0
    assert 'edgejoule_fan_duty_ratio{fan="fan"}' not in found
    change(root, "sys/devices/pwm-fan/cur_pwm", "255")
    assert read(make(), clock)['edgejoule_fan_duty_ratio{fan="fan"}'] == 1


def test_rail_of_the_board_that_was_never_there_is_down(tree):
    root, clock, make = tree("orin_nano_jp6")
    change(root, RAIL + "in1_label", "NC")
    found = read(make(), clock)
    assert up(found, "VDD_IN", "power") == 0
    assert 'edgejoule_sensor_up{sensor="NC",quantity="power"}' not in found
    assert not [name for name in found if name.startswith("edgejoule_board_energy")]
    assert 'edgejoule_rail_energy_joules_total{rail="VDD_SOC"}' in found


def test_power_file_that_is_absent_is_made_up_for_by_voltage_and_current(tree):
    root, clock, make = tree("nano_jp4")
    change(root, NANO_RAIL + "in_power0_input", None)
    found = read(make(), clock)
    rate_w = found["edgejoule_board_energy_joules_total"] / found["edgejoule_board_energy_observed_seconds_total"]
    assert rate_w == pytest.approx(5.104 * 0.336)


@pytest.mark.parametrize("content", ["-256000", "9999999", "", None, trees.UNREADABLE])
def test_zone_that_is_off_or_absurd_is_absent_and_down(tree, content):
    root, clock, make = tree("nano_jp4")
    board = make()
    read(board, clock)
    change(root, ZONE.format(1), content)
    found = read(board, clock)
    zone = pathlib.Path(root, ZONE.format(1)).with_name("type").read_text().strip()
    assert up(found, zone, "temperature") == 0
    assert f'edgejoule_temperature_celsius{{zone="{zone}"}}' not in found


@pytest.mark.parametrize("folder", ["sys/class/thermal", "sys/class/devfreq", "sys/bus", "proc", "sys"])
def test_exporter_outlives_everything_that_vanishes(tree, folder):
    root, clock, make = tree("orin_nano_jp6")
    board = make()
    before = read(board, clock)
    shutil.rmtree(os.path.join(root, folder))
    found = read(board, clock)
    downs = [name for name, value in found.items() if name.startswith("edgejoule_sensor_up") and not value]
    assert len(downs) > len(
        [name for name, value in before.items() if name.startswith("edgejoule_sensor_up") and not value]
    )
    assert render(TABLE, make().readings())  # and one that starts now


def test_rail_that_is_stuck_is_found_by_the_load_that_it_does_not_show(tree):
    root, clock, make = tree("orin_nano_jp6")
    load = "sys/devices/platform/bus@0/17000000.gpu/load"
    load = load if os.path.exists(os.path.join(root, load)) else "sys/devices/platform/17000000.gpu/load"
    board = make()
    assert up(read(board, clock, STUCK_RAIL_S + 1), "VDD_IN", "power") == 1
    pathlib.Path(root, load).write_text("990\n")
    found = read(board, clock, STUCK_RAIL_S + 1)
    assert up(found, "VDD_IN", "power") == 0
    assert "edgejoule_board_energy_joules_total" not in found
    change(root, RAIL + "curr1_input", "2400")
    assert up(read(board, clock), "VDD_IN", "power") == 1


def test_zone_that_is_stuck_is_found_too(tree):
    root, clock, make = tree("nano_jp4")
    load, board = "sys/devices/gpu.0/load", make()
    for per_mille in ("0", "990"):
        change(root, load, per_mille)
        for _ in range(int(STUCK_ZONE_S / 2) + 2):
            board.read_states()
            clock.now_s += 2
    found = scraped(board)
    assert up(found, "CPU-therm", "temperature") == 0
    assert 'edgejoule_temperature_celsius{zone="CPU-therm"}' not in found


def test_what_was_not_read_for_long_is_not_shown(tree):
    _, clock, make = tree("nano_jp4")
    board = make()
    read(board, clock)
    clock.now_s += 60
    found = scraped(board)
    assert found["edgejoule_sensors_age_seconds"] > 60
    assert not [
        name
        for name in found
        if name.startswith(("edgejoule_board_energy", "edgejoule_temperature", "edgejoule_clock"))
    ]
    assert up(found, "POM_5V_IN", "power") == 0


def test_throttling_is_told_and_two_sensors_of_one_name_are_told_apart(tree):
    root, clock, make = tree("orin_nano_jp6")
    trees.Tree(root).file("sys/class/thermal/thermal_zone99/type", "tj-thermal")
    trees.Tree(root).file("sys/class/thermal/thermal_zone99/temp", "99500")
    trees.Tree(root).file("sys/class/thermal/thermal_zone99/trip_point_0_temp", "99000")
    trees.Tree(root).file("sys/class/thermal/thermal_zone99/trip_point_0_type", "passive")
    board = make()
    board.read_states()
    found = scraped(board)
    assert found['edgejoule_throttle_verdict{verdict="unknown"}'] == 1  # one look is none
    for _ in range(2):
        clock.now_s += 2
        board.read_states()
    found = scraped(board)
    assert found['edgejoule_throttle_verdict{verdict="yes"}'] == 1
    assert found['edgejoule_throttle_verdict{verdict="no"}'] == 0
    assert found['edgejoule_temperature_celsius{zone="tj-thermal2"}'] == 99.5
    assert found['edgejoule_temperature_celsius{zone="tj-thermal"}'] == 47.25


@pytest.mark.parametrize("name", ["nano_jp4", "nano_2gb_jp4"])
def test_trip_that_refreshes_the_dram_is_none_at_which_the_board_slows_down(tree, name):
    _, clock, make = tree(name)
    found = read(make(), clock)
    passive = {key.split('"')[1] for key in found if key.startswith("edgejoule_trip_") and 'kind="passive"' in key}
    assert passive == {"CPU-therm", "GPU-therm"}
    assert found['edgejoule_temperature_celsius{zone="PLL-therm"}'] > 0


def test_simulated_board_says_so(tree):
    root, clock, _ = tree("nano_jp4")
    text = render(TABLE, Board(root, simulated=True, clock=clock).readings())
    assert 'simulated="true"' in text


# --- the trial under way ------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The state folder of an agent whose metrics are shown, with a job."""
    folder = tmp_path / "state"
    (folder / "job").mkdir(parents=True)
    job = {"step": "benchmark/nanodet_m/int8-ptq/nano/0", "kind": "benchmark"}
    (folder / "job" / "job.json").write_text(json.dumps(job))
    (folder / "job" / "log").touch()
    monkeypatch.setenv(live.VARIABLE, str(folder))
    return folder


def samples_of(found, metric):
    return {tuple(labels.items()): value for labels, value in found.get(metric, [])}


def measured(state):
    """The histogram of the cell's measured inferences; that of its warm-up stands at 0 from the beginning."""
    found = samples_of(cells.readings(str(state)), live.HISTOGRAM)
    value = found.pop((*CELL.items(), ("stage", "measure")))
    ((labels, other),) = found.items()
    assert labels == (*CELL.items(), ("stage", "warm-up"))
    assert sum(other.counts) == other.sum == 0
    return value


def test_latencies_are_counted_under_the_first_bound_that_holds_them(state):
    latencies_ms = np.random.RandomState(0).lognormal(3, 1, 1000)
    for part in np.split(latencies_ms, [10, 400]):
        live.begin("measure")(part)  # three trials of one cell: counters go on
    value = measured(state)
    bounds_ms = [0.0, *(1e3 * bound for bound in TABLE[live.HISTOGRAM]["buckets"]), np.inf]
    expected = [
        int(((latencies_ms > low) & (latencies_ms <= high)).sum()) for low, high in zip(bounds_ms, bounds_ms[1:])
    ]
    assert list(value.counts) == expected
    assert value.sum == pytest.approx(latencies_ms.sum() / 1e3)


def test_cell_is_shown_at_0_from_its_first_job_on_and_keeps_what_it_counted(state):
    live.expect()
    found = cells.readings(str(state))
    render(TABLE, found)
    assert set(samples_of(found, "edgejoule_inferences_total").values()) == {0}
    assert "edgejoule_cell_info" not in found  # nothing is measured yet
    assert sum(measured(state).counts) == 0
    live.begin("measure")([5.0, 6.0])
    live.expect()  # the next job of the cell
    assert sum(measured(state).counts) == 2


def test_inferences_that_are_not_timed_are_counted_and_in_no_histogram(state):
    live.begin("measure")([5.0, 6.0])
    count = live.begin_untimed("power")
    count(40)
    count(2)
    found = cells.readings(str(state))
    render(TABLE, found)
    counted = {labels[-1][1]: value for labels, value in samples_of(found, "edgejoule_inferences_total").items()}
    assert counted == {"warm-up": 0, "measure": 2, "power": 42}
    assert sum(measured(state).counts) == 2
    ((labels, _),) = found["edgejoule_cell_info"]
    assert labels["stage"] == "power"


def test_window_of_the_power_counts_every_inference(state):
    class Engine:
        def infer(self, image):
            time.sleep(0.002)

    done = measure._keep_busy(Engine(), None, time.monotonic(), 1.2, lambda *words: None)
    found = samples_of(cells.readings(str(state)), "edgejoule_inferences_total")
    assert found[(*CELL.items(), ("stage", "power"))] == done > 0


def test_percentiles_of_the_histogram_are_within_a_bucket_of_the_exact_ones(state):
    latencies_ms = np.random.RandomState(1).gamma(9, 4, 5000)
    live.begin("measure")(latencies_ms)
    value = measured(state)
    bounds_s = [0.0, *TABLE[live.HISTOGRAM]["buckets"], np.inf]
    for quantile in (0.5, 0.9, 0.99):
        rank = int(np.searchsorted(np.cumsum(value.counts), quantile * len(latencies_ms)))
        assert bounds_s[rank] <= np.percentile(latencies_ms, 100 * quantile) / 1e3 <= bounds_s[rank + 1]


def test_cell_at_work_is_told_while_its_process_lives_and_its_job_runs(state):
    show = live.begin("warm-up")
    show([5.0])
    assert samples_of(cells.readings(str(state)), "edgejoule_cell_info") == {
        (("detector", "nanodet_m"), ("precision", "int8-ptq"), ("stage", "warm-up")): 1
    }
    (path,) = (state / "live").iterdir()
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(dict(kept, now={"stage": "measure", "pid": 2**22 + 1})))
    assert "edgejoule_cell_info" not in cells.readings(str(state))
    show([5.0])
    (state / "job" / "result.json").write_text("{}")
    found = cells.readings(str(state))
    assert "edgejoule_cell_info" not in found
    assert samples_of(found, "edgejoule_result_waiting") == {(): 1}
    kinds = ("build", "benchmark", "predict")
    assert samples_of(found, "edgejoule_job_running") == {(("kind", kind),): 0 for kind in kinds}


def recorded(mean_ms, throttled="no"):
    """What a BenchmarkRecord says, as far as it is shown."""
    latency_ms = {"mean": mean_ms, "p50": 20.0, "p90": 25.0, "p99": 40.0}
    return {"latency_ms": latency_ms, "energy_mj": None, "idle_power_w": None, "throttled": throttled}


def test_what_a_trial_came_to_is_shown_but_no_null(state):
    record = dict(recorded(21.0), idle_power_w=1.7)
    live.begin("measure")([20.0])
    live.keep(record)
    found = cells.readings(str(state))
    assert [value for _, value in found["edgejoule_trial_latency_seconds"]] == [0.02, 0.025, 0.04]
    assert "edgejoule_trial_energy_joules" not in found
    assert "edgejoule_cell_info" not in found
    live.keep(dict(record, energy_mj=130.0))
    found = cells.readings(str(state))
    assert found["edgejoule_trial_energy_joules"] == [(CELL, 0.13)]
    assert found["edgejoule_trial_idle_power_watts"] == [({}, 1.7)]
    render(TABLE, found)


def test_cell_is_not_at_work_once_its_window_has_closed_and_what_it_counted_stays(state):
    live.begin("measure")([20.0, 22.0])
    live.begin_untimed("power")(5)
    live.end_window()
    found = cells.readings(str(state))
    assert "edgejoule_cell_info" not in found
    assert sum(samples_of(found, "edgejoule_inferences_total").values()) == 7
    assert means(state) == (pytest.approx(21.0), None)


def test_last_trial_of_a_device_is_the_one_that_ended_last(state):
    begin_s = time.time()
    for precision, ends in (("fp32", True), ("fp16", True), ("fp32", True), ("fp16", False)):
        job = {"step": f"benchmark/nanodet_m/{precision}/nano/0", "kind": "benchmark"}
        (state / "job" / "job.json").write_text(json.dumps(job))
        live.begin("measure")([20.0])
        if ends:
            live.keep(recorded(20.0))
    found = cells.readings(str(state))
    render(TABLE, found)
    ended_s = {labels["precision"]: value for labels, value in found["edgejoule_trial_ended_timestamp_seconds"]}
    assert begin_s < ended_s["fp16"] < ended_s["fp32"] < time.time()


def takes(state, engine, **asked):
    """Have the job at hand measure an engine, by its hash."""
    job = {"step": "benchmark/nanodet_m/int8-ptq/nano/0", "kind": "benchmark", "inputs": {"engine": engine}}
    (state / "job" / "job.json").write_text(json.dumps(dict(job, parameters=dict({"threads": 1}, **asked))))


def means(state):
    """The mean latency of the cell's trial and its baseline, in ms; None of what is absent."""
    found = cells.readings(str(state))
    render(TABLE, found)
    return tuple(
        1e3 * found[name][0][1] if name in found else None
        for name in ("edgejoule_trial_mean_latency_seconds", "edgejoule_trial_baseline_latency_seconds")
    )


def tried(state, engine, mean_ms, throttled="no", **asked):
    """A whole trial; the mean and the baseline that are shown after it."""
    takes(state, engine, **asked)
    live.begin("measure")([mean_ms])
    live.keep(recorded(mean_ms, throttled=throttled))
    return means(state)


def test_baseline_of_a_trial_is_the_mean_of_those_before_it_of_the_same_engine(state):
    assert tried(state, "a", 20.0) == (pytest.approx(20.0), None)
    assert tried(state, "a", 22.0) == (pytest.approx(22.0), pytest.approx(20.0))
    assert tried(state, "a", 30.0) == (pytest.approx(30.0), pytest.approx(21.0))
    assert tried(state, "b", 40.0) == (pytest.approx(40.0), None)  # built anew: nothing to compare with
    assert tried(state, "a", 24.0) == (pytest.approx(24.0), pytest.approx(24.0))


@pytest.mark.parametrize("asked", [{"power_mode": "5W"}, {"threads": 2}])
def test_baseline_is_of_the_conditions_that_were_asked_for(state, asked):
    tried(state, "a", 20.0)
    assert tried(state, "a", 40.0, **asked) == (pytest.approx(40.0), None)
    assert tried(state, "a", 41.0, **asked) == (pytest.approx(41.0), pytest.approx(40.0))
    assert tried(state, "a", 21.0) == (pytest.approx(21.0), pytest.approx(20.0))


def test_throttled_trial_is_no_part_of_a_baseline_but_is_compared(state):
    tried(state, "a", 20.0)
    assert tried(state, "a", 60.0, throttled="yes") == (pytest.approx(60.0), pytest.approx(20.0))
    assert tried(state, "a", 20.0) == (pytest.approx(20.0), pytest.approx(20.0))


def test_mean_of_a_trial_under_way_is_of_what_it_has_measured_and_warm_up_has_none(state):
    tried(state, "a", 20.0)
    live.begin("warm-up")([90.0])
    assert means(state) == (None, None)
    show = live.begin("measure")
    assert means(state) == (None, pytest.approx(20.0))
    show([21.0, 23.0])
    show([25.0])
    assert means(state) == (pytest.approx(23.0), pytest.approx(20.0))
    live.begin_untimed("power")(5)
    assert means(state) == (pytest.approx(23.0), pytest.approx(20.0))
    (path,) = (state / "live").iterdir()
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(dict(kept, now={"stage": "measure", "pid": 2**22 + 1})))
    assert means(state) == (None, None)  # it broke off


def test_baselines_are_kept_of_the_engines_that_were_measured_last(state):
    for number in range(live.ENGINES + 1):
        tried(state, str(number), 20.0)
    assert tried(state, "1", 30.0)[1] == pytest.approx(20.0)
    assert tried(state, "0", 30.0)[1] is None
    (path,) = (state / "live").iterdir()
    assert len(json.loads(path.read_text())["engines"]) == live.ENGINES


def test_cell_of_an_older_release_is_shown_and_gets_a_baseline(state):
    takes(state, "a")
    (state / "live").mkdir()
    old = {"stages": {}, "now": None, "trial": None}
    (state / "live" / "nanodet_m@int8-ptq.json").write_text(json.dumps(dict(CELL, **old)))
    assert means(state) == (None, None)
    tried(state, "a", 20.0)
    assert tried(state, "a", 20.0)[1] == pytest.approx(20.0)


@pytest.mark.parametrize("harm", ["no job", "another step", "damaged file", "no room"])
def test_trial_is_not_harmed_by_what_it_cannot_show(state, harm):
    if harm == "no job":
        (state / "job" / "job.json").unlink()
    elif harm == "another step":
        (state / "job" / "job.json").write_text('{"step": "analyze", "kind": "analyze"}')
    elif harm == "damaged file":
        (state / "live").mkdir()
        (state / "live" / "nanodet_m@int8-ptq.json").write_text("{")
    else:
        (state / "live").write_text("no folder")
    live.begin("measure")([1.0])
    live.keep(recorded(1.0))
    (state / "job" / "result.json").write_text("{}")
    if harm != "no room":
        cells.readings(str(state))


def test_protocols_loop_shows_every_latency_that_it_records(state):
    class Engine:
        execution_ms = None

        def infer(self, image):
            time.sleep(0.001)

    recorded_ms, _ = measure._timed(Engine(), None, 700, lambda *words: None, "inferences")
    value = measured(state)
    assert sum(value.counts) == 700
    assert value.sum == pytest.approx(recorded_ms.sum() / 1e3)


# --- the port -----------------------------------------------------------------------------------------


def get(port, path="/metrics"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_scrape_over_http_is_quick_however_slow_a_sensor_is(tree, state):
    root, _, _ = tree("orin_nano_jp6")
    slow = os.path.join(root, ZONE.format(0))
    os.remove(slow)
    os.mkfifo(slow)  # nobody writes: opening it hangs, as a sensor's driver may
    with serving("127.0.0.1:0", str(state), Board(root)) as port:
        time.sleep(0.6)
        begin_s = time.perf_counter()
        text = get(port)
        took_s = time.perf_counter() - begin_s
        joules = float(text.split("\nedgejoule_board_energy_joules_total ")[1].split("\n")[0])
        hanging = [thread for thread in threading.enumerate() if thread.name == "sensors"]
        with open(slow, "w") as file:  # let it go, and be a file from then on
            os.remove(slow)
            pathlib.Path(slow).write_text("47000\n")
            file.write("47000\n")
    assert hanging
    assert took_s < 0.5
    assert joules > 0


def test_other_paths_are_refused_and_a_port_that_is_taken_is_a_sentence(tree, state):
    root, _, _ = tree("nano_jp4")
    with serving("127.0.0.1:0", str(state), Board(root)) as port:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "/etc/passwd")
        sentence = f"cannot be shown at 127.0.0.1:{port} .*: name another"
        with pytest.raises(SettingsError, match=sentence), serving(f"127.0.0.1:{port}", str(state), Board(root)):
            pass
    for words in ("somewhere", "host:", "host:99999", ""):
        with pytest.raises(SettingsError, match="HOST:PORT"), serving(words, str(state), Board(root)):
            pass


def test_a_metric_or_a_label_that_the_table_lacks_is_a_fault():
    for readings in ({"edgejoule_new": [({}, 1.0)]}, {"edgejoule_sensors_age_seconds": [({"run": "1"}, 1.0)]}):
        with pytest.raises(KeyError):
            render(TABLE, readings)


def test_histogram_is_cumulative_with_its_sum_and_count():
    table = {"h_seconds": {"type": "histogram", "help": "H.", "labels": ["a"], "buckets": [0.1, 0.5]}}
    text = render(table, {"h_seconds": [({"a": "x\\y\n"}, Distribution([2, 0, 1], 0.9))]})
    assert text.splitlines()[2:] == [
        'h_seconds_bucket{a="x\\\\y\\n",le="0.1"} 2',
        'h_seconds_bucket{a="x\\\\y\\n",le="0.5"} 2',
        'h_seconds_bucket{a="x\\\\y\\n",le="+Inf"} 3',
        'h_seconds_sum{a="x\\\\y\\n"} 0.9',
        'h_seconds_count{a="x\\\\y\\n"} 3',
    ]


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    GOLDEN.mkdir(exist_ok=True)
    for board_name in sorted(trees.BOARDS):
        with tempfile.TemporaryDirectory() as place:
            (GOLDEN / f"{board_name}.txt").write_text(golden(board_name, place), encoding="utf-8")
    sys.exit()
