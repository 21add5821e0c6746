"""What each detector costs by our count, beside what its authors publish.

``python -m edgejoule_trainer.detector_table`` writes ``docs/reference/detectors.md``; with ``--check`` it compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgejoule.generated import bring_up_to_date
from edgejoule.records import Label
from edgejoule_trainer.counting import count_macs, count_parameters
from edgejoule_trainer.detectors import create, detector_class, names
from edgejoule_trainer.detectors.detector import Published

PAGE = Path("docs/reference/detectors.md")

_HEAD = """<!-- made by python -m edgejoule_trainer.detector_table; change the code, not this page -->
# The detectors

With the categories of their official COCO weights, at their own input size. `edgejoule model list` prints the same.

- **Parameters** are trainable numbers: weights, biases, and the scale and shift of batch norm.
- **GMACs** are 10^9 multiply-accumulates of all convolutions and linear layers for one image: half of the paper's
  Eq. 1, which counts two FLOPs each (so GFLOPs are twice as many), with the groups that it leaves out. Biases, batch
  norm, activations and resizing are not counted, as in the paper. Authors count otherwise at times; the notes say how.
- **kMACs/pixel** divides by the pixels of the input, the paper's "normalized FLOPs", so that detectors of different
  input sizes can be compared.
- **AP** is the authors' figure for their weights on COCO, not ours.
"""


@dataclass(frozen=True)
class Entry:
    """One detector: counted by us, published by its authors.

    input_size: (height, width) in pixels. params_m: 1e6 parameters. gmacs: 1e9 multiply-accumulates an image.
    like_published: parameters and multiply-accumulates at the input and number of categories that the published ones
    are of.
    """

    name: str
    title: str
    input_size: tuple[int, int]
    categories: int
    params_m: float
    gmacs: float
    like_published: tuple[float, float]
    published: Published

    @property
    def kmacs_per_pixel(self) -> float:
        return 1e6 * self.gmacs / (self.input_size[0] * self.input_size[1])

    @property
    def params_difference(self) -> float:
        """Ours to the published number of parameters, less one."""
        return self.like_published[0] / self.published.params_m - 1

    @property
    def gmacs_difference(self) -> float:
        """Ours to the published multiply-accumulates, less one."""
        return self.like_published[1] / self.published.gmacs - 1

    @property
    def note(self) -> str:
        published = self.published
        told = f"AP on {published.ap_on}. Published by {published.source}"
        if published.input_size is None:
            return f"{told}."
        (height, width), (params_m, gmacs) = published.input_size, self.like_published
        of = f"{width}x{height} and {published.categories} categories"
        return f"{told}, for {of}, where ours has {params_m:.3f} M parameters and {gmacs:.3f} GMACs."

    def as_json(self) -> dict[str, Any]:
        published = self.published
        return {
            "detector": self.name,
            "title": self.title,
            "input": {"height": self.input_size[0], "width": self.input_size[1]},
            "categories": self.categories,
            "params_m": self.params_m,
            "gmacs": self.gmacs,
            "gflops": 2 * self.gmacs,
            "kmacs_per_pixel": self.kmacs_per_pixel,
            "published": {
                "params_m": published.params_m,
                "gmacs": published.gmacs,
                "ap": published.ap,
                "ap_on": published.ap_on,
                "source": published.source,
            },
            "like_published": dict(zip(("params_m", "gmacs"), self.like_published, strict=True)),
            "params_difference": self.params_difference,
            "gmacs_difference": self.gmacs_difference,
        }


def entry_of(name: str) -> Entry:
    """A detector counted, without memory for its weights."""
    kind = detector_class(name)
    labels, published = kind.official_labels(), kind.published
    own = _counts(name, labels, kind.own_input_size)
    compared = own
    if published.input_size is not None:
        compared = _counts(name, labels[: published.categories], published.input_size)
    return Entry(
        name=name,
        title=kind.title,
        input_size=kind.own_input_size,
        categories=sum(label.id is not None for label in labels),
        params_m=own[0],
        gmacs=own[1],
        like_published=compared,
        published=published,
    )


def _counts(name: str, labels: Sequence[Label], input_size: tuple[int, int]) -> tuple[float, float]:
    """1e6 parameters, 1e9 multiply-accumulates."""
    with torch.device("meta"):
        detector = create(name, labels, input_size)
    return count_parameters(detector) / 1e6, count_macs(detector.network, (1, 3, *input_size)) / 1e9


COLUMNS = (
    "detector",
    "input",
    "params M",
    "published",
    "GMACs",
    "published",
    "kMACs/pixel",
    "AP",
)


def cells(entry: Entry) -> Sequence[str]:
    """A line of the table, one text for each of ``COLUMNS``; in brackets how far ours is from the published figure."""
    height, width = entry.input_size
    published = entry.published
    return (
        entry.name,
        f"{width}x{height}",
        f"{entry.params_m:.3f}",
        f"{published.params_m:.3g} ({entry.params_difference:+.1%})",
        f"{entry.gmacs:.3f}",
        f"{published.gmacs:g} ({entry.gmacs_difference:+.1%})",
        f"{entry.kmacs_per_pixel:.2f}",
        f"{published.ap:.3f}",
    )


def page() -> str:
    """The reference page, in Markdown."""
    entries = [entry_of(name) for name in names()]
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- | --- |" + " ---: |" * (len(COLUMNS) - 2)]
    lines += [f"| {' | '.join(cells(entry))} |" for entry in entries]
    notes = [f"- {', '.join(f'`{name}`' for name in named)}: {note}" for note, named in notes_on(entries).items()]
    return "\n".join([_HEAD, *lines, "", "In brackets: how far our count is from the published one.", "", *notes, ""])


def notes_on(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Each note, and the detectors that it is about."""
    notes: dict[str, list[str]] = {}
    for entry in entries:
        notes.setdefault(entry.note, []).append(entry.name)
    return notes


def files() -> Iterator[tuple[Path, str]]:
    """The page, relative to the repository, with its text."""
    yield PAGE, page()


if __name__ == "__main__":
    sys.exit(bring_up_to_date(files(), sys.argv[1:]))
