"""The plan: a DAG of steps, and the key that says when two pieces of work are the same.

A step's key is the sha256 over canonical JSON of its kind, the kind's version, its parameters and the
*content hashes* of its inputs. So a key is known only once everything upstream is done, and a change
upstream that ends in the same bytes changes no key downstream (early cut-off).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgejoule.canonical import hash_json
from edgejoule.devices import IN_MODE


@dataclass(frozen=True)
class Ref:
    """An output of another step.

    ``tolerant``: the step runs even if the other one ended without result; its input is then a JSON
    file ``{"outcome": ..., "reason": ..., "step": ...}`` in place of the output.
    """

    step: str
    output: str
    tolerant: bool = False


@dataclass(frozen=True)
class Source:
    """A file or folder outside the store, named by the hash of its content."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Step:
    """One node: what to do (kind, parameters) to what (inputs)."""

    id: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Ref | Source] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """What the step is about, the model; empty for the steps of the whole run.

        >>> Step("build/nanodet_m/fp32/host", "build").subject, Step("analyze", "analyze").subject
        ('nanodet_m', '')
        """
        return self.id.partition("/")[2].partition("/")[0]

    @property
    def amount(self) -> float:
        """How much there is to do, against other steps of its kind: images of a training, with repetition; else 1.

        >>> Step("train/nanodet_m", "train", {"recipe": {"iterations": 16, "batch": 8}}).amount
        128.0
        """
        recipe = self.parameters.get("recipe")
        if not isinstance(recipe, Mapping):
            return 1.0
        return float(recipe.get("iterations", 1)) * float(recipe.get("batch", 1))

    def upstream(self) -> Iterator[Ref]:
        """The references to other steps among the inputs."""
        return (source for source in self.inputs.values() if isinstance(source, Ref))


def at_batch(model: str, batch: int) -> str:
    """What the rows of a model are called at a batch; 1 goes without saying.

    >>> at_batch("nanodet_m", 1), at_batch("nanodet_m", 4)
    ('nanodet_m', 'nanodet_m-b4')
    """
    return model if batch == 1 else f"{model}-b{batch}"


@dataclass(frozen=True)
class Cell:
    """One row to come: detector x weights x precision x device x batch, and the steps that decide it.

    Attributes:
        model: what the steps are called that make its graph for one image; see ``row_model``.
        seed: None for a row. Else this is no row but its INT8 made anew by that seed, to be scored beside it.
        batch: images that one inference takes.
    """

    model: str
    detector: str
    weights: str
    variant: str
    device: str
    steps: tuple[str, ...]
    seed: int | None = None
    batch: int = 1

    @property
    def name(self) -> str:
        """
        >>> Cell("m", "m", "base", "int8-ptq", "host", (), seed=43).name
        'm/int8-ptq/host/seed-43'
        >>> Cell("m", "m", "base", "int8-ptq", "host", (), batch=4).name
        'm-b4/int8-ptq/host'
        """
        return f"{self.row_model}/{self.variant}/{self.device}{self.by_seed}"

    @property
    def row_model(self) -> str:
        """What its row calls the model."""
        return at_batch(self.model, self.batch)

    @property
    def graph(self) -> str:
        """What the steps that make its graph for one image are called after their kind."""
        return f"{self.model}{self.by_seed}"

    @property
    def by_seed(self) -> str:
        """What stands behind a name for its seed; nothing where it is a row."""
        return "" if self.seed is None else f"/seed-{self.seed}"

    @property
    def board(self) -> str:
        """The device itself.

        >>> cell = Cell("m", "m", "base", "fp32", "nano@5W", ())
        >>> cell.board, cell.power_mode
        ('nano', '5W')
        """
        return self.device.partition(IN_MODE)[0]

    @property
    def power_mode(self) -> str | None:
        """The power mode that it is put into; None: measured as it is."""
        return self.device.partition(IN_MODE)[2] or None


@dataclass(frozen=True)
class Plan:
    """Steps by id, each after those it reads; of several that are ready, the first in this order is started first."""

    steps: Mapping[str, Step]
    cells: tuple[Cell, ...]


def step_key(kind: str, version: int, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The key of a step whose inputs have these content hashes.

    >>> step_key("score", 1, {}, {"a": "0" * 64}) == step_key("score", 2, {}, {"a": "0" * 64})
    False
    """
    return hash_json({"kind": kind, "version": version, "parameters": dict(parameters), "inputs": dict(inputs)})
