"""Adaptive training sample selection (Zhang et al. 2020, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgejoule_trainer.losses.boxes import iou


def assign(anchors: Tensor, level_sizes: Sequence[int], boxes: Tensor, topk: int = 9) -> Tensor:
    """Which object, if any, each anchor learns.

    Per object: the ``topk`` anchors nearest by centre on each level are candidates; those whose IoU is at
    least mean + standard deviation of the candidates' IoUs, and whose centre lies inside the object, are
    positive. An anchor claimed twice goes to the object it overlaps most.

    Args:
        anchors: float[N, 4], x1, y1, x2, y2 in pixels, level by level.
        level_sizes: anchors per level, summing to N.
        boxes: float[n, 4], the objects.

    Returns:
        int64[N]: index of the object, or -1 for background.
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, dtype=torch.long, device=anchors.device)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    distance = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, centres)
    candidates, start = [], 0
    for size in level_sizes:
        nearest = distance[:, start : start + size].topk(min(topk, size), dim=1, largest=False).indices
        candidates.append(nearest + start)
        start += size
    candidate = torch.cat(candidates, dim=1)
    overlap = iou(boxes[:, None], anchors[candidate])
    threshold = overlap.mean(dim=1, keepdim=True) + overlap.std(dim=1, keepdim=True)
    centre = centres[candidate]
    inside = torch.minimum(centre - boxes[:, None, :2], boxes[:, None, 2:] - centre).amin(dim=-1) > 0.01
    positive = (overlap >= threshold) & inside

    claimed = torch.full((len(boxes), len(anchors)), -1.0, device=anchors.device)
    claimed.scatter_(1, candidate, torch.where(positive, overlap, -1.0))
    best, owner = claimed.max(dim=0)
    return torch.where(best >= 0, owner, -1)
