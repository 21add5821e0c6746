"""Box arithmetic on x1, y1, x2, y2 tensors."""

from __future__ import annotations

import math

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


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU (Zheng et al. 2020, "Distance-IoU Loss", Eqs. 8-11), elementwise; at most 1.

    IoU less the squared distance of the centres over the squared diagonal of the hull, less the difference of
    the aspects' angles, whose trade-off factor has no gradient.
    """
    overlap = iou(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(dim=-1).clamp(min=1e-6)
    distance = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).square().sum(dim=-1)
    aspect = 4 / math.pi**2 * (_angle(a) - _angle(b)).square()
    trade_off = (aspect / (1 - overlap + aspect).clamp(min=1e-6)).detach()
    return overlap - distance / diagonal - trade_off * aspect


def _angle(boxes: Tensor) -> Tensor:
    """Of the diagonal: arctan of width over height."""
    size = boxes[..., 2:] - boxes[..., :2]
    return torch.atan(size[..., 0] / size[..., 1].clamp(min=1e-6))
