"""Power, heat and the sensors' steps as formulas; pure."""

from typing import Dict, NamedTuple, Tuple

import numpy as np

from edgejoule_agent.simulation.declared import Declared, Part, Thermal


class Load(NamedTuple):
    """What a unit does: share of the time at work, its clock and voltage as shares of those at its top clock."""

    busy: float
    clock: float
    voltage: float


def voltage_share(clock: float, least_clock: float, least_voltage: float) -> float:
    """Voltage at a clock, as shares of those at the top: a line from the least clock up (an assumption).

    >>> voltage_share(1.0, 0.1, 0.7), voltage_share(0.1, 0.1, 0.7)
    (1.0, 0.7)
    """
    if least_clock >= 1:
        return 1.0
    return least_voltage + (1 - least_voltage) * max(0.0, clock - least_clock) / (1 - least_clock)


def part_power_w(part: Part, load: Load) -> float:
    """Power of a part: idle + busy x load x f/f_max x (V/V_max)^2, as CMOS switches (P = a C V^2 f).

    >>> part_power_w(Part("gpu", 0.5, 4.0, "gpu"), Load(0.5, 1.0, 1.0))
    2.5
    """
    return part.idle_w + part.busy_w * load.busy * load.clock * load.voltage**2


def rail_powers_w(board: Declared, loads: Dict[str, Load]) -> Dict[str, float]:
    """Power of each rail, watts, by label; ``loads`` by unit (gpu, cpu)."""
    parts = {part.name: part_power_w(part, loads[part.follows]) for part in board.parts}
    return {label: sum(parts[name] for name in names) for label, names in board.rails.items()}


# --- heat --------------------------------------------------------------------------------------------


def sink_to_ambient_k_w(thermal: Thermal, fan: float) -> float:
    """Resistance from the heat sink to the air; ``fan``: 0 (still) to 1. Conductances add: half a fan, half the gain.

    >>> sink_to_ambient_k_w(Thermal(1.0, 1.0, 1.0, 4.0, 2.0), 1.0)
    2.0
    """
    return 1 / (1 / thermal.sink_to_ambient_k_w + fan * (1 / thermal.fan_k_w - 1 / thermal.sink_to_ambient_k_w))


def steady_c(thermal: Thermal, power_w: float, ambient_c: float, fan: float) -> Tuple[float, float]:
    """Temperatures of junction and sink where heat comes and goes alike, °C.

    >>> steady_c(Thermal(1.0, 1.0, 1.0, 4.0, 4.0), 2.0, 25.0, 0.0)
    (35.0, 33.0)
    """
    sink = ambient_c + power_w * sink_to_ambient_k_w(thermal, fan)
    return sink + power_w * thermal.junction_to_sink_k_w, sink


def heat(
    thermal: Thermal, temps_c: Tuple[float, float], power_w: float, ambient_c: float, fan: float, seconds: float
) -> Tuple[float, float]:
    """Temperatures of junction and sink after ``seconds`` of constant power, °C. Exact, so stable for any step.

    With C the capacities and G the conductances, C dT/dt = -G (T - T_steady). In y = C^(1/2) (T - T_steady)
    that is dy/dt = -S y with S = C^(-1/2) G C^(-1/2) symmetric, so y(t) = exp(-S t) y(0) by its eigenvectors.
    """
    inner, outer = 1 / thermal.junction_to_sink_k_w, 1 / sink_to_ambient_k_w(thermal, fan)
    root = np.sqrt([thermal.junction_j_k, thermal.sink_j_k])
    conductances = np.array([[inner, -inner], [-inner, inner + outer]])
    rates, vectors = np.linalg.eigh(conductances / np.outer(root, root))
    steady = np.array(steady_c(thermal, power_w, ambient_c, fan))
    start = vectors.T @ (root * (np.array(temps_c) - steady))
    junction, sink = steady + vectors @ (np.exp(-rates * seconds) * start) / root
    return float(junction), float(sink)


BARE_K_W = 15.0  # from a junction without its heat sink to what is left around it (assumed)


def without_sink(thermal: Thermal) -> Thermal:
    """The same board with its heat sink come off: what heat there is hardly leaves the junction.

    >>> without_sink(Thermal(8.0, 120.0, 0.7, 3.3, 1.6)).junction_to_sink_k_w
    15.0
    """
    return thermal._replace(junction_to_sink_k_w=BARE_K_W)


# --- sensors -----------------------------------------------------------------------------------------

BUS_STEP_MV = 8  # INA3221, data sheet SBOS576: bus voltage 8 mV, shunt voltage 40 µV
SHUNT_STEP_UV = 40


def ina3221(power_w: float, bus_v: float, shunt_ohm: float) -> Tuple[int, int]:
    """What an INA3221 reads of a rail: mV and mA in its steps, the nearest of each.

    >>> ina3221(2.61, 5.0, 0.005)
    (5000, 520)
    """
    mv = BUS_STEP_MV * round(1000 * bus_v / BUS_STEP_MV)
    step_ma = SHUNT_STEP_UV / 1000 / shunt_ohm
    return int(mv), int(step_ma * round(1000 * power_w / bus_v / step_ma))


def in_steps(value: float, step: float) -> int:
    """The nearest reading below or at ``value`` of a sensor with this resolution, as an integer.

    >>> in_steps(45830, 31.25), in_steps(45830, 500)
    (45812, 45500)
    """
    return int(step * (value // step))
