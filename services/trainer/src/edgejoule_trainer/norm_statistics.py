"""Statistics for batch norms that have lost them.

A converter (or our own quantization-aware training) that folds a batch norm into its convolution leaves nothing to
normalize by: mean 0, variance 1. Such a network infers as before, but training would normalize by each batch's own
statistics and so begin with another function. Measured statistics, with gain and shift to match, mend that.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edgejoule.errors import DataError


def folded_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of ``network`` that do not normalize: what they divide by is 1. A fresh one divides by more."""
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
        and module.running_mean is not None
        and module.running_var is not None
        and not module.running_mean.any()
        and torch.equal(module.running_var, torch.full_like(module.running_var, 1 - module.eps))
    ]


@torch.no_grad()
def measure_folded_norms(network: nn.Module, images: Iterable[Tensor]) -> int:
    """Give folded batch norms the statistics of their inputs; in evaluation mode ``network`` computes as before.

    Args:
        images: batches of normalized images, float32[B,3,H,W].

    Returns:
        How many norms were folded.

    Raises:
        DataError: there is no image to measure with.
    """
    norms = folded_norms(network)
    if not norms:
        return 0
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def add(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        sums[norm] += torch.stack([torch.ones(len(values)) * values.shape[1], values.sum(1), values.square().sum(1)])

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    was_training = network.training
    network.eval()
    try:
        for batch in images:
            network(batch)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    for norm, (count, total, squares) in sums.items():
        if not count.all():
            raise DataError("There is no image to measure the statistics of batch norms with; give at least one.")
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        gain = norm.weight.double()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(gain * (variance + norm.eps).sqrt())
        norm.bias.copy_(norm.bias.double() + gain * mean)
    return len(norms)
