"""SSDLite-MobileNetV3: MobileNetV3-Large with a reduced tail and SSDLite (torchvision's ssdlite320_mobilenet_v3_large).

Published: 21.3 AP on COCO val2017 at 320x320, 3,440,060 parameters and 0.583 G multiply-adds with 90 category ids.

Tensors are named as in torchvision's ``.pth``, below ``network``; nothing differs in arithmetic.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import WeightsError
from edgejoule.records import Label, Nms, Resize
from edgejoule_trainer.detectors.coco_labels import coco90
from edgejoule_trainer.detectors.detector import Detector, OfficialState, Published, Target
from edgejoule_trainer.detectors.prior_boxes import decode, grid_priors, join_levels
from edgejoule_trainer.losses.multibox import assign, class_shares, multibox_loss

# kernel, expanded channels, channels, squeeze-and-excitation, activation, stride (Howard et al. 2019, Table 1)
BLOCKS = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 80, True, nn.Hardswish, 2),  # from here on half of the table's channels: the reduced tail
    (5, 480, 80, True, nn.Hardswish, 1),
    (5, 480, 80, True, nn.Hardswish, 1),
)
TAPPED = 12  # the block whose expansion, at stride 16, is the finest map
LAST = 480
EXTRAS = (512, 256, 256, 128)
LEVELS = 2 + len(EXTRAS)
ASPECTS = (2.0, 3.0)
SHAPES = 2 + 2 * len(ASPECTS)  # priors of a cell
MIN_SCALE, MAX_SCALE = 0.2, 0.95
LARGEST_GROWTH = math.log(1000 / 16)  # of a prior's side: torchvision's guard against overflow


# --- backbone ------------------------------------------------------------------------------------


def _conv_norm(
    inputs: int, outputs: int, act: type[nn.Module] | None, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        # torchvision's momentum, 0.03, still remembers its start after 150 iterations, when variances are near 0.01.
        nn.BatchNorm2d(outputs, eps=0.001, momentum=0.1),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below.

    >>> [_multiple_of_8(channels) for channels in (18, 30, 168)]
    [24, 32, 168]
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al. 2018), with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _multiple_of_8(channels // 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


def _layers(
    inputs: int, kernel: int, expanded: int, outputs: int, excited: bool, act: type[nn.Module], stride: int
) -> list[nn.Module]:
    """Expansion (where there is one), depthwise convolution, squeeze-and-excitation, linear projection."""
    layers = [] if expanded == inputs else [_conv_norm(inputs, expanded, act)]
    layers.append(_conv_norm(expanded, expanded, act, kernel, stride, groups=expanded))
    excitation = [SqueezeExcitation(expanded)] if excited else []
    return [*layers, *excitation, _conv_norm(expanded, outputs, None)]


class InvertedResidual(nn.Module):
    """MobileNetV3's block (Fig. 4 of the paper)."""

    def __init__(self, inputs: int, outputs: int, stride: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


def _extra(inputs: int, outputs: int) -> nn.Sequential:
    """A level more, half the size: 1x1 to half the channels, 3x3 depthwise, 1x1."""
    half = outputs // 2
    return nn.Sequential(
        _conv_norm(inputs, half, nn.ReLU6),
        _conv_norm(half, half, nn.ReLU6, kernel=3, stride=2, groups=half),
        _conv_norm(half, outputs, nn.ReLU6),
    )


class Backbone(nn.Module):
    """MobileNetV3-Large and four extra levels; gives the maps of strides 16, 32, 64, 128, 256 and 512."""

    widths = (BLOCKS[TAPPED][1], LAST, *EXTRAS)

    def __init__(self) -> None:
        super().__init__()
        fine: list[nn.Module] = [_conv_norm(3, 16, nn.Hardswish, kernel=3, stride=2)]
        coarse: list[nn.Module] = []
        inputs = 16
        for index, (kernel, expanded, outputs, excited, act, stride) in enumerate(BLOCKS):
            layers = _layers(inputs, kernel, expanded, outputs, excited, act, stride)
            if index == TAPPED:  # its expansion ends the first part, and the rest keeps its place's name
                fine.append(layers[0])
                coarse.append(nn.Sequential(OrderedDict((str(i), layers[i]) for i in range(1, len(layers)))))
            else:
                part = fine if index < TAPPED else coarse
                part.append(InvertedResidual(inputs, outputs, stride, layers))
            inputs = outputs
        coarse.append(_conv_norm(inputs, LAST, nn.Hardswish))
        self.features = nn.Sequential(nn.Sequential(*fine), nn.Sequential(*coarse))
        self.extra = nn.ModuleList(_extra(*channels) for channels in itertools.pairwise(self.widths[1:]))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for part in (*self.features, *self.extra):
            x = part(x)
            maps.append(x)
        return maps


# --- head ----------------------------------------------------------------------------------------


class Head(nn.Module):
    """For each level a 3x3 depthwise convolution, then ``width`` values for each prior of a cell by a 1x1 one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(
            nn.Sequential(
                _conv_norm(inputs, inputs, nn.ReLU6, kernel=3, groups=inputs), nn.Conv2d(inputs, SHAPES * width, 1)
            )
            for inputs in Backbone.widths
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(predictor(level) for predictor, level in zip(self.module_list, maps, strict=True))


class Heads(nn.Module):
    def __init__(self, columns: int) -> None:
        super().__init__()
        self.classification_head = Head(columns)
        self.regression_head = Head(4)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.classification_head(maps) + self.regression_head(maps)


class Network(nn.Module):
    """Normalized image to class maps [B, 6 * (1 + C), H, W] of each level, then box maps [B, 6 * 4, H, W].

    Column 0 of the classes is background.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = Heads(1 + classes)
        self._initialize(classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.head(self.backbone(x))

    def _initialize(self, classes: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.03)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        background, foreground = class_shares(classes)
        for name, bias in self.head.classification_head.named_parameters():
            if name.endswith(".1.bias") and bias.numel() == SHAPES * (1 + classes):
                bias.data.view(SHAPES, 1 + classes)[:, 0] = math.log(background / foreground)


# --- priors --------------------------------------------------------------------------------------


def map_sizes(input_size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of each level's map: convolutions of stride 2 halve and round up."""

    def halved(size: tuple[int, int]) -> tuple[int, int]:
        return (size[0] + 1) // 2, (size[1] + 1) // 2

    sizes = [input_size]
    for _ in range(3 + LEVELS):
        sizes.append(halved(sizes[-1]))
    return sizes[-LEVELS:]


def prior_shapes() -> list[list[tuple[float, float]]]:
    """(w, h) of each level's priors in fractions of the input, cut at 1 (torchvision's DefaultBoxGenerator)."""
    scales = [MIN_SCALE + (MAX_SCALE - MIN_SCALE) * level / (LEVELS - 1) for level in range(LEVELS)] + [1.0]
    levels = []
    for scale, coarser in itertools.pairwise(scales):
        between = math.sqrt(scale * coarser)
        shapes = [(scale, scale), (between, between)]
        for aspect in ASPECTS:
            long, short = scale * math.sqrt(aspect), scale / math.sqrt(aspect)
            shapes += [(long, short), (short, long)]
        levels.append([(min(w, 1.0), min(h, 1.0)) for w, h in shapes])
    return levels


# --- detector ------------------------------------------------------------------------------------


class SsdliteMobileNetV3(Detector):
    """The whole detector; see the module."""

    name = "ssdlite_mobilenet_v3"
    title = "SSDLite-MobileNetV3"
    published = Published(
        ap=0.213,
        ap_on="val2017, 320x320",
        params_m=3.440060,
        gmacs=0.583,
        source="torchvision, SSDLite320_MobileNet_V3_Large_Weights.COCO_V1 (its GFLOPS are MACs)",
    )
    resize = Resize(policy="stretch", interpolation="bilinear", alignment="half_pixel", fill_rgb=(0, 0, 0))
    own_input_size = (320, 320)
    # Theirs takes the 300 best of each class into suppression; top_k counts those of all together.
    nms = Nms(score_floor=0.001, top_k=3000, iou=0.55, class_wise=True, limit=300)

    priors: Tensor

    def __init__(self, labels: Sequence[Label], input_size: tuple[int, int]) -> None:
        super().__init__(labels, input_size)
        self.network = Network(len(self.labels))
        self.register_buffer("priors", grid_priors(map_sizes(input_size), prior_shapes()), persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        return image * (2 / 255) - 1

    def decode(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        logits, code = self._split(raw)
        return decode(code, self.priors, LARGEST_GROWTH), logits.softmax(dim=-1)[..., 1:]

    def _split(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Maps to class logits [B, N, 1 + C], background first, and box codes [B, N, 4]."""
        return join_levels(raw[:LEVELS], 1 + len(self.labels)), join_levels(raw[LEVELS:], 4)

    def loss(self, raw: tuple[Tensor, ...], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Softmax cross-entropy and smooth L1 (torchvision's SSD, which takes no negatives from an empty image)."""
        logits, code = self._split(raw)
        assignment = assign(self.priors, targets, self.input_size)
        class_losses = F.cross_entropy(logits.transpose(1, 2), assignment.labels, reduction="none")
        return multibox_loss(class_losses, code, assignment)

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> OfficialState:
        if not {"backbone.features.1.0.2.fc1.weight", "head.regression_head.module_list.0.1.weight"} <= state.keys():
            raise WeightsError(
                "The file has no tensor backbone.features.1.0.2.fc1.weight or "
                "head.regression_head.module_list.0.1.weight, so it is not a SSDLite-MobileNetV3 of torchvision; give "
                "its ssdlite320_mobilenet_v3_large_coco .pth."
            )
        return OfficialState({f"network.{name}": tensor for name, tensor in state.items()}, {})

    @classmethod
    def official_labels(cls) -> list[Label]:
        return coco90()
