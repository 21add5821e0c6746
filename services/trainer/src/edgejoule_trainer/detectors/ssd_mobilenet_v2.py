"""SSD-MobileNetV2: MobileNetV2 1.0x with SSDLite (Sandler et al. 2018, section 6.2), as in TensorFlow Object Detection.

Published: 22.1 AP on COCO test-dev at 320x320, 4.3 M parameters and 0.8 G multiply-adds, which are those of 80
categories (4.34 M). The official weights (ssdlite_mobilenet_v2_coco) are for 300x300 and 90 category ids (4.50 M).

Two things differ in form from TensorFlow's graph, not in arithmetic: a box code is in the order x, y, w, h (there
y, x, h, w), and batch norms that a TensorFlow.js file has folded into their convolutions are here with statistics
that do nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import WeightsError
from edgejoule.records import Label, Nms, Resize
from edgejoule_trainer.detectors.coco_labels import coco90
from edgejoule_trainer.detectors.detector import Detector, OfficialState, Published, Target
from edgejoule_trainer.detectors.prior_boxes import corners, decode, grid_priors, join_levels
from edgejoule_trainer.losses.multibox import assign, class_shares, multibox_loss

Size = tuple[int, int]  # of a map: height, width

NORM_EPSILON = 0.001
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first one (Table 2 of the paper)."""
TAPPED = 13  # the block whose expansion, at stride 16, is the finest map
EXTRAS = (512, 256, 256, 128)
SHAPES = (3, 6, 6, 6, 6, 6)  # priors of a cell, by level
MIN_SCALE, MAX_SCALE = 0.2, 0.95


# --- backbone ------------------------------------------------------------------------------------


def halved(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def same_padding(size: Size, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's SAME: left, right, top, bottom cells of zeros; the odd one comes last.

    >>> same_padding((300, 75), kernel=3, stride=2)
    (1, 1, 0, 1)
    """
    before_after = []
    for cells in reversed(size):
        total = max(0, (math.ceil(cells / stride) - 1) * stride + kernel - cells)
        before_after += [total // 2, total - total // 2]
    left, right, top, bottom = before_after
    return left, right, top, bottom


class ConvNorm(nn.Module):
    """Convolution with SAME padding for maps of ``size``, batch norm, ReLU6 unless ``linear``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Size,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        left, right, top, bottom = same_padding(size, kernel, stride)
        even = left == right and top == bottom
        self.padding = None if even else (left, right, top, bottom)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (top, left) if even else 0, groups=groups, bias=False)
        # TensorFlow's momentum, 0.0003, forgets its start over tens of thousands of iterations; ours trains for fewer.
        self.norm = nn.BatchNorm2d(outputs, eps=NORM_EPSILON, momentum=0.1)
        self.act = nn.Identity() if linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        if self.padding is not None:
            x = F.pad(x, self.padding)
        return self.act(self.norm(self.conv(x)))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection (Fig. 4 of the paper)."""

    def __init__(self, inputs: int, outputs: int, size: Size, expansion: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = ConvNorm(inputs, width, size) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, size, kernel=3, stride=stride, groups=width)
        self.project = ConvNorm(width, outputs, size, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        changed = self.contract(self.expand(x))
        return x + changed if self.residual else changed

    def contract(self, wide: Tensor) -> Tensor:
        return self.project(self.depthwise(wide))


class Extra(nn.Module):
    """A level more, half the size: 1x1 to half the channels, 3x3 depthwise, 1x1."""

    def __init__(self, inputs: int, outputs: int, size: Size) -> None:
        super().__init__()
        half = outputs // 2
        self.squeeze = ConvNorm(inputs, half, size)
        self.depthwise = ConvNorm(half, half, size, kernel=3, stride=2, groups=half)
        self.expand = ConvNorm(half, outputs, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.depthwise(self.squeeze(x)))


class Backbone(nn.Module):
    """MobileNetV2 and four extra levels; gives the maps of strides 16, 32, 64, 128, 256 and 512."""

    def __init__(self, input_size: Size) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, input_size, kernel=3, stride=2)
        size, channels = halved(input_size), 32
        blocks: list[InvertedResidual] = []
        self.map_sizes: list[Size] = []
        self.widths: list[int] = []
        for expansion, outputs, repeats, first_stride in STAGES:
            for repeat in range(repeats):
                if len(blocks) == TAPPED:
                    self.map_sizes.append(size)
                    self.widths.append(channels * expansion)
                stride = first_stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, size, expansion, stride))
                size, channels = halved(size) if stride == 2 else size, outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvNorm(channels, 1280, size)
        self.map_sizes.append(size)
        self.widths.append(1280)
        self.extras = nn.ModuleList()
        for outputs in EXTRAS:
            self.extras.append(Extra(self.widths[-1], outputs, size))
            size = halved(size)
            self.map_sizes.append(size)
            self.widths.append(outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        for block in list(self.blocks)[:TAPPED]:  # a slice of the Sequential would be a new module, unknown to torch.fx
            x = block(x)
        tapped = self.blocks[TAPPED]
        assert isinstance(tapped, InvertedResidual)
        wide = tapped.expand(x)
        x = tapped.contract(wide)
        for block in list(self.blocks)[TAPPED + 1 :]:
            x = block(x)
        maps = [wide, self.last(x)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


# --- head ----------------------------------------------------------------------------------------


class Predictor(nn.Module):
    """3x3 depthwise, then ``width`` values for each prior of a cell by a 1x1 convolution."""

    def __init__(self, inputs: int, shapes: int, width: int, size: Size) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, size, kernel=3, groups=inputs)
        self.out = nn.Conv2d(inputs, shapes * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.depthwise(x))


class Network(nn.Module):
    """Normalized image to class maps [B, shapes * (1 + C), H, W] of each level, then box maps [B, shapes * 4, H, W].

    Column 0 of the classes is background.
    """

    def __init__(self, classes: int, input_size: Size) -> None:
        super().__init__()
        self.backbone = Backbone(input_size)
        levels = list(zip(self.backbone.widths, SHAPES, self.backbone.map_sizes, strict=True))
        self.classifiers = nn.ModuleList(Predictor(c, shapes, 1 + classes, size) for c, shapes, size in levels)
        self.regressors = nn.ModuleList(Predictor(c, shapes, 4, size) for c, shapes, size in levels)
        self._initialize(classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x)
        scores = [predictor(level) for predictor, level in zip(self.classifiers, maps, strict=True)]
        boxes = [predictor(level) for predictor, level in zip(self.regressors, maps, strict=True)]
        return (*scores, *boxes)

    def _initialize(self, classes: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.03, a=-0.06, b=0.06)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        background, foreground = class_shares(classes)
        for name, bias in self.classifiers.named_parameters():
            if not name.endswith("out.bias"):
                continue
            columns = bias.data.view(-1, 1 + classes)
            columns[:, 0] = math.log(background / (1 - background))
            columns[:, 1:] = math.log(foreground / (1 - foreground))


# --- priors --------------------------------------------------------------------------------------


def prior_shapes(input_size: Size) -> list[list[tuple[float, float]]]:
    """(w, h) of each level's priors in fractions of the input (TensorFlow's ssd_anchor_generator).

    A scale is a fraction of the input's shorter side. The finest level has fewer, and a first one of scale 0.1.
    """
    count = len(SHAPES)
    scales = [MIN_SCALE + (MAX_SCALE - MIN_SCALE) * level / (count - 1) for level in range(count)] + [1.0]
    levels = [[(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]]
    for scale, coarser in itertools.pairwise(scales[1:]):
        # 0.3333, not a third: so the configuration of the official weights says.
        aspects = [(scale, aspect) for aspect in (1.0, 2.0, 0.5, 3.0, 0.3333)]
        levels.append([*aspects, (math.sqrt(scale * coarser), 1.0)])
    height, width = input_size
    side = min(height, width)
    return [
        [
            (scale * math.sqrt(aspect) * side / width, scale / math.sqrt(aspect) * side / height)
            for scale, aspect in level
        ]
        for level in levels
    ]


# --- the official weights ------------------------------------------------------------------------


def _scopes() -> Iterator[tuple[str, str]]:
    """TensorFlow's scope of each layer, and our module."""
    extractor, ours = "FeatureExtractor/MobilenetV2/", "network.backbone."
    yield extractor + "Conv", ours + "stem"
    for index in range(sum(stage[2] for stage in STAGES)):
        block = "expanded_conv" if index == 0 else f"expanded_conv_{index}"
        for part in ("expand", "depthwise", "project") if index else ("depthwise", "project"):
            yield f"{extractor}{block}/{part}", f"{ours}blocks.{index}.{part}"
    yield extractor + "Conv_1", ours + "last"
    for index, channels in enumerate(EXTRAS):
        squeeze = f"{extractor}layer_19_1_Conv2d_{index + 2}_1x1_{channels // 2}"
        expand = f"{extractor}layer_19_2_Conv2d_{index + 2}_3x3_s2_{channels}"
        yield squeeze, f"{ours}extras.{index}.squeeze"
        yield expand + "_depthwise", f"{ours}extras.{index}.depthwise"
        yield expand, f"{ours}extras.{index}.expand"
    for level in range(len(SHAPES)):
        for theirs, mine in (("ClassPredictor", "classifiers"), ("BoxEncodingPredictor", "regressors")):
            yield f"BoxPredictor_{level}/{theirs}_depthwise", f"network.{mine}.{level}.depthwise"
            yield f"BoxPredictor_{level}/{theirs}", f"network.{mine}.{level}.out"


_ENDINGS = {  # of a variable or constant in its scope -> our tensor
    "weights": "conv.weight",
    "depthwise_weights": "conv.weight",
    "Conv2D/merged_input": "conv.weight",  # TensorFlow.js: the batch norm's gain is in it
    "biases": "bias",
    "BatchNorm/gamma": "norm.weight",
    "BatchNorm/beta": "norm.bias",
    "BatchNorm/moving_mean": "norm.running_mean",
    "BatchNorm/moving_variance": "norm.running_var",
    "BatchNorm/batchnorm/mul": "norm.weight",  # TensorFlow.js: gain and shift with the statistics in them
    "BatchNorm/batchnorm/sub": "norm.bias",
}
_ANCHORS = "Postprocessor/ExpandDims"
_UNUSED_STARTS = {
    "Preprocessor/": "a constant of the resizing and normalization around the network",
    "Postprocessor/": "a constant of the decoding after the network",
    "ConstantFolding/Postprocessor/": "a constant of the decoding after the network",
    "MultipleGridAnchorGenerator/": "the number of priors",
}
_UNUSED_ENDS = {
    "ExponentialMovingAverage": "the training's own average of a variable that is there too",
    "RMSProp": "the optimizer's state",
    "RMSProp_1": "the optimizer's state",
    "Momentum": "the optimizer's state",
    "Adam": "the optimizer's state",
    "Adam_1": "the optimizer's state",
    "global_step": "the iteration at which training stopped",
}


def _why_unused(name: str) -> str | None:
    if name.startswith("BoxPredictor_") and "/stack" in name:
        return "a shape of the graph's own reshaping"
    starts = (why for start, why in _UNUSED_STARTS.items() if name.startswith(start))
    return next(starts, _UNUSED_ENDS.get(name.rsplit("/", 1)[-1]))


def _transposed(tensor: Tensor, ending: str) -> Tensor:
    """TensorFlow's layout of a weight (h, w, in, out; depthwise h, w, channels, 1) in ours (out, in, h, w)."""
    if tensor.ndim != 4:
        return tensor
    return tensor.permute(2, 3, 0, 1) if ending == "depthwise_weights" else tensor.permute(3, 2, 0, 1)


def _x_first(tensor: Tensor) -> Tensor:
    """Rows of codes y, x, h, w in the order x, y, w, h."""
    if tensor.shape[0] % 4:
        return tensor
    return tensor.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


# --- detector ------------------------------------------------------------------------------------


class SsdMobileNetV2(Detector):
    """The whole detector; see the module."""

    name = "ssd_mobilenet_v2"
    title = "SSD-MobileNetV2"
    published = Published(
        ap=0.221,
        ap_on="test-dev, 320x320",
        params_m=4.3,
        gmacs=0.8,
        source="Sandler et al. 2018 (arXiv 1801.04381), Table 6, MNet V2 + SSDLite, to one digit",
        input_size=(320, 320),
        categories=80,
    )
    # TensorFlow 1's ResizeBilinear without align_corners takes pixel u = s * x.
    resize = Resize(policy="stretch", interpolation="bilinear", alignment="corner", fill_rgb=(0, 0, 0))
    own_input_size = (300, 300)
    nms = Nms(score_floor=1e-8, top_k=1000, iou=0.6, class_wise=True, limit=100)

    priors: Tensor

    def __init__(self, labels: Sequence[Label], input_size: tuple[int, int]) -> None:
        super().__init__(labels, input_size)
        self.network = Network(len(self.labels), input_size)
        priors = grid_priors(self.network.backbone.map_sizes, prior_shapes(input_size))
        self.register_buffer("priors", priors, persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        return image * (2 / 255) - 1

    def decode(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        logits, code = self._split(raw)
        return decode(code, self.priors), logits[..., 1:].sigmoid()

    def _split(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Maps to class logits [B, N, 1 + C], background first, and box codes [B, N, 4]."""
        levels = len(SHAPES)
        return join_levels(raw[:levels], 1 + len(self.labels)), join_levels(raw[levels:], 4)

    def loss(self, raw: tuple[Tensor, ...], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Sigmoid cross-entropy over all columns, background's too, and smooth L1: ssdlite_mobilenet_v2_coco.config.

        Their miner also drops a hard example whose decoded box overlaps a harder one's above 0.99; ours keeps it.
        """
        logits, code = self._split(raw)
        assignment = assign(self.priors, targets, self.input_size)
        wanted = F.one_hot(assignment.labels, logits.shape[-1]).to(logits.dtype)
        class_losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)
        return multibox_loss(class_losses, code, assignment, negatives_at_least=3)

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> OfficialState:
        """From the constants of the TensorFlow.js graph or the variables of a TensorFlow checkpoint, by their names."""
        scopes = dict(_scopes())
        if not any(name.startswith("FeatureExtractor/MobilenetV2/expanded_conv_16/") for name in state):
            raise WeightsError(
                "The file has nothing under FeatureExtractor/MobilenetV2/expanded_conv_16, so it is not a "
                "ssdlite_mobilenet_v2 of TensorFlow Object Detection; give its model.json or checkpoint."
            )
        tensors: dict[str, Tensor] = {}
        unused: dict[str, str] = {}
        for name, tensor in state.items():
            scope, ending = _parted(name, scopes)
            if scope is None:
                if why := _why_unused(name):
                    unused[name] = why
                else:
                    tensors[name] = tensor  # a stranger, which loading will name
                continue
            module, ours = scopes[scope], _ENDINGS[ending]
            if module.endswith(".out"):
                ours = ours.removeprefix("conv.")
            tensor = _transposed(tensor, ending)
            if ".regressors." in module and module.endswith(".out"):
                tensor = _x_first(tensor)
            tensors[f"{module}.{ours}"] = tensor
            if ending == "Conv2D/merged_input":
                tensors.setdefault(f"{module}.norm.weight", torch.ones(tensor.shape[0]))
            if ending == "BatchNorm/batchnorm/sub":
                # (x - 0) / sqrt(1 - eps + eps) is x
                tensors[f"{module}.norm.running_mean"] = torch.zeros_like(tensor)
                tensors[f"{module}.norm.running_var"] = torch.full_like(tensor, 1 - NORM_EPSILON)
        for module in scopes.values():
            if not module.endswith(".out"):
                tensors[f"{module}.norm.num_batches_tracked"] = torch.tensor(0)
        if _ANCHORS in state:
            _check_anchors(state[_ANCHORS], cls.own_input_size)
        return OfficialState(tensors, unused)

    @classmethod
    def official_labels(cls) -> list[Label]:
        return coco90()


def _parted(name: str, scopes: Mapping[str, str]) -> tuple[str | None, str]:
    """A name's scope and what is behind it; no scope when it is no tensor of a layer of ours."""
    for ending in _ENDINGS:
        scope = name.removesuffix("/" + ending)
        if scope != name and scope in scopes:
            return scope, ending
    return None, ""


def _check_anchors(anchors: Tensor, input_size: Size) -> None:
    """The priors that a TensorFlow.js file carries (y1, x1, y2, x2) must be those that ours decodes with."""
    ours = corners(grid_priors(Backbone(input_size).map_sizes, prior_shapes(input_size)))[:, [1, 0, 3, 2]]
    theirs = anchors.reshape(-1, 4)
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=0, atol=1e-4):
        raise WeightsError(
            f"The file's {len(theirs)} priors ({_ANCHORS}) are not the {len(ours)} of ssdlite_mobilenet_v2_coco at "
            f"{input_size[1]}x{input_size[0]}; give the published model."
        )
