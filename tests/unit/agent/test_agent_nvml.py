"""GPUs of hosts through NVML, where it is and where it is not."""

import sys

import pytest

from edgejoule_agent import sensors
from edgejoule_agent.sensors import nvml


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
