"""What a step sees: parameters, input files, a place for outputs. Neither the executor nor the store.

A *step kind* is a module announced under the entry-point group ``edgejoule.steps``:

    VERSION = 1                     # raised whenever the meaning of the result changes
    QUEUE = "evaluate"              # train | evaluate | analyze | device
    EXCLUSIVE = False               # True: nothing else of ours runs on the host meanwhile
    OUTPUTS = ("record",)           # names every successful run writes; ``name-*`` for numbered ones
    SOURCES = ("pkg.module", ...)   # modules whose source decides the result, beside this one
    TIME_LIMIT_S = 6 * 3600.0       # optional: an attempt that takes longer is ended
    ON_BOARDS = True                # optional: of a board's row the board carries it out, whatever the queue
    SILENCE_LIMIT_S = 600.0         # optional: so is one that says nothing of its progress for so long

    def run(job): ...               # reads job.inputs, writes job.output(name); returns nothing

``run`` is duck-typed, so the agent, which imports nothing of ours, announces its steps the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgejoule.canonical import canonical_json

Progress = Callable[[float, float, str], None]


class Job:
    """One attempt at one step.

    Attributes:
        parameters: JSON values; all that decides the result besides the inputs' bytes.
        inputs: input name to a local file whose hash has been verified.
        scratch: a folder that outlives a killed attempt and is removed once the step is committed;
            checkpoints live here.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, Path],
        folder: Path,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self.parameters = dict(parameters)
        self.inputs = dict(inputs)
        self.scratch = scratch
        self._folder = folder
        self._progress = progress

    def inputs_named(self, prefix: str) -> list[Path]:
        """Files of a numbered input (``images-000``, ``images-001``, ...), in order."""
        return [self.inputs[name] for name in sorted(self.inputs) if name.startswith(prefix + "-")]

    def read_json(self, name: str) -> Any:
        """The parsed JSON of input ``name``."""
        return json.loads(self.inputs[name].read_text(encoding="utf-8"))

    def output(self, name: str) -> Path:
        """Where to write output ``name``; becomes a blob when the step succeeds."""
        return self._folder / name

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as canonical JSON, so that equal records have equal hashes."""
        self.output(name).write_text(canonical_json(value), encoding="utf-8")

    def progress(self, done: float, total: float, unit: str = "") -> None:
        """Say how far the step is; a hung step stops saying so."""
        self._progress(done, total, unit)
