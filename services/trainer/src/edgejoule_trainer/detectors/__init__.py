"""The detectors, one file each, by name."""

from __future__ import annotations

from collections.abc import Sequence

from edgejoule.errors import SpecError
from edgejoule.records import Label
from edgejoule_trainer.detectors.detector import Detector, OfficialState, Target
from edgejoule_trainer.detectors.nanodet_m import NanoDetM

_DETECTORS: dict[str, type[Detector]] = {NanoDetM.name: NanoDetM}
NAMES = tuple(_DETECTORS)


def detector_class(name: str) -> type[Detector]:
    """The class of that name.

    Raises:
        SpecError: there is no such detector.
    """
    if name not in _DETECTORS:
        raise SpecError(f"There is no detector named {name!r}; choose one of: {', '.join(NAMES)}.")
    return _DETECTORS[name]


def create(name: str, labels: Sequence[Label], input_size: tuple[int, int] | None = None) -> Detector:
    """A detector with random weights.

    Args:
        labels: the categories, in the order of the score columns.
        input_size: (height, width) in pixels; the authors' own when None.
    """
    kind = detector_class(name)
    return kind(labels, input_size or kind.own_input_size)


__all__ = ["NAMES", "Detector", "OfficialState", "Target", "create", "detector_class"]
