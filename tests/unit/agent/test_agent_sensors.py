"""The sensors on the trees of eight boards and a host, and on what can be wrong with them."""

import json
import os
import shutil

import pytest

from edgejoule_agent import sensors
from edgejoule_agent.boards import board_of, parts_in
from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors import state, throttle
from edgejoule_agent.simulation import trees as boards

RAILS = {
    "nano_jp4": ["POM_5V_CPU", "POM_5V_GPU", "POM_5V_IN"],
    "nano_2gb_jp4": [],
    "xavier_nx_jp4": ["VDD_CPU_GPU_CV", "VDD_IN", "VDD_SOC"],
    "xavier_nx_jp5": ["VDD_CPU_GPU_CV", "VDD_IN", "VDD_SOC"],
    "orin_nano_jp5": ["VDD_CPU_GPU_CV", "VDD_IN", "VDD_SOC"],
    "orin_nano_jp6": ["VDD_CPU_GPU_CV", "VDD_IN", "VDD_SOC"],
    "agx_orin_jp6": ["VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"],
    "thor": ["VDD_CPU_SOC_MSS", "VDD_GPU", "VIN", "VIN_SYS_5V0"],
    "x86_host": [],
}
TOTALS_W = {  # by hand from the fixtures' mV and mA; None: to the driver's own file, in whole mW
    "nano_jp4": ("POM_5V_IN", 1.714),
    "xavier_nx_jp4": ("VDD_IN", 3.787),
    "xavier_nx_jp5": ("VDD_IN", 4.984 * 0.760),
    "orin_nano_jp5": ("VDD_IN", 4.976 * 0.904),
    "orin_nano_jp6": ("VDD_IN", 4.976 * 0.904),
    "thor": ("VIN", 22.0352),
}
INA3221X = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
INA3221 = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/"
INA238 = "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon4/"
ZONE = "sys/class/thermal/thermal_zone{}/"


@pytest.fixture
def board(tmp_path):
    """Makes the tree of a board; gives its root."""
    return lambda name: boards.write(name, tmp_path / name)


def change(root, path, content):
    """Put other content into a file of a tree, or take it away (None), or make it unreadable."""
    full = os.path.join(root, path)
    if os.path.isdir(full):
        os.rmdir(full)
    else:
        os.remove(full)
    if content is not None:
        boards.Tree(root).file(path, content)


def read_all(root):
    """Every sensor of a board -> (value or None, reason)."""
    rails, _ = sensors.find_rails(root)
    found = [rail.sensor() for rail in rails] + [zone.sensor() for zone in sensors.find_zones(root)]
    return {(each.quantity, each.name): sensors.try_read(each) for each in found + sensors.find_states(root)}


@pytest.mark.parametrize("name", sorted(boards.BOARDS))
def test_every_rail_is_found_once_and_read(board, name):
    rails, reason = sensors.find_rails(board(name))
    assert sorted(rail.name for rail in rails) == RAILS[name]
    assert bool(reason) == (not rails)
    for rail in rails:
        assert 0 < rail.read_w() < 30


@pytest.mark.parametrize("name", sorted(TOTALS_W))
def test_total_power_is_the_drivers_or_volts_times_amperes(board, name):
    rail, power_w = TOTALS_W[name]
    (found,) = sensors.pick_rails([rail], board(name))
    assert found.read_w() == pytest.approx(power_w, abs=1e-9)


def test_a_rail_without_its_power_file_is_read_by_voltage_and_current(board):
    root = board("nano_jp4")
    change(root, INA3221X + "in_power0_input", None)
    (rail,) = sensors.pick_rails(["POM_5V_IN"], root)
    assert rail.read_w() == pytest.approx(5.104 * 0.336)


@pytest.mark.parametrize(
    ("name", "rail", "step_w", "share"),
    [
        ("nano_jp4", "POM_5V_IN", 5.104 * 40e-6 / 5e-3, 0.008 / 5.104),
        ("agx_orin_jp6", "VDD_GPU_SOC", 18.792 * 40e-6 / 2e-3, 0.008 / 18.792),
        ("thor", "VIN", 20.032 * 5e-6 / 10e-3, 0.003125 / 20.032),
    ],
)
def test_resolution_comes_from_the_chips_steps_and_the_shunt(board, name, rail, step_w, share):
    (found,) = sensors.pick_rails([rail], board(name))
    assert found.resolution() == (pytest.approx(step_w), pytest.approx(share))


def test_shunt_of_jetpack_4_is_read_from_the_device_tree(board):
    root = board("nano_jp4")
    chip = "sys/bus/i2c/drivers/ina3221x/6-0040/of_node/channel@0/ti,shunt-resistor-mohm"
    boards.Tree(root).file(chip, b"\0\0\0\x0a")
    (rail,) = sensors.pick_rails(["POM_5V_IN"], root)
    assert rail.shunt_uohm == 10000


def test_accuracy_is_stated_for_the_chip_whose_sheet_we_read(board):
    (rail,) = sensors.pick_rails(["VDD_IN"], board("orin_nano_jp6"))
    assert rail.accuracy() == (pytest.approx(0.005 + 0.016 / 4.976), pytest.approx(4.976 * 0.016))
    (vin,) = sensors.pick_rails(["VIN"], board("thor"))
    assert vin.accuracy() is None


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("in1_input", "0", "reads 0 mV; the rail VDD_IN is off"),
        ("in1_input", "32760", "reads 32760 mV; the rail VDD_IN is off or its sensor wrong"),
        ("in1_input", "", "reads '', which is no whole number"),
        ("in1_input", None, "No such file"),
        ("in1_input", boards.UNREADABLE, "Is a directory"),
        ("curr1_input", "-8", "reads -8 mA, which its sensor cannot measure"),
        ("curr1_input", "65535", "reads 65535 mA, which its sensor cannot measure"),
        ("curr1_input", "n/a", "reads 'n/a', which is no whole number"),
    ],
)
def test_a_wrong_rail_gives_its_reason_and_the_others_their_values(board, file, content, reason):
    root = board("orin_nano_jp6")
    change(root, INA3221 + file, content)
    found = read_all(root)
    value, told = found.pop(("power", "VDD_IN"))
    assert value is None
    assert reason in told
    assert found[("power", "VDD_SOC")][0] == pytest.approx(4.976 * 0.304)


@pytest.mark.parametrize(
    ("name", "rail", "file", "content", "limit_w"),
    [
        ("nano_jp4", "POM_5V_IN", INA3221X + "in_power0_input", "-40", 852),  # 26 V and 163.84 mV over 5 mOhm
        ("nano_jp4", "POM_5V_IN", INA3221X + "in_power0_input", "853000", 852),
        ("nano_jp4", "POM_5V_IN", INA3221X + "in_power0_input", "4294967295", 852),
        ("thor", "VIN", INA238 + "power1_input", "1393000000", 1392.6),  # 85 V and 163.84 mV over 10 mOhm
        ("thor", "VIN", INA238 + "power1_input", "1000000000000", 1392.6),
    ],
)
def test_a_power_file_that_reads_what_its_sensor_cannot_measure_is_refused(board, name, rail, file, content, limit_w):
    root = board(name)
    change(root, file, content)
    (found,) = sensors.pick_rails([rail], root)
    assert found.limit_w == pytest.approx(limit_w, rel=1e-3)
    with pytest.raises(SensorError, match="W, which its sensor cannot measure"):
        found.read_w()


@pytest.mark.parametrize("label", ["NC", None, boards.UNREADABLE])
def test_a_channel_that_is_not_connected_is_no_rail(board, label):
    root = board("orin_nano_jp6")
    change(root, INA3221 + "in2_label", label)
    assert [rail.name for rail in sensors.find_rails(root)[0]] == ["VDD_IN", "VDD_SOC"]


def test_a_rail_that_is_not_there_is_named_with_those_that_are(board):
    with pytest.raises(SensorError, match="no rail VIN: there are VDD_CPU_GPU_CV, VDD_IN, VDD_SOC"):
        sensors.pick_rails(["VIN"], board("orin_nano_jp6"))
    with pytest.raises(SensorError, match="no rail POM_5V_IN: no power rail: no INA3221 or INA238 under"):
        sensors.pick_rails(["POM_5V_IN"], board("nano_2gb_jp4"))


@pytest.mark.parametrize("name", sorted(boards.BOARDS))
def test_zones_have_their_own_trips_and_leave_out_what_is_no_sensor(board, name):
    zones = sensors.find_zones(board(name))
    assert zones
    assert "PMIC-Die" not in [zone.name for zone in zones]
    assert all(trip.temp_c > 20 for zone in zones for trip in zone.trips)


def test_trips_are_those_of_the_board(board):
    zones = {zone.name: zone for zone in sensors.find_zones(board("nano_jp4"))}
    trips = [(trip.kind, trip.temp_c, trip.cooling) for trip in zones["CPU-therm"].trips]
    assert trips == [("critical", 102.0, []), ("hot", 100.5, ["tegra_heavy"]), ("passive", 97.0, ["cpu-balanced"])]
    assert zones["CPU-therm"].read_c() == 34.0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("-256000", "reads -256 °C, so its sensor is off or broken"),
        ("200000", "reads 200 °C"),
        (boards.UNREADABLE, "Is a directory"),
        (None, "No such file"),
        ("", "no whole number"),
    ],
)
def test_a_zone_that_is_off_is_absent_with_its_reason(board, content, reason):
    root = board("nano_jp4")
    change(root, ZONE.format(1) + "temp", content)
    value, told = read_all(root)[("temperature", "CPU-therm")]
    assert value is None
    assert reason in told
    assert sensors.temperature_c(root)[0] == 41.5  # the hottest of the rest


def test_a_host_without_a_readable_cpu_sensor_tells_why(pretend):
    value, reason = sensors.temperature_c(pretend({"sys/class/hwmon/hwmon0/name": "coretemp"}))
    assert value is None
    assert "no CPU sensor" in reason
    root = pretend({"sys/class/hwmon/hwmon0/temp1_input": "-256000"})
    assert "reads -256 °C" in sensors.temperature_c(root)[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nano_jp4", {("load", "gpu"): 0.0, ("clock", "gpu"): 76.8e6, ("clock", "emc"): 204e6, ("duty", "fan"): 0.0}),
        ("xavier_nx_jp5", {("load", "gpu"): 0.0, ("clock", "gpu"): 114.75e6, ("clock", "emc"): 204e6}),
        ("orin_nano_jp5", {("load", "gpu"): 0.0, ("clock", "gpu"): 306e6, ("speed", "fan"): 1200.0}),
        ("orin_nano_jp6", {("load", "gpu"): 0.0, ("clock", "gpu"): 306e6, ("duty", "fan"): 60 / 255}),
        ("agx_orin_jp6", {("load", "gpu"): 0.0, ("clock", "gpu"): 1300.5e6, ("clock", "emc"): 3199e6}),
        ("thor", {("clock", "gpu"): 315e6, ("clock", "cpu13"): 972e6}),
        ("x86_host", {("clock", "cpu1"): 1300e6, ("memory", "total"): 32768000 * 1024.0}),
    ],
)
def test_load_clocks_fan_and_memory(board, name, expected):
    found = read_all(board(name))
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value), "")


@pytest.mark.parametrize("name", sorted(boards.BOARDS))
def test_load_that_no_file_tells_has_a_reason_on_a_jetson(board, name):
    root = board(name)
    if name != "thor":  # as its driver has none from the beginning
        load = state.gpu_load_file(root)
        assert (load is None) == (name == "x86_host")
        if load is not None:
            os.remove(load)
    if name == "x86_host":
        assert ("load", "gpu") not in read_all(root)
        return
    value, reason = read_all(root)["load", "gpu"]
    assert (value, "no file with the GPU's load; on a Thor NVML tells it" in reason) == (None, True)
    elsewhere = sensors.find_states(root, load_elsewhere=True)
    assert [each.name for each in elsewhere if each.quantity == "load"] == []


@pytest.mark.parametrize("name", sorted(boards.BOARDS))
def test_memory_clock_that_debugfs_hides_has_a_reason_on_a_jetson(board, name):
    root = board(name)
    shutil.rmtree(os.path.join(root, "sys/kernel/debug"), ignore_errors=True)
    if name == "x86_host":
        assert ("clock", "emc") not in read_all(root)
        return
    value, reason = read_all(root)["clock", "emc"]
    assert (value, "sys/kernel/debug: No such file or directory; the EMC's clock" in reason) == (None, True)
    os.makedirs(os.path.join(root, "sys/kernel/debug"))
    value, reason = read_all(root)["clock", "emc"]
    assert (value, "is empty, as in a container; the EMC's clock is in debugfs" in reason) == (None, True)


@pytest.mark.parametrize("name", sorted(boards.BOARDS))
def test_nothing_crashes_when_every_file_is_unreadable(board, name):
    root = board(name)
    for folder, _, files in os.walk(root):
        for file in files:
            path = os.path.join(folder, file)
            if not os.path.islink(path) and not file.endswith(("_label", "type")):
                os.remove(path)
                os.mkdir(path)
    for value, reason in read_all(root).values():
        assert value is None
        assert reason
    assert sensors.temperature_c(root)[0] is None
    look = sensors.snapshot(root)
    assert sensors.verdict([look, look]).throttled == "unknown"


def looks(root, *changes):
    """Snapshots before and after each change, all within a second."""
    found = [sensors.snapshot(root)]
    for path, content in changes:
        change(root, path, content)
        found.append(sensors.snapshot(root))
    return found


def number_of(root, cooling):
    """The cooling device's folder of a type."""
    base = os.path.join(root, "sys/class/thermal")
    for name in sorted(os.listdir(base)):
        path = os.path.join(base, name, "type")
        if name.startswith("cooling") and os.path.isfile(path):
            with open(path) as file:
                if file.read().strip() == cooling:
                    return "sys/class/thermal/" + name
    raise LookupError(cooling)


@pytest.mark.parametrize("name", sorted(boards.BOARDS))
def test_an_idle_board_that_was_watched_is_not_throttled(board, name):
    found = sensors.verdict(looks(board(name)) * 2)
    assert found.throttled == "no"
    assert "saw nothing" in found.evidence or "stood still" in found.evidence


def test_looks_far_apart_leave_it_unknown_where_nothing_counts(board):
    look = sensors.snapshot(board("nano_jp4"))
    found = sensors.verdict([look, look._replace(time_s=look.time_s + 60)])
    assert found == ("unknown", "nothing seen, but the looks were up to 60 s apart")
    assert sensors.verdict([look]).throttled == "unknown"


def test_over_current_events_are_told_by_their_growth(board):
    root = board("agx_orin_jp6")  # 7 events since boot, before we came
    assert sensors.verdict(looks(root) * 2).throttled == "no"
    found = sensors.verdict(looks(root, ("sys/class/hwmon/hwmon5/oc3_event_cnt", "9")))
    assert found == ("yes", "instantaneous over-current 2 times")


@pytest.mark.parametrize(
    ("name", "cooling"),
    [("nano_jp4", "cpu-balanced"), ("nano_jp4", "tegra_heavy"), ("orin_nano_jp6", "gpu-throttle-alert"),
     ("thor", "cpufreq-cpu0")],
)  # fmt: skip
def test_a_cooling_device_that_slows_down_is_evidence(board, name, cooling):
    root = board(name)
    state = number_of(root, cooling) + "/cur_state"
    found = sensors.verdict(looks(root, (state, "1"), (state, "0")))
    assert found == ("yes", f"cooling device {cooling} at state 1")


@pytest.mark.parametrize(
    ("name", "cooling"),
    [("nano_jp4", "pwm-fan"), ("nano_jp4", "tegra-dram"), ("nano_jp4", "emergency-balanced"), ("thor", "pwm-fan")],
)
def test_a_fan_or_the_drams_refresh_is_none(board, name, cooling):
    root = board(name)
    assert sensors.verdict(looks(root, (number_of(root, cooling) + "/cur_state", "1"))).throttled == "no"


def test_a_zone_at_its_trip_point_is_evidence_if_that_slows_something(board):
    root = board("nano_jp4")
    found = sensors.verdict(looks(root, (ZONE.format(1) + "temp", "97500")))
    assert found == ("yes", "zone CPU-therm 0.5 °C over its trip point")
    change(root, ZONE.format(1) + "temp", "40000")
    assert sensors.verdict(looks(root, (ZONE.format(3) + "temp", "75000"))).throttled == "no"  # the DRAM's refresh


def test_a_locked_clock_that_falls_under_load_is_evidence(board):
    root = board("agx_orin_jp6")
    devfreq = "sys/class/devfreq/17000000.gpu/"
    slow = (devfreq + "cur_freq", "612000000")
    assert sensors.verdict(looks(root, slow)).throttled == "no"  # idle: it may sleep
    found = sensors.verdict(looks(root, (devfreq + "device/load", "990")))
    assert found == ("yes", "GPU at 612 MHz under its locked 1300 MHz at high load")


def ticks(total, **busy):
    """/proc/stat of twelve cores, so many ticks after boot; ``busy``: in how many of them each has worked."""
    lines = ["cpu  0 0 0 0 0 0 0 0 0 0"]
    for core in range(12):
        work = busy.get(f"cpu{core}", 0)
        lines.append(f"cpu{core} {work} 0 0 {total - work} 0 0 0 0 0 0")
    return "\n".join([*lines, "intr 0"])


def test_a_locked_clock_of_a_cpu_that_falls_under_load_is_evidence(board):
    root, stat, cores = board("agx_orin_jp6"), "proc/stat", "sys/devices/system/cpu/cpufreq/policy4/"
    boards.Tree(root).file(stat, ticks(0))
    slow, again = (cores + "scaling_cur_freq", "1113600"), (cores + "scaling_cur_freq", "2201600")
    idle, busy = (stat, ticks(1000, cpu5=400)), (stat, ticks(1000, cpu5=600))
    others = (stat, ticks(1000, cpu3=990, cpu8=990))
    evidence = "CPU 4 5 6 7 at 1114 MHz under its locked 2202 MHz at high load"
    assert sensors.verdict(looks(root, busy, again)).throttled == "no"  # at its clock
    boards.Tree(root).file(stat, ticks(0))
    assert sensors.verdict(looks(root, slow, idle)).throttled == "no"  # idle: it may sleep
    boards.Tree(root).file(stat, ticks(0))
    assert sensors.verdict(looks(root, others)).throttled == "no"  # other clusters are at work
    boards.Tree(root).file(stat, ticks(0))
    assert sensors.verdict(looks(root, busy)) == ("yes", evidence)
    boards.Tree(root).file(stat, ticks(0))
    change(root, cores + "scaling_min_freq", "729600")  # nothing is locked any more
    assert sensors.verdict(looks(root, busy)).throttled == "no"


def test_looks_go_through_json_whole(board):
    root = board("agx_orin_jp6")
    boards.Tree(root).file("proc/stat", ticks(1000, cpu5=600))
    change(root, "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq", "1113600")
    look = sensors.snapshot(root)
    assert look.slow_cpus
    assert look.cpu_ticks
    assert throttle.from_json(json.loads(json.dumps(throttle.to_json(look)))) == look


def test_a_host_under_its_locked_turbo_is_not_throttled(board):
    root, cores = board("x86_host"), "sys/devices/system/cpu/cpufreq/policy0/"
    for name, khz in (("min", 3900000), ("max", 3900000), ("cur", 3400000)):
        boards.Tree(root).file(f"{cores}scaling_{name}_freq", khz)
    boards.Tree(root).file(cores + "affected_cpus", "0 1 2 3")
    boards.Tree(root).file("proc/stat", ticks(0))
    assert sensors.verdict(looks(root, ("proc/stat", ticks(1000, cpu0=900)))).throttled == "no"


@pytest.mark.parametrize(("name", "counts"), [("nano_jp4", False), ("orin_nano_jp6", True)])
def test_a_verdict_tells_whether_anything_looked_for_over_current(board, name, counts):
    found = sensors.verdict(looks(board(name)) * 2)
    assert found.throttled == "no"
    assert found.evidence.endswith("; nothing here counts over-currents") == (not counts)
    assert ("no instantaneous over-current" in found.evidence) == counts


def test_throttle_counts_of_a_host_decide_without_looks_between(board):
    root = board("x86_host")
    first = sensors.snapshot(root)
    assert sensors.verdict([first, first._replace(time_s=first.time_s + 600)]).throttled == "no"
    change(root, "sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count", "3")
    assert sensors.verdict([first, sensors.snapshot(root)]) == ("yes", "core throttling 3 times")


def test_a_machine_that_tells_nothing_is_unknown(pretend):
    look = sensors.snapshot(pretend({"proc/stat": ""}))
    found = sensors.verdict([look, look])
    assert found.throttled == "unknown"
    assert "neither throttle counters nor cooling devices nor trip points" in found.evidence


@pytest.mark.parametrize("name", boards.JETSONS)
def test_the_rails_that_the_table_of_boards_names_as_total_are_found(board, name):
    root = board(name)
    with open(os.path.join(root, "proc/device-tree/compatible")) as file:
        known, _ = board_of(parts_in(file.read().split("\0")))
    names = [known.rails.total] if known.rails.total else list(known.rails.add)
    found = sensors.pick_rails(names, root)
    assert [rail.name for rail in found] == names
    assert bool(found) == (not known.rails.why or bool(known.rails.add))
    assert all(rail.read_w() > 0 for rail in found)
