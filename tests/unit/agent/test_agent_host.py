import numpy as np
import pytest

from edgejoule_agent import contention, host, limits, sensors
from edgejoule_agent.errors import OutOfMemoryError, SensorError
from edgejoule_agent.sensors import rapl as rapl_module
from edgejoule_agent.simulation import trees

CPUINFO = """processor\t: 0
cpu family\t: 6
model\t\t: 85
model name\t: Some Xeon
stepping\t: 7
flags\t\t: fpu avx avx2 fma avx512f avx512_vnni other

processor\t: 1
model name\t: Some Xeon
flags\t\t: fpu
"""


def test_probe_is_equal_when_nothing_changes():
    assert host.probe() == host.probe()


def test_probe_reads_a_tree(pretend):
    root = pretend(
        {
            "proc/cpuinfo": CPUINFO,
            "proc/meminfo": "MemTotal:       1000000 kB\nMemAvailable:    500000 kB\n",
            "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3000000\n",
            ".dockerenv": "",
        }
    )
    found = host.probe(root)
    assert found["id"] == "host"
    assert found["hardware"]["processor"] == "Some Xeon (6/85/7)"
    assert found["hardware"]["features"] == ["avx", "avx2", "fma", "avx512f", "avx512_vnni"]
    environment = found["environment"]
    assert environment["turbo"] is False
    assert environment["governor"] == "performance"
    assert environment["max_frequency_khz"] == 3000000
    assert environment["min_frequency_khz"] is None
    assert environment["memory_total_mb"] == 1024
    assert environment["container"] is True
    assert host.memory_available_bytes(root) == 512000000


def test_probe_tells_an_arm_part(pretend):
    root = pretend({"proc/cpuinfo": "processor : 0\nFeatures : fp asimd asimddp\nCPU part : 0xd42\n"})
    assert host.hardware(root)["processor"] == "CPU part 0xd42"
    assert host.hardware(root)["features"] == ["asimd", "asimddp"]


def test_hardware_class_says_absent_when_the_runtime_is_not_installed():
    assert host.hardware_class("no-such-runtime")["runtime_version"] == "absent"


def test_hardware_class_tells_the_version_of_any_runtime_that_is_installed():
    assert host.hardware_class("numpy")["runtime_version"] == np.__version__


GPUS = "proc/driver/nvidia/gpus/{}/information"
INFORMATION = "Model: \t\t {}\nIRQ:   \t\t 11\nGPU UUID: \t GPU-0\nBus Type: \t PCIe\n"  # as NVIDIA's driver writes it


def test_engines_of_tensorrt_on_a_host_are_bound_to_its_gpus_and_others_are_not(pretend):
    files = {"proc/cpuinfo": CPUINFO}
    assert "gpu" not in host.hardware_class("tensorrt", pretend(files))
    files[GPUS.format("0000:01:00.0")] = INFORMATION.format("NVIDIA H100 80GB HBM3")
    files[GPUS.format("0000:41:00.0")] = INFORMATION.format("NVIDIA L4")
    root = pretend(files)
    assert host.hardware(root)["gpu"] == "NVIDIA H100 80GB HBM3 + NVIDIA L4"
    assert host.hardware_class("tensorrt", root)["gpu"] == "NVIDIA H100 80GB HBM3 + NVIDIA L4"
    assert "gpu" not in host.hardware_class("onnxruntime", root)
    assert host.hardware_class("tensorrt", root)["processor"] == "Some Xeon (6/85/7)"


def test_gpu_whose_driver_does_not_tell_its_model_is_no_other(pretend):
    assert host.hardware(pretend({GPUS.format("0000:01:00.0"): "IRQ: 11\n"}))["gpu"] == "unknown"


def test_a_jetsons_gpu_is_told_by_its_board_alone(tmp_path):
    root = trees.write("thor", tmp_path)
    trees.Tree(root).file(GPUS.format("0000:01:00.0"), INFORMATION.format("NVIDIA Thor"))
    assert "gpu" not in host.hardware(root)


def test_a_simulated_board_is_not_bound_to_the_gpu_of_its_host(monkeypatch):
    monkeypatch.setattr(host, "_gpu", lambda root: "NVIDIA L4")
    assert "gpu" not in host.simulating("a board", "32.7.1")


def test_tensorrt_is_among_the_runtimes_of_a_host_that_has_it(monkeypatch):
    versions = {"tensorrt": "10.3.0", "onnxruntime": "1.20.0"}
    monkeypatch.setattr(host, "installed_version", versions.get)
    assert host.hardware()["runtimes"] == versions
    assert host.hardware_class("tensorrt")["runtime_version"] == "10.3.0"


def test_installed_version_is_that_of_the_distribution():
    assert host.installed_version("numpy") == pytest.importorskip("numpy").__version__
    assert host.installed_version("no-such-distribution") is None


def test_memory_check_refuses_what_will_not_fit(pretend, tmp_path):
    engine = tmp_path / "engine"
    engine.write_bytes(b"x" * 1000)
    limits.check_memory(engine, pretend({"proc/meminfo": "MemAvailable: 200000 kB\n"}))
    with pytest.raises(OutOfMemoryError, match="loading takes about 150 MB, but 92 MB may be used"):
        limits.check_memory(engine, pretend({"proc/meminfo": "MemAvailable: 100000 kB\n"}))


def test_rapl_adds_packages_and_wraps_around(pretend):
    zone = "sys/class/powercap/intel-rapl:"
    files = {}
    for index, name in ((0, "package-0"), (1, "package-1"), (2, "psys")):
        files[f"{zone}{index}/name"] = f"{name}\n"
        files[f"{zone}{index}/energy_uj"] = "900\n"
        files[f"{zone}{index}/max_energy_range_uj"] = "1000\n"
    files[f"{zone}0:0/name"] = "core\n"
    rapl = sensors.find_rapl(pretend(files))
    before = rapl.read_uj()
    assert len(before) == 2
    after = dict(zip(sorted(before), (950, 100)))
    assert rapl.joules_between(before, after) == pytest.approx((50 + 200) / 1e6)


def test_rapl_says_why_when_there_is_none(pretend):
    root = pretend({"proc/stat": ""})
    rapl = sensors.find_rapl(root)
    assert rapl.packages == []
    assert "no RAPL package" in rapl.absent


def test_rapl_says_why_when_it_may_not_be_read(pretend, monkeypatch):
    zone = "sys/class/powercap/intel-rapl:0/"
    root = pretend({zone + "name": "package-0", zone + "energy_uj": "1"})
    read = rapl_module.integer

    def refuse(path):
        if path.endswith("energy_uj"):
            raise SensorError(f"{path}: Permission denied")
        return read(path)

    monkeypatch.setattr(rapl_module, "integer", refuse)  # root, as tests may run, reads everything
    rapl = sensors.find_rapl(root)
    assert rapl.packages == []
    assert "energy_uj: Permission denied; run as root" in rapl.absent


def test_temperature_is_the_hottest_cpu_sensor(pretend):
    hwmon = "sys/class/hwmon/hwmon"
    root = pretend(
        {
            hwmon + "0/name": "coretemp\n",
            hwmon + "0/temp1_input": "45000\n",
            hwmon + "0/temp2_input": "51500\n",
            hwmon + "1/name": "nvme\n",
            hwmon + "1/temp1_input": "80000\n",
        }
    )
    assert sensors.temperature_c(root) == (51.5, "")
    value, reason = sensors.temperature_c("/nowhere/")
    assert value is None
    assert "no CPU sensor" in reason


def test_throttled_is_unknown_where_nothing_counts(pretend):
    counts = "sys/devices/system/cpu/cpu0/thermal_throttle/"
    root = pretend({counts + "core_throttle_count": "3", counts + "package_throttle_count": "4"})
    assert sensors.throttle_counts(root) == 7
    assert sensors.throttled(7, 7) == "no"
    assert sensors.throttled(7, 8) == "yes"
    assert sensors.throttled(sensors.throttle_counts("/nowhere"), None) == "unknown"


def snapshot(**changes):
    base = contention.Snapshot(wall_s=0, busy_s=0, total_s=0, own_s=0, load1=0.5, pressure_some_us=0)
    return base._replace(**changes)


@pytest.mark.parametrize(
    ("busy_s", "pressure", "contended", "share"),
    [
        (10, 0, False, 0.0),
        (10.9, 0, False, 0.045),
        (14, 0, True, 0.2),
        (10, 300000, True, 0.0),
        (9.9, None, False, 0.0),
    ],
)
def test_contention_counts_what_others_took(busy_s, pressure, contended, share):
    before = snapshot(pressure_some_us=None if pressure is None else 0)
    after = snapshot(wall_s=10, busy_s=busy_s, total_s=20, own_s=10, load1=1.0, pressure_some_us=pressure)
    found = contention.between(before, after)
    assert found["contended"] is contended
    assert found["other_cpu_share"] == pytest.approx(share)
    assert found["pressure_some_us"] == pressure
    assert (found["load1_before"], found["load1_after"]) == (0.5, 1.0)


def test_snapshot_reads_a_tree(pretend):
    root = pretend(
        {
            "proc/stat": "cpu  100 10 20 1000 50 1 2 7 30 0\ncpu0 ...\n",
            "proc/loadavg": "0.25 0.3 0.4 1/100 5\n",
            "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 total=9\n",
        }
    )
    found = contention.snapshot(root)
    assert found.total_s - found.busy_s == pytest.approx(10.5)  # idle and waiting for disks, at 100 ticks a second
    assert found.busy_s == pytest.approx(1.40)
    assert found.load1 == 0.25
    assert found.pressure_some_us == 1234


def test_environment_tells_machines_apart_without_naming_them(tmp_path):
    (tmp_path / "etc").mkdir()
    found = []
    for identity in ("3d1219c7c4c5404aaa1f6d2a48adfda4", "ffff19c7c4c5404aaa1f6d2a48adfda4"):
        (tmp_path / "etc/machine-id").write_text(identity + "\n")
        found.append(host.environment(str(tmp_path))["machine_id"])
        assert found[-1] not in identity
    assert len(set(found)) == 2
