"""Box arithmetic on x1, y1, x2, y2 tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """Areas of boxes[..., 4]; a box turned inside out has none."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    top_left = torch.maximum(a[..., :2], b[..., :2])
    bottom_right = torch.minimum(a[..., 2:], b[..., 2:])
    return (bottom_right - top_left).clamp(min=0).prod(dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes that broadcast against each other.

    >>> iou(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.])).item()  # 2 / 6
    0.3333333432674408
    """
    intersection = _intersection(a, b)
    return intersection / (area(a) + area(b) - intersection).clamp(min=1e-6)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al. 2019, Algorithm 1), elementwise; -1 to 1."""
    intersection = _intersection(a, b)
    union = (area(a) + area(b) - intersection).clamp(min=1e-6)
    hull = torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], dim=-1)
    hull_area = area(hull).clamp(min=1e-6)
    return intersection / union - (hull_area - union) / hull_area
