"""The sampler as a process, and what ``Watch`` makes of it, on trees whose files change meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from edgejoule_agent import sampler
from edgejoule_agent.errors import SensorError
from edgejoule_agent.sampler import Sampler, read_samples
from edgejoule_agent.sensors import find_rails
from edgejoule_agent.sensors.reading import text
from edgejoule_agent.simulation import trees
from edgejoule_agent.watch import Supply, Watch, supply

TOTAL = Supply(("POM_5V_IN",), "", "")
PERIOD_S = 0.02  # faster than on a board, for the tests' sake
POWER = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input"
VOLTAGE = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_voltage0_input"
COOLING = "sys/class/thermal/cooling_device1/cur_state"  # cpu-balanced
RAPL = "sys/class/powercap/intel-rapl:{}/energy_uj"


def put(root, path, content):
    """Change a file of a tree at once, as those of /sys change."""
    full = os.path.join(root, path)
    with open(full + ".new", "w") as file:
        file.write(str(content))
    os.replace(full + ".new", full)


class Load(threading.Thread):
    """Switches a rail between two powers and remembers when."""

    def __init__(self, root, milliwatts, seconds):
        super().__init__(daemon=True)
        self.root, self.milliwatts, self.seconds = root, milliwatts, seconds
        self.over, self.switches = threading.Event(), []

    def run(self):
        number = 0
        while not self.over.wait(self.seconds):
            level = self.milliwatts[number % len(self.milliwatts)]
            put(self.root, POWER, level)
            self.switches.append((time.monotonic(), level / 1000))
            number += 1

    def joules(self, begin, end):
        times, levels = zip(*self.switches)
        edges = np.clip(np.append(times, np.inf), begin, end)
        return float(np.diff(edges) @ np.array(levels))


@pytest.fixture
def nano(tmp_path):
    return trees.write("nano_jp4", tmp_path / "nano")


@pytest.fixture
def load(nano):
    made = Load(nano, [3000, 6040], 0.3)
    made.start()
    while not made.switches:
        time.sleep(0.01)
    yield made
    made.over.set()
    made.join()


def gone(pid, seconds=10):
    """Whether a process ends within some time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_sampler_reads_once_per_slot_at_moments_spread_over_it(nano):
    with Sampler(["POM_5V_IN", "POM_5V_GPU"], nano, PERIOD_S) as running:
        time.sleep(2)
        early = running.samples()
    found = running.samples()
    running.close()
    assert 10 < len(early.times_s) <= len(found.times_s) <= 2.5 / PERIOD_S + 5
    assert found.rails == ["POM_5V_IN", "POM_5V_GPU"]
    assert found.powers_w.shape == (len(found.times_s), 2)
    assert set(found.powers_w[:, 0]) == {1.714}
    assert (np.diff(found.times_s) > 0).all()
    assert (found.durations_s >= 0).all()
    assert (found.late_s > -0.001).all()
    assert np.std(found.times_s % PERIOD_S) > 0.15 * PERIOD_S  # evenly drawn: 0.29
    assert found.realtime == "not asked for"
    assert len(found.looks) >= 2
    assert found.failures == {}


def test_sampler_says_whether_it_runs_in_real_time(nano):
    with Sampler(["POM_5V_IN"], nano, PERIOD_S, realtime=True) as running:
        policy = os.sched_getscheduler(running.pid)
        said = running.samples().realtime
    running.close()
    assert (said == "yes") == (policy == os.SCHED_FIFO)
    assert said == "yes" or "it takes CAP_SYS_NICE or an rtprio limit of 1," in said


def test_watch_asks_for_real_time_and_says_what_came_of_it(nano):
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        begin = watch.mark()
        policy = os.sched_getscheduler(watch._sampler.pid)
        time.sleep(1)
        found, reason = watch.energy(begin, watch.mark(closing=True), 1)
    assert found, reason
    assert found["realtime"] != "not asked for"
    assert (found["realtime"] == "yes") == (policy == os.SCHED_FIFO)


ASKS = """
import os, resource, sys
from edgejoule_agent.sampler import be_realtime
user, limit = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_RTPRIO, (limit, limit))
os.setuid(user)
print(be_realtime(), os.sched_getscheduler(0) == os.SCHED_FIFO)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can have others ask")
@pytest.mark.parametrize("limit", [0, 1])
def test_user_without_rights_has_real_time_by_an_rtprio_limit_alone(limit):
    command = [sys.executable, "-c", ASKS, "65534", str(limit)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if b"not allowed to raise" in done.stderr:
        pytest.skip("root may not raise limits here")
    said = done.stdout.decode().strip()
    if limit:
        assert said == "yes True"
    else:
        assert said.startswith("Operation not permitted: it takes CAP_SYS_NICE or an rtprio limit of 1,")
        assert said.endswith(" False")


def test_what_was_written_survives_a_kill(nano):
    with Sampler(["POM_5V_IN"], nano, PERIOD_S) as running:
        time.sleep(0.5)
        os.kill(running.pid, signal.SIGKILL)
    found = running.samples()
    running.close()
    assert len(found.times_s) > 2
    assert np.isfinite(found.powers_w).all()


def test_a_record_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "samples"
    records = np.array([[0.9, 1.0, 1.2, 3.0], [2.0, 2.0, 2.2, np.nan]]).astype("<f8").tobytes()
    header = (
        b'{"rails": ["VDD_IN"], "period_s": 0.1, "realtime": "yes", "resolutions": [[0.04, 0.001]], '
        b'"accuracies": [null]}\n'
    )
    (tmp_path / "samples.events").write_text('{"rail": "VDD_IN", "failed": "gone"}\n{"look": ')
    for cut in (len(records), len(records) - 1):
        path.write_bytes(header + records[:cut])
        found = read_samples(str(path))
        assert found.times_s.tolist() == [1.1, 2.1][: cut // 32]
        assert found.failures == {"VDD_IN": "gone"}
        assert (found.resolutions, found.accuracies) == ([(0.04, 0.001)], [None])
    path.write_bytes(b"")
    with pytest.raises(SensorError, match="is no sampler's file"):
        read_samples(str(path))


def test_sampler_ends_when_its_parent_is_killed(nano):
    program = (
        "import os, signal, sys\nfrom edgejoule_agent.sampler import Sampler\n"
        "with Sampler(['POM_5V_IN'], sys.argv[1]) as running:\n"
        "    print(running.pid, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, nano], stdout=subprocess.PIPE)
    pid = int(parent.stdout.read())
    assert parent.wait() == -signal.SIGKILL
    parent.stdout.close()
    assert gone(pid)


def test_sampler_does_not_start_without_its_rail(nano):
    with pytest.raises(SensorError, match="no rail VDD_IN: there are POM_5V_CPU, POM_5V_GPU, POM_5V_IN"):
        Sampler(["VDD_IN"], nano).__enter__()


@pytest.mark.parametrize("path", [POWER, VOLTAGE])  # what it reads for the power, and for what the sensor can tell
def test_sampler_starts_though_its_first_reading_fails(nano, path):
    good = text(os.path.join(nano, path))
    full = os.path.join(nano, path)
    os.unlink(full)
    os.mkfifo(full)  # whoever opens it waits for us: the first reader, and none but it, meets something else

    def fail_once():
        with open(full, "w") as file:
            put(nano, path, good)
            file.write("n/a")

    failing = threading.Thread(target=fail_once, daemon=True)
    failing.start()
    with Sampler(["POM_5V_IN"], nano, PERIOD_S) as running:
        time.sleep(0.1)
        found = running.samples()
    running.close()
    failing.join(10)
    assert not failing.is_alive()
    assert set(found.powers_w[:, 0]) == {1.714}


def test_watch_needs_no_reading_after_the_window(nano, load):
    rail = find_rails(nano)[0][0]
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        samples = watch._sampler.samples()
        assert (samples.resolutions, samples.accuracies) == ([rail.resolution()], [rail.accuracy()])
        begin = watch.mark()
        end = watch.rest(1.5)
        os.unlink(os.path.join(nano, VOLTAGE))
        found, reason = watch.energy(begin, end, 10)
    assert found, reason
    assert found["sensor_error_mj"] > 0


def test_watch_states_energy_of_a_window_and_above_idle(nano):
    put(nano, POWER, 1640)
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        rest = watch.mark(), watch.rest(1)
        load = Load(nano, [3000, 6040], 0.3)
        load.start()
        time.sleep(0.4)
        begin = watch.mark()
        end = watch.rest(4)
        found, reason = watch.energy(begin, end, 50, rest)
        alone, _ = watch.energy(begin, end, 50)
        load.over.set()
        load.join()
    truth = load.joules(begin.time_s, end.time_s)
    assert reason == ""
    assert abs(found["energy_mj"] * 50 / 1000 - truth) < found["energy_uncertainty_mj"] * 50 / 1000 < 0.2 * truth
    assert found["idle_power_w"] == pytest.approx(1.640)
    above = truth - 1.640 * (end.time_s - begin.time_s)
    assert abs(found["energy_above_idle_mj"] * 0.05 - above) < found["energy_above_idle_uncertainty_mj"] * 0.05
    assert found["power_w"] == pytest.approx(truth / (end.time_s - begin.time_s), rel=0.2)
    assert found["sensor_error_mj"] > 0
    assert found["samples"] > 30
    assert found["max_gap_s"] < 2
    assert (alone["energy_above_idle_mj"], alone["idle_absent"]) == (None, "nobody measured it idling")


@pytest.mark.parametrize(
    ("content", "reason"), [("0", "the rail reads 0 W from "), ("n/a", r"no reading any more from .*reads 'n/a'")]
)
def test_watch_gives_the_reason_of_a_rail_that_dies(nano, load, content, reason):
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        begin = watch.mark()
        time.sleep(0.7)
        load.over.set()
        load.join()
        put(nano, POWER, content)
        found, told = watch.energy(begin, watch.rest(1.4), 10)
    assert found is None
    with pytest.raises(SensorError, match=reason):
        raise SensorError(told)


def test_watch_does_not_believe_a_rail_that_reads_the_same_idle_and_at_work(nano):
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        rest = watch.mark(), watch.rest(1.0)
        found, reason = watch.energy(watch.mark(), watch.rest(1.0), 10, rest)
    assert found is None
    assert reason == "the rail is stuck: it reads 1.714 W without any change, idle and at work"


def test_watch_tells_that_its_sampler_was_killed(nano, load):
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        begin = watch.mark()
        time.sleep(0.5)
        os.kill(watch._sampler.pid, signal.SIGKILL)
        found, reason = watch.energy(begin, watch.rest(1.5), 10)
    assert found is None
    assert "gives no reading any more" in reason


def test_watch_runs_without_any_sensor_and_tells_why(nano, pretend):
    bare = pretend({"proc/stat": ""})
    for source, root, told in (
        (Supply(("VDD_IN",), "", ""), nano, "no rail VDD_IN: there are"),
        (supply(bare), bare, "no RAPL package"),
    ):
        with Watch(source, root) as watch:
            assert told in watch.absent
            found, reason = watch.energy(watch.mark(), watch.mark(), 10)
            assert watch.throttled(watch.mark(), watch.mark()).throttled in ("no", "unknown")
        assert found is None
        assert told in reason


def test_watch_sees_a_throttling_between_its_marks(nano):
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        begin = watch.mark()
        put(nano, COOLING, 3)
        time.sleep(1)
        put(nano, COOLING, 0)
        end = watch.rest(0.5)
        assert watch.throttled(begin, end) == ("yes", "cooling device cpu-balanced at state 3")
        assert watch.throttled(end, watch.rest(0.3)).throttled == "no"


@pytest.mark.parametrize(
    ("tree", "rails", "words"),
    [
        ("nano_jp4", ["POM_5V_IN"], "rail POM_5V_IN; not in it: the carrier board"),
        ("nano_2gb_jp4", [], "has no power monitor"),
        ("orin_nano_jp6", ["VDD_IN"], "rail VDD_IN; not in it"),
        ("agx_orin_jp6", ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], "since the module has two inputs"),
        ("thor", ["VIN"], "rail VIN"),
        ("x86_host", [], "by RAPL; not in it: the rest"),
    ],
)
def test_supply_is_the_total_of_a_board_and_never_a_sum_of_rails_that_overlap(tmp_path, tree, rails, words):
    root = trees.write(tree, tmp_path / tree)
    found = supply(root)
    assert list(found.rails) == rails
    assert words in (found.absent or found.of)
    assert bool(found.absent) == (tree == "nano_2gb_jp4")
    there = [rail.name for rail in find_rails(root)[0]]
    assert set(rails) <= set(there)


def test_supply_of_a_board_that_is_in_no_table_is_not_guessed(nano):
    put(nano, "sys/firmware/devicetree/base/compatible", "nvidia,p9999-0000\0nvidia,tegra210\0")
    put(nano, "sys/firmware/devicetree/base/nvidia,dtsfilename", "tegra210-p9999.dts\0")
    assert "which rail holds the others is not known of this board: no known module" in supply(nano).absent


def test_watch_tells_clocks_loads_and_memory_of_a_window(nano, tmp_path):
    with Watch(TOTAL, nano, period_s=PERIOD_S) as watch:
        begin = watch.mark()
        found, reason = watch.states(begin, watch.rest(1.2))
        put(nano, "sys/devices/57000000.gpu/load", 500)
        busy, _ = watch.states(watch.mark(), watch.rest(1.2))
        assert "did not look within" in watch.states(watch.mark(), watch.mark())[1]
    assert reason == ""
    assert found["gpu_clock_hz"] == 76800000
    assert found["cpu0_clock_hz"] > 1e8
    assert found["available_memory_bytes"] > 1e8
    assert busy["gpu_load_share"] > found["gpu_load_share"]
    host = trees.write("x86_host", tmp_path / "host")
    with Watch(supply(host), host) as watch:
        assert "no sampler looks on a host" in watch.states(watch.mark(), watch.mark())[1]


def test_watch_takes_a_hosts_energy_from_its_counters(tmp_path):
    root = trees.write("x86_host", tmp_path / "host")
    with Watch(supply(root), root) as watch:
        begin = watch.mark()
        time.sleep(0.5)
        put(root, RAPL.format(0), 1000000 + 4000000)
        put(root, RAPL.format(1), 1000001 + 1000000)
        end = watch.mark()
        found, reason = watch.energy(begin, end, 100)
        still, still_reason = watch.energy(end, watch.mark(), 100)
    assert reason == ""
    assert found["energy_mj"] == pytest.approx(50)
    assert 0 < found["energy_uncertainty_mj"] < 0.5
    assert found["realtime"] is None
    assert (still, "stood still" in still_reason) == (None, True)


def test_slots_that_were_slept_through_stay_empty():
    read, waits = [], []

    class Slow:
        name = "slow"

        def read_w(self):
            read.append(time.monotonic())
            if len(read) == 3:
                time.sleep(0.2)
            return 1.0

    def wait(seconds):
        waits.append(seconds)
        time.sleep(max(0.0, seconds))
        return len(read) == 10

    sampler.sample([Slow()], 0.05, wait, lambda data: None, lambda message: None, "/nowhere")
    assert read[-1] - read[0] > 0.05 * 10  # ten readings, and three slots lost
    assert max(waits) < 0.1 + 0.01
