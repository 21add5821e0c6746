"""EfficientDet-D0 beside its common PyTorch port of Google AutoML's (effdet, ``tf_efficientdet_d0``)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from run import Comparison
from torch import nn

from edgejoule_trainer.detectors import create
from edgejoule_trainer.detectors.coco_labels import coco90
from edgejoule_trainer.weights import import_weights

REQUIREMENTS = (
    "effdet==0.4.1",
    "timm==1.0.29",
    "torchvision==0.28.0",
    "omegaconf==2.3.0",
    "antlr4-python3-runtime==4.9.3",
    "pycocotools==2.0.11",
    # what timm and torchvision import, but do not use here
    "huggingface-hub==0.36.0",
    "pillow==11.3.0",
    "requests==2.32.5",
    "urllib3==2.5.0",
    "idna==3.10",
    "certifi==2025.8.3",
    "charset-normalizer==3.4.3",
    "tqdm==4.67.1",
    "filelock==3.19.1",
    "packaging==25.0",
)
DETECTORS = ("efficientdet_d0",)


def compare(name: str, seed: int) -> Comparison:
    """Both on one noise image, from the same random weights, batch norm's statistics and fusion weights."""
    # torchvision's build for CUDA does not load beside a torch for the CPU, unless its operators are declared
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from effdet import create_model  # type: ignore[import-not-found]
    from effdet.anchors import Anchors, decode_box_outputs  # type: ignore[import-not-found]

    torch.manual_seed(seed)
    reference = create_model("tf_efficientdet_d0", pretrained=False, pretrained_backbone=False)
    blank = create(name, coco90())
    randomize(reference, blank.normalize(torch.rand(2, 3, *blank.input_size) * 255))
    state = reference.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.pth"
        torch.save(state, path)
        ours = import_weights(path, name)[0].eval()

    image = torch.rand(1, 3, *ours.input_size) * 255
    with torch.inference_mode():
        boxes, scores = ours(image)
        logits, offsets = (
            torch.cat([level.permute(0, 2, 3, 1).reshape(-1, columns) for level in levels])
            for levels, columns in zip(reference(ours.normalize(image)), (90, 4), strict=True)
        )
        anchors = Anchors.from_config(reference.config).boxes
        wanted = decode_box_outputs(offsets, anchors, output_xyxy=True) / ours.input_size[0]
    return Comparison(
        tensors=len(state),
        boxes=float((boxes[0] - wanted).abs().max()),
        scores=float((scores[0] - logits.sigmoid()).abs().max()),
    )


def randomize(network: nn.Module, images: torch.Tensor) -> None:
    """What is not random yet. Batch norm's statistics are those of noise images, so that every layer counts."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 1.0
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.5)
    for name, parameter in network.named_parameters():
        if name.endswith("edge_weights"):
            nn.init.uniform_(parameter, -0.3, 1.5)  # below 0 the fusion cuts an input off
    with torch.no_grad():
        network.train()(images)
    network.eval()
