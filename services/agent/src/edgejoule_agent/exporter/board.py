"""The sensors of one board or host, read again and again; what they said last, for a scrape.

The total's rail is apart from the others, and nothing is added up but rails that ``boards`` declares not to overlap. A
value that is missing, wrong or stuck is left out, and ``edgejoule_sensor_up`` is 0.
"""

import contextlib
import logging
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from edgejoule_agent import boards, cpu, jetson, sensors
from edgejoule_agent.errors import SensorError
from edgejoule_agent.exporter.exposition import Readings
from edgejoule_agent.exporter.meter import Meter, Stuck
from edgejoule_agent.sensors import nvml
from edgejoule_agent.sensors.reading import Sensor
from edgejoule_agent.sensors.thermal import THROTTLING_TRIPS

POWER_S = 0.2  # from one reading of the rails to the next
STATES_S = 2.0  # of everything else
LOOK_PASSES = 2  # passes over the states from one look for throttling to the next: under throttle.LOOKS_S
VERDICT_S = 30.0  # that a verdict on throttling is about
STALE_S = 10.0  # what is older is not shown
STUCK_RAIL_S = 2.0  # of rest and of work that a rail may not show
STUCK_ZONE_S = 60.0
RAPL_STILL_S = 10.0  # that the counter of a processor which runs may stand still

STATE_METRICS = {  # a sensor's quantity and unit -> its metric, and the label that its name goes to
    ("temperature", "C"): ("edgejoule_temperature_celsius", "zone"),
    ("clock", "Hz"): ("edgejoule_clock_hertz", "clock"),
    ("load", "1"): ("edgejoule_gpu_load_ratio", "gpu"),
    ("duty", "1"): ("edgejoule_fan_duty_ratio", "fan"),
    ("speed", "rpm"): ("edgejoule_fan_speed_rpm", "fan"),
    ("voltage", "V"): ("edgejoule_rail_voltage_volts", "rail"),
}
MEMORY_METRICS = {
    "available": "edgejoule_memory_available_bytes",
    "total": "edgejoule_memory_total_bytes",
    "swap free": "edgejoule_swap_free_bytes",
}

_log = logging.getLogger("edgejoule-agent")
_Key = Tuple[str, str]  # a sensor's name and quantity


class _Seen(NamedTuple):
    """What one pass over some sensors came to."""

    time_s: float
    readings: Readings
    up: Dict[_Key, bool]


class Board:
    """See the module. ``read_power`` and ``read_states`` may be called by two threads, ``readings`` by any.

    Args:
        simulated: the board under ``root`` is not there.
        clock: seconds that only grow; the tests' own.
    """

    def __init__(
        self, root: str = "/", simulated: bool = False, agent: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root, self._clock = root, clock
        self._facts = jetson.probe(root)
        self._info = self._describe(simulated, agent)
        self._errors: Dict[_Key, int] = {}
        self._reasons: Dict[_Key, str] = {}
        self._load: Optional[float] = None
        self._looks: List[sensors.Snapshot] = []
        self._passes = 0
        self._throttling: Readings = {}
        self._power = _Seen(clock(), {}, {})
        self._states = _Seen(clock(), {}, {})

        found, _ = sensors.find_rails(root)
        rails = _by_unique_name([(rail.name, rail) for rail in found])
        self._declared = boards.Rails(None, (), "", "the board is not known")
        known = boards.board_of([(self._facts or {}).get("module") or ""])
        if known is not None:
            self._declared = known[0].rails
        total = self._declared.total
        self._total: Sequence[str] = (total,) if total is not None else self._declared.add
        self._rails = rails
        self._meters = {name: Meter() for name in rails if name != total}
        self._board = Meter()
        self._board_stuck = Stuck(STUCK_RAIL_S)
        self._rapl = sensors.find_rapl(root) if self._facts is None else sensors.Rapl([], "a Jetson has none")
        self._rapl_before: Optional[Dict[str, int]] = None
        self._rapl_grew_s = clock()
        self._source = self._describe_source()

        zones = sensors.find_zones(root)
        self._trips = _trips(zones)
        gpus = nvml.find_gpus()[0] if root == "/" else []
        by_nvml = any(gpu.quantity == "load" for gpu in gpus)
        listed = [zone.sensor() for zone in zones] + sensors.find_states(root, load_elsewhere=by_nvml)
        if self._facts is None:
            listed.append(Sensor("cpu", "temperature", "C", self._hottest_cpu))
        listed += [gpu for gpu in gpus if gpu.quantity in ("temperature", "clock", "load")]
        listed += [Sensor(name, "voltage", "V", _volts(rail)) for name, rail in rails.items()]
        named = _by_unique_name([((each.quantity, each.name), each) for each in listed])
        self._sensors = [each._replace(name=name) for (_, name), each in named.items()]
        self._stuck = {each.name: Stuck(STUCK_ZONE_S) for each in self._sensors if each.quantity == "temperature"}

    # --- what a scrape gets ---

    def readings(self) -> Readings:
        """What was read last, but not what is too old to be true."""
        now = self._clock()
        power, states = self._power, self._states
        found: Readings = {
            "edgejoule_device_info": [(self._info, 1)],
            "edgejoule_power_source_info": [(self._source, 1)],
        }
        up: Dict[_Key, bool] = {}
        for seen in (power, states):
            fresh = now - seen.time_s <= STALE_S
            if fresh:
                found.update(seen.readings)
            up.update({key: is_up and fresh for key, is_up in seen.up.items()})
        found["edgejoule_trip_temperature_celsius"] = list(self._trips)
        found["edgejoule_sensors_age_seconds"] = [({}, now - min(power.time_s, states.time_s))]
        found["edgejoule_sensor_up"] = [(_labels(key), float(is_up)) for key, is_up in sorted(up.items())]
        found["edgejoule_sensor_errors_total"] = [(_labels(key), self._errors.get(key, 0)) for key in sorted(up)]
        return found

    # --- power ---

    def read_power(self) -> None:
        """Read every rail, or the processor's counters, once."""
        found: Readings = {}
        up: Dict[_Key, bool] = {}
        powers_w: Dict[str, Optional[float]] = {}
        moments_s: Dict[str, float] = {}
        for name in self._power_sensors():
            begin_s = self._clock()
            powers_w[name] = self._try((name, "power"), up, self._read_rail(name))
            moments_s[name] = (begin_s + self._clock()) / 2
        for name, meter in self._meters.items():
            meter.add(moments_s[name], powers_w[name])
            if powers_w[name] is not None:
                _add_meter(found, "edgejoule_rail_energy", {"rail": name}, meter)
        if self._total:
            self._add_total([powers_w[name] for name in self._total], moments_s[self._total[-1]], found, up)
        elif self._rapl.packages:
            self._add_counters(found, up)
        self._note_recovered(up)
        self._power = _Seen(self._clock(), found, up)

    def _power_sensors(self) -> List[str]:
        """The rails that there are, and those that should be."""
        return [*self._rails, *(name for name in self._total if name not in self._rails)]

    def _read_rail(self, name: str) -> Callable[[], float]:
        def missing() -> float:
            raise SensorError(f"the board's rail {name} is not there")

        return self._rails[name].read_w if name in self._rails else missing

    def _add_total(self, powers_w: List[Optional[float]], time_s: float, found: Readings, up: Dict[_Key, bool]) -> None:
        known = [power_w for power_w in powers_w if power_w is not None]
        total_w = sum(known) if len(known) == len(powers_w) else None
        wrong = ""
        if total_w == 0:  # it feeds this very process
            wrong, total_w = "reads 0 W, and the board runs", None
        if self._board_stuck.look(time_s, total_w, self._load):
            wrong, total_w = "is stuck: it reads the same at rest and at work", None
        for name in self._total if wrong else ():
            up[(name, "power")] = False
            self._note((name, "power"), f"the rail {name} {wrong}")
        self._board.add(time_s, total_w)
        if total_w is not None:
            _add_meter(found, "edgejoule_board_energy", {}, self._board)

    def _add_counters(self, found: Readings, up: Dict[_Key, bool]) -> None:
        """The energy counters of a host's processors; one that stands still is stuck."""
        key, now = ("cpu packages", "energy"), self._clock()
        before = self._rapl_before

        def grown_j() -> float:
            after = self._rapl.read_uj()
            grown = self._rapl.joules_between(before if before is not None else after, after)
            self._rapl_before = after
            self._rapl_grew_s = now if grown > 0 or before is None else self._rapl_grew_s
            if now - self._rapl_grew_s > RAPL_STILL_S:
                raise SensorError("the processor's energy counter stands still")
            return grown

        grown = self._try(key, up, grown_j)
        if grown is None:
            self._rapl_before = None
        self._board.add_grown(now, grown if before is not None else None)
        if grown is not None:
            _add_meter(found, "edgejoule_board_energy", {}, self._board)

    # --- everything else ---

    def read_states(self) -> None:
        """Read everything but power once; every other time look for throttling too, which takes most of the time."""
        found: Readings = {}
        up: Dict[_Key, bool] = {}
        values = {
            (each.name, each.quantity): self._try((each.name, each.quantity), up, each.read) for each in self._sensors
        }
        loads = [value for (_, quantity), value in values.items() if quantity == "load" and value is not None]
        self._load = loads[0] if loads else None
        for each in self._sensors:
            key = (each.name, each.quantity)
            value = values[key]
            stuck = self._stuck.get(each.name) if each.quantity == "temperature" else None
            if stuck is not None and stuck.look(self._clock(), value, self._load):
                up[key], value = False, None
                self._note(key, f"the zone {each.name} is stuck: it reads the same at rest and at work")
            if value is not None:
                metric, labels = _metric_of(each)
                found.setdefault(metric, []).append((labels, value))
        if self._facts is not None:
            with contextlib.suppress(jetson.Unknown):
                found["edgejoule_power_mode_info"] = [({"mode": jetson.power_mode(self._root)[0]}, 1)]
        if self._passes % LOOK_PASSES == 0:
            self._throttling = self._look_for_throttling()
        self._passes += 1
        found.update(self._throttling)
        self._note_recovered(up)
        self._states = _Seen(self._clock(), found, up)

    def _look_for_throttling(self) -> Readings:
        look = sensors.snapshot(self._root)._replace(time_s=self._clock())
        self._looks = [each for each in self._looks if look.time_s - each.time_s <= VERDICT_S] + [look]
        verdict = sensors.verdict(self._looks).throttled
        return {
            "edgejoule_throttle_verdict": [
                ({"verdict": word}, float(word == verdict)) for word in ("yes", "no", "unknown")
            ],
            "edgejoule_throttle_events_total": [({"reason": name}, n) for name, n in sorted(look.counts.items())],
        }

    # --- what does not change ---

    def _describe(self, simulated: bool, agent: str) -> Mapping[str, str]:
        facts = self._facts or {"board": cpu.name(self._root)}
        told = {
            "board": facts["board"] or facts.get("model"),
            "soc": facts.get("soc"),
            "l4t": facts.get("l4t"),
            "jetpack": facts.get("jetpack"),
            "agent": agent,
        }
        return dict({name: value or "" for name, value in told.items()}, simulated=str(simulated).lower())

    def _describe_source(self) -> Mapping[str, str]:
        if self._total:
            chips = sorted({self._rails[name].chip for name in self._total if name in self._rails})
            source = chips[0] if chips else "none"
            return {"source": source, "rails": "+".join(self._total), "leaves_out": self._declared.leaves_out}
        if self._rapl.packages:
            return {"source": "rapl", "rails": "", "leaves_out": "all but the CPU packages"}
        reason = self._rapl.absent if self._facts is None else self._declared.why
        return {"source": "none", "rails": "", "leaves_out": f"everything: {reason}"}

    def _hottest_cpu(self) -> float:
        temp_c, reason = sensors.temperature_c(self._root)
        if temp_c is None:
            raise SensorError(reason)
        return temp_c

    # --- reading ---

    def _try(self, key: _Key, up: Dict[_Key, bool], read: Callable[[], float]) -> Optional[float]:
        try:
            value = read()
        except SensorError as error:
            up[key] = False
            self._note(key, str(error))
            return None
        up[key] = True
        return value

    def _note(self, key: _Key, reason: str) -> None:
        """Count a reading without a value; say a new reason once."""
        self._errors[key] = self._errors.get(key, 0) + 1
        if self._reasons.get(key) != reason:
            self._reasons[key] = reason
            _log.warning("the %s of %s is left out: %s", key[1], key[0], reason)

    def _note_recovered(self, up: Mapping[_Key, bool]) -> None:
        """Say what can be believed again, at a pass's end: what was read may have been judged wrong since."""
        for key, is_up in up.items():
            if is_up and self._reasons.pop(key, ""):
                _log.info("the %s of %s can be read again", key[1], key[0])


def _metric_of(sensor: Sensor) -> Tuple[str, Mapping[str, str]]:
    if sensor.quantity == "memory":
        return MEMORY_METRICS[sensor.name], {}
    metric, label = STATE_METRICS[(sensor.quantity, sensor.unit)]
    return metric, {label: sensor.name}


def _add_meter(found: Readings, metric: str, labels: Mapping[str, str], meter: Meter) -> None:
    found.setdefault(metric + "_joules_total", []).append((labels, meter.joules))
    found.setdefault(metric + "_observed_seconds_total", []).append((labels, meter.observed_s))


def _trips(zones: Sequence[sensors.Zone]) -> List[Tuple[Mapping[str, str], float]]:
    """The lowest trip point of each kind, of each zone; a passive or hot one only if it slows something down."""
    found: List[Tuple[Mapping[str, str], float]] = []
    for name, zone in _by_unique_name([(zone.name, zone) for zone in zones]).items():
        shown = [trip for trip in zone.trips if trip.throttles or trip.kind not in ("", *THROTTLING_TRIPS)]
        for kind in sorted({trip.kind for trip in shown}):
            lowest_c = min(trip.temp_c for trip in shown if trip.kind == kind)
            found.append(({"zone": name, "kind": kind}, lowest_c))
    return found


def _by_unique_name(named: Sequence[Tuple[Any, Any]]) -> Dict[Any, Any]:
    """Things by name, or by a tuple that ends in one; a name that occurs again gets a number: fan, fan2."""
    found: Dict[Any, Any] = {}
    for name, thing in named:
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = (*name[:-1], f"{name[-1]}{number}") if isinstance(name, tuple) else f"{name}{number}"
        found[unique] = thing
    return found


def _volts(rail: sensors.Rail) -> Callable[[], float]:
    return lambda: rail.read_mv() / 1000


def _labels(key: _Key) -> Mapping[str, str]:
    return {"sensor": key[0], "quantity": key[1]}
