"""YOLOv5's target assignment: by shape alone, to the cell of the object's centre and to the two nearest beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MAX_RATIO = 4.0  # anchor_t: how much longer a side may be than the anchor's, or the anchor's than it
_STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))  # to the cell itself, left, above, right, below


class Matches(NamedTuple):
    """Which predictions of a level learn which object: int64[m] each. An object may stand in many, or in none."""

    owner: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor


def assign(boxes: Tensor, anchors: Tensor, stride: int, cells: tuple[int, int]) -> Matches:
    """Match objects with the anchors of one level.

    An object goes to every anchor from which neither of its sides differs by a factor of ``MAX_RATIO`` or more. The
    cell that holds its centre learns it, and so does each neighbour (left or right, above or below) that is less
    than half a cell away from the centre; the map's edge has none. A centre on the very border of two cells counts
    twice for the second, as in the authors' code.

    Args:
        boxes: float[n, 4], x1, y1, x2, y2 in pixels of the input; of one image or of several.
        anchors: float[a, 2], width and height in pixels.
        cells: rows and columns of the level.
    """
    ratio = (boxes[:, None, 2:] - boxes[:, None, :2]) / anchors
    alike = torch.maximum(ratio, 1 / ratio).amax(dim=-1) < MAX_RATIO
    owner, anchor = torch.nonzero(alike, as_tuple=True)

    last = torch.tensor([cells[1], cells[0]], device=boxes.device)
    centre = (boxes[owner, :2] + boxes[owner, 2:]) / 2 / stride
    from_end = last - centre
    before = (centre % 1 < 0.5) & (centre > 1)  # left, above
    behind = (from_end % 1 < 0.5) & (from_end > 1)  # right, below
    learns = torch.cat([torch.ones_like(before[:, :1]), before, behind], dim=1)

    match, step = torch.nonzero(learns, as_tuple=True)
    cell = (centre[match] + 0.5 * torch.tensor(_STEPS, device=boxes.device)[step]).long()
    cell = torch.minimum(cell.clamp(min=0), last - 1)
    return Matches(owner[match], anchor[match], row=cell[:, 1], column=cell[:, 0])
