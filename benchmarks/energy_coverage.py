"""Does the stated uncertainty of an energy hold the truth as often as it says? On random power waveforms.

A waveform is made of straight pieces, so its energy is known exactly. It is read as the sampler reads a rail: once in
every period at a random moment, late now and then, in the steps of a sensor. Printed per family: how often the
interval held the true energy, its median half-width, and the largest error. Valid on Python 3.6; the unit tests use it.

    python benchmarks/energy_coverage.py --waveforms 1000
"""

import argparse
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edgejoule_agent.energy import Resolution, integrate
from edgejoule_agent.errors import SensorError

PERIOD_S = 0.1
FINE = Resolution(0.001, 0.0)  # whole milliwatts
INA3221 = Resolution(0.04, 0.0016)  # 40 µV over 5 mΩ at 5 V; 8 mV of 5 V


class Waveform(NamedTuple):
    """Power over time in straight pieces: piece i goes from ``left_w[i]`` to ``right_w[i]`` between two edges."""

    edges_s: Any
    left_w: Any
    right_w: Any

    def at(self, times_s: Any) -> Any:
        """Power at each time, W."""
        piece = np.clip(np.searchsorted(self.edges_s, times_s, "right") - 1, 0, len(self.left_w) - 1)
        part = (times_s - self.edges_s[piece]) / np.diff(self.edges_s)[piece]
        return self.left_w[piece] + part * (self.right_w - self.left_w)[piece]

    def joules(self, begin: float, end: float) -> float:
        """The exact integral."""
        inner = self.edges_s[(self.edges_s > begin) & (self.edges_s < end)]
        cuts = np.concatenate([[begin], inner, [end]])
        return float(np.diff(cuts) @ self.at((cuts[:-1] + cuts[1:]) / 2))  # a straight piece's mean is its middle


def constant(random: Any, seconds: float) -> Waveform:
    level = random.uniform(1.5, 15, 1)
    return Waveform(np.array([0, seconds]), level, level)


def ramp(random: Any, seconds: float) -> Waveform:
    return Waveform(np.array([0, seconds]), random.uniform(1.5, 15, 1), random.uniform(1.5, 15, 1))


def square(random: Any, seconds: float) -> Waveform:
    """Period 0.1-5 s (as often short as long), high for 10-90 % of it."""
    period = np.exp(random.uniform(np.log(0.1), np.log(5)))
    starts = np.arange(-random.uniform(0, period), seconds, period)
    edges = np.column_stack([starts, starts + random.uniform(0.1, 0.9) * period]).ravel()
    low = random.uniform(1.5, 4)
    levels = np.tile([low + random.uniform(0.5, 10), low], len(starts))
    return Waveform(np.append(edges, starts[-1] + period), levels, levels)


def noise(random: Any, seconds: float) -> Waveform:
    """Steps of 2 ms: white, or remembering up to a second."""
    steps, size = int(seconds / 0.002) + 1, 2**15
    memory = np.exp(-0.002 / np.exp(random.uniform(np.log(0.0005), np.log(1))))
    weights = np.sqrt(1 - memory**2) * memory ** np.arange(2000)
    drawn = np.fft.rfft(random.standard_normal(size)) * np.fft.rfft(weights, size)
    values = np.fft.irfft(drawn, size)[-steps:]  # a circular sum, whose beginning is wrong
    level = random.uniform(3, 12)
    levels = np.maximum(level * (1 + random.uniform(0.01, 0.25) * values), 0.2)
    return Waveform(0.002 * np.arange(steps + 1), levels, levels)


SHAPES: Dict[str, Callable[[Any, float], Waveform]] = {
    "constant": constant,
    "ramp": ramp,
    "square": square,
    "noise": noise,
}


def sample(random: Any, waveform: Waveform, seconds: float, resolution: Resolution, regular: bool) -> Tuple[Any, Any]:
    """Times and readings: a slot each period, a moment drawn from it, some late, in the steps of the sensor.

    ``regular``: at the slots' beginnings instead, as samplers usually do.
    """
    slots = np.arange(0, seconds, PERIOD_S)
    drawn = np.zeros(len(slots)) if regular else random.uniform(0, PERIOD_S, len(slots))
    late = random.exponential(0.0005, len(slots)) + (random.random_sample(len(slots)) < 0.02) * random.exponential(
        0.01, len(slots)
    )
    times = np.maximum.accumulate(slots + drawn + late) + 1e-6 * np.arange(len(slots))
    powers = waveform.at(times)
    step = resolution.step_w + resolution.step_share * powers.mean()
    offset = random.uniform(0, step)  # no level of ours is a multiple of the sensor's step
    return times, np.round((powers - offset) / step) * step + offset


def drop(random: Any, powers: Any) -> Any:
    """Up to 30 % lost one by one, and an outage of up to 2 s."""
    lost = random.random_sample(len(powers)) < random.uniform(0, 0.3)
    start = random.randint(0, len(powers))
    lost[start : start + random.randint(0, 20)] = True
    return np.where(lost, np.nan, powers)


def die(random: Any, times: Any, powers: Any, at_s: float) -> Any:
    """No reading any more, 0 W, or the last reading for ever."""
    last = powers[times < at_s][-1]
    return np.where(times < at_s, powers, random.choice([np.nan, 0.0, last]))


class Trial(NamedTuple):
    """One waveform measured; ``error`` and ``half_width`` as shares of the true energy, None with a reason."""

    family: str
    error: Optional[float]
    half_width: Optional[float]
    reason: str


FAMILIES = (*SHAPES, "quantized", "dropped", "dying")


def trial(random: Any, family: str, regular: bool = False) -> Trial:
    """One random waveform of a family, measured over a window of 10-30 s."""
    window = random.uniform(0.5, 1.5) + np.array([0, random.uniform(10, 30)])
    seconds = window[1] + 1.5
    # a rail whose readings stay the same while it lives cannot be told from one that is stuck, nor need it be
    shapes = {"quantized": list(SHAPES), "dropped": list(SHAPES), "dying": ["noise"]}.get(family, [family])
    waveform = SHAPES[random.choice(shapes)](random, seconds)
    resolution = INA3221 if family == "quantized" else FINE
    times, powers = sample(random, waveform, seconds, resolution, regular)
    if family == "dropped":
        powers = drop(random, powers)
    if family == "dying":
        powers = die(random, times, powers, random.uniform(window[0] + 1, window[1] - 1.5))
    truth = waveform.joules(*window)
    try:
        found = integrate(times, powers, tuple(window), resolution, period_s=PERIOD_S)
    except SensorError as error:
        return Trial(family, None, None, str(error))
    return Trial(family, (found.joules - truth) / truth, found.uncertainty_j / truth, "")


def run(count: int, seed: int, regular: bool = False) -> List[Trial]:
    """``count`` trials, the families in turn."""
    random = np.random.RandomState(seed)
    return [trial(random, FAMILIES[index % len(FAMILIES)], regular) for index in range(count)]


def held(trials: List[Trial]) -> Any:
    """Whether each interval held the truth, bool[n]; of those trials that gave one."""
    return np.array([abs(each.error) <= each.half_width for each in trials if each.error is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waveforms", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--regular", action="store_true", help="sample at regular moments, as samplers usually do")
    arguments = parser.parse_args()
    trials = run(arguments.waveforms, arguments.seed, arguments.regular)
    print("family      waveforms   null   held    median half-width   largest error")
    for family in (*FAMILIES, "all"):
        mine = [each for each in trials if family in (each.family, "all")]
        told = [each for each in mine if each.error is not None]
        row = f"{family:10}  {len(mine):9}  {len(mine) - len(told):5}"
        if told:
            half, worst = np.median([each.half_width for each in told]), max(abs(each.error) for each in told)
            row += f"  {held(mine).mean():6.1%}  {half:18.3%}  {worst:14.3%}"
        print(row)


if __name__ == "__main__":
    main()
