"""A simulated board from one moment to the next: load to power, power to heat, heat and load to clocks. Pure."""

from typing import Dict, NamedTuple, Optional, Tuple

from edgejoule_agent.simulation import governor, physics
from edgejoule_agent.simulation.declared import AMBIENT_C, Declared

BUS_V = 5.0  # of the rails of the boards declared here


class Limits(NamedTuple):
    """What the board's tree declares."""

    gpu_clocks_hz: Tuple[int, ...]  # rising, those of the power mode
    cpu_khz: Tuple[int, int]
    trip_c: Optional[float]  # where the GPU's cooling device sets in; None where there is none
    cooling_states: int
    over_current_a: Optional[float]  # of the rail that holds all others; None where nothing watches it


class State(NamedTuple):
    """The board at one moment."""

    gpu_hz: int
    gpu_load: float
    temps_c: Tuple[float, float]  # junction, sink
    fan: float
    cooling: int
    next_cooling_s: float  # until the cooling device may take its next step
    over_current: bool
    over_currents: int  # events so far
    powers_w: Dict[str, float]  # of each rail, in the mean since the last moment
    joules: Dict[str, float]  # of each rail, so far: exact


def at_rest(board: Declared, limits: Limits, ambient_c: float = AMBIENT_C, start_c: Optional[float] = None) -> State:
    """A board that has idled for long, at least clock; ``start_c``: warmer than that, through and through."""
    gpu_hz = limits.gpu_clocks_hz[0]
    powers = physics.rail_powers_w(board, loads(board, limits, gpu_hz, 0.0))
    total_w = max(powers.values())
    fan = 0.0
    for _ in range(50):  # fan and temperature settle on each other
        temps_c = physics.steady_c(board.thermal, total_w, ambient_c, fan)
        fan = (fan + governor.fan_share(temps_c[0])) / 2
    if start_c is not None:
        temps_c = (start_c, start_c)
    return State(gpu_hz, 0.0, temps_c, fan, 0, 0.0, False, 0, powers, dict.fromkeys(powers, 0.0))


def loads(board: Declared, limits: Limits, gpu_hz: int, busy: float) -> Dict[str, physics.Load]:
    """What GPU and CPU do while inferences take the share ``busy`` of the time."""
    clock, least = gpu_hz / board.gpu.top_hz, limits.gpu_clocks_hz[0] / board.gpu.top_hz
    voltage = physics.voltage_share(clock, least, board.least_voltage_share)
    # the CPU's share of the power was seen at the clock that its governor takes under such a load
    return {"gpu": physics.Load(busy, clock, voltage), "cpu": physics.Load(busy, 1.0, 1.0)}


def advance(
    board: Declared, limits: Limits, state: State, busy: float, seconds: float, ambient_c: float = AMBIENT_C
) -> State:
    """The board ``seconds`` later, in which inferences took the share ``busy`` of the time."""
    powers = physics.rail_powers_w(board, loads(board, limits, state.gpu_hz, busy))
    total_w = max(powers.values())  # the rail that holds all others
    temps_c = physics.heat(board.thermal, state.temps_c, total_w, ambient_c, state.fan, seconds)

    cooling, wait_s = state.cooling, state.next_cooling_s - seconds
    if limits.trip_c is not None and wait_s <= 0:
        cooling = governor.next_state(cooling, limits.cooling_states, temps_c[0], limits.trip_c)
        wait_s = governor.PASSIVE_DELAY_S
    over = limits.over_current_a is not None and total_w / BUS_V > limits.over_current_a
    clocks = governor.allowed(limits.gpu_clocks_hz, cooling, limits.cooling_states)
    if over:  # the hardware halves the clock
        clocks = clocks[: max(1, len(clocks) // 2)]
    return State(
        gpu_hz=governor.next_clock(clocks, state.gpu_hz, busy),
        gpu_load=busy,
        temps_c=temps_c,
        fan=governor.fan_share(temps_c[0]),
        cooling=cooling,
        next_cooling_s=max(wait_s, 0.0),
        over_current=over,
        over_currents=state.over_currents + int(over and not state.over_current),
        powers_w=powers,
        joules={label: state.joules[label] + powers[label] * seconds for label in powers},
    )
