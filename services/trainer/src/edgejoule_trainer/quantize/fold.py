"""Batch norm folded into the layer before it, so that the quantizer sees the weights that will run."""

from __future__ import annotations

import collections
import copy

import torch
from torch import Tensor, fx, nn


def fold_batch_norm(network: nn.Module) -> fx.GraphModule:
    """A traced copy of ``network`` in evaluation mode whose convolutions have absorbed their batch norms.

    A batch norm whose input is not a ``Conv2d`` used by it alone is left as it is. A convolution that runs several
    times, in a head shared by all levels, becomes one for each batch norm behind it, numbered as they run: ``conv``
    becomes ``conv_0``, ``conv_1``, ...
    """
    folded = fx.symbolic_trace(copy.deepcopy(network).eval())
    modules = dict(folded.named_modules())
    runs = collections.Counter(str(node.target) for node in folded.graph.nodes if node.op == "call_module")
    copies: collections.Counter[str] = collections.Counter()
    for module in modules.values():
        if hasattr(module, "inplace"):
            module.inplace = False  # a quantizer may stand before the activation, and must see its input unharmed
    for node in list(folded.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        source = node.args[0]
        conv = modules.get(str(source.target)) if source.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or len(source.users) != 1:
            continue
        weight, bias = folded_weights(conv, norm)
        name = str(source.target)
        if runs[name] > 1:
            conv = copy.deepcopy(conv)
            source.target = f"{name}_{copies[name]}"
            folded.add_submodule(source.target, conv)
            copies[name] += 1
        conv.weight = nn.Parameter(weight)
        conv.bias = nn.Parameter(bias)
        node.replace_all_uses_with(source)
        folded.graph.erase_node(node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def folded_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals ``norm(conv(x))`` in evaluation mode; computed in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    deviation = torch.sqrt(norm.running_var.double() + norm.eps)
    gain = norm.weight.detach().double() / deviation if norm.affine else 1 / deviation
    shift = norm.bias.detach().double() if norm.affine else torch.zeros_like(deviation)
    bias = conv.bias.detach().double() if conv.bias is not None else torch.zeros_like(deviation)
    weight = conv.weight.detach().double() * gain.view(-1, 1, 1, 1)
    return weight.to(conv.weight.dtype), (shift + (bias - norm.running_mean.double()) * gain).to(conv.weight.dtype)
