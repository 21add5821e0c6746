"""The energy counters of x86 processors (RAPL), as Linux's powercap shows them."""

import os
from typing import Dict, List, NamedTuple

from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.reading import find, integer, text_or

# Intel's Software Developer's Manual, vol. 3B, "RAPL interfaces": updated about every millisecond, in units of
# 2^-14 J unless the processor says otherwise
UPDATE_S = 1e-3
STEP_J = 2.0**-14


class Rapl(NamedTuple):
    """The CPU packages' energy counters (powercap), or the reason why there are none.

    Only whole packages: ``core`` and ``dram`` are parts of, ``psys`` holds, what is counted already.
    """

    packages: List[str]
    absent: str

    @property
    def step_j(self) -> float:
        """One step of a counter."""
        return STEP_J

    @property
    def update_s(self) -> float:
        """By how much a reading may be behind."""
        return UPDATE_S

    def read_uj(self) -> Dict[str, int]:
        """Each package's counter, microjoules."""
        return {package: integer(os.path.join(package, "energy_uj")) for package in self.packages}

    def grown_j(self, before: Dict[str, int], after: Dict[str, int]) -> List[float]:
        """Energy of each package between two readings less than one wrap-around apart (minutes at full power)."""
        grown = []
        for package in self.packages:
            grown_uj = after[package] - before[package]
            if grown_uj < 0:
                grown_uj += integer(os.path.join(package, "max_energy_range_uj"))
            grown.append(grown_uj / 1e6)
        return grown

    def joules_between(self, before: Dict[str, int], after: Dict[str, int]) -> float:
        """Energy of all packages between two readings, see ``grown_j``."""
        return sum(self.grown_j(before, after))


def find_rapl(root: str = "/") -> Rapl:
    """The readable packages under ``sys/class/powercap``."""
    base = os.path.join(root, "sys/class/powercap")
    packages = [
        zone
        for zone in find(base, "intel-rapl:[0-9]*")
        if os.path.basename(zone).count(":") == 1 and text_or(os.path.join(zone, "name"), "").startswith("package")
    ]
    if not packages:
        return Rapl([], f"no RAPL package under {base}: not on this processor, or hidden from this virtual machine")
    try:
        for package in packages:
            integer(os.path.join(package, "energy_uj"))
    except SensorError as error:
        return Rapl([], f"{error}; run as root or make it readable")
    return Rapl(packages, "")
