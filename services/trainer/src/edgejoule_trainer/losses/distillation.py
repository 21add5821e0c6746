"""How far a detector's answer is from that of its teacher: no labels needed."""

from __future__ import annotations

from torch import Tensor

from edgejoule_trainer.losses.boxes import giou

_TINY = 1e-6


def distillation_loss(
    boxes: Tensor, scores: Tensor, teacher_boxes: Tensor, teacher_scores: Tensor, input_size: tuple[int, int]
) -> dict[str, Tensor]:
    """Squared distance of the scores, as a share of the teacher's own, and 1 - GIoU of the boxes it is sure of.

    The same two quantities choose the calibrator (``quantize.ptq.Disagreement``), in a form that has gradients
    everywhere: each place counts by the teacher's best score there, in place of a threshold.

    Args:
        boxes, teacher_boxes: float32[B, N, 4], fractions of the input. scores, teacher_scores: float32[B, N, C].
        input_size: (height, width) in pixels.
    """
    height, width = input_size
    pixels = boxes.new_tensor([width, height, width, height])
    distance = (scores - teacher_scores).square().sum() / teacher_scores.square().sum().clamp(min=_TINY)
    confidence = teacher_scores.amax(dim=-1).square()
    apart = (1 - giou(boxes * pixels, teacher_boxes * pixels)) * confidence
    return {"teacher_scores": distance, "teacher_boxes": apart.sum() / confidence.sum().clamp(min=_TINY)}
