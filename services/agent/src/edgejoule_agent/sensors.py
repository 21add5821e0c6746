"""What a Linux host tells of its energy, heat and throttling; what it does not tell is a reason, not a number."""

import glob
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

THROTTLE_COUNTS = "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"


class Rapl(NamedTuple):
    """The CPU packages' energy counters (powercap), or the reason why there are none.

    Only whole packages: ``core`` and ``dram`` are parts of, ``psys`` holds, what is counted already.
    """

    packages: List[str]
    absent: str

    def read_uj(self) -> Dict[str, int]:
        """Each package's counter, microjoules."""
        return {package: _integer(os.path.join(package, "energy_uj")) for package in self.packages}

    def joules_between(self, before: Dict[str, int], after: Dict[str, int]) -> float:
        """Energy of all packages between two readings less than one wrap-around apart (minutes at full power)."""
        total_uj = 0
        for package in self.packages:
            grown = after[package] - before[package]
            if grown < 0:
                grown += _integer(os.path.join(package, "max_energy_range_uj"))
            total_uj += grown
        return total_uj / 1e6


def find_rapl(root: str = "/") -> Rapl:
    """The readable packages under ``sys/class/powercap``."""
    base = os.path.join(root, "sys/class/powercap")
    packages = [
        zone
        for zone in sorted(glob.glob(os.path.join(base, "intel-rapl:[0-9]*")))
        if os.path.basename(zone).count(":") == 1 and _text(os.path.join(zone, "name")).startswith("package")
    ]
    if not packages:
        return Rapl([], f"no RAPL package under {base}: not on this processor, or hidden from this virtual machine")
    try:
        for package in packages:
            _integer(os.path.join(package, "energy_uj"))
    except OSError as error:
        return Rapl([], f"{error.filename}: {error.strerror}; run as root or make it readable")
    return Rapl(packages, "")


def temperature_c(root: str = "/") -> Tuple[Optional[float], str]:
    """The hottest CPU sensor in °C, or None and the reason."""
    names = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
    found = []
    for name in glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*/name")):
        if _text(name) in names:
            inputs = glob.glob(os.path.join(os.path.dirname(name), "temp*_input"))
            found += [_integer(path) / 1000 for path in inputs]
    return (max(found), "") if found else (None, f"no CPU sensor ({', '.join(names)}) under {root}sys/class/hwmon")


def throttle_counts(root: str = "/") -> Optional[int]:
    """How often the CPU was throttled for heat since boot, all counters added; None where it does not count."""
    paths = glob.glob(os.path.join(root, THROTTLE_COUNTS))
    return sum(_integer(path) for path in paths) if paths else None


def throttled(before: Optional[int], after: Optional[int]) -> str:
    """``yes``, ``no``, or ``unknown``, which must not pass as no."""
    if before is None or after is None:
        return "unknown"
    return "yes" if after > before else "no"


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _integer(path: Any) -> int:
    return int(_text(path))
