"""The machine's state in the files of its board's tree, in the steps that its sensors have.

A file is written in place and always to the same length, so no reader meets an empty or a shorter one, and one who
keeps it open sees it change.
"""

import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from edgejoule_agent.errors import SensorError, SettingsError
from edgejoule_agent.sensors import find_rails, find_zones
from edgejoule_agent.sensors.reading import find, integer, text
from edgejoule_agent.sensors.state import EMC_CLOCKS, gpu_folder, gpu_load_file
from edgejoule_agent.simulation import physics
from edgejoule_agent.simulation.declared import Declared
from edgejoule_agent.simulation.machine import BUS_V, Limits, State

WIDTH = 16  # bytes of a file that changes: a number, blanks, a newline
OFF_MC = -256000  # what the sensor of a sleeping part reads
RPM = 6000  # of a fan at full speed, [thorfan] of the trees: nvfancontrol.conf
FAULTS = ("stuck", "dead", "off", "loose")
SINK = "sink"  # all that can be loose


class Fault(NamedTuple):
    """Something wrong with the board.

    A rail ``stuck``, ``dead`` (0 mA) or ``off`` (0 mV), a zone ``off`` (-256 °C), or ``loose:sink``: the heat sink has
    come off. What a file cannot do is not here: none gives EAGAIN. Zones that do so on a board cannot be read in its
    tree at all.
    """

    kind: str
    name: str
    after_s: float  # since the board began
    until_s: float = float("inf")

    def holds(self, age_s: float) -> bool:
        """Whether it is there ``age_s`` after the board began."""
        return self.after_s <= age_s < self.until_s


def parse_fault(words: str) -> Fault:
    """``KIND:NAME``, ``KIND:NAME@FROM`` or ``KIND:NAME@FROM-UNTIL``, in seconds since the board began.

    >>> parse_fault("stuck:VDD_IN@2.5"), parse_fault("loose:sink@30-90").until_s
    (Fault(kind='stuck', name='VDD_IN', after_s=2.5, until_s=inf), 90.0)

    Raises:
        SettingsError: it is none.
    """
    what, _, when = words.partition("@")
    kind, _, name = what.partition(":")
    after, _, until = when.partition("-")
    try:
        after_s, until_s = float(after or 0), float(until or "inf")
    except ValueError:
        after_s = until_s = -1.0
    if kind not in FAULTS or not name or (kind == "loose") != (name == SINK) or not 0 <= after_s < until_s:
        raise SettingsError(
            f"{words!r} is no fault: write stuck:RAIL, dead:RAIL, off:RAIL, off:ZONE or loose:sink, with @FROM or "
            "@FROM-UNTIL behind it if it does not hold always, in seconds"
        )
    return Fault(kind, name, after_s, until_s)


def limits_of(root: str) -> Limits:
    """What the tree under ``root`` declares of clocks, trip points and the current's limit."""
    folder = gpu_folder(root)
    if folder is None:
        raise SensorError(f"no GPU under {root}sys/class/devfreq")
    least, greatest = (integer(os.path.join(folder, f"{name}_freq")) for name in ("min", "max"))
    clocks = sorted(int(clock) for clock in text(os.path.join(folder, "available_frequencies")).split())
    policy = find(root, "sys/devices/system/cpu/cpufreq/policy*")[0]
    trips = [
        trip.temp_c
        for zone in find_zones(root)
        for trip in zone.trips
        if trip.kind == "passive" and any(_slows(name) for name in trip.cooling)
    ]
    total = find_rails(root)[0][0]
    critical = total.current_ma.replace("_input", "_crit")
    watched = find(root, "sys/class/hwmon/hwmon*/oc2_event_cnt") and os.path.exists(critical)
    return Limits(
        gpu_clocks_hz=tuple(clock for clock in clocks if least <= clock <= greatest),
        cpu_khz=(
            integer(os.path.join(policy, "scaling_min_freq")),
            integer(os.path.join(policy, "scaling_max_freq")),
        ),
        trip_c=min(trips) if trips else None,
        cooling_states=max(greatest for _, greatest in _cooling_devices(root)),
        over_current_a=integer(critical) / 1000 if watched else None,
    )


def _slows(cooling: str) -> bool:
    return cooling.startswith(("gpu", "cpu"))


def _cooling_devices(root: str) -> List[Tuple[str, int]]:
    """Folder and greatest state of those that slow GPU or CPU down."""
    found = find(root, "sys/class/thermal/cooling_device*")
    return [
        (path, integer(os.path.join(path, "max_state"))) for path in found if _slows(text(os.path.join(path, "type")))
    ]


class Files:
    """The files of one tree that change.

    Args:
        noise: standard deviation of each rail's readings, as a share, from ``random`` (numpy's RandomState).
    """

    def __init__(
        self, root: str, board: Declared, faults: Sequence[Fault] = (), noise: float = 0.0, random: Any = None
    ) -> None:
        self._board, self._limits = board, limits_of(root)
        self._noise, self._random = noise, random
        self._faults = faults
        self._rails = [rail for rail in find_rails(root)[0] if rail.name in board.rails]
        self._zones = [(zone.name, os.path.join(zone.path, "temp")) for zone in find_zones(root)]
        self._zones = [(name, path) for name, path in self._zones if os.path.isfile(path)]
        unknown = {fault.name for fault in faults} - {rail.name for rail in self._rails} - {SINK}
        unknown -= {name for name, _ in self._zones}
        if unknown:
            raise SettingsError(f"the board {board.name} has no rail and no zone called {', '.join(sorted(unknown))}")
        self._gpu, self._gpu_load = gpu_folder(root), gpu_load_file(root)
        self._cpus = find(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq")
        self._cooling = _cooling_devices(root)
        self._fans = find(root, "sys/class/hwmon/hwmon*/pwm1")
        self._tachometers = find(root, "sys/class/hwmon/hwmon*/rpm")
        self._events = find(root, "sys/class/hwmon/hwmon*/oc2_event_cnt")
        self._emc = [(path, integer(path)) for path in (os.path.join(root, name) for name in EMC_CLOCKS) if _is(path)]
        self._emc_top_hz = _emc_top_hz(root)
        self._open: Dict[str, int] = {}

    def write(self, state: State, age_s: float) -> None:
        """Show ``state``, ``age_s`` after the board began."""
        for rail in self._rails:
            self._write_rail(rail, state.powers_w[rail.name], age_s)
        for name, path in self._zones:
            off = self._fault("off", name, age_s)
            shown = OFF_MC if off else physics.in_steps(1000 * state.temps_c[0], self._board.zone_step_mc)
            self._put(path, shown)
        self._put(os.path.join(str(self._gpu), "cur_freq"), state.gpu_hz)
        if self._gpu_load is not None:
            self._put(self._gpu_load, round(1000 * state.gpu_load))
        busy = state.gpu_load > 0
        for path in self._cpus:
            self._put(path, self._limits.cpu_khz[busy])
        for path, idle_hz in self._emc:
            self._put(path, self._emc_top_hz if busy and self._emc_top_hz else idle_hz)
        for folder, greatest in self._cooling:
            self._put(os.path.join(folder, "cur_state"), -(-state.cooling * greatest // self._limits.cooling_states))
        for path in self._fans:
            self._put(path, round(255 * state.fan))
        for path in self._tachometers:
            self._put(path, round(RPM * state.fan))
        for path in self._events:
            self._put(path, state.over_currents)

    def _write_rail(self, rail: Any, power_w: float, age_s: float) -> None:
        if self._fault("stuck", rail.name, age_s):
            return
        if self._fault("dead", rail.name, age_s):
            power_w = 0.0
        elif self._noise:
            power_w *= max(0.0, 1 + self._noise * self._random.standard_normal())
        mv, ma = physics.ina3221(power_w, BUS_V, self._board.shunt_ohm)
        if self._fault("off", rail.name, age_s):
            mv = ma = 0
        self._put(rail.voltage_mv, mv)
        self._put(rail.current_ma, ma)
        if rail.power is not None:
            self._put(rail.power, mv * ma // 1000)

    def _fault(self, kind: str, name: str, age_s: float) -> bool:
        return any(fault.kind == kind and fault.name == name and fault.holds(age_s) for fault in self._faults)

    def _put(self, path: str, value: int) -> None:
        if path not in self._open:
            with open(path, "r+b") as file:  # lengthened first: from then on a reader meets whole values alone
                self._open[path] = os.dup(file.fileno())
        os.pwrite(self._open[path], str(value).ljust(WIDTH - 1).encode("ascii") + b"\n", 0)

    def close(self) -> None:
        """Leave the tree as it is."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {}


def _is(path: str) -> bool:
    return os.path.isfile(path)


def _emc_top_hz(root: str) -> int:
    """The memory's greatest clock in this mode, or 0 where the tree does not tell."""
    for name in ("sys/kernel/debug/bpmp/debug/clk/emc/max_rate", "sys/kernel/debug/tegra_bwmgr/emc_max_rate"):
        path = os.path.join(root, name)
        if os.path.isfile(path):
            return integer(path)
    return 0
