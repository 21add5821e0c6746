"""Each anchor learns the object that it overlaps most (the matcher of TensorFlow's Object Detection and of AutoML)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgejoule_trainer.losses.boxes import iou


def match(anchors: Tensor, boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """Which object, if any, each anchor learns.

    An anchor whose best IoU reaches ``threshold`` takes that object. Then each object claims the anchor that
    overlaps it most, whatever the IoU; of two objects that claim the same one, the first gets it. A box that overlaps
    no anchor, which has no area or lies outside the image, claims none.

    Args:
        anchors: float[N, 4], x1, y1, x2, y2 in pixels.
        boxes: float[n, 4], the objects.

    Returns:
        int64[N]: index of the object, or -1 for background.
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, dtype=torch.long, device=anchors.device)
    overlap = iou(boxes[:, None], anchors)
    best, owner = overlap.max(dim=0)
    owner = torch.where(best >= threshold, owner, -1)

    best, claimed = overlap.max(dim=1)
    objects = torch.arange(len(boxes), device=boxes.device)[best > 0]
    nobody = len(boxes)
    claims = torch.full_like(owner, nobody).scatter_reduce(0, claimed[best > 0], objects, "amin")
    return torch.where(claims < nobody, claims, owner)
