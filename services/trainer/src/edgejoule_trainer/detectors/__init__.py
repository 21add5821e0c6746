"""The detectors, one file each, by name; ``edgejoule.detectors`` in pyproject.toml is their list."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from edgejoule.errors import SpecError
from edgejoule.records import Label
from edgejoule_trainer.detectors.detector import Detector, OfficialState, Published, Target, with_network

GROUP = "edgejoule.detectors"


def names() -> list[str]:
    """Of every detector there is."""
    return sorted(entry_points(group=GROUP).names)


def detector_class(name: str) -> type[Detector]:
    """The class of that name.

    Raises:
        SpecError: there is no such detector.
    """
    for entry in entry_points(group=GROUP, name=name):
        found: type[Detector] = entry.load()
        return found
    raise SpecError(f"There is no detector named {name!r}; choose one of: {', '.join(names())}.")


def create(name: str, labels: Sequence[Label], input_size: tuple[int, int] | None = None) -> Detector:
    """A detector with random weights.

    Args:
        labels: the categories, in the order of the score columns.
        input_size: (height, width) in pixels; the authors' own when None.
    """
    kind = detector_class(name)
    return kind(labels, input_size or kind.own_input_size)


__all__ = ["Detector", "OfficialState", "Published", "Target", "create", "detector_class", "names", "with_network"]
