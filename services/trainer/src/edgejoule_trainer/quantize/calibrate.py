"""Watch a network run on calibration images: one pass serves every calibrator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from edgejoule.errors import ModelError
from edgejoule_trainer.quantize.placement import Placement
from edgejoule_trainer.quantize.scales import Statistics

_SEED = 0


def collect_statistics(
    network: fx.GraphModule, placement: Placement, inputs: Iterable[Tensor]
) -> dict[str, Statistics]:
    """What each scale's tensors hold, and how much the outputs depend on it; by scale.

    The squared gradients are estimated by one backward pass an image: for outputs y = f(t) and random signs r,
    the expectation of (J^T r)^2 is the diagonal of J^T J (Hutchinson's estimator).

    Args:
        network: batch norm folded, the one ``placement`` was made for.
        inputs: normalized images, float32[B,3,H,W]; read once, none is kept.

    Raises:
        ModelError: a tensor is not finite, or there is no input.
    """
    statistics = {name: Statistics() for name in placement.scales}
    watcher = _Watcher(network, placement)
    signs = torch.Generator().manual_seed(_SEED)
    seen = 0
    for batch in inputs:
        seen += len(batch)
        outputs = watcher.run(batch.detach().requires_grad_())
        projected = sum((y * _random_signs(y, signs)).sum() for y in outputs)
        gradients = torch.autograd.grad(projected, list(watcher.seen.values()))
        for (node, values), gradient in zip(watcher.seen.items(), gradients, strict=True):
            target = statistics[placement.scale_of[node]]
            try:
                target.values.add(values)
                target.sensitivity.add(values, gradient.square())
            except ValueError as error:
                raise ModelError(
                    f"The result of {node} cannot be quantized: {error}; check the weights and the calibration images."
                ) from error
    if not seen:
        raise ModelError("There is no calibration image; give the quantizer at least one.")
    return statistics


def _random_signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator) * 2.0 - 1.0


class _Watcher(fx.Interpreter):
    """Runs a graph node by node and keeps, of the last run, what the sources of a placement gave."""

    def __init__(self, network: fx.GraphModule, placement: Placement) -> None:
        super().__init__(network)
        self._sources = placement.sources
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._sources:
            self.seen[n.name] = value
        return value
