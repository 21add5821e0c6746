"""Load, clocks, fan and memory: what else a board tells about how it runs."""

import os
import re
from functools import partial
from typing import List, Optional

from edgejoule_agent import jetson
from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.reading import Sensor, find, integer, text

GPU = re.compile(r"(^|\.|-)(gpu(-gpc-\d+)?|gm20b|gp10b|gv11b|ga10b)$")  # names of its devfreq, from TX1 to Thor
GPU_LOADS = (  # where it has no devfreq
    *("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load", "sys/devices/17000000.*/load"),
    *("sys/devices/platform/17000000.*/load", "sys/devices/platform/bus@0/17000000.*/load"),
)
DEBUG = "sys/kernel/debug"  # debugfs: for root alone
EMC_CLOCKS = (f"{DEBUG}/bpmp/debug/clk/emc/rate", f"{DEBUG}/clk/emc/clk_rate", f"{DEBUG}/tegra_bwmgr/emc_rate")


def find_states(root: str = "/", load_elsewhere: bool = False) -> List[Sensor]:
    """The sensors of load, clocks, fan and memory that are there.

    Args:
        load_elsewhere: the GPU's load is read in another way, where no file tells it.
    """
    return [*_gpu(root, load_elsewhere), *_cpus(root), *_emc(root), *_fan(root), *_memory(root)]


def gpu_folder(root: str = "/") -> Optional[str]:
    """The GPU's devfreq folder, or None."""
    for path in find(root, "sys/class/devfreq/*"):
        if GPU.search(os.path.basename(path)):
            return path
    return None


def gpu_load_file(root: str = "/") -> Optional[str]:
    """The file with the GPU's load, per mille, or None."""
    folder = gpu_folder(root)
    beside = [os.path.join(folder, "device", "load")] if folder else []
    for path in [*beside, *(path for pattern in GPU_LOADS for path in find(root, pattern))]:
        if os.path.exists(path):
            return path
    return None


def read_load(path: str) -> float:
    """A load in per mille, as a share. Raises SensorError."""
    per_mille = integer(path)
    if not 0 <= per_mille <= 1000:
        raise SensorError(f"{path}: reads a load of {per_mille} ‰")
    return per_mille / 1000


def _gpu(root: str, load_elsewhere: bool) -> List[Sensor]:
    """A Jetson's GPU has a load, also where no file tells it: a Thor's driver makes none."""
    found = []
    load, folder = gpu_load_file(root), gpu_folder(root)
    if load is not None:
        found.append(Sensor("gpu", "load", "1", partial(read_load, load)))
    elif jetson.is_jetson(root) and not load_elsewhere:
        found.append(Sensor("gpu", "load", "1", partial(_no_load, root)))
    if folder is not None:
        found.append(Sensor("gpu", "clock", "Hz", partial(_positive, os.path.join(folder, "cur_freq"), 1)))
    return found


def _no_load(root: str) -> float:
    raise SensorError(
        f"{os.path.join(root, 'sys')}: has no file with the GPU's load; on a Thor NVML tells it: "
        "pip install 'edgejoule-agent[nvml]'"
    )


def _cpus(root: str) -> List[Sensor]:
    found = []
    for path in find(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"):
        name = os.path.basename(os.path.dirname(os.path.dirname(path)))
        found.append(Sensor(name, "clock", "Hz", partial(_positive, path, 1000)))
    return found


def _emc(root: str) -> List[Sensor]:
    """The clock of a Jetson's memory controller: each has one, also where this process may not see it."""
    return [Sensor("emc", "clock", "Hz", partial(_emc_hz, root))] if jetson.is_jetson(root) else []


def _emc_hz(root: str) -> float:
    for path in (os.path.join(root, name) for name in EMC_CLOCKS):
        if os.path.exists(path):
            return _positive(path, 1)
    folder = os.path.join(root, DEBUG)
    try:
        why = "has no clock of the EMC that is known here" if os.listdir(folder) else "is empty, as in a container"
    except OSError as error:
        why = str(error.strerror)
    raise SensorError(f"{folder}: {why}; the EMC's clock is in debugfs, which is for root")


def _fan(root: str) -> List[Sensor]:
    """Its duty as a share (PWM is in 255ths), and its speed where there is a tachometer."""
    found = []
    for path in find(root, "sys/devices/pwm-fan/cur_pwm") + find(root, "sys/class/hwmon/hwmon*/pwm1"):
        found.append(Sensor("fan", "duty", "1", partial(_duty, path)))
    for path in find(root, "sys/class/hwmon/hwmon*/rpm") + find(root, "sys/class/hwmon/hwmon*/fan1_input"):
        found.append(Sensor("fan", "speed", "rpm", partial(_speed, path)))
    return found


def _memory(root: str) -> List[Sensor]:
    path = os.path.join(root, "proc/meminfo")
    if not os.path.exists(path):
        return []
    names = (("available", "MemAvailable"), ("total", "MemTotal"), ("swap free", "SwapFree"))
    return [Sensor(name, "memory", "bytes", partial(_meminfo, path, key)) for name, key in names]


def _meminfo(path: str, key: str) -> float:
    found = re.search(key + r":\s+(\d+) kB", text(path))
    if found is None:
        raise SensorError(f"{path}: has no {key}")
    return int(found.group(1)) * 1024.0


def _positive(path: str, factor: int) -> float:
    """A clock; one that stands at 0 tells nothing."""
    value = integer(path) * factor
    if value <= 0:
        raise SensorError(f"{path}: reads a clock of {value} Hz")
    return float(value)


def _duty(path: str) -> float:
    """A fan's duty, which stands there in 255ths, as a share."""
    pwm = integer(path)
    if not 0 <= pwm <= 255:
        raise SensorError(f"{path}: reads a duty of {pwm} of 255")
    return pwm / 255


def _speed(path: str) -> float:
    rpm = integer(path)
    if rpm < 0:
        raise SensorError(f"{path}: reads {rpm} rpm")
    return float(rpm)
