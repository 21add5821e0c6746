"""What a network costs on paper: trainable parameters and multiply-accumulates.

The paper's Eq. 1 counts FLOPs, two per multiply-accumulate (MAC); everything here counts MACs and says so.
Additions of biases, normalization, activations and resizing are left out, as in the paper.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers in ``module``: weights, biases, batch norm's scale and shift; not its running statistics."""
    return sum(parameter.numel() for parameter in module.parameters())


def conv_macs(
    kernel: tuple[int, int], in_channels: int, out_channels: int, groups: int, output: tuple[int, int]
) -> int:
    """MACs of a convolution for one image: half of the paper's Eq. 1, with the groups that Eq. 1 leaves out.

    Args:
        kernel, output: (height, width) in cells.

    >>> conv_macs((3, 3), in_channels=3, out_channels=24, groups=1, output=(160, 160))
    16588800
    """
    return kernel[0] * kernel[1] * (in_channels // groups) * out_channels * output[0] * output[1]


def count_macs(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """MACs of ``network`` for an input of that shape (batch first), summed over ``Conv2d`` and ``Linear`` layers.

    It runs once, where its parameters are; on the device ``meta`` nothing is computed but shapes.
    """
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = (module.kernel_size[0], module.kernel_size[1])
            cells = (output.shape[2], output.shape[3])
            total += len(output) * conv_macs(kernel, module.in_channels, module.out_channels, module.groups, cells)
        elif isinstance(module, nn.Linear):
            total += module.in_features * output.numel()

    probe = copy.deepcopy(network).eval()
    device = next(probe.parameters()).device
    for module in probe.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        probe(torch.zeros(input_shape, device=device))
    return total
