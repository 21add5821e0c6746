"""Parameters and multiply-accumulates, by the paper's Eq. 1.

Eq. 1 counts FLOPs of a convolution as 2 (K K Cin) Cout Hout Wout; a grouped one sees Cin / groups. One
multiply-accumulate (MAC) is two FLOPs: published tables mix them, so every name here says which it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters, batch norm's scales and shifts included, running statistics not."""
    return sum(parameter.numel() for parameter in model.parameters())


def layer_macs(layer: nn.Conv2d | nn.Linear, output: Tensor) -> int:
    """Multiply-accumulates of one layer for one image (half of Eq. 1's FLOPs).

    >>> layer_macs(nn.Conv2d(4, 8, 3, padding=1), torch.empty(1, 8, 10, 10))  # 3*3*4 * 8 * 10*10
    28800
    """
    return layer.weight[0].numel() * output[0].numel()


def macs_by_layer(network: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear layer, by module name, for one image."""
    counted: dict[str, int] = {}

    def watch(name: str, layer: nn.Conv2d | nn.Linear) -> torch.utils.hooks.RemovableHandle:
        def add(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            counted[name] = counted.get(name, 0) + layer_macs(layer, output)

        return layer.register_forward_hook(add)

    handles = [
        watch(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(input_shape))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return counted


def count_macs(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one inference; ``input_shape`` is (1, channels, height, width)."""
    return sum(macs_by_layer(network, input_shape).values())
