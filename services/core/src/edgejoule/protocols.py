"""How things are measured: three presets, each value of which a spec may override.

``paper`` is Table 5 and section 3.3 of the paper. ``standard`` is ours. ``quick`` is for looking: its
rows say that they are not comparable. An overridden preset keeps its name with a ``*`` behind it
(``standard*``), so that two rows of one protocol name were measured alike.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1, strict=True)]


class Protocol(BaseModel):
    """One way of measuring, with every value it stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(description="preset, with * when a value differs from the preset's")
    comparable: bool = Field(description="false: figures are for looking, not for comparing")
    warmup_iterations: int = Field(
        ge=0, le=1_000_000, strict=True, description="inferences before timing starts, per trial"
    )
    iterations: Count = Field(description="timed inferences per trial")
    trials: Count = Field(description="independent trials, each in a process of its own")
    confidence: Fraction = Field(description="score threshold of the operating point; AP does not use it")
    nms_iou: Fraction = Field(description="NMS IoU of the operating point; AP uses the detector's own")
    power_sampling_ms: Count = Field(description="period of power samples on boards; no step on a host reads it")
    calibration_images: Count = Field(description="size of the calibration set where the spec gives none")
    seed: int = Field(ge=0, le=2**32 - 1, strict=True, description="of every random choice")
    workspace_mib: Count = Field(description="limit of a TensorRT builder's workspace; no step on a host reads it")

    def measuring(self) -> dict[str, Any]:
        """The values that decide what one trial does: more trials or another calibration set void no trial."""
        return {"name": self.name.rstrip("*"), **self.model_dump(include={"warmup_iterations", "iterations"})}


# Table 5 and section 3.3. Where these disagree (the text also says "100 repeats") the table stands.
PAPER = Protocol(
    name="paper",
    comparable=True,
    warmup_iterations=50,
    iterations=1000,
    trials=5,
    confidence=0.25,
    nms_iou=0.45,
    power_sampling_ms=100,
    calibration_images=1024,
    seed=42,
    workspace_mib=1024,
)

# Operating point, seed, warm-up, sampling and workspace as in the paper, since nothing speaks against them.
STANDARD = PAPER.model_copy(
    update={
        "name": "standard",
        # 5 x 400 pooled samples leave 20 beyond p99: a percentile, not the maximum of a few. Processes differ
        # more from each other (memory layout, clock) than inferences within one, hence trials before iterations.
        "iterations": 400,
        # One 320x320 image gives a tensor 1e4..1e6 values, so 256 fill every histogram bin that matters;
        # four times as many cost four times the calibration time.
        "calibration_images": 256,
    }
)

QUICK = PAPER.model_copy(
    update={
        "name": "quick",
        "comparable": False,
        "warmup_iterations": 10,  # enough for allocators and caches; clocks may still move
        "iterations": 50,  # a median settles, a p99 does not
        "trials": 2,  # the least that shows a spread
        "calibration_images": 64,
    }
)

PRESETS = {preset.name: preset for preset in (PAPER, STANDARD, QUICK)}

DERIVED = ("name", "comparable")
"""Fields that follow from the preset; no spec sets them."""
