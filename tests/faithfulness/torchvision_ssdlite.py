"""torchvision's ssdlite320_mobilenet_v3_large."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from run import Comparison

from edgejoule_trainer.weights import import_weights

# Pillow only because torchvision's import asks for it.
REQUIREMENTS = ("torchvision==0.28.0", "pillow>=10")
DETECTORS = ("ssdlite_mobilenet_v3",)


def _reference() -> torch.nn.Module:
    # torchvision's wheel is built with CUDA; beside a CPU torch two of its operators are missing at import.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    model: torch.nn.Module = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    return model


def _pictures(count: int) -> torch.Tensor:
    """Coarse random patches, float32[count, 3, 320, 320], 0-1: noise without structure excites little."""
    coarse = torch.rand(count, 3, 20, 20)
    return torch.nn.functional.interpolate(coarse, size=(320, 320), mode="bilinear")


def compare(name: str, seed: int) -> Comparison:
    """Boxes and scores before non-maximum suppression, on one random picture."""
    torch.manual_seed(seed)
    reference = _reference()
    with torch.no_grad():
        for module in reference.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.momentum = 1.0
        for parameter in reference.parameters():
            if parameter.ndim == 4:  # at its own 0.03 nothing of the image would reach the last maps
                torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        for predictor in (*reference.head.classification_head.module_list, *reference.head.regression_head.module_list):
            predictor[1].weight.mul_(0.5)
            predictor[1].bias.normal_(0, 0.5)
        # statistics of pictures, so that values neither vanish nor explode, and a rounding stays one
        pictures, _ = reference.train().transform(list(_pictures(8)))
        reference.head(list(reference.backbone(pictures.tensors).values()))
        state = reference.eval().state_dict()
        image = _pictures(1) * 255
        images, _ = reference.transform(list(image / 255))
        maps = list(reference.backbone(images.tensors).values())
        outputs = reference.head(maps)
        anchors = reference.anchor_generator(images, maps)[0]
        boxes = reference.box_coder.decode_single(outputs["bbox_regression"][0], anchors) / 320
        scores = outputs["cls_logits"][0].softmax(dim=-1)[:, 1:]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "reference.pth"
            torch.save(state, path)
            ours, report = import_weights(path, name)
        our_boxes, our_scores = ours(image)
    assert scores.std(dim=0).mean() > 1e-3, "the reference's scores hardly depend on the place"
    return Comparison(
        tensors=len(report.mapped),
        boxes=(our_boxes[0] - boxes).abs().max().item(),
        scores=(our_scores[0] - scores).abs().max().item(),
    )
