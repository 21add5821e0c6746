"""NanoDet-m: ShuffleNetV2 1.0x, a PAN without convolutions, a GFL head (RangiLyu's NanoDet v0, nanodet-m.yml).

Published: 20.6 AP on COCO val2017 at 320x320, 0.95 M parameters, 0.72 GFLOPs (0.36 GMACs).

Tensors are named as in the authors' ``.pth``, below ``network``. Two things differ in form, not in
arithmetic: the first convolution's input channels are in RGB order (the authors' are BGR), and halving
by bilinear interpolation is written as the 2x2 mean that it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import WeightsError
from edgejoule.records import Label, Nms, Resize
from edgejoule_trainer.detectors.coco_labels import coco80
from edgejoule_trainer.detectors.detector import Detector, OfficialState, Published, Target, xyxy_fractions
from edgejoule_trainer.losses import atss
from edgejoule_trainer.losses.boxes import giou, iou
from edgejoule_trainer.losses.focal import distribution_focal_loss, quality_focal_loss

STRIDES = (8, 16, 32)
BINS = 8  # reg_max + 1: a distance is the mean of a distribution over 0..7 strides
ANCHOR_SCALE = 5  # octave_base_scale: side of the square that assignment takes for a cell, in strides
MEAN_RGB = (123.675, 116.28, 103.53)
STD_RGB = (58.395, 57.12, 57.375)


# --- backbone ------------------------------------------------------------------------------------


def _act() -> nn.Module:
    return nn.LeakyReLU(0.1)


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def interleave(a: Tensor, b: Tensor) -> Tensor:
    """Concatenation and channel shuffle in one copy: a1 a2 and b1 b2 become a1 b1 a2 b2.

    Stacking behind the channel axis needs no transpose, which takes a fifth of the network's time on OpenVINO.
    """
    batch, channels, height, width = a.shape
    return torch.stack([a, b], dim=2).reshape(batch, 2 * channels, height, width)


class ShuffleBlock(nn.Module):
    """ShuffleNetV2 unit (Ma et al. 2018, Fig. 3 c and d)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = outputs // 2
        if stride == 2:
            self.branch1 = nn.Sequential(
                _depthwise(inputs, 2), nn.BatchNorm2d(inputs), _pointwise(inputs, half), nn.BatchNorm2d(half), _act()
            )
        self.branch2 = nn.Sequential(
            _pointwise(inputs if stride == 2 else half, half),
            nn.BatchNorm2d(half),
            _act(),
            _depthwise(half, stride),
            nn.BatchNorm2d(half),
            _pointwise(half, half),
            nn.BatchNorm2d(half),
            _act(),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            kept, changed = self.branch1(x), self.branch2(x)
        else:
            kept, changed = x.chunk(2, dim=1)
            changed = self.branch2(changed)
        return interleave(kept, changed)


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """A unit that halves the map, then those that keep its size."""
    return nn.Sequential(
        ShuffleBlock(inputs, outputs, 2), *(ShuffleBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    )


class ShuffleNetV2(nn.Module):
    """1.0x, without the last convolution; gives the maps of strides 8, 16 and 32."""

    widths = (116, 232, 464)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), _act())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage2 = _stage(24, 116, 4)
        self.stage3 = _stage(116, 232, 8)
        self.stage4 = _stage(232, 464, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride8 = self.stage2(self.maxpool(self.conv1(x)))
        stride16 = self.stage3(stride8)
        return stride8, stride16, self.stage4(stride16)


# --- neck ----------------------------------------------------------------------------------------


class Lateral(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pan(nn.Module):
    """Lateral 1x1 convolutions, then sums down the pyramid and up again."""

    def __init__(self, inputs: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(Lateral(channels, width) for channels in inputs)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = (lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True))
        middle = middle + F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        fine = fine + F.interpolate(middle, scale_factor=2.0, mode="bilinear")
        middle = middle + F.avg_pool2d(fine, 2)
        return fine, middle, coarse + F.avg_pool2d(middle, 2)


# --- head ----------------------------------------------------------------------------------------


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise 1x1, each with batch norm and activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = _depthwise(width, 1)
        self.dwnorm = nn.BatchNorm2d(width)
        self.pointwise = _pointwise(width, width)
        self.pwnorm = nn.BatchNorm2d(width)
        self.act = _act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.pwnorm(self.pointwise(self.act(self.dwnorm(self.depthwise(x))))))


class GflHead(nn.Module):
    """Two separable convolutions a level, then class logits and distance distributions by one 1x1."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_convs = nn.ModuleList(nn.Sequential(SeparableConv(width), SeparableConv(width)) for _ in STRIDES)
        self.gfl_cls = nn.ModuleList(nn.Conv2d(width, classes + 4 * BINS, 1) for _ in STRIDES)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = (out(convs(x)) for out, convs, x in zip(self.gfl_cls, self.cls_convs, maps, strict=True))
        return fine, middle, coarse


class Network(nn.Module):
    """Normalized image to one map a level, float32[B, C + 4 * BINS, H / stride, W / stride]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = ShuffleNetV2()
        self.fpn = Pan(ShuffleNetV2.widths, 96)
        self.head = GflHead(96, classes)
        self._initialize()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.head(self.fpn(self.backbone(x)))

    def _initialize(self) -> None:
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            if name.startswith("head"):
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                # A rare object is assumed at first, as focal losses need (Lin et al. 2017, sec. 3.3).
                nn.init.constant_(module.bias, -math.log((1 - 0.01) / 0.01) if "gfl_cls" in name else 0.0)


# --- detector ------------------------------------------------------------------------------------


_UNUSED = {
    "head.gfl_reg.": "the head shares its tower (share_cls_reg), so this convolution never runs",
    "head.distribution_project.": "the constants 0..7 of the distribution's mean",
}


class NanoDetM(Detector):
    """The whole detector; see the module."""

    name = "nanodet_m"
    title = "NanoDet-m"
    published = Published(
        ap=0.206,
        ap_on="val2017, 320x320 (0.235 at 416x416)",
        params_m=0.95,
        gmacs=0.36,
        source="github.com/RangiLyu/nanodet, README of v0: 0.72 G FLOPs, two a MAC",
    )
    resize = Resize(policy="letterbox_centre", interpolation="bilinear", alignment="corner", fill_rgb=(0, 0, 0))
    own_input_size = (320, 320)
    input_multiple = 32
    nms = Nms(score_floor=0.05, top_k=1000, iou=0.6, class_wise=True, limit=100)

    mean: Tensor
    inverse_std: Tensor
    centres: Tensor
    strides: Tensor
    bins: Tensor

    def __init__(self, labels: Sequence[Label], input_size: tuple[int, int]) -> None:
        super().__init__(labels, input_size)
        self.network = Network(len(self.labels))
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(STD_RGB).view(1, 3, 1, 1), persistent=False)
        centres, strides = _cells(input_size)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32), persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        return (image - self.mean) * self.inverse_std

    def decode(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        logits, distributions = self._split(raw)
        boxes = self._boxes(distributions)
        return xyxy_fractions(boxes, self.input_size), logits.sigmoid()

    def _split(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Maps to class logits [B, N, C] and distance logits [B, N, 4, BINS]."""
        flat = torch.cat([level.flatten(2) for level in raw], dim=2).transpose(1, 2)
        classes = len(self.labels)
        return flat[..., :classes], flat[..., classes:].unflatten(-1, (4, BINS))

    def _boxes(self, distributions: Tensor) -> Tensor:
        """Distance logits [..., N, 4, BINS] to x1, y1, x2, y2 in pixels of the input."""
        distance = (distributions.softmax(dim=-1) * self.bins).sum(dim=-1) * self.strides
        return torch.cat([self.centres - distance[..., :2], self.centres + distance[..., 2:]], dim=-1)

    def loss(self, raw: tuple[Tensor, ...], targets: Sequence[Target]) -> dict[str, Tensor]:
        """QFL + 2 GIoU + 0.25 DFL; box terms are weighted by the cell's own best score (GFL's authors' code)."""
        logits, distributions = self._split(raw)
        boxes = self._boxes(distributions)
        half = self.strides * (ANCHOR_SCALE / 2)
        anchors = torch.cat([self.centres - half, self.centres + half], dim=1)
        level_sizes = [level.shape[2] * level.shape[3] for level in raw]
        owner = torch.stack([atss.assign(anchors, level_sizes, target.boxes) for target in targets])
        image, cell = torch.nonzero(owner >= 0, as_tuple=True)
        quality = torch.zeros_like(logits)
        if not len(image):
            return {"qfl": quality_focal_loss(logits, quality).sum(), "giou": boxes.sum() * 0, "dfl": boxes.sum() * 0}

        wanted = torch.stack([targets[i].boxes[owner[i, c]] for i, c in zip(image, cell, strict=True)])
        label = torch.stack([targets[i].labels[owner[i, c]] for i, c in zip(image, cell, strict=True)])
        predicted = boxes[image, cell]
        quality[image, cell, label] = iou(predicted.detach(), wanted)
        weight = logits[image, cell].detach().sigmoid().amax(dim=-1)
        total = weight.sum().clamp(min=1e-6)

        centre, stride = self.centres[cell], self.strides[cell]
        distance = torch.cat([centre - wanted[:, :2], wanted[:, 2:] - centre], dim=1) / stride
        dfl = distribution_focal_loss(
            distributions[image, cell].flatten(0, 1), distance.clamp(0, BINS - 1 - 0.1).flatten()
        ).view(-1, 4)
        return {
            "qfl": quality_focal_loss(logits, quality).sum() / len(image),
            "giou": 2.0 * ((1 - giou(predicted, wanted)) * weight).sum() / total,
            "dfl": 0.25 * (dfl.mean(dim=1) * weight).sum() / total,
        }

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> OfficialState:
        if all(key.startswith("model.") for key in state):  # the later checkpoints, by PyTorch Lightning
            state = {key.removeprefix("model."): tensor for key, tensor in state.items()}
        if "backbone.stage2.0.branch1.0.weight" not in state or "head.gfl_cls.0.weight" not in state:
            raise WeightsError(
                "The file has no tensor backbone.stage2.0.branch1.0.weight or head.gfl_cls.0.weight, so it is not a "
                "NanoDet-m of the v0 layout; give the authors' nanodet_m.pth."
            )
        unused = {key: why for key in state for prefix, why in _UNUSED.items() if key.startswith(prefix)}
        tensors = {f"network.{key}": tensor for key, tensor in state.items() if key not in unused}
        first = "network.backbone.conv1.0.weight"
        if first in tensors and tensors[first].shape[1:2] == (3,):
            tensors[first] = tensors[first].flip(1)  # BGR to RGB
        return OfficialState(tensors, unused)

    @classmethod
    def official_labels(cls) -> list[Label]:
        return coco80()


def _cells(input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres float32[N, 2] (x, y in pixels) and strides float32[N, 1] of all cells, level by level.

    A cell's centre is x * s + 0.5 (s - 1), as in the authors' code.
    """
    centres, strides = [], []
    for stride in STRIDES:
        rows, columns = input_size[0] // stride, input_size[1] // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centre = torch.stack([x, y], dim=-1).reshape(-1, 2).float() * stride + 0.5 * (stride - 1)
        centres.append(centre)
        strides.append(torch.full((len(centre), 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)
