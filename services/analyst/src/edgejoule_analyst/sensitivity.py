"""How sensitive a detector is to post-training quantization, in the paper's three classes."""

from __future__ import annotations

import math
from typing import Literal

MEDIUM_FROM_PP, HIGH_ABOVE_PP = 1.5, 2.5

SensitivityClass = Literal["Low", "Medium", "High"]


def sensitivity_class(loss_pp: float) -> SensitivityClass:
    """The class of the accuracy lost by INT8 post-training quantization: the note under the paper's Table 4.

    Args:
        loss_pp: AP50 of FP32 less AP50 of INT8-PTQ, in percentage points, as in the paper's Table 7 (which the note
            calls Table 5); negative where INT8 scored better.

    Raises:
        ValueError: ``loss_pp`` is not a number.

    >>> [sensitivity_class(loss) for loss in (-0.3, 1.4, 1.5, 2.5, 2.6)]
    ['Low', 'Low', 'Medium', 'Medium', 'High']
    """
    if math.isnan(loss_pp):
        raise ValueError("the loss is not a number")
    if loss_pp > HIGH_ABOVE_PP:
        return "High"
    return "Medium" if loss_pp >= MEDIUM_FROM_PP else "Low"
