"""What every detector is to the rest of the trainer."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from edgejoule.errors import WeightsError
from edgejoule.records import InputSize, Label, ModelManifest, Nms, Resize
from edgejoule_trainer.counting import count_macs, count_parameters

COMMON_NMS = Nms(score_floor=0.25, top_k=1000, iou=0.45, class_wise=True, limit=100)
"""The paper's operating point, the same for all."""


@dataclass(frozen=True)
class Target:
    """The objects of one image.

    boxes: float[n, 4], x1, y1, x2, y2 in pixels of the network's input. labels: int64[n], class indices.
    """

    boxes: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Target:
        """The same on another device."""
        return Target(self.boxes.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


@dataclass(frozen=True)
class OfficialState:
    """An origin's state dict put under our names.

    ``tensors`` is what ours loads; ``unused`` maps each tensor of the file that the network has no use
    for to the reason, so that every tensor of the file is accounted for.
    """

    tensors: dict[str, Tensor]
    unused: dict[str, str]


@dataclass(frozen=True)
class Published:
    """What the authors say of their detector with its official COCO weights, at its own input size.

    ap: COCO AP as a fraction; ``ap_on`` says of which images and how. params_m: parameters in millions.
    gmacs: multiply-accumulates of one inference, 1e9. source: where these stand. input_size and categories: what the
    counts are of, where that is not the official weights.
    """

    ap: float
    ap_on: str
    params_m: float
    gmacs: float
    source: str
    input_size: tuple[int, int] | None = None
    categories: int | None = None


class Detector(nn.Module, ABC):
    """``forward`` is the engine contract: image float32[B,3,H,W], RGB 0-255, to boxes and scores.

    ``network`` holds every weighted layer and is traceable by ``torch.fx``: it is what a quantizer sees.
    ``normalize`` before it and ``decode`` after it stay in float32. ``nms`` and ``clip`` are the origin's.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    published: ClassVar[Published]
    resize: ClassVar[Resize]
    own_input_size: ClassVar[tuple[int, int]]
    nms: ClassVar[Nms]
    clip: ClassVar[Literal["before_nms", "after_nms"]] = "before_nms"
    input_multiple: ClassVar[int] = 1
    network: nn.Module

    def __init__(self, labels: Sequence[Label], input_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = input_size
        if height % self.input_multiple or width % self.input_multiple:
            raise WeightsError(
                f"{self.title}'s input must be a multiple of {self.input_multiple} in both directions, "
                f"not {width}x{height}."
            )
        self.labels = list(labels)
        self.input_size = input_size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """float32[B,3,H,W] to boxes float32[B,N,4] (fractions of the input) and scores float32[B,N,C]."""
        return self.decode(self.network(self.normalize(image)))

    @abstractmethod
    def normalize(self, image: Tensor) -> Tensor:
        """RGB 0-255 to what the first layer expects."""

    @abstractmethod
    def decode(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Raw head maps to boxes (fractions of the input) and scores (after sigmoid or softmax)."""

    @abstractmethod
    def loss(self, raw: tuple[Tensor, ...], targets: Sequence[Target]) -> dict[str, Tensor]:
        """The authors' training loss, by term; their sum is minimised."""

    def manifest(self) -> ModelManifest:
        """What goes into the ONNX metadata."""
        height, width = self.input_size
        return ModelManifest(
            detector=self.name,
            labels=self.labels,
            input=InputSize(height=height, width=width),
            resize=self.resize,
            clip=self.clip,
            nms={"origin": self.nms, "common": COMMON_NMS},
            params_m=count_parameters(self) / 1e6,
            gmacs=count_macs(self.network, (1, 3, height, width)) / 1e9,
        )

    @classmethod
    @abstractmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> OfficialState:
        """Put an origin's state dict under our names.

        Raises:
            WeightsError: the file is not of this detector.
        """

    @classmethod
    @abstractmethod
    def official_labels(cls) -> list[Label]:
        """The categories of the officially published weights, in the order of the score columns.

        A column that COCO has no category for is there too, with the id None; post-processing leaves it out.
        """


def with_network(detector: Detector, network: nn.Module) -> Detector:
    """A copy of ``detector`` that runs ``network`` instead of its own, in evaluation mode."""
    changed = copy.copy(detector)
    changed._modules = dict(detector._modules)  # copy.copy shares the dictionary of submodules
    changed.network = network
    return changed.eval()


def xyxy_fractions(boxes: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Boxes in pixels of the input, [..., 4], as fractions of it."""
    height, width = input_size
    return boxes / torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
