"""Power rails of Jetson boards: INA3221 by two drivers, and INA238.

JetPack 4 has NVIDIA's own driver (``ina3221x``: mV, mA and mW), JetPack 5 and later the kernel's (``ina3221``: mV and
mA, no power), Thor has an INA238 beside it (µW). Steps and largest errors are those of the INA3221's data sheet (TI
SBOS576: 40 µV on the shunt and 8 mV on the bus; offset 80 µV and 16 mV, gain 0.25 % each) and of the kernel's
drivers/hwmon/ina238.c (5 µV and 3.125 mV). The shunt's own tolerance is nowhere declared and not counted.
"""

import os
import struct
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from edgejoule_agent.energy import Accuracy, Resolution
from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.reading import Sensor, find, integer, text_or

NOT_CONNECTED = "NC"
BUS_LIMIT_MV = {"ina3221": 26000, "ina238": 85000}  # what the inputs take, by the data sheets
SHUNT_LIMIT_UV = 163840
SHUNT_STEP_UV = {"ina3221": 40, "ina238": 5}
BUS_STEP_MV = {"ina3221": 8.0, "ina238": 3.125}
# where the device tree does not tell: rails of the Nano's and Xavier NX's modules; the default of ina238.c
SHUNT_UOHM = {"ina3221": 5000, "ina238": 10000}


class Rail(NamedTuple):
    """One rail: where its files are, and what its sensor can tell apart."""

    name: str
    chip: str  # ina3221 or ina238
    voltage_mv: str
    current_ma: str
    power: Optional[str]  # its own power file, where the driver has one
    power_unit_w: float
    shunt_uohm: int

    def read_w(self) -> float:
        """Power now. Voltage and current are read back to back; a power file is one conversion of both.

        Raises:
            SensorError: it cannot be read, is not powered, or reads what its sensor cannot.
        """
        if self.power is not None and os.path.exists(self.power):
            power_w = integer(self.power) * self.power_unit_w
            if not 0 <= power_w <= self.limit_w:
                raise SensorError(f"{self.power}: reads {power_w:g} W, which its sensor cannot measure")
            return power_w
        return self.read_mv() * self.read_ma() / 1e6

    def read_mv(self) -> int:
        """Voltage now, mV. Raises SensorError."""
        mv = integer(self.voltage_mv)
        if not 0 < mv <= BUS_LIMIT_MV[self.chip]:
            raise SensorError(f"{self.voltage_mv}: reads {mv} mV; the rail {self.name} is off or its sensor wrong")
        return mv

    def read_ma(self) -> int:
        """Current now, mA. Raises SensorError."""
        ma = integer(self.current_ma)
        if not 0 <= ma <= 1000 * self._limit_a:
            raise SensorError(f"{self.current_ma}: reads {ma} mA, which its sensor cannot measure")
        return ma

    @property
    def limit_w(self) -> float:
        """The most that its sensor can measure: the largest voltage on the bus, and on the shunt."""
        return BUS_LIMIT_MV[self.chip] / 1000 * self._limit_a

    @property
    def _limit_a(self) -> float:
        return SHUNT_LIMIT_UV / self.shunt_uohm

    def resolution(self) -> Resolution:
        """Steps of its power at its voltage now: one step of the current, and of the voltage as a share."""
        volts = self.read_mv() / 1000
        step_a = SHUNT_STEP_UV[self.chip] / self.shunt_uohm
        return Resolution(step_w=volts * step_a, step_share=BUS_STEP_MV[self.chip] / 1000 / volts)

    def accuracy(self) -> Optional[Accuracy]:
        """Largest gain and offset errors by the data sheet; None for a sensor whose sheet we did not read."""
        if self.chip != "ina3221":
            return None
        volts = self.read_mv() / 1000
        return Accuracy(gain=0.0025 + 0.0025 + 0.016 / volts, offset_w=volts * 80 / self.shunt_uohm)

    def sensor(self) -> Sensor:
        """The rail as one of the board's sensors."""
        return Sensor(self.name, "power", "W", self.read_w)


def find_rails(root: str = "/") -> Tuple[List[Rail], str]:
    """All rails that the board's drivers show, or none and why. Labels NC and sums of channels are no rails."""
    drivers = "sys/bus/i2c/drivers"
    finders: Sequence[Tuple[str, Callable[[str], Optional[Rail]]]] = (
        (f"{drivers}/ina3221x/*/iio:device*/rail_name_*", _rail_of_jetpack_4),
        (f"{drivers}/ina3221/*/hwmon/hwmon*/in[1-3]_label", _rail_of_ina3221),
        (f"{drivers}/ina238/*/hwmon/hwmon*/power1_input", _rail_of_ina238),
    )
    found = [make(path) for pattern, make in finders for path in find(root, pattern)]
    rails = [rail for rail in found if rail is not None]
    if not rails:
        return [], f"no power rail: no INA3221 or INA238 under {os.path.join(root, drivers)}"
    return rails, ""


def pick_rails(names: Sequence[str], root: str = "/") -> List[Rail]:
    """The rails of these names, in this order.

    Raises:
        SensorError: one is not there.
    """
    rails, reason = find_rails(root)
    by_name = {rail.name: rail for rail in rails}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise SensorError(f"no rail {', '.join(missing)}: " + (reason or f"there are {', '.join(sorted(by_name))}"))
    return [by_name[name] for name in names]


def _rail_of_jetpack_4(label_file: str) -> Optional[Rail]:
    folder, number = os.path.dirname(label_file), label_file.rsplit("_", 1)[1]
    label = text_or(label_file, NOT_CONNECTED)
    if label == NOT_CONNECTED:
        return None
    channel = os.path.join(os.path.dirname(folder), "of_node", f"channel@{number}")
    mohm = _cell(os.path.join(channel, "ti,shunt-resistor-mohm"))
    return Rail(
        name=label,
        chip="ina3221",
        voltage_mv=os.path.join(folder, f"in_voltage{number}_input"),
        current_ma=os.path.join(folder, f"in_current{number}_input"),
        power=os.path.join(folder, f"in_power{number}_input"),
        power_unit_w=1e-3,
        shunt_uohm=1000 * mohm if mohm else SHUNT_UOHM["ina3221"],
    )


def _rail_of_ina3221(label_file: str) -> Optional[Rail]:
    folder = os.path.dirname(label_file)
    number = os.path.basename(label_file)[len("in") : -len("_label")]
    label = text_or(label_file, NOT_CONNECTED)
    if label == NOT_CONNECTED:
        return None
    uohm = text_or(os.path.join(folder, f"shunt{number}_resistor"), "")
    return Rail(
        name=label,
        chip="ina3221",
        voltage_mv=os.path.join(folder, f"in{number}_input"),
        current_ma=os.path.join(folder, f"curr{number}_input"),
        power=None,
        power_unit_w=0.0,
        shunt_uohm=int(uohm) if uohm.isdigit() and int(uohm) else SHUNT_UOHM["ina3221"],
    )


def _rail_of_ina238(power_file: str) -> Rail:
    folder = os.path.dirname(power_file)
    chip = os.path.dirname(os.path.dirname(folder))
    return Rail(
        name=text_or(os.path.join(folder, "label"), os.path.basename(chip)),
        chip="ina238",
        voltage_mv=os.path.join(folder, "in1_input"),
        current_ma=os.path.join(folder, "curr1_input"),
        power=power_file,
        power_unit_w=1e-6,
        shunt_uohm=_cell(os.path.join(chip, "of_node", "shunt-resistor")) or SHUNT_UOHM["ina238"],
    )


def _cell(path: str) -> Optional[int]:
    """A number of the device tree (32 bits, big-endian), or None."""
    try:
        with open(path, "rb") as file:
            return int(struct.unpack(">I", file.read(4))[0])
    except (OSError, struct.error):
        return None
