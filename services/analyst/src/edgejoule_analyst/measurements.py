"""What the steps of one cell left behind, read from its input files.

Any input may be, in place of the record or blob, an *outcome file*: the JSON of how the step that should have
made it ended. So an unsupported or failed cell is read like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from edgejoule.canonical import hash_file
from edgejoule.errors import DataError
from edgejoule.records import BenchmarkRecord, EngineRecord, Hashes, QuantizationError, Record, ScoreRecord
from edgejoule_analyst.average_precision import Matches
from edgejoule_analyst.latency import FloatArray, load_samples_ms

R = TypeVar("R", bound=Record)

OUTCOME_KEYS = {"outcome", "reason", "step"}
OUTCOME_BYTES = 1 << 20
"""An outcome file is smaller; a blob that merely begins like JSON is not parsed whole."""


class Cell(Record):
    """One row to come, as the plan has it."""

    name: str
    model: str
    detector: str
    weights: str
    variant: str
    precision: str
    device: str
    batch: int = 1
    protocol: str
    comparable: bool
    simulated: bool = False
    seeds: list[int] = Field(default_factory=list)
    """Those by which it was made, the run's own first."""
    why_no_repeats: str | None = "the plan has none"


@dataclass(frozen=True)
class Ended:
    """A step that left no result: how it ended, and why."""

    outcome: str
    reason: str
    step: str


@dataclass(frozen=True)
class Trial:
    """One trial's record and its samples, in milliseconds; the executions alone where the engine timed them."""

    record: BenchmarkRecord
    samples_ms: FloatArray
    executions_ms: FloatArray | None = None


@dataclass(frozen=True)
class Remade:
    """A cell made by one seed, as far as it came."""

    build: EngineRecord | Ended
    score: ScoreRecord | Ended


@dataclass(frozen=True)
class Measurements:
    """All that is known of one cell."""

    weights: Ended | None
    onnx: Ended | None
    build: EngineRecord | Ended
    score: ScoreRecord | Ended
    matches: Matches | None
    trials: list[Trial | Ended]
    hashes: Hashes
    matches_sha256: str | None = None
    repeats: Mapping[int, Remade] = field(default_factory=dict)
    """By further seed."""
    quantization: QuantizationError | Ended | None = None
    """Of its graph; None where that is not INT8."""

    def endings(self) -> list[Ended]:
        """Steps without result, the most upstream first."""
        parts = (self.weights, self.onnx, self.build, *self.trials, self.score)
        return [part for part in parts if isinstance(part, Ended)]


def read_cell(index: int, inputs: Mapping[str, Path], quantized: bool, seeds: Sequence[int] = ()) -> Measurements:
    """The measurements of the cell whose inputs are called ``build-<index>``, ``score-<index>``, ...

    Args:
        quantized: whether it is INT8: the calibration set had a part in it, and its graph's layers have errors.
        seeds: those by which it was made, the run's own first.

    Raises:
        DataError: a file is neither what it should be nor an outcome file.
    """
    score = _record(inputs[f"score-{index}"], ScoreRecord)
    return Measurements(
        weights=read_ending(inputs[f"weights-{index}"]),
        onnx=read_ending(inputs[f"onnx-{index}"]),
        build=_record(inputs[f"build-{index}"], EngineRecord),
        score=score,
        matches=None if isinstance(score, Ended) else Matches.load(inputs[f"matches-{index}"]),
        trials=_trials(index, inputs),
        hashes=Hashes(
            weights=_hash(inputs, f"weights-{index}"),
            onnx=_hash(inputs, f"onnx-{index}"),
            engine=_hash(inputs, f"engine-{index}"),
            data=_hash(inputs, "evaluation"),
            calibration=_hash(inputs, "calibration") if quantized else None,
        ),
        matches_sha256=_hash(inputs, f"matches-{index}"),
        repeats={
            seed: Remade(
                _record(inputs[f"rebuild-{index}-{seed}"], EngineRecord),
                _record(inputs[f"rescore-{index}-{seed}"], ScoreRecord),
            )
            for seed in seeds[1:]
        },
        quantization=_quantization(inputs[f"quantization-{index}"]) if quantized else None,
    )


def read_ending(path: Path) -> Ended | None:
    """What an outcome file says; ``None`` when the file is something else."""
    if path.stat().st_size > OUTCOME_BYTES:
        return None
    content = path.read_bytes()
    if not content.startswith(b"{"):
        return None
    try:
        value: Any = json.loads(content)
    except ValueError:  # a blob whose first byte happens to be a brace
        return None
    return Ended(**value) if value.keys() == OUTCOME_KEYS else None


def _quantization(path: Path) -> QuantizationError | Ended:
    """What the record of a graph's maker, which has a form of its own, tells of the graph's layers."""
    if ending := read_ending(path):
        return ending
    try:
        return QuantizationError.model_validate(json.loads(path.read_bytes())["quantization_error"])
    except (ValueError, KeyError, TypeError) as error:  # a ValidationError is a ValueError
        raise DataError(f"{path} does not tell the quantization error of its layers; run the step again") from error


def _trials(index: int, inputs: Mapping[str, Path]) -> list[Trial | Ended]:
    prefix = f"benchmark-{index}-"
    numbers = sorted(int(name.removeprefix(prefix)) for name in inputs if name.startswith(prefix))
    trials: list[Trial | Ended] = []
    for number in numbers:
        record = _record(inputs[f"{prefix}{number}"], BenchmarkRecord)
        if isinstance(record, Ended):
            trials.append(record)
        else:
            samples = inputs[f"samples-{index}-{number}"]
            executions_ms = None if record.execution_ms is None else load_samples_ms(samples, "execution_ms")
            trials.append(Trial(record, load_samples_ms(samples), executions_ms))
    return trials


def _record(path: Path, kind: type[R]) -> R | Ended:
    if ending := read_ending(path):
        return ending
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} is no {kind.__name__}: {where}: {first['msg']}; run the step again") from error


def _hash(inputs: Mapping[str, Path], name: str) -> str | None:
    path = inputs.get(name)
    return None if path is None or read_ending(path) else hash_file(path)
