"""The multibox loss of single-shot detectors (Liu et al. 2016, section 2.2): matching, hard negatives, smooth L1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgejoule_trainer.detectors.detector import Target, xyxy_fractions
from edgejoule_trainer.detectors.prior_boxes import corners, encode
from edgejoule_trainer.losses.boxes import iou

NEGATIVES_PER_POSITIVE = 3


@dataclass(frozen=True)
class Assignment:
    """What each prior learns. labels: int64[B, N], 0 for background, else class + 1. code: float[B, N, 4]."""

    labels: Tensor
    code: Tensor


def match(priors: Tensor, boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """Which object, if any, each prior learns.

    A prior learns the object that it overlaps most, if their IoU is at least ``threshold``; and each object has at
    least the prior that overlaps it most (the first object, where two claim one prior).

    Args:
        priors, boxes: float[N, 4] and float[n, 4], x1, y1, x2, y2 in the same unit.

    Returns:
        int64[N]: index of the object, or -1 for background.
    """
    if not len(boxes):
        return torch.full((len(priors),), -1, dtype=torch.long, device=priors.device)
    overlap = iou(boxes[:, None], priors[None])
    best, owner = overlap.max(dim=0)
    owner = torch.where(best >= threshold, owner, -1)
    forced = F.one_hot(overlap.argmax(dim=1), len(priors))
    return torch.where(forced.any(dim=0), forced.argmax(dim=0), owner)


def assign(priors: Tensor, targets: Sequence[Target], input_size: tuple[int, int]) -> Assignment:
    """Match the objects of each image to ``priors`` (float[N, 4], cx, cy, w, h in fractions)."""
    prior_corners = corners(priors)
    labels, codes = [], []
    for target in targets:
        boxes = xyxy_fractions(target.boxes, input_size)
        owner = match(prior_corners, boxes)
        label = torch.zeros_like(owner)
        code = torch.zeros_like(priors)
        positive = owner >= 0
        label[positive] = target.labels[owner[positive]] + 1
        code[positive] = encode(boxes[owner[positive]], priors[positive]).to(code.dtype)
        labels.append(label)
        codes.append(code)
    return Assignment(torch.stack(labels), torch.stack(codes))


def hard_negatives(losses: Tensor, positive: Tensor, at_least: int = 0) -> Tensor:
    """The background priors with the highest loss: three times as many as there are positive ones, image by image.

    Args:
        losses, positive: float[B, N] and bool[B, N].
        at_least: negatives of an image with few objects or none.

    Returns:
        bool[B, N].
    """
    wanted = (NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True)).clamp(min=at_least)
    order = losses.detach().masked_fill(positive, -math.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1, stable=True)
    return (rank < wanted) & ~positive


def multibox_loss(
    class_losses: Tensor, code: Tensor, assignment: Assignment, negatives_at_least: int = 0
) -> dict[str, Tensor]:
    """Classification over positives and hard negatives, smooth L1 of the codes over positives; both per positive.

    Args:
        class_losses: float[B, N], of each prior for the label it is assigned.
        code: float[B, N, 4], predicted.
    """
    positive = assignment.labels > 0
    counted = positive | hard_negatives(class_losses, positive, negatives_at_least)
    positives = positive.sum().clamp(min=1)
    distance = F.smooth_l1_loss(code, assignment.code, reduction="none").sum(dim=-1)
    return {
        "classification": torch.where(counted, class_losses, 0).sum() / positives,
        "localization": torch.where(positive, distance, 0).sum() / positives,
    }


def class_shares(classes: int) -> tuple[float, float]:
    """Of the priors that classification counts, the shares of background and of each class, before any is learned."""
    positive = 1 / (1 + NEGATIVES_PER_POSITIVE)
    return 1 - positive, positive / classes
