"""How things are measured: three presets, each value of which a spec may override.

``paper`` is Table 5 and section 3.3 of the paper. ``standard`` is ours. ``quick`` is for looking: its
rows say that they are not comparable. An overridden preset keeps its name with a ``*`` behind it
(``standard*``), so that two rows of one protocol name were measured alike.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=3600, strict=True)]
Rest = Annotated[float, Field(ge=0, le=3600, strict=True)]
Celsius = Annotated[float, Field(ge=-40, le=125, strict=True)]


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
    power_sampling_ms: Count = Field(description="period of power samples on boards; a host's counters need none")
    power_window_s: Seconds = Field(
        description="inferring goes on for so long at least where power can be read; only the first are timed; "
        "throughput takes as long"
    )
    idle_s: Annotated[float, Field(gt=0, le=300, strict=True)] = Field(
        description="how long the idle device's power is watched before each trial, where it can be read"
    )
    cool_down_s: Rest = Field(description="rest before each trial")
    start_temp_c: tuple[Celsius, Celsius] = Field(description="a trial waits until its device is between these")
    start_slope_c_min: Annotated[float, Field(gt=0, le=1000, strict=True)] = Field(
        description="and until its temperature changes by less, in °C per minute"
    )
    start_wait_s: Rest = Field(description="but no longer than this after the rest; the record says what was reached")
    calibration_images: Count = Field(description="size of the calibration set where the spec gives none")
    seed: int = Field(ge=0, le=2**32 - 1, strict=True, description="of every random choice")
    workspace_mb: Count = Field(
        description="the largest workspace of TensorRT's builder, MB (1e6 bytes); other runtimes have none"
    )

    @field_validator("start_temp_c", mode="after")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"must be two temperatures, the lower first, not {list(value)}")
        return value

    def measuring(self) -> dict[str, Any]:
        """The values that decide what one trial does: more trials or another calibration set void no trial."""
        return {"name": self.name.rstrip("*"), **self.model_dump(mode="json", include=set(MEASURING))}


MEASURING = (
    *("warmup_iterations", "iterations", "power_sampling_ms", "power_window_s", "idle_s"),
    *("cool_down_s", "start_temp_c", "start_slope_c_min", "start_wait_s"),
)
"""What one trial does."""


# Table 5 and section 3.3. Where these disagree (the text also says "100 repeats") the table stands. Of windows, rests
# and temperatures the paper says nothing: they are ours.
PAPER = Protocol(
    name="paper",
    comparable=True,
    warmup_iterations=50,
    iterations=1000,
    trials=5,
    confidence=0.25,
    nms_iou=0.45,
    power_sampling_ms=100,
    power_window_s=10.0,  # a hundred samples; single inferences cannot be resolved at 10 Hz
    idle_s=10.0,  # so that the idle power, which is subtracted, is known as well as the busy one
    cool_down_s=10.0,
    start_temp_c=(5.0, 60.0),  # far below any board's trip points, above what boards idle at
    start_slope_c_min=2.0,  # under 1 °C in a window, so under about 1 % of power by leakage
    start_wait_s=300.0,  # a passive heat sink's time constant is minutes
    calibration_images=1024,
    seed=42,
    workspace_mb=1000,
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
        "power_window_s": 3.0,  # thirty samples
        "idle_s": 3.0,
        "cool_down_s": 0.0,
        "start_wait_s": 0.0,  # takes the device as it is
    }
)

PRESETS = {preset.name: preset for preset in (PAPER, STANDARD, QUICK)}

DERIVED = ("name", "comparable")
"""Fields that follow from the preset; no spec sets them."""
