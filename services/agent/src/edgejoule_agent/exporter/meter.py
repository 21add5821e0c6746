"""Energy from readings of power, and sensors that are stuck. Pure: the time comes from outside."""

from typing import Optional

GAP_S = 1.0  # readings farther apart tell nothing of what was between them
REST, WORK = 0.1, 0.5  # loads of a GPU that rests and of one that works


class Meter:
    """Energy of one rail: the trapezoid between two readings, where they are not too far apart.

    Attributes:
        joules: energy, of the time ``observed_s`` alone.
    """

    def __init__(self) -> None:
        self.joules = 0.0
        self.observed_s = 0.0
        self._last_s: Optional[float] = None
        self._last_w = 0.0

    def add(self, time_s: float, power_w: Optional[float]) -> None:
        """A reading, or None for one that failed.

        >>> meter = Meter()
        >>> for time_s, power_w in ((0.0, 2.0), (0.5, 4.0), (1.0, None), (1.5, 4.0), (2.0, 4.0)):
        ...     meter.add(time_s, power_w)
        >>> meter.joules, meter.observed_s
        (3.5, 1.0)
        """
        if power_w is None:
            self._last_s = None
            return
        if self._last_s is not None and 0 < time_s - self._last_s <= GAP_S:
            self.joules += (time_s - self._last_s) * (power_w + self._last_w) / 2
            self.observed_s += time_s - self._last_s
        self._last_s, self._last_w = time_s, power_w

    def add_grown(self, time_s: float, joules: Optional[float]) -> None:
        """What an energy counter grew by since the reading before, which misses nothing however long ago that was.

        None for a reading that failed, or the first after one.
        """
        if joules is not None and self._last_s is not None:
            self.joules += joules
            self.observed_s += time_s - self._last_s
        self._last_s = time_s


class Stuck:
    """Whether a sensor stands still while the GPU's load went from rest to work or back, which it would have to show.

    Args:
        hold_s: how long the GPU must have been at rest, and how long at work, since the value last changed.
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._value: Optional[float] = None
        self._at_s: Optional[float] = None
        self._rest_s = self._work_s = 0.0

    def look(self, time_s: float, value: Optional[float], load: Optional[float]) -> bool:
        """Take note of a value at a GPU's load; whether the sensor is stuck. What cannot be judged is not.

        >>> stuck = Stuck(hold_s=2)
        >>> [stuck.look(time_s, 5.0, load) for time_s, load in enumerate((0, 0, 0, 1, 1, 1))]
        [False, False, False, False, True, True]
        >>> stuck.look(7, 5.1, 1)
        False
        """
        passed_s = 0.0 if self._at_s is None else time_s - self._at_s
        self._at_s = time_s
        if value is None or value != self._value:
            self._value, self._rest_s, self._work_s = value, 0.0, 0.0
            return False
        if load is not None and load <= REST:
            self._rest_s += passed_s
        elif load is not None and load >= WORK:
            self._work_s += passed_s
        return self._rest_s >= self._hold_s and self._work_s >= self._hold_s
