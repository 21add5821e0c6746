"""GPUs of hosts through NVML, where it is and where it is not.

No GPU is here. The ctypes layer, NVIDIA's own bindings among it, speaks to a stand-in for its libraries that is
compiled here (``nvml_double.c``); whether a real GPU's counter tells the truth no test here can say.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from edgejoule_agent import sensors
from edgejoule_agent.sensors import nvml
from edgejoule_agent.simulation import trees


def test_nvml_is_refused_politely_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found, reason = nvml.find_gpus()
    assert found == []
    assert "pip install 'edgejoule-agent[nvml]'" in reason


class FakeNvml:
    """No GPU is here: what NVML's reference says of one that lets only its temperature be read, as Orin's does."""

    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1

    class NVMLError(Exception):
        pass

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetTemperature(self, handle, kind):
        return 43

    def __getattr__(self, name):
        def refuse(*_):
            raise self.NVMLError("Not Supported")

        return refuse


def test_nvml_values_that_are_not_supported_are_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    found = {sensor.quantity: sensors.try_read(sensor) for sensor in nvml.find_gpus()[0]}
    assert found.pop("temperature") == (43.0, "")
    assert found.pop("power") == (None, "gpu0 power: NVML says Not Supported")
    assert all(value is None for value, _ in found.values())


def test_nvml_without_a_gpu_says_so():
    pynvml = pytest.importorskip("pynvml")  # Python 3.6 has no such package here
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        found, reason = nvml.find_gpus()
        assert found == []
        assert reason.startswith("NVML finds no GPU: ")
    else:
        assert nvml.find_gpus()[0]


# --- with a stand-in for the libraries, in a process of its own ------------------------------------------

MEASURE = """
import json, sys, time
from edgejoule_agent.watch import Watch, supply
source = supply(sys.argv[1], on_gpu=True)
with Watch(source, sys.argv[1]) as watch:
    rest = None if watch.absent else (watch.mark(), watch.rest(0.5))
    begin = watch.mark()
    time.sleep(2)
    found = watch.energy(begin, watch.mark(closing=True), 100, rest)
print(json.dumps([source.of, source.absent, *found]))
"""
READ = """
import json
from edgejoule_agent.sensors import nvml, try_read
print(json.dumps([[each.name, each.quantity, each.unit, try_read(each)] for each in nvml.find_gpus()[0]]))
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Folder with the stand-in under both names."""
    pytest.importorskip("pynvml")  # Python 3.6 has no such package here
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to compile the stand-in for NVML")
    folder = tmp_path_factory.mktemp("nvidia")
    source = pathlib.Path(__file__).with_name("nvml_double.c")
    for name in ("libnvidia-ml.so.1", "libcuda.so.1"):
        command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(folder / name)]
        subprocess.run([*command, str(source)], check=True)
    return folder


def ask(script, libraries, root="/", **environment):
    """What a script prints where the libraries are those."""
    ours = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    given = dict(ours, LD_LIBRARY_PATH=str(libraries), **environment)
    done = subprocess.run([sys.executable, "-c", script, str(root)], env=given, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.decode())


@pytest.fixture
def x86(tmp_path):
    """The files of a host that has RAPL too."""
    return trees.write("x86_host", tmp_path / "host")


@pytest.mark.parametrize(
    ("visible", "name", "power_w"),
    [({}, "NVIDIA Large at 0000:21:00.0", 200), ({"CUDA_VISIBLE_DEVICES": "1"}, "NVIDIA Small at 0000:01:00.0", 40)],
)
def test_energy_is_that_of_the_gpu_that_cuda_takes_first_and_of_nothing_else(libraries, x86, visible, name, power_w):
    of, absent, found, reason = ask(MEASURE, libraries, x86, **visible)
    assert of == f"gpu board, {name}, by NVML; not in it: the rest of the machine"
    assert (absent, reason, found["idle_absent"]) == ("", "", "")
    # behind by up to an update at either end, so at most 2 x 20 ms of it; half of that is the usual
    assert found["power_w"] == pytest.approx(power_w, rel=0.04)
    assert found["idle_power_w"] == pytest.approx(power_w, rel=0.1)
    assert found["energy_mj"] == pytest.approx(1e3 * found["power_w"] * found["window_s"] / 100)
    assert 0.005 < found["power_uncertainty_w"] / power_w < 0.04  # 1.96 x 20 ms / sqrt(6) / 2 s, and what polling adds
    assert found["sensor_error_mj"] is None
    assert found["realtime"] is None


def test_energy_of_a_slower_counter_is_less_certain(libraries, x86):
    _, _, quick, _ = ask(MEASURE, libraries, x86)
    _, _, slow, _ = ask(MEASURE, libraries, x86, NVML_DOUBLE_UPDATE_MS="200")
    assert slow["power_uncertainty_w"] > 3 * quick["power_uncertainty_w"]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"NVML_DOUBLE_FAULT": "driver"}, "NVML finds no GPU: Driver Not Loaded"),
        ({"NVML_DOUBLE_FAULT": "energy"}, "energy of NVIDIA Large at 0000:21:00.0: NVML says Not Supported"),
        ({"NVML_DOUBLE_FAULT": "still"}, "the counter moved 0 times in 3 s, too rarely to measure by"),
        ({"NVML_DOUBLE_FAULT": "lost"}, "the GPU at 0000:21:00.0: NVML says Not Found"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA does not tell its first device: cuInit gives CUDA error 100"),
    ],
)
def test_energy_that_cannot_be_told_is_absent_and_rapl_does_not_stand_in_for_it(libraries, x86, environment, told):
    of, absent, found, reason = ask(MEASURE, libraries, x86, **environment)
    assert (of, found) == ("", None)
    assert told in absent
    assert reason == absent


def test_sensors_have_the_units_of_nvmls_reference(libraries):
    found = {(name, quantity): (unit, value) for name, quantity, unit, value in ask(READ, libraries)}
    assert found["gpu0", "power"] == ("W", [40.0, ""])
    assert found["gpu1", "power"] == ("W", [200.0, ""])
    assert found["gpu1", "temperature"] == ("C", [43.0, ""])
    assert found["gpu1", "clock"] == ("Hz", [1.41e9, ""])
    assert found["gpu1", "load"] == ("1", [0.85, ""])
    assert found["gpu1", "memory"] == ("bytes", [3 * 2**30, ""])
    assert found["gpu1", "energy"][1][0] > 2**40 / 1e3
