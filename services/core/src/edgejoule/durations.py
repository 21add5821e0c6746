"""How long steps will take, from how long others took: of this run, of earlier ones, or of the demo.

A step's time is taken as a product: what its kind takes, times how heavy its subject (the model) is. So the first
model of a run tells what each kind takes, and the first steps of the next one tell how much heavier it is.
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
    "train": 60.0,
    "export": 5.0,
    "ptq": 40.0,
    "qat": 60.0,
    "build": 10.0,
    "benchmark": 2.0,
    "predict": 5.0,
    "score": 1.0,
    "analyze": 5.0,
}
"""Seconds of a step in a run of the demo's size on two cores; a guess, used only where nothing better is known."""


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
        self._seen: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._foreseen: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def learn(self, kind: str, subject: str, seconds: float) -> None:
        """A step of this run took so long."""
        self._seen[kind][subject].append(seconds)

    def foresee(self, kind: str, subject: str, seconds: float) -> None:
        """A step that is under way will have taken so long, by its pace until now.

        >>> known = Durations({"train": 60.0})
        >>> known.foresee("train", "a", 600.0)
        >>> known.expect("train", "b")
        Expected(seconds=600.0, measured=True)
        """
        self._foreseen[kind][subject] = seconds

    def expect(self, kind: str, subject: str) -> Expected | None:
        """For a step to come; None for a kind that nothing is known of.

        >>> known = Durations({})
        >>> for kind, subject, s in (("train", "a", 10.0), ("ptq", "a", 4.0), ("train", "b", 30.0)):
        ...     known.learn(kind, subject, s)
        >>> round(known.expect("ptq", "b").seconds)  # b is three times as heavy as a
        12
        """
        of_kind = self._means(kind)
        if subject in of_kind:
            return Expected(of_kind[subject], True)
        if of_kind:
            return Expected(fmean(s * self._ratio(subject, other) for other, s in of_kind.items()), True)
        if kind in self._earlier_s:
            return Expected(self._earlier_s[kind], True)
        return Expected(AT_FIRST_S[kind], False) if kind in AT_FIRST_S else None

    def _means(self, kind: str) -> dict[str, float]:
        seen = {subject: fmean(seconds) for subject, seconds in self._seen.get(kind, {}).items()}
        return {**self._foreseen.get(kind, {}), **seen}

    def _ratio(self, one: str, other: str) -> float:
        """How many times as long steps of subject ``one`` take as those of ``other``: geometric mean over kinds."""
        means_of_kinds = [self._means(kind) for kind in {*self._seen, *self._foreseen}]
        both = [means for means in means_of_kinds if one in means and other in means]
        logs = [math.log(means[one] / means[other]) for means in both if means[one] > 0 and means[other] > 0]
        return math.exp(fmean(logs)) if logs else 1.0
