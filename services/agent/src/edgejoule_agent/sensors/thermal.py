"""Temperatures: the kernel's thermal zones with their own trip points, and a host's CPU sensors."""

import os
from functools import partial
from typing import Dict, List, NamedTuple, Optional, Tuple

from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.reading import Sensor, find, integer, text_or, try_read

CONSTANT_ZONES = ("PMIC-Die",)  # always 100 °C or 50 °C: no sensor behind it
BELIEVABLE_C = (-40.0, 150.0)  # -256 °C is what a Tegra's sensor reads while it is off
# cooling devices that slow nothing down: a fan, the DRAM's refresh rate, what waits for an emergency
HARMLESS = ("fan", "tegra-dram", "emergency", "hot-surface")
THROTTLING_TRIPS = ("passive", "hot")
HWMON_NAMES = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


class Trip(NamedTuple):
    """A temperature at which the kernel does something: ``kind`` is passive, active, hot or critical."""

    kind: str
    temp_c: float
    cooling: List[str]  # types of the cooling devices bound to it

    @property
    def throttles(self) -> bool:
        """Whether the board slows down here: so it may where nothing is bound, since firmware then acts by itself.

        >>> [Trip("passive", 70.0, bound).throttles for bound in (["tegra-dram"], ["pwm-fan", "cpu-balanced"], [])]
        [False, True, True]
        >>> Trip("active", 51.0, ["cpu-balanced"]).throttles
        False
        """
        bound = not self.cooling or any(slows(device) for device in self.cooling)
        return self.kind in THROTTLING_TRIPS and bound


class Zone(NamedTuple):
    """One thermal zone."""

    name: str
    path: str
    trips: List[Trip]

    def read_c(self) -> float:
        """Temperature now. Raises SensorError."""
        return _temperature(os.path.join(self.path, "temp"))

    def sensor(self) -> Sensor:
        """The zone as one of the board's sensors."""
        return Sensor(self.name, "temperature", "C", self.read_c)


def slows(cooling: str) -> bool:
    """Whether a cooling device of this type slows something down."""
    return not any(word in cooling.lower() for word in HARMLESS)


def find_zones(root: str = "/") -> List[Zone]:
    """All thermal zones but those without a sensor behind them; a trip point that is not set is left out."""
    zones = []
    for path in find(root, "sys/class/thermal/thermal_zone*"):
        name = text_or(os.path.join(path, "type"), os.path.basename(path))
        if name not in CONSTANT_ZONES:
            zones.append(Zone(name, path, _trips(path)))
    return zones


def temperature_c(root: str = "/") -> Tuple[Optional[float], str]:
    """The hottest CPU sensor in °C, else the hottest thermal zone; or None and the reason."""
    paths = [
        path
        for name in find(root, "sys/class/hwmon/hwmon*/name")
        if text_or(name, "") in HWMON_NAMES
        for path in find(os.path.dirname(name), "temp*_input")
    ]
    inputs = [Sensor(path, "temperature", "C", partial(_temperature, path)) for path in paths]
    zones = [zone.sensor() for zone in find_zones(root)]
    reasons = []
    for sensors in (inputs, zones):
        read = [try_read(sensor) for sensor in sensors]
        found = [value for value, _ in read if value is not None]
        if found:
            return max(found), ""
        reasons += [reason for _, reason in read]
    nothing = f"no CPU sensor ({', '.join(HWMON_NAMES)}) under {root}sys/class/hwmon and no thermal zone"
    return None, "; ".join(reasons) or nothing


def _temperature(path: str) -> float:
    """m°C of a file, as °C. Raises SensorError, also for what no board survives."""
    temp_c = integer(path) / 1000
    if not BELIEVABLE_C[0] <= temp_c <= BELIEVABLE_C[1]:
        raise SensorError(f"{path}: reads {temp_c:g} °C, so its sensor is off or broken")
    return temp_c


def _trips(zone: str) -> List[Trip]:
    bound: Dict[str, List[str]] = {}  # number of a trip point -> cooling devices
    for link in find(zone, "cdev*_trip_point"):
        device = link[: -len("_trip_point")]
        bound.setdefault(text_or(link, ""), []).append(text_or(os.path.join(device, "type"), ""))
    trips = []
    for path in find(zone, "trip_point_*_temp"):
        number = os.path.basename(path).split("_")[2]
        kind = text_or(os.path.join(zone, f"trip_point_{number}_type"), "")
        temp_mc = text_or(path, "")
        if temp_mc.isdigit() and int(temp_mc) > 0:
            trips.append(Trip(kind, int(temp_mc) / 1000, bound.get(number, [])))
    return trips
