"""What 8 bits do to one layer at a time: the rest of the network stays float, so that each layer answers for itself.

A layer's quantization is its weights' and its input's. Its error is told twice: in the layer's own output, and in each
raw output of the network, where it matters. The outputs are kept apart, because a ranking over all of them serves
the loudest one only.

SQNR is the ratio of a tensor's power to that of its error, in dB; MSQE the mean squared quantization error, the mean
of (x - DQ(Q(x)))^2 (section 3.2 of the paper), in the tensor's own unit squared.
"""

from __future__ import annotations

import copy
import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgejoule.errors import ModelError
from edgejoule_trainer.quantize.fake import ActivationQuantizer, insert_quantizers, quantize_layer
from edgejoule_trainer.quantize.placement import Placement, eight_bit_layers, scale_read

NO_ERROR_DB = 300.0  # what an SQNR is said to be where there is no error


@dataclass
class Error:
    """Power of a tensor and of its error, summed over all that was added."""

    signal: float = 0.0
    error: float = 0.0
    values: int = 0

    def add(self, exact: Tensor, quantized: Tensor) -> None:
        wanted = exact.double()
        self.signal += float(wanted.square().sum())
        self.error += float((wanted - quantized.double()).square().sum())
        self.values += exact.numel()

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio.

        >>> Error(signal=100.0, error=1.0, values=4).sqnr_db
        20.0
        """
        if not self.error:
            return NO_ERROR_DB
        return 10 * math.log10(self.signal / self.error) if self.signal else 0.0

    @property
    def msqe(self) -> float:
        """Mean squared quantization error.

        >>> Error(signal=100.0, error=1.0, values=4).msqe
        0.25
        """
        return self.error / self.values if self.values else 0.0

    @property
    def power(self) -> float:
        """Mean square of the tensor.

        >>> Error(signal=100.0, error=1.0, values=4).power
        25.0
        """
        return self.signal / self.values if self.values else 0.0


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer in 8 bits and all else in float: the error of its own output, and of each raw output of the network."""

    name: str
    own: Error
    outputs: tuple[Error, ...]

    @property
    def worst_db(self) -> float:
        """SQNR of the output that this layer disturbs most."""
        return min(output.sqnr_db for output in self.outputs)


@dataclass(frozen=True)
class Sensitivity:
    """``layers`` in the order in which the network runs them; ``whole``: all of them in 8 bits, by output."""

    layers: tuple[LayerSensitivity, ...]
    whole: tuple[Error, ...]

    def ranked(self, output: int) -> list[LayerSensitivity]:
        """The layers by what they do to one output, the worst first."""
        return sorted(self.layers, key=lambda layer: layer.outputs[output].sqnr_db)

    def record(self) -> dict[str, Any]:
        """As JSON; ``rank`` 1 is the layer that disturbs that output most."""
        ranks = [{layer.name: n for n, layer in enumerate(self.ranked(k), start=1)} for k in range(len(self.whole))]
        return {
            "outputs": [_as_json(error) for error in self.whole],
            "layers": [
                {
                    "name": layer.name,
                    **_as_json(layer.own),
                    "outputs": [
                        {**_as_json(error), "rank": rank[layer.name]}
                        for error, rank in zip(layer.outputs, ranks, strict=True)
                    ],
                }
                for layer in self.layers
            ],
        }


def layer_sensitivity(
    network: fx.GraphModule,
    placement: Placement,
    scales: Mapping[str, float],
    inputs: Iterable[Tensor],
    progress: Callable[[int, int], None] = lambda image, layer: None,
    rounded: Mapping[str, Tensor] | None = None,
) -> Sensitivity:
    """Quantize each layer alone, on every input.

    The float values of an input are computed once; for a layer only what depends on it is computed again.

    Args:
        network: batch norm folded, the one ``placement`` was made for.
        scales: the scale of each name in ``placement.scales``.
        inputs: normalized images, float32[B,3,H,W].
        progress: called with how many inputs are done and how many layers of the next one.
        rounded: by layer, weights that are on the steps of their channels (see ``rounding``); else the nearest steps.

    Raises:
        ModelError: there is no input.
    """
    layers = _quantized_layers(network, placement, scales, rounded or {})
    whole_network = insert_quantizers(network, placement, scales, rounded).eval()
    replay = _Replay(network)
    own = {name: Error() for name in layers}
    found: dict[str, list[Error]] = {name: [] for name in layers}
    whole: list[Error] = []
    with torch.inference_mode():
        for image, batch in enumerate(inputs):
            values = replay.values(batch)
            exact = values[replay.last]
            _add(whole, exact, whole_network(batch))
            for number, (name, runs) in enumerate(layers.items(), start=1):
                changed = replay.changed(values, runs)
                for node in runs:
                    own[name].add(values[node], changed[node])
                _add(found[name], exact, changed.get(replay.last, exact))
                progress(image, number)
    if not whole:
        raise ModelError("There is no image to measure the layers on; give at least one.")
    return Sensitivity(
        tuple(LayerSensitivity(name, own[name], tuple(found[name])) for name in layers),
        tuple(whole),
    )


def _quantized_layers(
    network: fx.GraphModule, placement: Placement, scales: Mapping[str, float], rounded: Mapping[str, Tensor]
) -> dict[str, dict[fx.Node, Callable[[Tensor], Tensor]]]:
    """Name of each 8-bit layer -> its runs in the graph -> what it computes there in 8 bits."""
    modules = dict(network.named_modules())
    layers: dict[str, dict[fx.Node, Callable[[Tensor], Tensor]]] = {}
    for node in eight_bit_layers(network, placement):
        name = str(node.target)
        wrapped = quantize_layer(copy.deepcopy(modules[name]), rounded.get(name))
        quantizer = ActivationQuantizer(scales[scale_read(node, placement, modules)])
        layers.setdefault(name, {})[node] = partial(_quantize_and_run, quantizer, wrapped)
    return layers


def _quantize_and_run(quantizer: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    return layer(quantizer(x))


def _add(errors: list[Error], exact: tuple[Tensor, ...], quantized: tuple[Tensor, ...]) -> None:
    errors.extend(Error() for _ in range(len(exact) - len(errors)))
    for error, wanted, given in zip(errors, exact, quantized, strict=True):
        error.add(wanted, given)


def _as_json(error: Error) -> dict[str, float]:
    return {"sqnr_db": error.sqnr_db, "msqe": error.msqe}


class _Replay(fx.Interpreter):
    """Runs a graph once, and then again from where something is changed."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.last = next(node for node in network.graph.nodes if node.op == "output")

    def values(self, x: Tensor) -> dict[fx.Node, Any]:
        """What every node gives for input ``x``."""
        self.env = {}
        self.args_iter = iter((x,))
        for node in self.graph.nodes:
            self.env[node] = self.run_node(node)
        return self.env

    def changed(
        self, values: dict[fx.Node, Any], instead: Mapping[fx.Node, Callable[[Tensor], Tensor]]
    ) -> dict[fx.Node, Any]:
        """What differs from ``values`` when nodes compute something else ``instead``."""
        changed: dict[fx.Node, Any] = {}
        self.env = ChainMap(changed, values)  # type: ignore[assignment]
        for node in self.graph.nodes:
            if node in instead:
                changed[node] = instead[node](*self.fetch_args_kwargs_from_env(node)[0])
            elif not changed.keys().isdisjoint(node.all_input_nodes):
                changed[node] = self.run_node(node)
        return changed
