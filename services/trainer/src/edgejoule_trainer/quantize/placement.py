"""Where quantizers stand in a traced network, and which of them share a scale.

One rule: what a weighted layer reads is 8-bit. From it follows the rest. A tensor is *wanted* in 8 bits
when a weighted layer reads it, or reads something that only moves its values (a concatenation, a channel
shuffle, a split, a max-pooling). Everything that such moving joins shares one scale, so that runtimes move
the bytes and never rescale: TensorRT and OpenVINO both keep a concatenation in 8 bits only then.
Activation functions stay between a layer and the quantizer of its result, for runtimes to fuse. The raw
head maps, which no weighted layer reads, stay in float.

A residual sum reads the 8-bit form of whatever a weighted layer reads too; if both its operands come
straight from weighted layers, the first is quantized and the other left for the runtime to fuse the sum into.
Zeros put around a map are quantized before, not behind, so that the exporter can fold them into the convolution.

The layers of a squeeze-and-excitation see one cell and stay in float: on OpenVINO MobileNetV3 and EfficientDet-D0
took the same time in either form, and a rounding there moves a whole channel. What is squeezed, and the maps that a
BiFPN weights and sums, are float for the same reason: in 8 bits they made neither network faster.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import fx, nn

WEIGHTED = (nn.Conv2d, nn.Linear)
_MOVING_MODULES = (nn.MaxPool2d, nn.Identity, nn.Dropout, nn.ChannelShuffle, nn.Flatten)
_MOVING_METHODS = frozenset(
    {
        *("view", "reshape", "transpose", "permute", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous"),
        *("chunk", "split"),
    }
)
_MOVING_FUNCTIONS = frozenset(
    {
        *(operator.getitem, F.max_pool2d, torch.max_pool2d, torch.channel_shuffle, torch.chunk, torch.split),
        *(torch.reshape, torch.transpose, torch.permute, torch.flatten, torch.squeeze, torch.unsqueeze),
    }
)
_CONCATENATIONS = frozenset((torch.cat, torch.concat, torch.stack))
_SUMS = frozenset((operator.add, operator.iadd, torch.add))
SQUEEZED = "it reads one cell, the mean of a map: 8 bits save no time there, and an error would scale a whole channel"


@dataclass(frozen=True)
class Placement:
    """``scale_of``: name of a graph node whose value is quantized -> name of the scale it shares.

    ``sources``: the quantized nodes that compute; the others only move values already counted.
    ``float_layers``: name of a weighted layer that is not quantized -> why.
    """

    scale_of: Mapping[str, str]
    sources: frozenset[str]
    float_layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def scales(self) -> list[str]:
        """Names of the scales, in the order in which the network first uses them."""
        return list(dict.fromkeys(self.scale_of.values()))


def place_quantizers(network: fx.GraphModule) -> Placement:
    """Decide what is quantized in ``network`` (batch norm folded); see the module for the rules."""
    modules = dict(network.named_modules())
    squeezed = _squeezed(network, modules)
    weighted = [node for node in network.graph.nodes if is_weighted(node, modules)]
    float_layers = {str(node.target): SQUEEZED for node in weighted if node in squeezed}
    eight_bit = {node for node in weighted if node.target not in float_layers}
    wanted = _wanted(network, modules, eight_bit)
    parent: dict[fx.Node, fx.Node] = {node: node for node in network.graph.nodes}
    for node in network.graph.nodes:
        if node in wanted:
            for source in moved_from(node, modules):
                _join(parent, node, source)

    names: dict[fx.Node, str] = {}
    scale_of: dict[str, str] = {}
    sources = set()
    for node in network.graph.nodes:
        if node not in wanted:
            continue
        moved = list(moved_from(node, modules))
        if moved and not is_concatenation(node) and (_pads(node) or not eight_bit.intersection(node.users)):
            continue  # on the grid already, and what reads it moves it further or takes the padding in
        scale_of[node.name] = names.setdefault(_root(parent, node), node.name)
        if not moved:
            sources.add(node.name)
    return Placement(scale_of, frozenset(sources), float_layers)


def eight_bit_layers(network: fx.GraphModule, placement: Placement) -> list[fx.Node]:
    """The runs of all layers that ``placement`` quantizes, in the order of the graph."""
    modules = dict(network.named_modules())
    return [
        node for node in network.graph.nodes if is_weighted(node, modules) and node.target not in placement.float_layers
    ]


def scale_read(layer: fx.Node, placement: Placement, modules: Mapping[str, nn.Module]) -> str:
    """Name of the scale at which an 8-bit ``layer`` reads its input."""
    node = layer.args[0]
    assert isinstance(node, fx.Node)
    while node.name not in placement.scale_of:  # it only moves what was quantized before
        node = next(moved_from(node, modules))
    return placement.scale_of[node.name]


def moved_from(node: fx.Node, modules: Mapping[str, nn.Module]) -> Iterator[fx.Node]:
    """The nodes whose values ``node`` passes on unchanged; none when it computes."""
    if is_concatenation(node):
        yield from (source for source in node.args[0] if isinstance(source, fx.Node))  # type: ignore[union-attr]
    elif _moves(node, modules) and isinstance(node.args[0], fx.Node):
        yield node.args[0]


def is_concatenation(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in _CONCATENATIONS


def is_weighted(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether ``node`` runs a layer whose weights are quantized."""
    return node.op == "call_module" and isinstance(modules[str(node.target)], WEIGHTED)


def _moves(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_method":
        return node.target in _MOVING_METHODS
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, _MOVING_MODULES) or (isinstance(module, nn.Upsample) and module.mode == "nearest")
    if node.op == "call_function":
        if node.target is F.interpolate:
            return node.kwargs.get("mode", "nearest") == "nearest"
        return _pads(node) or node.target in _MOVING_FUNCTIONS
    return False


def _pads(node: fx.Node) -> bool:
    """Whether ``node`` puts zeros around its input; zero is on every grid."""
    if node.op != "call_function" or node.target is not F.pad:
        return False
    mode, value = (node.kwargs.get(name, default) for name, default in (("mode", "constant"), ("value", None)))
    return len(node.args) == 2 and mode == "constant" and not value


def _squeezed(network: fx.GraphModule, modules: Mapping[str, nn.Module]) -> set[fx.Node]:
    """Nodes whose value is the mean of a map, one cell, or comes from such values alone."""
    squeezed: set[fx.Node] = set()
    for node in network.graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        averages = isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
        inputs = node.all_input_nodes
        if averages or (inputs and squeezed.issuperset(inputs)):
            squeezed.add(node)
    return squeezed


def _wanted(network: fx.GraphModule, modules: Mapping[str, nn.Module], eight_bit: set[fx.Node]) -> set[fx.Node]:
    """Nodes whose values some 8-bit layer reads, directly or moved; and one operand of a sum of two layers."""
    wanted: set[fx.Node] = set()
    for node in reversed(network.graph.nodes):
        if node in eight_bit:
            wanted.update(node.all_input_nodes)
        elif node in wanted:
            wanted.update(moved_from(node, modules))
        if node.op == "call_function" and node.target in _SUMS:
            operands = [a for a in node.args if isinstance(a, fx.Node)]
            if len(operands) == 2 and eight_bit.issuperset(operands):
                wanted.add(operands[0])
    return wanted


def _root(parent: dict[fx.Node, fx.Node], node: fx.Node) -> fx.Node:
    while parent[node] is not node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _join(parent: dict[fx.Node, fx.Node], one: fx.Node, other: fx.Node) -> None:
    parent[_root(parent, one)] = _root(parent, other)
