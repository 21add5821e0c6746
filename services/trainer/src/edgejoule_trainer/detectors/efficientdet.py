"""EfficientDet-D0: EfficientNet-B0, a weighted bidirectional pyramid, shared heads (Tan, Pang and Le 2020).

Faithful to Google AutoML's, as its common PyTorch port (effdet, ``tf_efficientdet_d0``) has it.
Published: 34.6 AP on COCO test-dev and 34.3 on val2017 at 512x512, 3.9 M parameters, 2.54 B FLOPs. Those are half of
what TensorFlow's profiler counts, batch norm and biases included; of multiply-accumulates there are 2.49 G.

Tensors are named as in the port's ``.pth``, below ``network``. Three things differ in form, not in arithmetic. The
predicted offsets come as x, y, w, h (the authors': y, x, h, w). TensorFlow's padding "SAME" is lopsided where a layer
halves a map of even size: a convolution is padded explicitly, which the exporter folds into it, and max pooling
rounds its output's size up. A fusion weight multiplies a map before it is enlarged, on a quarter of the cells.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import WeightsError
from edgejoule.records import Label, Nms, Resize
from edgejoule_trainer.detectors.coco_labels import coco90
from edgejoule_trainer.detectors.detector import Detector, OfficialState, Published, Target, xyxy_fractions
from edgejoule_trainer.losses.argmax_matching import match
from edgejoule_trainer.losses.focal import sigmoid_focal_loss

STRIDES = (8, 16, 32, 64, 128)  # levels 3 to 7
WIDTH = 64  # channels of the pyramid and the heads
CELLS = 3  # of the pyramid
REPEATS = 3  # convolutions of a head before it predicts
ANCHOR_SCALE = 4  # side of the smallest square anchor, in strides
OCTAVES = (0, 1 / 3, 2 / 3)
ASPECTS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))  # width and height of a square's
ANCHORS = len(OCTAVES) * len(ASPECTS)  # of a cell
FUSION_EPS = 1e-4
MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD_RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)
ALPHA, GAMMA = 0.25, 1.5  # of the focal loss
HUBER_DELTA, BOX_WEIGHT = 0.1, 50.0


# --- backbone ------------------------------------------------------------------------------------


def _norm(channels: int) -> nn.BatchNorm2d:
    # The authors' momentum, 0.01, is for long trainings on large batches; in a short one the statistics must follow.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def _depthwise(channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, _padding(kernel, stride), groups=channels, bias=False)


def _pointwise(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=bias)


def _padding(kernel: int, stride: int) -> int:
    """What a convolution pads by itself: all of "SAME" at stride 1, none at stride 2, where ``_pad_same`` does."""
    return kernel // 2 if stride == 1 else 0


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "SAME" for a map of even size: k - 2 rows and columns at stride 2, the odd one behind."""
    if stride == 1:
        return x
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return F.pad(x, (before, after, before, after))


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al. 2018)."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv_reduce = _pointwise(channels, reduced, bias=True)
        self.act = nn.SiLU()
        self.conv_expand = _pointwise(reduced, channels, bias=True)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv_expand(self.act(self.conv_reduce(self.pool(x)))))


class SeparableBlock(nn.Module):
    """MBConv that does not expand: depthwise, squeeze and excite, project. The first block of EfficientNet."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_dw = _depthwise(inputs, 3)
        self.bn1 = _norm(inputs)
        self.act = nn.SiLU()
        self.se = SqueezeExcite(inputs, inputs // 4)
        self.conv_pw = _pointwise(inputs, outputs)
        self.bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.se(self.act(self.bn1(self.conv_dw(x))))))


class MbConv(nn.Module):
    """MBConv6: expand six times, depthwise, squeeze and excite, project; added to its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = 6 * inputs
        self.kernel, self.stride = kernel, stride
        self.is_residual = stride == 1 and inputs == outputs
        self.conv_pw = _pointwise(inputs, wide)
        self.bn1 = _norm(wide)
        self.act1 = nn.SiLU()
        self.conv_dw = _depthwise(wide, kernel, stride)
        self.bn2 = _norm(wide)
        self.act2 = nn.SiLU()
        self.se = SqueezeExcite(wide, inputs // 4)
        self.conv_pwl = _pointwise(wide, outputs)
        self.bn3 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        wide = _pad_same(self.act1(self.bn1(self.conv_pw(x))), self.kernel, self.stride)
        projected = self.bn3(self.conv_pwl(self.se(self.act2(self.bn2(self.conv_dw(wide))))))
        return projected + x if self.is_residual else projected


def _stage(inputs: int, outputs: int, kernel: int, stride: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        MbConv(inputs, outputs, kernel, stride), *(MbConv(outputs, outputs, kernel, 1) for _ in range(blocks - 1))
    )


class EfficientNetB0(nn.Module):
    """Without its last convolution (Tan and Le 2019, Table 1); gives the maps of strides 8, 16 and 32."""

    widths = (40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, _padding(3, 2), bias=False)
        self.bn1 = _norm(32)
        self.act = nn.SiLU()
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(SeparableBlock(32, 16)),
                _stage(16, 24, kernel=3, stride=2, blocks=2),
                _stage(24, 40, kernel=5, stride=2, blocks=2),
                _stage(40, 80, kernel=3, stride=2, blocks=3),
                _stage(80, 112, kernel=5, stride=1, blocks=3),
                _stage(112, 192, kernel=5, stride=2, blocks=4),
                _stage(192, 320, kernel=3, stride=1, blocks=1),
            ]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = [self.act(self.bn1(self.conv_stem(_pad_same(x, 3, 2))))]
        for stage in self.blocks:
            maps.append(stage(maps[-1]))
        return maps[3], maps[5], maps[7]


# --- neck ----------------------------------------------------------------------------------------


class ConvNorm(nn.Module):
    """1x1 convolution to the pyramid's width, and batch norm; the bias before it is the authors'."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = _pointwise(inputs, WIDTH, bias=True)
        self.bn = _norm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise 1x1, with nothing between them."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv_dw = _depthwise(WIDTH, 3)
        self.conv_pw = _pointwise(WIDTH, outputs, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(self.conv_dw(x))


class SeparableConvNorm(SeparableConv):
    def __init__(self) -> None:
        super().__init__(WIDTH)
        self.bn = _norm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(super().forward(x))


class Shape(NamedTuple):
    """Of a map; height and width in cells."""

    channels: int
    height: int
    width: int


def _resample(source: Shape, halve: bool) -> nn.Sequential:
    """A map brought to the pyramid's width, and to half its size."""
    layers = nn.Sequential()
    if source.channels != WIDTH:
        layers.add_module("conv", ConvNorm(source.channels))
    if halve:
        # "SAME" on even sizes; on two cells a window of three would see no more, and OpenVINO refuses it
        window = (min(3, source.height), min(3, source.width))
        layers.add_module("downsample", nn.MaxPool2d(window, 2, ceil_mode=True))
    return layers


class Combine(nn.Module):
    """Fast normalized fusion (the paper's sec. 3.3): sum of w_i x_i over eps + sum of w_i, with w = relu(weights)."""

    def __init__(self, sources: Mapping[int, Shape], fused: Shape) -> None:
        super().__init__()
        self.sources = list(sources)
        self.enlarged = [source.height < fused.height for source in sources.values()]
        self.resample = nn.ModuleDict(
            {str(number): _resample(source, source.height > fused.height) for number, source in sources.items()}
        )
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.edge_weights = nn.Parameter(torch.ones(len(self.sources)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        weights = self.edge_weights.relu()
        weights = weights / (weights.sum() + FUSION_EPS)
        terms = []
        for position, (source, resample) in enumerate(zip(self.sources, self.resample.values(), strict=True)):
            term = resample(maps[source]) * weights[position]
            terms.append(self.upsample(term) if self.enlarged[position] else term)
        return functools.reduce(operator.add, terms)


class AfterCombine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.SiLU()
        self.conv = SeparableConvNorm()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(x))


class Node(nn.Module):
    """One new map of a cell."""

    def __init__(self, sources: Mapping[int, Shape], fused: Shape) -> None:
        super().__init__()
        self.combine = Combine(sources, fused)
        self.after_combine = AfterCombine()

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.after_combine(self.combine(maps))


# A cell's maps are counted through: its inputs of levels 3 to 7 are 0 to 4, and each node adds one.
# (level, maps that it fuses): first from coarse to fine, then back, where the cell's own input joins in.
NODES = (
    (6, (3, 4)),
    (5, (2, 5)),
    (4, (1, 6)),
    (3, (0, 7)),
    (4, (1, 7, 8)),
    (5, (2, 6, 9)),
    (6, (3, 5, 10)),
    (7, (4, 11)),
)


class Cell(nn.Module):
    def __init__(self, inputs: Sequence[Shape]) -> None:
        super().__init__()
        shapes = [*inputs, *(inputs[level - 3]._replace(channels=WIDTH) for level, _ in NODES)]
        self.fnode = nn.ModuleList(
            Node({source: shapes[source] for source in sources}, inputs[level - 3]) for level, sources in NODES
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        maps = list(inputs)
        for node in self.fnode:
            maps.append(node(maps))
        return maps[-len(STRIDES) :]


class BiFpn(nn.Module):
    """Levels 6 and 7 by pooling, then ``CELLS`` cells."""

    def __init__(self, channels: Sequence[int], input_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = input_size
        levels = [Shape(WIDTH, height // stride, width // stride) for stride in STRIDES]
        first = [shape._replace(channels=c) for shape, c in zip(levels, [*channels, WIDTH, WIDTH], strict=True)]
        self.resample = nn.ModuleDict({str(n): _resample(first[n - 1], halve=True) for n in (3, 4)})
        self.cell = nn.ModuleList(Cell(first if number == 0 else levels) for number in range(CELLS))

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        maps = list(features)
        for resample in self.resample.values():
            maps.append(resample(maps[-1]))
        for cell in self.cell:
            maps = cell(maps)
        return maps


# --- heads ---------------------------------------------------------------------------------------


class LevelNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = _norm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class Head(nn.Module):
    """``REPEATS`` separable convolutions shared by all levels, each level with its own batch norms; then one more."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv_rep = nn.ModuleList(SeparableConv(WIDTH) for _ in range(REPEATS))
        self.bn_rep = nn.ModuleList(nn.ModuleList(LevelNorm() for _ in STRIDES) for _ in range(REPEATS))
        self.act = nn.SiLU()
        self.predict = SeparableConv(outputs * ANCHORS)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        predicted = []
        for level, x in enumerate(maps):
            for conv, norms in zip(self.conv_rep, self.bn_rep, strict=True):
                x = self.act(norms[level](conv(x)))  # type: ignore[index]
            predicted.append(self.predict(x))
        return predicted


class Network(nn.Module):
    """Normalized image to ten maps: class logits float32[B, 9 C, H / stride, W / stride] of levels 3 to 7, then offsets
    float32[B, 9 * 4, H / stride, W / stride].
    """

    def __init__(self, classes: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = EfficientNetB0()
        self.fpn = BiFpn(EfficientNetB0.widths, input_size)
        self.class_net = Head(classes)
        self.box_net = Head(4)
        self._initialize()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.fpn(self.backbone(x))
        return (*self.class_net(maps), *self.box_net(maps))

    def _initialize(self) -> None:
        """The authors': normal by fan out in the backbone, Glorot in the pyramid, normal by fan in in the heads."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            taps = module.kernel_size[0] * module.kernel_size[1]
            fan_in, fan_out = (taps * c // module.groups for c in (module.in_channels, module.out_channels))
            if name.startswith("backbone"):
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            elif name.startswith("fpn"):
                limit = math.sqrt(6 / (fan_in + fan_out))
                nn.init.uniform_(module.weight, -limit, limit)
            else:
                nn.init.normal_(module.weight, std=math.sqrt(1 / fan_in))
            if module.bias is not None:
                # A rare object is assumed at first, as focal losses need (Lin et al. 2017, sec. 3.3).
                nn.init.constant_(module.bias, -math.log((1 - 0.01) / 0.01) if "class_net.predict" in name else 0.0)


# --- detector ------------------------------------------------------------------------------------


class EfficientDetD0(Detector):
    """The whole detector; see the module."""

    name = "efficientdet_d0"
    title = "EfficientDet-D0"
    published = Published(
        ap=0.343,
        ap_on="val2017, 512x512, with soft NMS (0.346 on test-dev; the PyTorch port with plain NMS 0.342 on val2017)",
        params_m=3.9,
        gmacs=2.54,
        source="github.com/google/automl, efficientdet/README.md: 2.54 B FLOPs, one a MAC, elementwise work included",
    )
    # Google pads after normalization, with the mean; the port fills with the mean before it.
    resize = Resize(
        policy="letterbox_top_left", interpolation="bilinear", alignment="half_pixel", fill_rgb=(124, 116, 104)
    )
    own_input_size = (512, 512)
    input_multiple = 128
    # The port's. Google's own figures are made with soft NMS (Gaussian), which lowers scores of
    # overlapping boxes instead of dropping them, and gives about 0.1 AP.
    nms = Nms(score_floor=0.0, top_k=5000, iou=0.5, class_wise=True, limit=100)

    mean: Tensor
    inverse_std: Tensor
    centres: Tensor
    sizes: Tensor

    def __init__(self, labels: Sequence[Label], input_size: tuple[int, int]) -> None:
        super().__init__(labels, input_size)
        self.network = Network(len(self.labels), input_size)
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(STD_RGB).view(1, 3, 1, 1), persistent=False)
        centres, sizes = _anchors(input_size)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        return (image - self.mean) * self.inverse_std

    def decode(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        logits, offsets = raw[: len(STRIDES)], raw[len(STRIDES) :]
        boxes = self._boxes(_anchors_first(offsets, 4))
        return xyxy_fractions(boxes, self.input_size), _anchors_first(logits, len(self.labels)).sigmoid()

    def _boxes(self, offsets: Tensor) -> Tensor:
        """Offsets [..., N, 4] (x, y, w, h; Faster R-CNN's coding) to x1, y1, x2, y2 in pixels of the input."""
        centre = self.centres + offsets[..., :2] * self.sizes
        half = offsets[..., 2:].exp() * (0.5 * self.sizes)
        return torch.cat([centre - half, centre + half], dim=-1)

    def loss(self, raw: tuple[Tensor, ...], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal + 50 Huber, over one more than the positive anchors of the batch (the authors' code)."""
        logits = _anchors_first(raw[: len(STRIDES)], len(self.labels))
        offsets = _anchors_first(raw[len(STRIDES) :], 4)
        anchors = torch.cat([self.centres - self.sizes / 2, self.centres + self.sizes / 2], dim=1)
        owner = torch.stack([match(anchors, target.boxes) for target in targets])
        image, anchor = torch.nonzero(owner >= 0, as_tuple=True)
        owners = [one[one >= 0] for one in owner]
        boxes = torch.cat([target.boxes[one] for target, one in zip(targets, owners, strict=True)])
        label = torch.cat([target.labels[one] for target, one in zip(targets, owners, strict=True)])

        present = torch.zeros_like(logits)
        present[image, anchor, label] = 1.0
        wanted = _encode(boxes, self.centres[anchor], self.sizes[anchor])
        # an offset of exactly 0 teaches nothing: so the authors tell matched anchors from others
        huber = F.huber_loss(offsets[image, anchor], wanted, reduction="none", delta=HUBER_DELTA) * (wanted != 0)
        normalizer = len(image) + 1.0
        return {
            "focal": sigmoid_focal_loss(logits, present, ALPHA, GAMMA).sum() / normalizer,
            "huber": BOX_WEIGHT * huber.sum() / (4 * normalizer),
        }

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> OfficialState:
        if "fpn.cell.2.fnode.7.combine.edge_weights" not in state or "backbone.conv_stem.weight" not in state:
            raise WeightsError(
                "The file has no tensor fpn.cell.2.fnode.7.combine.edge_weights or backbone.conv_stem.weight, "
                "so it is not an EfficientDet-D0 of the PyTorch port; give its tf_efficientdet_d0 file."
            )
        tensors = {f"network.{key}": tensor for key, tensor in state.items()}
        for name in ("network.box_net.predict.conv_pw.weight", "network.box_net.predict.conv_pw.bias"):
            if name in tensors and tensors[name].shape[:1] == (4 * ANCHORS,):
                # y, x, h, w of each anchor to x, y, w, h
                tensors[name] = tensors[name].unflatten(0, (ANCHORS, 4))[:, [1, 0, 3, 2]].flatten(0, 1)
        return OfficialState(tensors, {})

    @classmethod
    def official_labels(cls) -> list[Label]:
        return coco90()


def _anchors_first(levels: Sequence[Tensor], columns: int) -> Tensor:
    """Maps [B, 9 * columns, H / stride, W / stride] to one [B, N, columns], level by level, row by row."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, columns) for level in levels], dim=1)


def _encode(boxes: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    """Offsets float[n, 4] that ``_boxes`` turns into ``boxes`` (x1, y1, x2, y2 in pixels)."""
    shift = ((boxes[:, :2] + boxes[:, 2:]) / 2 - centres) / sizes
    growth = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-8) / sizes
    return torch.cat([shift, growth.log()], dim=1)


def _anchors(input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres and sizes float32[N, 2] (x, y and width, height in pixels) of all anchors.

    Level by level, row by row, nine at each cell's middle: three octaves, each a square, a lying and a standing
    rectangle.
    """
    shapes = torch.tensor([[2**octave * side for side in aspect] for octave in OCTAVES for aspect in ASPECTS])
    centres, sizes = [], []
    for stride in STRIDES:
        rows, columns = input_size[0] // stride, input_size[1] // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        middle = (torch.stack([x, y], dim=-1).reshape(-1, 1, 2) + 0.5) * stride
        centres.append(middle.expand(-1, ANCHORS, -1).flatten(0, 1))
        sizes.append((ANCHOR_SCALE * stride * shapes).repeat(rows * columns, 1))
    return torch.cat(centres), torch.cat(sizes)
