"""YOLOv5: a CSP backbone, a path aggregation neck, three anchors a cell on three levels (Jocher et al., v6.0 and v7.0).

Published for yolov5s: 37.4 AP on COCO val2017 at 640, 7.2 M parameters, 16.5 GFLOPs (8.25 GMACs). The sizes n, s, m,
l and x share everything but how many blocks a stage has and how wide it is.

Written anew from the architecture, without the authors' code, which is under the AGPL; so are their weights. Tensors
are named as in the authors' files, below ``network``. The anchors are tensors of the file too, since whoever trains a
YOLOv5 on data of his own gets anchors of his own: ours are taken from it, and kept in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import WeightsError
from edgejoule.records import Label, Nms, Resize
from edgejoule_trainer.detectors.coco_labels import coco80
from edgejoule_trainer.detectors.detector import Detector, OfficialState, Published, Target, xyxy_fractions
from edgejoule_trainer.losses.boxes import ciou
from edgejoule_trainer.losses.yolo_assignment import assign

STRIDES = (8, 16, 32)
# Width and height in pixels, three a level; found by k-means on COCO at 640.
ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
PER_CELL = 3
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.03
OBJECTNESS_BALANCE = (4.0, 1.0, 0.4)  # by level: most cells are in the finest
BOX_GAIN, OBJECTNESS_GAIN, CLASS_GAIN = 0.05, 1.0, 0.5


# --- blocks --------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """1x1 and 3x3, added to the input in the backbone, not in the neck."""

    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(width, width, 1)
        self.cv2 = Conv(width, width, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        changed = self.cv2(self.cv1(x))
        return x + changed if self.shortcut else changed


class C3(nn.Module):
    """Cross stage partial block (Wang et al. 2020) of three convolutions: half of the width passes the bottlenecks."""

    def __init__(self, inputs: int, outputs: int, bottlenecks: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, half)
        self.cv2 = Conv(inputs, half)
        self.cv3 = Conv(2 * half, outputs)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(bottlenecks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], dim=1))


class Sppf(nn.Module):
    """Spatial pyramid pooling over windows of 5, 9 and 13 cells, the larger ones as chains of the smallest."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = Conv(width, width // 2)
        self.cv2 = Conv(2 * width, width)
        self.m = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        window5 = self.m(x)
        window9 = self.m(window5)
        return self.cv2(torch.cat([x, window5, window9, self.m(window9)], dim=1))


class Head(nn.Module):
    """One 1x1 convolution a level: for each anchor x, y, width, height, objectness, classes."""

    def __init__(self, inputs: Sequence[int], classes: int) -> None:
        super().__init__()
        self.m = nn.ModuleList(nn.Conv2d(channels, PER_CELL * (5 + classes), 1) for channels in inputs)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.m[0](fine), self.m[1](middle), self.m[2](coarse)


# --- network -------------------------------------------------------------------------------------


class Network(nn.Module):
    """RGB image 0-1 to one map a level, float32[B, 3 * (5 + C), H / stride, W / stride].

    Args:
        depth, width: multiples of the blocks in a stage and of the channels.
    """

    def __init__(self, classes: int, depth: float, width: float) -> None:
        super().__init__()

        def blocks(number: int) -> int:
            return max(1, round(number * depth))

        # Channels after each halving of the map, by stride; always a multiple of 8.
        c2, c4, c8, c16, c32 = (8 * math.ceil(channels * width / 8) for channels in (64, 128, 256, 512, 1024))
        head = Head((c8, c16, c32), classes)
        # The numbers are the authors'; those left out (11, 12, 15, 16, 19, 22) enlarge or concatenate.
        self.model = nn.ModuleDict(
            {
                # backbone
                "0": Conv(3, c2, 6, 2, padding=2),
                "1": Conv(c2, c4, 3, 2),
                "2": C3(c4, c4, blocks(3)),
                "3": Conv(c4, c8, 3, 2),
                "4": C3(c8, c8, blocks(6)),
                "5": Conv(c8, c16, 3, 2),
                "6": C3(c16, c16, blocks(9)),
                "7": Conv(c16, c32, 3, 2),
                "8": C3(c32, c32, blocks(3)),
                "9": Sppf(c32),
                # neck, down the pyramid
                "10": Conv(c32, c16),
                "13": C3(2 * c16, c16, blocks(3), shortcut=False),
                "14": Conv(c16, c8),
                "17": C3(2 * c8, c8, blocks(3), shortcut=False),
                # and up again
                "18": Conv(c8, c8, 3, 2),
                "20": C3(2 * c8, c16, blocks(3), shortcut=False),
                "21": Conv(c16, c16, 3, 2),
                "23": C3(2 * c16, c32, blocks(3), shortcut=False),
                "24": head,
            }
        )
        _expect_few_objects(head, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.model
        stride4 = layer["2"](layer["1"](layer["0"](x)))
        stride8 = layer["4"](layer["3"](stride4))
        stride16 = layer["6"](layer["5"](stride8))
        stride32 = layer["9"](layer["8"](layer["7"](stride16)))

        coarse = layer["10"](stride32)
        middle = layer["14"](layer["13"](torch.cat([_twice_as_large(coarse), stride16], dim=1)))
        fine = layer["17"](torch.cat([_twice_as_large(middle), stride8], dim=1))
        middle = layer["20"](torch.cat([layer["18"](fine), middle], dim=1))
        coarse = layer["23"](torch.cat([layer["21"](middle), coarse], dim=1))
        return layer["24"](fine, middle, coarse)


def _expect_few_objects(head: Head, classes: int) -> None:
    """The authors' start, added to PyTorch's own biases: 8 objects in an image of 640, of any class alike."""
    for conv, stride in zip(head.m, STRIDES, strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        bias = conv.bias.data.view(PER_CELL, 5 + classes)
        bias[:, 4] += math.log(8 / (640 / stride) ** 2)
        bias[:, 5:] += math.log(0.6 / (classes - 0.99999))


def _twice_as_large(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


# --- detector ------------------------------------------------------------------------------------


class YoloV5(Detector):
    """What all sizes share; see the module."""

    depth: ClassVar[float]
    width: ClassVar[float]
    # The authors' validation averages areas when it shrinks an image, but COCO's are 640 pixels long at most, so at
    # 640 it never does; their detect.py is bilinear always.
    resize = Resize(
        policy="letterbox_centre", interpolation="bilinear", alignment="half_pixel", fill_rgb=(114, 114, 114)
    )
    own_input_size = (640, 640)
    input_multiple = 32
    nms = Nms(score_floor=0.001, top_k=30000, iou=0.6, class_wise=True, limit=300)
    clip = "after_nms"

    anchors: Tensor
    origins: Tensor

    def __init__(self, labels: Sequence[Label], input_size: tuple[int, int]) -> None:
        super().__init__(labels, input_size)
        self.network = Network(len(self.labels), self.depth, self.width)
        self.register_buffer("anchors", torch.tensor(ANCHORS, dtype=torch.float32))
        self.level_sizes = [(input_size[0] // stride, input_size[1] // stride) for stride in STRIDES]
        self.register_buffer("origins", _origins(self.level_sizes), persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        return image / 255

    def decode(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Level by level, so that what is handled at once fits a cache; anchor by anchor, then row by row."""
        boxes, scores = [], []
        origins = self.origins.split([rows * columns for rows, columns in self.level_sizes], dim=1)
        for level, anchors, origin, stride in zip(raw, self.anchors, origins, STRIDES, strict=True):
            cells = level.unflatten(1, (PER_CELL, -1)).flatten(3).sigmoid()  # [B, 3, 5 + C, cells]
            xy, wh, objectness, classes = cells.split([2, 2, 1, len(self.labels)], dim=2)
            corners = _corners(xy, wh, origin, stride, anchors.unsqueeze(-1))
            boxes.append(torch.cat(corners, dim=2).transpose(2, 3).flatten(1, 2))
            scores.append((classes * objectness).transpose(2, 3).flatten(1, 2))
        return xyxy_fractions(torch.cat(boxes, dim=1), self.input_size), torch.cat(scores, dim=1)

    def loss(self, raw: tuple[Tensor, ...], targets: Sequence[Target]) -> dict[str, Tensor]:
        """CIoU of the boxes; cross entropy of objectness, which learns that CIoU, and of classes; the authors' gains.

        Two things differ. Theirs is multiplied by the batch, so that gradients add up to a batch of 64; ours is the
        mean over the batch, whatever its size. Where objects claim the same prediction, its objectness learns the
        best overlap (their ``sort_obj_iou``), not whichever was written last. The anchors stay as they are: theirs
        are computed anew from a data set whose objects they do not fit.
        """
        classes = len(self.labels)
        height, width = self.input_size
        wanted = torch.cat([target.boxes for target in targets])
        label = torch.cat([target.labels for target in targets])
        counts = torch.tensor([len(target.boxes) for target in targets], device=wanted.device)
        image = torch.arange(len(targets), device=wanted.device).repeat_interleave(counts)

        zero = torch.zeros((), device=wanted.device)
        box_loss, objectness_loss, class_loss = zero, zero, zero
        for level, anchors, stride, balance in zip(raw, self.anchors, STRIDES, OBJECTNESS_BALANCE, strict=True):
            predicted = level.float().unflatten(1, (PER_CELL, -1)).movedim(2, -1)  # [B, 3, rows, columns, 5 + C]
            objectness = torch.zeros_like(predicted[..., 0], memory_format=torch.contiguous_format)
            match = assign(wanted, anchors, stride, (level.shape[2], level.shape[3]))
            if len(match.owner):
                place = (image[match.owner], match.anchor, match.row, match.column)
                chosen = predicted[place]
                origin = (torch.stack([match.column, match.row], dim=1) - 0.5) * stride
                xy, wh = chosen[:, :2].sigmoid(), chosen[:, 2:4].sigmoid()
                boxes = torch.cat(_corners(xy, wh, origin, stride, anchors[match.anchor]), dim=1)
                overlap = ciou(boxes, wanted[match.owner])
                box_loss = box_loss + (1 - overlap).mean()
                _raise_to(objectness, place, overlap.detach().clamp(min=0))
                if classes > 1:
                    right = F.one_hot(label[match.owner], classes).to(chosen.dtype)
                    class_loss = class_loss + F.binary_cross_entropy_with_logits(chosen[:, 5:], right)
            objectness_loss = objectness_loss + balance * F.binary_cross_entropy_with_logits(
                predicted[..., 4], objectness
            )
        return {
            "box": BOX_GAIN * box_loss,
            "objectness": OBJECTNESS_GAIN * (height * width / 640**2) * objectness_loss,
            "class": CLASS_GAIN * (classes / 80) * class_loss,
        }

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> OfficialState:
        """A state dict of the authors', batch norm apart or folded; or the constants of their ONNX export, where it is
        folded. Folded, a batch norm that changes nothing takes its place: the arithmetic is the file's own.
        """
        prefix = next((key.removesuffix(_FIRST) for key in state if f".{key}".endswith(f".{_FIRST}")), None)
        if prefix is None or f"{prefix}{_LAST}" not in state:
            raise WeightsError(
                f"The file has no tensor {_FIRST} or {_LAST}, so it is not a YOLOv5 of v6.0 or v7.0 with three levels; "
                f"give the authors' {cls.name}.pt of such a release."
            )
        named = {
            key.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in state.items()
            if key.startswith(f"{prefix}model.")
        }
        channels = named[_FIRST].shape[0] if named[_FIRST].ndim else 0
        if channels != (own := 8 * math.ceil(64 * cls.width / 8)):
            size = _SIZE_OF_CHANNELS.get(channels, "a size that the authors do not have")
            raise WeightsError(f"The file's first convolution is {channels} wide ({size}); {cls.title}'s is {own}.")

        others = {key: tensor for key, tensor in state.items() if not key.startswith(f"{prefix}model.")}
        anchors = named.pop(_ANCHORS, None)
        folded = _FOLDED_BIAS in named
        if anchors is not None and anchors.shape == (len(STRIDES), PER_CELL, 2):
            anchors = anchors * torch.tensor(STRIDES).view(-1, 1, 1)  # kept in strides
        elif anchors is None and folded:
            anchors = _anchors_of_graph(others)
        tensors = {f"network.{key}": tensor for key, tensor in (_unfold(named) if folded else named).items()}
        if anchors is not None:
            tensors["anchors"] = anchors
        if not folded:
            return OfficialState(tensors | others, {})  # nothing else belongs there, so it counts as left over
        why = "a constant of the graph's resizing or decoding; the anchors are read from them"
        return OfficialState(tensors, dict.fromkeys(others, why))

    @classmethod
    def official_labels(cls) -> list[Label]:
        return coco80()


def _corners(xy: Tensor, wh: Tensor, origin: Tensor, stride: int, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Top left and bottom right in pixels, of sigmoids: the centre within 1.5 cells, the size up to 4 anchors.

    Args:
        origin: (cell - 0.5) * stride.
    """
    centre = xy * (2 * stride) + origin
    half = wh.square() * (2 * anchors)
    return centre - half, centre + half


def _origins(level_sizes: Sequence[tuple[int, int]]) -> Tensor:
    """(cell - 0.5) * stride of all cells, float32[2 (x, y), cells], level by level, row by row."""
    origins = []
    for (rows, columns), stride in zip(level_sizes, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        origins.append((torch.stack([x, y]).flatten(1) - 0.5) * stride)
    return torch.cat(origins, dim=1)


def _raise_to(objectness: Tensor, place: tuple[Tensor, ...], overlap: Tensor) -> None:
    """In place: at least ``overlap`` at each place, which may be named more than once; the same on every run."""
    strides = objectness.stride()
    index = torch.stack([axis * stride for axis, stride in zip(place, strides, strict=True)]).sum(dim=0)
    objectness.view(-1).scatter_reduce_(0, index, overlap, "amax")


# --- official files ------------------------------------------------------------------------------


_FIRST, _LAST, _ANCHORS = "model.0.conv.weight", "model.24.m.0.weight", "model.24.anchors"
_FOLDED_BIAS = "model.0.conv.bias"
_SIZE_OF_CHANNELS = {16: "YOLOv5n", 32: "YOLOv5s", 48: "YOLOv5m", 64: "YOLOv5l", 80: "YOLOv5x"}


def _unfold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each convolution with a folded batch norm one that adds the bias and, in float32 exactly, nothing else."""
    unfolded = {}
    for key, tensor in state.items():
        if not key.endswith(".conv.bias"):
            unfolded[key] = tensor
            continue
        norm = f"{key.removesuffix('.conv.bias')}.bn"
        unfolded[f"{norm}.weight"] = torch.ones_like(tensor)
        unfolded[f"{norm}.bias"] = tensor
        unfolded[f"{norm}.running_mean"] = torch.zeros_like(tensor)
        unfolded[f"{norm}.running_var"] = torch.full_like(tensor, 1 - BATCH_NORM_EPS)
        unfolded[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return unfolded


def _anchors_of_graph(constants: Mapping[str, Tensor]) -> Tensor:
    """Anchors in pixels from an exported graph, which holds them once a cell: [1, 3, rows, columns, 2].

    Raises:
        WeightsError: there is not one set for each level.
    """
    found = []
    for tensor in constants.values():
        if tensor.ndim == 5 and tensor.shape[:2] == (1, PER_CELL) and tensor.shape[-1] == 2 and tensor.numel():
            anchors = tensor[0, :, 0, 0].float()
            # The cells' own coordinates have that shape too, but they differ, or are one that is not positive.
            if (anchors > 0).all() and (tensor.float() == anchors[:, None, None]).all():
                found.append(anchors)
    if len(found) != len(STRIDES):
        raise WeightsError(
            f"The file holds the anchors of {len(found)} levels, not of {len(STRIDES)}; give the authors' .pt instead."
        )
    return torch.stack(sorted(found, key=lambda anchors: float(anchors.prod(dim=-1).mean())))


# --- sizes ---------------------------------------------------------------------------------------


def _published(ap: float, params_m: float, gflops: float) -> Published:
    return Published(
        ap=ap,
        ap_on="val2017, 640 by rectangular inference (val.py: rect, pad 0.5); an engine's input is a fixed square",
        params_m=params_m,
        gmacs=gflops / 2,
        source="github.com/ultralytics/yolov5, README of v7.0; batch norm folded, two FLOPs a MAC and a bias",
    )


class YoloV5n(YoloV5):
    name = "yolov5n"
    title = "YOLOv5n"
    depth, width = 0.33, 0.25
    published = _published(ap=0.280, params_m=1.9, gflops=4.5)


class YoloV5s(YoloV5):
    name = "yolov5s"
    title = "YOLOv5s"
    depth, width = 0.33, 0.50
    published = _published(ap=0.374, params_m=7.2, gflops=16.5)


class YoloV5m(YoloV5):
    name = "yolov5m"
    title = "YOLOv5m"
    depth, width = 0.67, 0.75
    published = _published(ap=0.454, params_m=21.2, gflops=49.0)


class YoloV5l(YoloV5):
    name = "yolov5l"
    title = "YOLOv5l"
    depth, width = 1.0, 1.0
    published = _published(ap=0.490, params_m=46.5, gflops=109.1)


class YoloV5x(YoloV5):
    name = "yolov5x"
    title = "YOLOv5x"
    depth, width = 1.33, 1.25
    published = _published(ap=0.507, params_m=86.7, gflops=205.7)
