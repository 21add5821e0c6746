"""Quantization-aware training: the graph of post-training quantization, with its weights trained on.

It seeks theta* = argmin L(theta; DQ(Q(W)), DQ(Q(A))), the paper's Eq. 9: the loss of the network that ``fake`` makes,
with weights W and activations A quantized and restored (Eq. 4), over its float weights.

Batch norm is folded before: its statistics are frozen, so the weights that are trained are those that run. So are
the activation scales, which post-training calibration chose, and the weight scales: what moves is the float
weight behind each 8-bit one, by gradients that pass straight through the rounding (the paper's Eq. 5). It starts on
the step to which post-training quantization rounded it, so that training can only go on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgejoule.errors import ModelError
from edgejoule_trainer.detectors import Detector, with_network
from edgejoule_trainer.quantize.fake import QuantizedConv2d, QuantizedLinear, insert_quantizers
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import place_quantizers
from edgejoule_trainer.quantize.ptq import Disagreement


def from_ptq(detector: Detector, record: Mapping[str, Any], rounded: Detector) -> Detector:
    """The 8-bit form of ``detector`` that a ``ptq`` step made: same graph, same scales, same rounded weights.

    Args:
        record, rounded: of that step; the latter as ``into_float`` made it.

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
    weights = {
        name: layer.weight.detach()
        for name, layer in rounded.network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    return with_network(detector, insert_quantizers(network, placement, scales, weights))


def into_float(detector: Detector, quantized: Detector) -> Detector:
    """``detector``, batch norm folded, with the weights of ``quantized``: for engines of other precisions."""
    plain = with_network(detector, fold_batch_norm(detector.network))
    tensors = quantized.network.state_dict()
    trained = {}
    for name in plain.network.state_dict():
        layer, _, parameter = name.rpartition(".")
        wrapped = quantized.network.get_submodule(layer) if layer else quantized.network
        inner = {QuantizedConv2d: "conv.", QuantizedLinear: "linear."}.get(type(wrapped), "")
        trained[name] = tensors[f"{layer}.{inner}{parameter}" if layer else parameter]
    plain.network.load_state_dict(trained)
    return plain


def answers(detector: Detector, images: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Boxes and scores of ``detector`` for each of ``images`` (float32[1,3,H,W], RGB 0-255)."""
    with torch.inference_mode():
        return [detector(image) for image in images]


def disagreement(
    quantized: Detector, images: Iterable[Tensor], of_float: Iterable[tuple[Tensor, Tensor]]
) -> Disagreement:
    """How far ``quantized`` is on ``images`` from what its float form answered."""
    found = Disagreement()
    with torch.inference_mode():
        for image, (float_boxes, float_scores) in zip(images, of_float, strict=True):
            boxes, scores = quantized(image)
            found.add(boxes, scores, float_boxes, float_scores)
    return found
