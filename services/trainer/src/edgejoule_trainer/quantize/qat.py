"""Quantization-aware training: the graph of post-training quantization, with its weights trained on.

Batch norm is folded before: its statistics are frozen, so the weights that are trained are those that run. So are
the activation scales, which post-training calibration chose, and the weight scales: what moves is the float
weight behind each 8-bit one, by gradients that pass straight through the rounding (the paper's Eq. 5).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgejoule.errors import ModelError
from edgejoule_trainer.detectors import Detector
from edgejoule_trainer.quantize.fake import QuantizedConv2d, QuantizedLinear, insert_quantizers
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import place_quantizers
from edgejoule_trainer.quantize.ptq import Disagreement, with_network


def from_ptq(detector: Detector, record: Mapping[str, Any]) -> Detector:
    """The 8-bit form of ``detector`` that a ``ptq`` step made, by its record: same graph, same scales.

    Raises:
        ModelError: the record is of another network.
    """
    network = fold_batch_norm(detector.network)
    placement = place_quantizers(network)
    scales = {name: float(entry["scale"]) for name, entry in record["activations"].items()}
    if different := set(placement.scales) ^ scales.keys():
        raise ModelError(
            f"the quantization record does not fit {detector.name}: {len(different)} scales are in one of them only, "
            f"for one {min(different)}; quantize these weights again"
        )
    return with_network(detector, insert_quantizers(network, placement, scales))


def into_float(detector: Detector, quantized: Detector) -> Detector:
    """The trained weights in ``detector``'s own form, for engines of other precisions.

    Each layer gets the folded weight and bias; the batch norm behind it becomes an identity.
    """
    trained = {
        name: layer.conv if isinstance(layer, QuantizedConv2d) else layer.linear
        for name, layer in quantized.network.named_modules()
        if isinstance(layer, QuantizedConv2d | QuantizedLinear)
    }
    plain = copy.deepcopy(detector)
    traced = fx.symbolic_trace(plain.network)
    norms = dict(_norm_of(traced))
    modules = dict(plain.network.named_modules())
    with torch.no_grad():
        for name, layer in quantized.network.named_modules():
            found = trained.get(name, layer)
            if not isinstance(found, nn.Conv2d | nn.Linear) or name not in modules:
                continue
            own = modules[name]
            assert isinstance(own, nn.Conv2d | nn.Linear)
            own.weight.copy_(found.weight)
            norm = modules.get(norms.get(name, ""))
            if isinstance(norm, nn.BatchNorm2d):
                _make_identity(norm, found.bias)
                if own.bias is not None:
                    own.bias.zero_()
            elif own.bias is not None and found.bias is not None:
                own.bias.copy_(found.bias)
    return plain.eval()


def _norm_of(traced: fx.GraphModule) -> Iterable[tuple[str, str]]:
    """Name of each layer whose batch norm was folded into it, and that batch norm's, as ``fold_batch_norm`` pairs."""
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.BatchNorm2d):
            continue
        source = node.args[0]
        if source.op == "call_module" and isinstance(modules[str(source.target)], nn.Conv2d) and len(source.users) == 1:
            yield str(source.target), str(node.target)


def _make_identity(norm: nn.BatchNorm2d, shift: Tensor | None) -> None:
    """Statistics and gain with which ``norm`` only adds ``shift``."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    if shift is None:
        norm.bias.zero_()
    else:
        norm.bias.copy_(shift)


def disagreement(detector: Detector, quantized: Detector, images: Iterable[Tensor]) -> Disagreement:
    """How far ``quantized`` is from its float form on ``images`` (float32[1,3,H,W], RGB 0-255)."""
    found = Disagreement()
    with torch.inference_mode():
        for image in images:
            found.add(*quantized(image), *detector(image))
    return found
