"""The course of a training run as TensorBoard reads it: an event file of scalars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

FILE_PATTERN = "events.out.tfevents.*"


class TrainingLog:
    """Scalars into a folder, by iteration; ``tensorboard --logdir`` shows them while they are written.

    A run that goes on from a checkpoint begins a new file, whose first iteration makes TensorBoard
    forget what an earlier file has of that iteration and later ones.
    """

    def __init__(self, folder: Path, first_iteration: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_iteration, flush_secs=5)

    def add(self, iteration: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._writer.close()


def join(folder: Path, into: Path) -> None:
    """All event files of ``folder``, oldest first, as one: records are framed one by one, so bytes can be joined."""
    with open(into, "wb") as joined:
        for path in sorted(folder.glob(FILE_PATTERN)):
            joined.write(path.read_bytes())
