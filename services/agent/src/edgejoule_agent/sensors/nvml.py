"""NVIDIA GPUs of hosts, through NVML (Python package ``nvidia-ml-py``, module ``pynvml``).

Of Jetsons a Thor's alone answers, and tells nothing but its load: power, temperature, clocks and memory are N/A there
(seen under L4T r38.2.2: github.com/agentculture/jetson-thor-cli, tests/test_probe_jetson.py; no file of its driver
tells the load: github.com/rbonghi/jetson_stats/issues/885). An Orin's says "Not Supported" to the load too, also under
JetPack 7 (github.com/rbonghi/jetson_stats/pull/867).

Names, units and limits are those of NVIDIA's NVML API reference: nvmlDeviceGetPowerUsage (mW),
nvmlDeviceGetTotalEnergyConsumption (mJ since the driver was loaded, from Volta on), nvmlDeviceGetTemperature (°C),
nvmlDeviceGetClockInfo (MHz), nvmlDeviceGetUtilizationRates (percent), nvmlDeviceGetMemoryInfo (bytes),
nvmlDeviceGetHandleByPciBusId_v2. Power and energy are of "this GPU and its associated circuitry (e.g. memory)": its
board, and nothing else of the machine.
"""

import ctypes
import importlib
import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.reading import Sensor

DRIVER = "libcuda.so.1"
PCI_BUS_ID_BYTES = 64  # 13 are asked for
STEP_J = 1e-3
UPDATES = 4  # of the counter that are watched for how far apart they are, which NVIDIA does not tell
UPDATES_S = 3.0  # one that has not moved so often by then stands still
LOOK_S = 1e-3


class GpuEnergy:
    """The energy counter of one GPU's board, as RAPL's are of processor packages (see ``rapl``).

    Attributes:
        name: what the GPU is called, and where it sits.
        step_j: one step of the counter.
        update_s: the longest time between two updates that was seen; by so much a reading may be behind.
    """

    step_j = STEP_J

    def __init__(self, nvml: Any, handle: Any, name: str) -> None:
        self._nvml, self._handle, self.name = nvml, handle, name
        self.update_s = self._watch()

    def read_uj(self) -> Dict[str, int]:
        """The counter, microjoules. Raises SensorError."""
        read = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        return {self.name: 1000 * int(_read(self._nvml, f"energy of {self.name}", lambda: read(self._handle)))}

    def grown_j(self, before: Dict[str, int], after: Dict[str, int]) -> List[float]:
        """By how much it grew between two readings; it has 64 bits and does not wrap around."""
        return [(after[self.name] - before[self.name]) / 1e6]

    def _watch(self) -> float:
        """How far apart ``UPDATES`` of it are at most, s. Raises SensorError."""
        began_s = time.monotonic()
        moved_s: List[float] = []
        last = self.read_uj()
        while len(moved_s) <= UPDATES:
            time.sleep(LOOK_S)
            now, now_s = self.read_uj(), time.monotonic()
            if now != last:
                moved_s.append(now_s)
                last = now
            if now_s - began_s > UPDATES_S:
                raise SensorError(
                    f"energy of {self.name}: the counter moved {len(moved_s)} times in {UPDATES_S:.0f} s, too rarely "
                    "to measure by"
                )
        return max(after - before for before, after in zip(moved_s, moved_s[1:]))


def find_gpu_energy() -> Tuple[Optional[GpuEnergy], str]:
    """The energy counter of the GPU that this process's CUDA calls device 0, where engines run; or None and why.

    Asking makes no CUDA context, which would change how much power the idling GPU takes.
    """
    try:
        nvml, bus_id = _nvml(), _pci_bus_id()
        handle = _asked(nvml, f"the GPU at {bus_id}", lambda: nvml.nvmlDeviceGetHandleByPciBusId(bus_id.encode()))
        name = _asked(nvml, f"the GPU at {bus_id}", lambda: nvml.nvmlDeviceGetName(handle))
        said = name.decode("utf-8", "replace") if isinstance(name, bytes) else name  # as older bindings give it
        return GpuEnergy(nvml, handle, f"{said} at {bus_id}"), ""
    except SensorError as error:
        return None, str(error)


def find_gpus() -> Tuple[List[Sensor], str]:
    """The sensors of all GPUs that NVML shows, named gpu0, gpu1, ...; or none and why."""
    try:
        nvml = _nvml()
        count = _asked(nvml, "the number of GPUs", nvml.nvmlDeviceGetCount)
        handles = [_asked(nvml, f"gpu{n}", partial(nvml.nvmlDeviceGetHandleByIndex, n)) for n in range(count)]
    except SensorError as error:
        return [], str(error)
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


def _nvml() -> Any:
    """The module, ready to be asked. Raises SensorError."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as error:
        raise SensorError(
            f"pynvml is not installed ({error}); install it with: pip install 'edgejoule-agent[nvml]'"
        ) from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise SensorError(f"NVML finds no GPU: {error}") from error
    return nvml


def _pci_bus_id() -> str:
    """Where CUDA's device 0 sits: NVML counts the GPUs otherwise, and knows nothing of CUDA_VISIBLE_DEVICES.

    By cuInit, cuDeviceGet and cuDeviceGetPCIBusId of the CUDA driver API. Raises SensorError.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise SensorError(f"there is no CUDA driver here ({error})") from error
    device, found = ctypes.c_int(), ctypes.create_string_buffer(PCI_BUS_ID_BYTES)
    for name, arguments in (
        ("cuInit", (ctypes.c_uint(0),)),
        ("cuDeviceGet", (ctypes.byref(device), ctypes.c_int(0))),
        ("cuDeviceGetPCIBusId", (found, ctypes.c_int(PCI_BUS_ID_BYTES), device)),
    ):
        status = getattr(driver, name)(*arguments)
        if status != 0:
            raise SensorError(f"CUDA does not tell its first device: {name} gives CUDA error {status}")
    return found.value.decode("ascii", "replace")


def _read(nvml: Any, what: str, read: Callable[[], float]) -> float:
    """A reading, or SensorError: an Orin's NVML starts and then says Not Supported."""
    return float(_asked(nvml, what, read))


def _asked(nvml: Any, what: str, read: Callable[[], Any]) -> Any:
    """What NVML answers. Raises SensorError."""
    try:
        return read()
    except nvml.NVMLError as error:
        raise SensorError(f"{what}: NVML says {error}") from error
