"""How long steps will take, from how long others took: of this run, of earlier ones, or of the demo.

A step's time is taken as a product: what its kind takes, times how heavy its subject (the model) is. So the first
model of a run tells what each kind takes, and the first steps of the next one tell how much heavier it is. How long a
training takes is said by its recipe: its time is told by the image, and says nothing of how heavy the model is for
other kinds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

AT_FIRST_S: Mapping[str, float] = {
    "import-data": 3.0,
    "import-weights": 2.0,
    "train": 0.045,
    "export": 4.0,
    "batch": 1.0,
    "ptq": 22.0,
    "qat": 0.12,
    "build": 6.0,
    "benchmark": 2.0,
    "predict": 2.5,
    "score": 0.5,
    "analyze": 5.0,
}
"""Seconds of a step in a run of the demo's size on two cores, of a training for each image that it sees; a guess, used
only where nothing better is known."""
BY_RECIPE = ("train", "qat")
"""Kinds whose ``amount`` differs from step to step."""


Timed = tuple[float, float]
"""Seconds of a step, and its amount."""


class Expected(NamedTuple):
    """How long a step should take; ``measured``: some step of its kind was timed here before."""

    seconds: float
    measured: bool


class Durations:
    """What is known of the durations of steps.

    Args:
        earlier_s: kind to seconds, of earlier runs.
    """

    def __init__(self, earlier_s: Mapping[str, float]) -> None:
        self._earlier_s = dict(earlier_s)
        self._seen: defaultdict[str, defaultdict[str, list[tuple[float, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._foreseen: defaultdict[str, dict[str, tuple[float, float]]] = defaultdict(dict)

    def learn(self, kind: str, subject: str, seconds: float, amount: float = 1.0) -> None:
        """A step of this run took so long."""
        self._seen[kind][subject].append((seconds, amount))

    def foresee(self, kind: str, subject: str, seconds: float, amount: float = 1.0) -> None:
        """A step that is under way will have taken so long, by its pace until now.

        >>> known = Durations({"train": 60.0})
        >>> known.foresee("train", "a", 600.0)
        >>> known.expect("train", "b")
        Expected(seconds=600.0, measured=True)
        """
        self._foreseen[kind][subject] = (seconds, amount)

    def expect(self, kind: str, subject: str, amount: float = 1.0) -> Expected | None:
        """For a step to come; None for a kind that nothing is known of.

        >>> known = Durations({})
        >>> for kind, subject, s in (("export", "a", 10.0), ("ptq", "a", 4.0), ("export", "b", 30.0)):
        ...     known.learn(kind, subject, s)
        >>> round(known.expect("ptq", "b").seconds)  # b is three times as heavy as a
        12
        >>> known.learn("train", "a", 5.0, amount=100.0)
        >>> known.expect("train", "b", amount=400.0).seconds
        20.0
        """
        known = self._known(kind)
        if kind in BY_RECIPE and known:
            steps = [known[subject]] if subject in known else list(known.values())
            return Expected(amount * sum(s for s, _ in steps) / sum(of for _, of in steps), True)
        if subject in known:
            return Expected(known[subject][0], True)
        if known:
            return Expected(fmean(s * self._ratio(subject, other) for other, (s, _) in known.items()), True)
        if kind in self._earlier_s and kind not in BY_RECIPE:
            return Expected(self._earlier_s[kind], True)
        return Expected(AT_FIRST_S[kind] * amount, False) if kind in AT_FIRST_S else None

    def _known(self, kind: str) -> dict[str, Timed]:
        """Subject to the mean seconds and amount of its steps; what has ended tells more than what is under way."""
        seen = {
            subject: (fmean(s for s, _ in steps), fmean(amount for _, amount in steps))
            for subject, steps in self._seen.get(kind, {}).items()
        }
        return {**self._foreseen.get(kind, {}), **seen}

    def _ratio(self, one: str, other: str) -> float:
        """How many times as long steps of subject ``one`` take as those of ``other``: geometric mean over kinds."""
        kinds = {*self._seen, *self._foreseen} - {*BY_RECIPE}
        both = [known for known in map(self._known, kinds) if one in known and other in known]
        logs = [math.log(known[one][0] / known[other][0]) for known in both if known[one][0] > 0 < known[other][0]]
        return math.exp(fmean(logs)) if logs else 1.0
