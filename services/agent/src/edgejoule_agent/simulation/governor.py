"""What a board's kernel does with clocks: more with more load, less in heat. Pure; the rules are assumptions."""

from typing import Sequence

FULL_LOAD = 0.8  # above, the clock goes to the top at once
AIM_LOAD = 0.7  # below, to the least clock at which the load would be this
HYSTERESIS_C = 2.0
PASSIVE_DELAY_S = 1.0  # between two steps of a cooling device


def next_clock(clocks_hz: Sequence[int], now_hz: int, load: float) -> int:
    """The GPU's next clock by its load since the last look; ``clocks_hz`` rise. Up at once, down step by step.

    >>> next_clock([100, 200, 300, 400], 100, 0.95), next_clock([100, 200, 300, 400], 400, 0.1)
    (400, 300)
    >>> next_clock([100, 200, 300, 400], 200, 0.79), next_clock([100, 200], 400, 1.0)
    (300, 200)
    """
    if load > FULL_LOAD:
        return clocks_hz[-1]
    wanted = next((clock for clock in clocks_hz if clock * AIM_LOAD >= now_hz * load), clocks_hz[-1])
    lower = max((clock for clock in clocks_hz if clock < now_hz), default=clocks_hz[0])
    return min(max(wanted, lower), clocks_hz[-1])


def allowed(clocks_hz: Sequence[int], state: int, greatest: int) -> Sequence[int]:
    """The clocks that a cooling device leaves: all in state 0, the least alone in its greatest.

    >>> allowed([100, 200, 300], 0, 2), allowed([100, 200, 300], 1, 2), allowed([100, 200, 300], 2, 2)
    ([100, 200, 300], [100, 200], [100])
    """
    share = 1 - state / greatest if greatest else 1.0
    return clocks_hz[: 1 + int(share * (len(clocks_hz) - 1))]


def next_state(state: int, greatest: int, temp_c: float, trip_c: float) -> int:
    """A cooling device's next state: one up from the trip point on, one down when well below it.

    >>> next_state(0, 2, 97.5, 97.0), next_state(2, 2, 97.5, 97.0), next_state(1, 2, 96.0, 97.0)
    (1, 2, 1)
    >>> next_state(1, 2, 94.0, 97.0), next_state(0, 2, 94.0, 97.0)
    (0, 0)
    """
    if temp_c >= trip_c:
        return min(state + 1, greatest)
    return max(state - 1, 0) if temp_c < trip_c - HYSTERESIS_C else state


def fan_share(temp_c: float) -> float:
    """The fan's speed by the junction's temperature.

    >>> fan_share(30.0), fan_share(60.0), fan_share(90.0)
    (0.2, 0.5, 1.0)
    """
    return min(1.0, max(0.2, (temp_c - 40) / 40))
