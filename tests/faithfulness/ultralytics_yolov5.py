"""YOLOv5 of the yolov5 package (a copy of Ultralytics' v7.0; AGPL, so it stays out of our requirements).

Three ways into ours are compared: a state dict, the whole pickled model in half precision as the package's training
writes it, and the ONNX export, whose batch norm is folded; and, on the state dict's weights, the training loss.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from run import Comparison

from edgejoule_trainer.detectors import Detector, Target
from edgejoule_trainer.weights import import_weights

REQUIREMENTS = (
    "yolov5==7.0.14",
    "ultralytics==8.4.190",
    "torchvision==0.28.0",
    "setuptools==80.9.0",  # the last with pkg_resources
    *("pandas==3.1.1", "python-dateutil", "six", "tqdm"),
    *("requests", "urllib3", "idna", "certifi", "charset-normalizer"),
    *("matplotlib", "seaborn", "pillow", "pyparsing", "cycler", "kiwisolver", "fonttools", "contourpy", "packaging"),
)
DETECTORS = ("yolov5n", "yolov5s")
SIDE = 256  # a power of two, so that centres on the border of cells are so in both


def compare(name: str, seed: int) -> Comparison:
    """The largest difference over all ways of import.

    Raises:
        AssertionError: the training losses differ.
    """
    reference = _reference(name, seed)
    image = _pictures(1) * 255
    boxes, scores = [], []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for path, written in _files(reference, Path(folder)):
            ours, _ = import_weights(path, name, (SIDE, SIDE))
            if path.suffix == ".pth":
                _compare_losses(ours, reference)
            our_boxes, our_scores = ours(image)
            their_boxes, their_scores = _outputs(written, image)
            boxes.append((our_boxes - their_boxes).abs().max().item())
            scores.append((our_scores - their_scores).abs().max().item())
    return Comparison(len(reference.state_dict()), max(boxes), max(scores))


def _reference(name: str, seed: int) -> Any:
    """With random weights, batch norm and anchors, and biases of the head that leave scores of all sizes."""
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    library = torch.library.Library("torchvision", "DEF")  # which a build for CUDA wants at import
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import yolov5
    from yolov5.models.yolo import Model
    from yolov5.utils.general import LOGGER

    LOGGER.disabled = True
    torch.manual_seed(seed)
    reference = Model(str(Path(yolov5.__file__).parent / "models" / f"{name}.yaml"))
    with torch.no_grad():
        norms = [module for module in reference.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
            norm.momentum = 1.0
        reference.train()(_pictures(8))  # its statistics, so that values neither vanish nor explode
        head = reference.model[-1]
        head.anchors *= torch.empty_like(head.anchors).uniform_(0.8, 1.25)
        for conv in head.m:
            conv.bias.normal_()
    return reference.eval()


def _pictures(number: int) -> torch.Tensor:
    """Patches of colour; plain noise would average out in deep layers."""
    patches = torch.rand(number, 3, 16, 16)
    return torch.nn.functional.interpolate(patches, size=(SIDE, SIDE), mode="bilinear")


def _files(reference: Any, folder: Path) -> list[tuple[Path, Any]]:
    """Files that the package or its users write, each with the model that is in it."""
    state, checkpoint, graph = folder / "state.pth", folder / "checkpoint.pt", folder / "exported.onnx"
    torch.save(reference.state_dict(), state)

    half = copy.deepcopy(reference).half()
    whole = {"epoch": -1, "best_fitness": None, "model": half, "ema": None, "updates": None, "optimizer": None}
    torch.save(whole | {"wandb_id": None, "date": "2022-11-22T00:00:00"}, checkpoint)

    folded = copy.deepcopy(reference).fuse().eval()
    folded.model[-1].export = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            folded,
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(graph),
            dynamo=False,
            opset_version=12,  # that of the package's export.py
            input_names=["images"],
            output_names=["output0"],
        )
    return [(state, reference), (checkpoint, half.float()), (graph, folded)]


def _outputs(reference: Any, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = reference(image / 255)[0]
    centre, half = found[..., :2], found[..., 2:4] / 2
    return torch.cat([centre - half, centre + half], dim=-1) / SIDE, found[..., 5:] * found[..., 4:5]


def _compare_losses(ours: Detector, reference: Any) -> None:
    """Of three images, the last without an object; the centres of some lie on the border of two cells."""
    from yolov5.utils.loss import ComputeLoss

    size = (torch.rand(40, 2) * 100 + 2).round() * 2
    centre = torch.rand(40, 2) * SIDE
    centre[:20] = (centre[:20] / 8).floor() * 8
    label, image = torch.randint(80, (40,)), torch.arange(40) // 20
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    targets = [Target(corners[image == i], label[image == i]) for i in range(3)]
    rows = torch.cat([image[:, None].float(), label[:, None].float(), centre / SIDE, size / SIDE], dim=1)

    pictures = _pictures(3)
    reference.hyp = {"box": 0.05, "cls": 0.5, "obj": (SIDE / 640) ** 2, "cls_pw": 1.0, "obj_pw": 1.0}
    reference.hyp |= {"anchor_t": 4.0, "fl_gamma": 0.0, "label_smoothing": 0.0}
    criterion = ComputeLoss(reference)
    criterion.sort_obj_iou = True
    _, theirs = criterion(reference(pictures)[1], rows)
    losses = ours.loss(ours.network(pictures), targets)
    torch.testing.assert_close(torch.stack([*losses.values()]), theirs, rtol=1e-4, atol=1e-6)
