"""Quantization error layer by layer: what the steps that made the INT8 graphs measured, as a report tells it.

MSQE is in a tensor's own unit squared, so that of one layer says nothing beside that of another. Held against the
tensor's own power it does: SQNR = 10 log10(power / MSQE), in dB, 6 of which are a bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from edgejoule.records import GraphError, LayerError, QuantizationError, Results, TensorError
from edgejoule_analyst.measurements import Cell, Ended, Measurements

WORST = 3
"""So many layers of a graph are named."""
TENSORS = ("weights", "input")
"""The tensors of a layer that have an error, as ``LayerError`` calls them."""


def sqnr_db(error: TensorError) -> float | None:
    """Signal-to-quantization-noise ratio, dB; None where a tensor has no error, or is nothing but zeros.

    >>> sqnr_db(TensorError(msqe=0.01, power=1.0))
    20.0
    """
    return 10 * math.log10(error.power / error.msqe) if error.msqe > 0 and error.power > 0 else None


@dataclass(frozen=True)
class Part:
    """One tensor of one layer, with its SQNR."""

    layer: str
    number: int
    """Place of the layer in the graph, from 1 on."""
    tensor: str
    sqnr_db: float


@dataclass(frozen=True)
class Graph:
    """The layers of one graph as a report tells them."""

    model: str
    variant: str
    images: int
    eight_bit: int
    """How many layers are in 8 bits."""
    in_float: Mapping[str, int]
    """Why layers stay in float, and how many."""
    medians_db: Mapping[str, float | None]
    """Of the SQNR of each of ``TENSORS`` over the layers."""
    worst: Sequence[Part]
    """The layers with the least SQNR, each by its worse tensor."""


def graph_errors(cells: Iterable[Cell], measured: Mapping[str, Measurements]) -> list[GraphError]:
    """Each INT8 graph once, which cells of several devices and batches share."""
    found: dict[tuple[str, str], GraphError] = {}
    for cell in cells:
        told = measured[cell.name].quantization
        if told is None:
            continue
        model = cell.model.removesuffix(f"-b{cell.batch}")
        if isinstance(told, Ended):
            absent = {"error": f"no graph was made: {told.reason}"}
            error = GraphError(model=model, variant=cell.variant, error=None, absent=absent)
        else:
            error = GraphError(model=model, variant=cell.variant, error=told)
        found.setdefault((model, cell.variant), error)
    return list(found.values())


def graphs(results: Results) -> list[Graph]:
    """Every graph whose layers were measured."""
    return [
        Graph(
            model=found.model,
            variant=found.variant,
            images=found.error.images,
            eight_bit=sum(layer.float_because is None for layer in found.error.layers),
            in_float=_counts(layer.float_because for layer in found.error.layers if layer.float_because),
            medians_db={
                tensor: median(of) if (of := [p.sqnr_db for p in parts if p.tensor == tensor]) else None
                for tensor in TENSORS
            },
            worst=worst(parts),
        )
        for found in results.quantization
        if found.error is not None
        for parts in [list(parts_of(found.error))]
    ]


def parts_of(error: QuantizationError) -> Iterator[Part]:
    """What has an SQNR, in the order in which the graph runs its layers."""
    for number, layer in enumerate(error.layers, 1):
        for tensor, of in tensors(layer):
            if (db := sqnr_db(of)) is not None:
                yield Part(layer.name, number, tensor, db)


def tensors(layer: LayerError) -> Iterator[tuple[str, TensorError]]:
    """Those of ``TENSORS`` that a layer reads in 8 bits."""
    for tensor, of in zip(TENSORS, (layer.weights, layer.input), strict=True):
        if of is not None:
            yield tensor, of


def worst(parts: Iterable[Part]) -> list[Part]:
    """Of ``WORST`` layers the tensor with the least SQNR, the least first."""
    found: dict[str, Part] = {}
    for part in sorted(parts, key=lambda part: part.sqnr_db):
        found.setdefault(part.layer, part)
    return list(found.values())[:WORST]


def _counts(reasons: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return counts
