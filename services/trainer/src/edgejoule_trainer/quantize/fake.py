"""A network that computes in float what its 8-bit form will: quantized and restored at once (the paper's Eq. 4).

The gradient passes straight through what is not clipped (Eq. 5), so the same network can be fine-tuned (Eq. 9).
Scales are buffers: they are saved with the weights and do not change by running.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgejoule_trainer.quantize.placement import Placement, eight_bit_layers

LOWEST, HIGHEST = -128, 127


class ActivationQuantizer(nn.Module):
    """x_out = DQ(Q(x_in)), the paper's Eq. 4, with one scale for a whole tensor.

    Q is clip(round(x / S) + Z, -128, 127): its Eq. 2, clipped as in Eq. 8. DQ is S (x_int - Z), its Eq. 3. Z is 0.

    >>> x = torch.tensor([0.9, -0.7, 100.0, -100.0], requires_grad=True)
    >>> restored = ActivationQuantizer(0.5)(x)
    >>> (restored / 0.5).tolist()  # Q: Eqs. 2 and 8; a floor would make 1 and -2 of the first two
    [2.0, -1.0, 127.0, -128.0]
    >>> restored.tolist()  # DQ: Eq. 3
    [1.0, -0.5, 63.5, -64.0]
    >>> restored.sum().backward()
    >>> x.grad.tolist()  # Eq. 5, where nothing was clipped
    [1.0, 1.0, 0.0, 0.0]
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, LOWEST, HIGHEST)


class WeightQuantizer(nn.Module):
    """The same with one scale for each output channel, the first axis of the weight.

    >>> weight = torch.tensor([[127.0, 0.9], [12.7, 0.17]])
    >>> [[round(value, 4) for value in channel] for channel in WeightQuantizer(weight)(weight).tolist()]
    [[127.0, 1.0], [12.7, 0.2]]
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", weight_scales(weight))
        self.register_buffer("zero_point", torch.zeros(len(weight), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(weight, self.scale, self.zero_point, 0, LOWEST, HIGHEST)


def weight_scales(weight: Tensor) -> Tensor:
    """Largest magnitude of each output channel / 127; float32[channels]."""
    largest = weight.detach().abs().flatten(1).amax(dim=1)
    return torch.where(largest > 0, largest, torch.ones_like(largest)) / HIGHEST


class QuantizedConv2d(nn.Module):
    """A convolution with 8-bit weights; its bias stays in float, as int32 accumulators take it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.weight_quantizer = WeightQuantizer(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv._conv_forward(x, self.weight_quantizer(self.conv.weight), self.conv.bias)


class QuantizedLinear(nn.Module):
    """A linear layer with 8-bit weights and a float bias."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.weight_quantizer = WeightQuantizer(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_quantizer(self.linear.weight), self.linear.bias)


def quantize_layer(layer: nn.Module, rounded: Tensor | None = None) -> QuantizedConv2d | QuantizedLinear:
    """``layer`` itself, wrapped so that it runs with 8-bit weights.

    Args:
        rounded: weights to give it that are on the steps of its channels already; its own are rounded to the nearest.
    """
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    wrapper = QuantizedConv2d(layer) if isinstance(layer, nn.Conv2d) else QuantizedLinear(layer)
    if rounded is not None:  # after the scales, which are those of the float weights
        with torch.no_grad():
            layer.weight.copy_(rounded)
    return wrapper


def insert_quantizers(
    network: fx.GraphModule,
    placement: Placement,
    scales: Mapping[str, float],
    rounded: Mapping[str, Tensor] | None = None,
) -> fx.GraphModule:
    """A copy of ``network`` (batch norm folded) with quantizers where ``placement`` says.

    Args:
        scales: the scale of each name in ``placement.scales``.
        rounded: by layer, weights that are on the steps of their channels already (see ``rounding``).
    """
    quantized = copy.deepcopy(network)
    modules = dict(quantized.named_modules())
    weighted = {str(node.target) for node in eight_bit_layers(quantized, placement)}
    quantizers = {name: ActivationQuantizer(scales[name]) for name in placement.scales}
    quantized.add_module("quantizers", nn.ModuleDict(quantizers))
    for node in list(quantized.graph.nodes):
        if node.name in placement.scale_of:
            _insert_after(node, f"quantizers.{placement.scale_of[node.name]}")
    for name in sorted(weighted):
        quantized.set_submodule(name, quantize_layer(modules[name], (rounded or {}).get(name)))
    quantized.recompile()
    return quantized


def _insert_after(node: fx.Node, quantizer: str) -> None:
    """Let every reader of ``node`` but the network's output read its quantized form."""
    with node.graph.inserting_after(node):
        inserted = node.graph.call_module(quantizer, (node,))
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted and user.op != "output")
