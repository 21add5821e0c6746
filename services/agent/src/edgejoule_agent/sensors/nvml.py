"""NVIDIA GPUs of hosts, through NVML (Python package ``nvidia-ml-py``, module ``pynvml``). A Jetson's has none.

Names, units and limits are those of NVIDIA's NVML API reference: nvmlDeviceGetPowerUsage (mW),
nvmlDeviceGetTotalEnergyConsumption (mJ since the driver was loaded, from Volta on), nvmlDeviceGetTemperature (°C),
nvmlDeviceGetClockInfo (MHz), nvmlDeviceGetUtilizationRates (percent), nvmlDeviceGetMemoryInfo (bytes).
"""

import importlib
from functools import partial
from typing import Any, Callable, List, Tuple

from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.reading import Sensor


def find_gpus() -> Tuple[List[Sensor], str]:
    """The sensors of all GPUs that NVML shows, named gpu0, gpu1, ...; or none and why."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        return [], f"pynvml is not installed ({error}); install it with: pip install 'edgejoule-agent[nvml]'"
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        return [], f"NVML finds no GPU: {error}"
    return [sensor for index, handle in enumerate(handles) for sensor in _sensors(nvml, f"gpu{index}", handle)], ""


def _sensors(nvml: Any, name: str, handle: Any) -> List[Sensor]:
    reads: List[Tuple[str, str, Callable[[], float]]] = [
        ("power", "W", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
        ("energy", "J", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3),
        ("temperature", "C", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        ("clock", "Hz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 1e6),
        ("load", "1", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        ("memory", "bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
    ]
    return [
        Sensor(name, quantity, unit, partial(_read, nvml, f"{name} {quantity}", read)) for quantity, unit, read in reads
    ]


def _read(nvml: Any, what: str, read: Callable[[], float]) -> float:
    """A reading, or SensorError: an Orin's NVML starts and then says Not Supported."""
    try:
        return float(read())
    except nvml.NVMLError as error:
        raise SensorError(f"{what}: NVML says {error}") from error
