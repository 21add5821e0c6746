"""Focal loss (Lin et al. 2017, Eq. 5); quality and distribution focal loss (Li et al. 2020, Eqs. 2 and 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss(logits: Tensor, present: Tensor, alpha: float, gamma: float) -> Tensor:
    """FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t), elementwise.

    Args:
        logits: scores before the sigmoid, any shape.
        present: same shape, 1 where the object is of that class, 0 elsewhere; p_t = p and alpha_t = alpha at 1,
            1 - p and 1 - alpha at 0.
    """
    missed = (present - logits.sigmoid()).abs()  # 1 - p_t
    balance = present * alpha + (1 - present) * (1 - alpha)
    return F.binary_cross_entropy_with_logits(logits, present, reduction="none") * missed.pow(gamma) * balance


def quality_focal_loss(logits: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """QFL(sigma) = -|y - sigma|^beta ((1 - y) log(1 - sigma) + y log(sigma)), elementwise.

    Args:
        logits: scores before the sigmoid, any shape.
        quality: y, same shape: IoU with the assigned object in its class's column, 0 elsewhere.
    """
    modulation = (quality - logits.sigmoid()).abs().pow(beta)
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * modulation


def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """DFL(S_i, S_i+1) = -((i+1 - y) log S_i + (y - i) log S_i+1), per element.

    Args:
        logits: float[n, bins], before the softmax.
        target: float[n], y in bins, 0 <= y < bins - 1.
    """
    left = target.long()
    weight_left = (left + 1).to(target.dtype) - target
    log_probability = logits.log_softmax(dim=-1)
    index = torch.stack([left, left + 1], dim=-1)
    picked = log_probability.gather(-1, index)
    return -(weight_left * picked[:, 0] + (1 - weight_left) * picked[:, 1])
