"""A simulated board: its formulas against oracles, its files under a greedy reader, its energy against its own."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from edgejoule_agent import engines, jetson, sensors
from edgejoule_agent.energy import integrate
from edgejoule_agent.errors import EngineError, SensorError, SettingsError, UnsupportedError
from edgejoule_agent.sensors.state import gpu_folder
from edgejoule_agent.simulation import device, files, governor, machine, physics, trees
from edgejoule_agent.simulation.declared import BOARDS, NANO, ORIN_NANO, Thermal
from edgejoule_agent.simulation.roofline import Layer, latency_s, layers_of
from edgejoule_agent.simulation.running import LoadPipe, Settings, prepare, read_status, root_of, running
from edgejoule_agent.simulation.work import back_to_back
from edgejoule_agent.step_process import Job
from edgejoule_agent.steps import benchmark as benchmark_step
from edgejoule_agent.steps import build as build_step

TOTAL = {"nano": "POM_5V_IN", "orin-nano": "VDD_IN"}
LAYERS = [Layer(macs=60000000, elements=2000000)] * 20  # 2.4 GFLOPs in all
boards = pytest.mark.parametrize("name", sorted(BOARDS))


@pytest.fixture
def tree(tmp_path):
    def make(name):
        return trees.write(BOARDS[name].tree, tmp_path / "tree") + "/"

    return make


# --- heat --------------------------------------------------------------------------------------------


@boards
@pytest.mark.parametrize("fan", [0.0, 0.4, 1.0])
def test_temperatures_follow_the_differential_equation(name, fan):
    integrate_ode = pytest.importorskip("scipy.integrate").solve_ivp
    thermal, start, power_w, ambient_c = BOARDS[name].thermal, (70.0, 31.0), 6.5, 20.0
    outer = physics.sink_to_ambient_k_w(thermal, fan)

    def change(_, temps):
        flow = (temps[0] - temps[1]) / thermal.junction_to_sink_k_w
        away = (temps[1] - ambient_c) / outer
        return [(power_w - flow) / thermal.junction_j_k, (flow - away) / thermal.sink_j_k]

    moments = [0.05, 1.0, 10.0, 600.0]
    wanted = integrate_ode(change, (0, 600), start, "LSODA", moments, rtol=1e-10, atol=1e-10).y.T
    found = [physics.heat(thermal, start, power_w, ambient_c, fan, seconds) for seconds in moments]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_temperatures_meet_the_closed_form_of_one_time_constant():
    # a sink that nothing warms: the junction alone, T(t) = T_end + (T_0 - T_end) exp(-t / RC)
    thermal = Thermal(10.0, 1e15, 2.0, 1.0, 1.0)
    for seconds in (0.0, 3.0, 20.0, 200.0):
        found = physics.heat(thermal, (80.0, 25.0), 5.0, 25.0, 0.0, seconds)[0]
        assert found == pytest.approx(35.0 + 45.0 * np.exp(-seconds / 20.0), abs=1e-6)


@boards
def test_one_long_step_is_many_short_ones_and_ends_where_heat_comes_and_goes_alike(name):
    thermal = BOARDS[name].thermal
    once = physics.heat(thermal, (30.0, 30.0), 7.0, 25.0, 0.3, 100.0)
    temps = (30.0, 30.0)
    for _ in range(1000):
        temps = physics.heat(thermal, temps, 7.0, 25.0, 0.3, 0.1)
    np.testing.assert_allclose(temps, once, atol=1e-9)
    forever = physics.heat(thermal, temps, 7.0, 25.0, 0.3, 1e9)
    np.testing.assert_allclose(forever, physics.steady_c(thermal, 7.0, 25.0, 0.3), atol=1e-9)


# --- power, time, clocks -----------------------------------------------------------------------------


@boards
def test_idle_rails_read_as_in_the_tree_of_the_board_at_rest(name, tree):
    root, board = tree(name), BOARDS[name]
    shown = {rail.name: rail.read_w() for rail in sensors.find_rails(root)[0]}
    state = machine.at_rest(board, files.limits_of(root))
    for label, power_w in state.powers_w.items():
        assert power_w == pytest.approx(shown[label], abs=0.03)


@pytest.mark.parametrize(
    ("board", "wanted_w"),
    [  # the sources in ``declared``
        (NANO, {"POM_5V_IN": 4.531, "POM_5V_GPU": 1.256, "POM_5V_CPU": 0.466}),
        (ORIN_NANO, {"VDD_IN": 10.475, "VDD_CPU_GPU_CV": 3.757, "VDD_SOC": 3.055}),
    ],
)
def test_rails_at_full_load_read_as_their_sources_have_them(board, wanted_w):
    full = physics.Load(1.0, 1.0, 1.0)
    found = physics.rail_powers_w(board, {"gpu": full, "cpu": full})
    assert found == {label: pytest.approx(power_w, abs=0.001) for label, power_w in wanted_w.items()}


def test_roofline_meets_what_owners_measured():
    # nearly all of it arithmetic, in 60 layers: YOLOv5s in FP16 on a Nano, YOLO11s on an Orin Nano at 1020 MHz
    yolov5s, yolo11s = [Layer(int(16.5e9 / 120), 0)] * 60, [Layer(int(21.5e9 / 200), 0)] * 100
    assert 1e3 * latency_s(yolov5s, NANO.gpu, "fp16", 921.6e6) == pytest.approx(70, rel=0.05)
    found = [1e3 * latency_s(yolo11s, ORIN_NANO.gpu, precision, 1020e6) for precision in ("fp32", "fp16", "int8")]
    np.testing.assert_allclose(found, (13.29, 7.30, 5.25), rtol=0.2)


def test_latency_falls_with_the_clock_until_memory_decides():
    assert latency_s(LAYERS, NANO.gpu, "fp32", 300e6) > latency_s(LAYERS, NANO.gpu, "fp32", 900e6)
    moves = [Layer(1, 10**7)]
    assert latency_s(moves, NANO.gpu, "fp32", 300e6) == latency_s(moves, NANO.gpu, "fp32", 900e6)


def test_layers_of_a_graph_hold_its_multiplications_and_its_tensors(toy):
    pytest.importorskip("onnx")
    first, depthwise, head = layers_of(toy())
    assert first == Layer(macs=8 * 27 * 16 * 24, elements=3 * 32 * 48 + 8 * 27 + 8 * 16 * 24)
    assert depthwise.macs == 8 * 9 * 8 * 12
    assert head.elements == 8 * 8 * 12 + 6 * 8 + 6 * 8 * 12
    of_three = layers_of(toy(batch=3))[2]  # the weights are read once for all images
    assert of_three == Layer(macs=3 * head.macs, elements=3 * 8 * 8 * 12 + 6 * 8 + 3 * 6 * 8 * 12)


@boards
def test_clock_goes_up_under_load_and_down_at_rest_within_the_power_mode(name, tree):
    board, limits = BOARDS[name], files.limits_of(tree(name))
    state = machine.at_rest(board, limits)
    assert state.gpu_hz == limits.gpu_clocks_hz[0]
    seen = set()
    for busy in [1.0] * 3 + [0.0] * 30:
        state = machine.advance(board, limits, state, busy, 0.05)
        seen.add(state.gpu_hz)
    assert seen == set(limits.gpu_clocks_hz)
    assert state.gpu_hz == limits.gpu_clocks_hz[0]


def test_a_power_over_the_limit_counts_one_event_and_halves_the_clock(tree):
    limits = files.limits_of(tree("orin-nano"))
    assert limits.over_current_a == 3.624
    limits = limits._replace(over_current_a=1.5)
    state = machine.at_rest(ORIN_NANO, limits)
    events = []
    for _ in range(20):
        state = machine.advance(ORIN_NANO, limits, state, 1.0, 0.05)
        events.append(state.over_currents)
    assert events[0] == 0
    assert events[-1] > 1  # over, clock halved, under, clock up, over


@boards
@pytest.mark.parametrize(("ambient_c", "throttles"), [(25.0, False), (88.0, True)])
def test_throttling_comes_with_heat_alone_and_the_verdict_says_so(name, ambient_c, throttles, tree):
    root, board = tree(name), BOARDS[name]
    limits = files.limits_of(root)
    state = machine.at_rest(board, limits, ambient_c)
    shown = files.Files(root, board)
    looks = []
    for second in range(1200):
        state = machine.advance(board, limits, state, 1.0, 1.0, ambient_c)
        if second % 100 == 0:
            shown.write(state, second)
            looks.append(sensors.snapshot(root)._replace(time_s=float(len(looks))))
    shown.close()
    verdict = sensors.verdict(looks)
    assert (verdict.throttled, state.cooling > 0) == (("yes", True) if throttles else ("no", False))
    if throttles:
        assert state.gpu_hz < limits.gpu_clocks_hz[-1]
        assert "cooling device gpu" in verdict.evidence
        # held about the trip point: that is what the slower clock is for
        assert abs(state.temps_c[0] - limits.trip_c) < 4


@boards
def test_energy_from_quantized_samples_is_the_machines_own_within_its_uncertainty(name, tree):
    root, board = tree(name), BOARDS[name]
    limits, label = files.limits_of(root), TOTAL[name]
    rail = sensors.pick_rails([label], root)[0]
    shown = files.Files(root, board, noise=0.015, random=np.random.RandomState(1))
    state, draw = machine.at_rest(board, limits), np.random.RandomState(2)
    times_s, powers_w, tick_s = [], [], 0.05
    for tick in range(1200):
        busy = 1.0 if (tick // 100) % 3 else 0.2  # steps of 5 s
        state = machine.advance(board, limits, state, busy, tick_s)
        shown.write(state, tick * tick_s)
        if tick % 2 == 0:
            times_s.append((tick + draw.uniform(0, 2)) * tick_s)
            powers_w.append(rail.read_w())
    found = integrate(times_s, powers_w, (0.0, 1200 * tick_s), rail.resolution(), rail.accuracy())
    shown.close()
    assert abs(found.joules - state.joules[label]) <= found.uncertainty_j
    assert found.uncertainty_j < 0.02 * found.joules


# --- files -------------------------------------------------------------------------------------------


@boards
def test_readings_are_whole_steps_of_the_sensor(name, tree):
    root, board = tree(name), BOARDS[name]
    shown = files.Files(root, board)
    state = machine.at_rest(board, files.limits_of(root))
    for power_w in np.random.RandomState(0).uniform(0.1, 15, 50):
        shown.write(state._replace(powers_w=dict.fromkeys(state.powers_w, power_w)), 0.0)
        for rail in sensors.find_rails(root)[0]:
            assert rail.read_mv() % 8 == 0
            assert rail.read_ma() % 8 == 0
            assert abs(rail.read_ma() * 5.0 / 1000 - power_w) <= 0.0201
    shown.close()


def test_faults_show_as_the_sensors_know_them(tree):
    root = tree("orin-nano")
    faults = [files.parse_fault(words) for words in ("stuck:VDD_SOC@1", "dead:VDD_IN", "off:gpu-thermal")]
    shown, limits = files.Files(root, ORIN_NANO, faults), files.limits_of(root)
    state = machine.at_rest(ORIN_NANO, limits)
    shown.write(state, 0.0)
    soc, total = sensors.pick_rails(["VDD_SOC", "VDD_IN"], root)
    before_w = soc.read_w()
    for _ in range(5):
        state = machine.advance(ORIN_NANO, limits, state, 1.0, 0.5)
    shown.write(state, 2.5)
    shown.close()
    assert soc.read_w() == before_w
    assert total.read_w() == 0
    value, reason = sensors.try_read(
        next(zone.sensor() for zone in sensors.find_zones(root) if zone.name == "gpu-thermal")
    )
    assert value is None
    assert "-256 °C" in reason


def test_a_fault_goes_as_it_came(tree):
    root = tree("orin-nano")
    shown = files.Files(root, ORIN_NANO, [files.parse_fault("off:VDD_IN@2-4")])
    state = machine.at_rest(ORIN_NANO, files.limits_of(root))
    rail = sensors.pick_rails(["VDD_IN"], root)[0]
    for age_s in (1.9, 4.0):
        shown.write(state, age_s)
        assert rail.read_w() > 4
    for age_s in (2.0, 3.9):
        shown.write(state, age_s)
        with pytest.raises(SensorError, match="the rail VDD_IN is off or its sensor wrong"):
            rail.read_w()
    shown.close()


def test_a_board_without_its_heat_sink_gets_hot_and_cools_once_it_is_back(tree):
    bare = ORIN_NANO._replace(thermal=physics.without_sink(ORIN_NANO.thermal))
    limits, temps_c = files.limits_of(tree("orin-nano")), []
    for board in (ORIN_NANO, bare):
        state = machine.at_rest(ORIN_NANO, limits)
        for _ in range(120):
            state = machine.advance(board, limits, state, 1.0, 0.5)
        temps_c.append(state.temps_c[0])
    assert temps_c[0] < 60
    assert temps_c[1] > 90
    for _ in range(20):
        state = machine.advance(ORIN_NANO, limits, state, 0.0, 0.5)
    assert state.temps_c[0] < 60


@pytest.mark.parametrize(
    "words", ["stuck", "warm:VDD_IN", "stuck:VDD_IN@soon", "dead:", "off:VDD_IN@9-3", "loose:VDD_IN", "off:sink"]
)
def test_what_is_no_fault_is_refused(words):
    with pytest.raises(SettingsError, match="is no fault: write stuck:RAIL"):
        files.parse_fault(words)


def test_a_fault_of_a_sensor_that_is_not_there_is_refused(tree):
    with pytest.raises(SettingsError, match="no rail and no zone called VDD_IN"):
        files.Files(tree("nano"), NANO, [files.parse_fault("dead:VDD_IN"), files.parse_fault("loose:sink")])


# --- the process -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board():
    with running(Settings("orin-nano")) as folder:
        yield folder


def test_a_greedy_reader_never_meets_an_empty_file_or_half_a_number(board):
    root = root_of(board)
    rail = sensors.pick_rails(["VDD_IN"], root)[0]
    clocks_hz = set(files.limits_of(root).gpu_clocks_hz)
    clock = os.open(os.path.join(gpu_folder(root), "cur_freq"), os.O_RDONLY)  # kept open, as some readers do
    pipe, powers_w, seen_hz = LoadPipe(board), set(), set()
    until = time.monotonic() + 2.0
    told_s = 0.0
    while time.monotonic() < until:
        if time.monotonic() > told_s + 0.2:
            told_s = time.monotonic()
            pipe.busy(told_s, told_s + 0.1)  # half the time busy, so everything changes
        powers_w.add(rail.read_w())
        seen_hz.add(int(os.pread(clock, 64, 0)))
        assert json.dumps(dict(read_status(board)))
    pipe.close()
    os.close(clock)
    assert len(powers_w) > 1
    assert len(seen_hz) > 1
    assert seen_hz <= clocks_hz
    assert all(4.2 < power_w < 11.2 for power_w in powers_w)


def test_energy_read_from_a_running_board_is_its_own(board):
    rail = sensors.pick_rails(["VDD_IN"], root_of(board))[0]
    times_s, powers_w = [], []
    over = threading.Event()

    def sample():
        while not over.wait(0.1):
            begin = time.monotonic()
            power_w = rail.read_w()
            times_s.append((begin + time.monotonic()) / 2)
            powers_w.append(power_w)

    thread = threading.Thread(target=sample)
    thread.start()
    counted = []
    before = read_status(board)
    done = back_to_back(LAYERS, ORIN_NANO.gpu, "fp16", board, 100, 3.0, lambda times_ms: counted.append(len(times_ms)))
    after = read_status(board)
    over.set()
    thread.join()
    found = integrate(times_s, powers_w, (before["time_s"], after["time_s"]), rail.resolution())
    truth = after["joules"]["VDD_IN"] - before["joules"]["VDD_IN"]
    assert abs(found.joules - truth) <= found.uncertainty_j + 0.05 * 6  # a tick of not knowing at either end
    assert found.joules == pytest.approx(truth, rel=0.1)
    assert done.end_s - done.begin_s == pytest.approx(sum(done.times_ms) / 1e3, rel=1e-6)
    assert done.times_ms[-1] == pytest.approx(1e3 * latency_s(LAYERS, ORIN_NANO.gpu, "fp16", 918e6))
    assert done.times_ms[0] >= done.times_ms[-1]  # the clock had to come up
    assert counted == sorted(counted)


def test_a_board_that_is_gone_is_told_to_who_would_work_on_it(tmp_path):
    folder = str(tmp_path / "board")
    with running(Settings("nano"), folder):
        pipe = LoadPipe(folder)
    with pytest.raises(EngineError, match="has ended; start it again"):
        pipe.busy(0.0, 1.0)
    pipe.close()
    with pytest.raises(EngineError, match="no simulated board runs in"):
        LoadPipe(folder)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(SettingsError, match="holds something else than a simulated board"):
        prepare(str(tmp_path), NANO)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_another_board_takes_the_place_of_one_that_has_ended(tmp_path):
    for name, model in (("nano", "NVIDIA Jetson Nano"), ("orin-nano", "NVIDIA Jetson Orin Nano")):
        with running(Settings(name), str(tmp_path)):
            assert jetson.probe(root_of(str(tmp_path)))["model"].startswith(model)
            assert read_status(str(tmp_path))["board"] == name


def test_a_board_ends_with_who_started_it(tmp_path):
    code = (
        "import sys, time; from edgejoule_agent.simulation.running import Settings, running\n"
        f"with running(Settings('nano'), {str(tmp_path)!r}):\n"
        "    print('up', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(EngineError):
            LoadPipe(str(tmp_path)).close()
            time.sleep(0.05)
            continue
        return
    pytest.fail("the board outlived its parent")


def test_unknown_boards_and_bad_faults_are_one_sentence():
    with pytest.raises(SettingsError, match="no board 'tx1' can be simulated: take one of nano, orin-nano"):
        running(Settings("tx1")).__enter__()
    with pytest.raises(SettingsError, match=r"does not start: 'warm:VDD_IN' is no fault"):
        running(Settings("orin-nano", faults=["warm:VDD_IN"])).__enter__()


# --- as a device -------------------------------------------------------------------------------------


@boards
def test_the_device_says_simulated_wherever_it_says_anything(name):
    found, again = device.probe(name), json.loads(json.dumps(device.probe(name)))
    assert found["id"] == f"simulated-{name}"
    assert found["hardware"]["simulated"] is True
    assert found["environment"]["simulated"] is True
    assert "simulated on" in found["hardware"]["processor"]
    assert again == found  # what a plan keeps as JSON is what a step finds


def test_int8_is_refused_on_a_nano_and_taken_on_an_orin():
    with pytest.raises(UnsupportedError, match=r"int8 does not run here: this GPU \(SM 5.3\).* run at fp16"):
        device.refuse("int8", "nano")
    for precision in ("fp32", "fp16"):
        device.refuse(precision, "nano")
    device.refuse("int8", "orin-nano")


def test_a_step_is_for_the_board_of_its_plan_unless_the_agent_plays_one(tmp_path, monkeypatch):
    hardware = device.probe("nano")["hardware"]
    assert device.board_of(hardware) == "nano"
    assert device.board_of(device.probe("orin-nano")["environment"]) == "orin-nano"
    assert device.board_of({"processor": "real"}) is None
    assert device.board_of(None) is None
    with running(Settings("orin-nano"), str(tmp_path)):
        monkeypatch.setenv(device.FOLDER, str(tmp_path))
        assert device.board_of(hardware) == "orin-nano"
        with device.alive("orin-nano") as folder:
            assert folder == str(tmp_path)


def test_what_comes_of_a_board_with_faults_says_so(tmp_path, monkeypatch):
    assert "faults" not in device.probe("orin-nano")["environment"]["simulation"]
    with running(Settings("orin-nano", faults=["off:VDD_IN@5-6"]), str(tmp_path)):
        monkeypatch.setenv(device.FOLDER, str(tmp_path))
        assert device.probe("orin-nano")["environment"]["simulation"]["faults"] == ["off:VDD_IN@5-6"]


def test_fans_and_governor_stay_within_their_ends():
    assert governor.fan_share(-40.0) >= 0
    assert governor.fan_share(500.0) == 1
    assert governor.next_state(50, 50, 120.0, 97.0) == 50


@pytest.mark.parametrize(
    ("name", "precision", "batch"),
    [
        ("nano", "fp16", 3),
        pytest.param(
            *("orin-nano", "int8", 1),
            marks=pytest.mark.skipif(sys.version_info < (3, 7), reason="ONNX Runtime 1.10 runs none of it in INT8"),
        ),
    ],
)
def test_a_step_builds_and_measures_on_a_simulated_board_and_says_so(name, precision, batch, tmp_path, shard, toy):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(toy(quantized=precision == "int8", batch=batch).SerializeToString())
    plan = json.loads(json.dumps(device.probe(name)))

    def job(parameters, **inputs):
        request = {"parameters": parameters, "inputs": inputs, "outputs": str(tmp_path), "scratch": str(tmp_path)}
        return Job(request, lambda *_: None)

    building = {"precision": precision, "threads": 1, "device": "any", "hardware": plan["hardware"]}
    build_step.run(job(building, onnx=str(tmp_path / "model.onnx"), **{"images-000": str(shard)}))
    os.rename(str(tmp_path / "record"), str(tmp_path / "engine_record"))
    built = json.loads((tmp_path / "engine_record").read_text())
    assert built["simulated"] is True
    assert built["hardware"]["simulated"] is True
    assert built["hardware"]["runtime"] == "simulated"
    assert built["int8_share"] is None
    assert built["batch"] == batch

    files_of = {key: str(tmp_path / key) for key in ("engine", "engine_record")}
    measuring = {
        "device": plan["id"],
        "trial": 0,
        "threads": 1,
        "environment": plan["environment"],
        "protocol": {
            "name": "quick",
            "warmup_iterations": 2,
            "iterations": 5,
            "power_sampling_ms": 100,
            "power_window_s": 3.0,
            "idle_s": 3.0,
            "cool_down_s": 0.0,
            "start_wait_s": 0.0,
        },
    }
    benchmark_step.run(job(measuring, **dict(files_of, **{"images-000": str(shard)})))
    record = json.loads((tmp_path / "record").read_text())
    assert record["simulated"] is True
    assert record["environment"]["environment"]["simulated"] is True
    assert record["batch"] == batch
    assert record["throttled"] in ("no", "unknown")  # unknown: so crowded a host that looks were far apart
    assert record["stages_ms"] is None
    assert "this host" in record["absent"]["stages_ms"]
    # a power that never rests, times the latency, is the energy
    assert record["power_w"] > 1.5 * record["idle_power_w"]
    product_mj = record["power_w"] * record["latency_ms"]["mean"]
    assert record["energy_mj"] == pytest.approx(product_mj, rel=0.1)
    assert 0 < record["energy_uncertainty_mj"] < 0.2 * record["energy_mj"]
    above_mj = (record["power_w"] - record["idle_power_w"]) * record["latency_ms"]["mean"]
    assert record["energy_above_idle_mj"] == pytest.approx(above_mj, rel=0.1)
    assert record["power_of"].startswith("rail " + TOTAL[name])
    assert record["window_s"] >= 3.0
    assert record["window_inferences"] > record["latency_ms"]["n"] == 5
    assert {key for key, value in record.items() if value is None} == set(record["absent"])


def test_an_engine_of_a_simulated_board_is_refused_as_a_real_ones(tmp_path, toy):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "engine"
    path.write_bytes(toy().SerializeToString())
    hardware = device.hardware_class("nano")
    with engines.load(str(path), {"hardware": hardware, "options": {}}, 1) as engine:
        assert len(engine.infer(np.zeros((1, 3, 32, 48), np.float32))) == 2
    elsewhere = dict(hardware, processor=hardware["processor"] + " of another kind")
    for other in (dict(hardware, simulated=None), elsewhere):
        with pytest.raises(EngineError, match="built for"):
            engines.load(str(path), {"hardware": other, "options": {}}, 1)
