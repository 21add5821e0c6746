"""What 8 bits do to each layer of a finished graph: the error of its weights, and of what it reads.

Both are the paper's quantization error x - DQ(Q(x)) (section 4.1), whose mean square is its MSQE. The graph runs in 8
bits meanwhile, as it is deployed and as Eq. 9 trains it, so what a layer reads has the errors of those before it. What
one layer alone does to the network's outputs is another question, that of ``sensitivity``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgejoule.errors import ModelError
from edgejoule.records import LayerError, QuantizationError, TensorError
from edgejoule_trainer.detectors import Detector
from edgejoule_trainer.quantize.fake import ActivationQuantizer, QuantizedConv2d, QuantizedLinear
from edgejoule_trainer.quantize.placement import (
    Placement,
    eight_bit_layers,
    is_weighted,
    place_quantizers,
    scale_read,
)
from edgejoule_trainer.quantize.sensitivity import Error

LOOKED_AT = 16
"""Images of the tuning set: each gives a layer thousands of values, and a mean needs no more."""


def quantization_error(
    exact: Detector,
    quantized: Detector,
    images: Iterable[Tensor],
    progress: Callable[[int], None] = lambda images: None,
) -> QuantizationError:
    """The error of every layer's weights against those of ``exact``, and of its input on ``images``.

    Args:
        exact: the float form, batch norm folded; of a trained graph with the weights as trained.
        quantized: the same with quantizers, as ``fake.insert_quantizers`` puts them.
        images: as the engine contract has them, float32[1,3,H,W], RGB 0-255.
        progress: called after each image with how many are done.

    Raises:
        ModelError: there is no image.
    """
    network = exact.network
    assert isinstance(network, fx.GraphModule)
    assert isinstance(quantized.network, fx.GraphModule)
    placement, modules = place_quantizers(network), dict(network.named_modules())
    inputs = _Inputs(quantized.network, placement)
    count = 0
    with torch.inference_mode():
        for count, image in enumerate(images, start=1):
            inputs.run(quantized.normalize(image))
            progress(count)
    if not count:
        raise ModelError("There is no image to measure the quantization error on; give at least one.")
    read: dict[str, Error] = {}
    scales: dict[str, dict[str, None]] = {}  # a layer that runs several times may read a scale at each
    for node in eight_bit_layers(network, placement):
        scales.setdefault(str(node.target), {})[scale_read(node, placement, modules)] = None
    for name, those in scales.items():
        read[name] = _together(inputs.errors[scale] for scale in those)
    weights = weight_errors(network, quantized.network)
    names = dict.fromkeys(str(node.target) for node in network.graph.nodes if is_weighted(node, modules))
    return QuantizationError(
        images=count,
        layers=[
            LayerError(
                name=name,
                weights=_told(weights.get(name)),
                input=_told(read.get(name)),
                float_because=placement.float_layers.get(name),
            )
            for name in names
        ],
    )


def weight_errors(network: nn.Module, quantized: nn.Module) -> dict[str, Error]:
    """The error of each quantized layer's weights against ``network``'s, by layer."""
    errors = {}
    exact = dict(network.named_modules())
    for name, layer in quantized.named_modules():
        if isinstance(layer, QuantizedConv2d | QuantizedLinear):
            weight = (layer.conv if isinstance(layer, QuantizedConv2d) else layer.linear).weight.detach()
            wanted = exact[name].weight
            assert isinstance(wanted, Tensor)
            errors[name] = Error()
            errors[name].add(wanted.detach(), layer.weight_quantizer(weight))
    return errors


class _Inputs(fx.Interpreter):
    """Runs a quantized graph and adds up the errors of each scale's tensors.

    A tensor is counted where it is computed: what moves it on to a concatenation finds it on the steps already.
    """

    def __init__(self, quantized: fx.GraphModule, placement: Placement) -> None:
        super().__init__(quantized)
        self._placement = placement
        self.errors = {scale: Error() for scale in placement.scales}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        source = n.args[0] if n.args else None
        if (
            isinstance(source, fx.Node)
            and source.name in self._placement.sources
            and n.op == "call_module"
            and isinstance(self.submodules[str(n.target)], ActivationQuantizer)
        ):
            (exact,), _ = self.fetch_args_kwargs_from_env(n)
            self.errors[self._placement.scale_of[source.name]].add(exact, value)
        return value


def _together(errors: Iterable[Error]) -> Error:
    total = Error()
    for error in errors:
        total.signal += error.signal
        total.error += error.error
        total.values += error.values
    return total


def _told(error: Error | None) -> TensorError | None:
    return None if error is None else TensorError(msqe=error.msqe, power=error.power)
