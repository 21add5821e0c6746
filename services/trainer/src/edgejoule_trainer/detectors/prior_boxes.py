"""Prior boxes of single-shot detectors, and boxes written relative to them (Liu et al. 2016, sections 2.1 and 2.2).

A prior is cx, cy, w, h in fractions of the network's input. A code is (dx, dy, dw, dh): the centre's distance in
sizes of the prior times 10, and the logarithm of the sizes' ratio times 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CENTRE_SCALE = 10.0
SIZE_SCALE = 5.0


def grid_priors(map_sizes: Sequence[tuple[int, int]], shapes: Sequence[Sequence[tuple[float, float]]]) -> Tensor:
    """Priors centred on the cells of each map: level by level, row by row, cell by cell, shape by shape.

    Args:
        map_sizes: (height, width) of each level's map.
        shapes: (w, h) of each level's priors, fractions of the input.

    Returns:
        float32[N, 4]: cx, cy, w, h.
    """
    levels = []
    for (rows, columns), pairs in zip(map_sizes, shapes, strict=True):
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2).expand(-1, len(pairs), 2)
        sizes = torch.tensor(pairs, dtype=torch.float32).expand(rows * columns, -1, 2)
        levels.append(torch.cat([centres, sizes], dim=-1).reshape(-1, 4))
    return torch.cat(levels)


def corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h to x1, y1, x2, y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def decode(code: Tensor, priors: Tensor, largest_dw: float | None = None) -> Tensor:
    """Codes [..., N, 4] to boxes x1, y1, x2, y2 in fractions of the input; the inverse of ``encode``.

    Args:
        largest_dw: above this, the logarithm of the sizes' ratio is cut, so that no box becomes infinite.
    """
    centre = code[..., :2] * (priors[:, 2:] / CENTRE_SCALE) + priors[:, :2]
    growth = code[..., 2:] / SIZE_SCALE
    if largest_dw is not None:
        growth = growth.clamp(max=largest_dw)
    half = growth.exp() * (priors[:, 2:] / 2)
    return torch.cat([centre - half, centre + half], dim=-1)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Boxes x1, y1, x2, y2 [n, 4] in fractions of the input as codes relative to ``priors`` [n, 4].

    >>> prior = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    >>> [round(value, 4) for value in encode(torch.tensor([[0.42, 0.4, 0.62, 0.6]]), prior)[0].tolist()]
    [1.0, 0.0, 0.0, 0.0]
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    return torch.cat(
        [
            (centre - priors[:, :2]) / priors[:, 2:] * CENTRE_SCALE,
            (size / priors[:, 2:]).log() * SIZE_SCALE,
        ],
        dim=1,
    )


def join_levels(maps: Sequence[Tensor], width: int) -> Tensor:
    """Head maps [B, shapes * width, H, W] of all levels as one [B, N, width], in the order of ``grid_priors``."""
    rows = [level.flatten(2).transpose(1, 2).unflatten(2, (level.shape[1] // width, width)) for level in maps]
    return torch.cat([row.flatten(1, 2) for row in rows], dim=1)
