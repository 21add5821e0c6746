"""What a paper claims, as labelled reference data: its tables and the figures in its text, and where each is printed.

Numbers are ``Decimal``, as printed: ``7.0`` is good to half of 0.1, and arithmetic on them is exact. Nothing here was
measured by us; ``label`` says so wherever the data go.
"""

from __future__ import annotations

from decimal import Decimal
from importlib.resources import files
from typing import Literal

from pydantic import Field

from edgejoule.records import Record

Variant = Literal["fp32", "fp16", "int8-ptq", "int8-qat"]
Quantity = Literal[
    "ap50",
    "latency_ms",
    "power_w",
    "size_mb",
    "fps",
    "energy_j",
    "inferences_per_joule",
    "loss_pp",
    "gain_pp",
    "size_ratio",
    "speedup",
]


def precision_of(variant: str) -> str:
    """
    >>> precision_of("int8-qat")
    'int8'
    """
    return variant.partition("-")[0]


class Source(Record):
    title: str
    journal: str
    doi: str


class ClaimedBoard(Record):
    """What the figures are said to come from."""

    name: str
    where: str
    idle_power_w: Decimal
    idle_where: str
    tensorrt: str
    python: str
    software_where: str
    throttles_at_c: Decimal
    throttles_where: str


class ClaimedAccuracy(Record):
    """How accuracy is said to have been taken."""

    confidence: Decimal = Field(description="below it detections are dropped before AP")
    where: str
    trials: int
    same_checkpoint: bool
    seeded: bool
    trials_where: str
    split: str
    split_images: int
    evaluated_images: int
    calibrated_on: str
    calibration_images: int
    said_disjoint: bool
    data_where: str


class Surveyed(Record):
    """AP50 before and after quantization, and the printed change in points."""

    model: str
    platform: str
    source: str
    fp32: Decimal
    int8: Decimal
    change_pp: Decimal


class ClaimedModel(Record):
    model: str
    params_m: Decimal
    gflops: Decimal
    input_px: int
    ptq_sensitivity: Literal["Low", "Medium", "High"]
    release: str | None = Field(description="of the checkpoint's repository, where one is named")


class ClaimedRow(Record):
    """One model x variant as printed; a column that a table lacks is null."""

    model: str
    variant: Variant
    ap50: Decimal
    ap50_std: Decimal
    latency_ms: Decimal
    latency_std_ms: Decimal
    power_w: Decimal
    power_std_w: Decimal
    size_mb: Decimal | None = None
    to_fp32_pp: Decimal | None = None
    to_ptq_pp: Decimal | None = None


class ClaimedEfficiency(Record):
    """One row of derived columns with their inputs."""

    model: str
    variant: Variant
    latency_ms: Decimal
    latency_std_ms: Decimal
    fps: Decimal
    power_w: Decimal
    power_std_w: Decimal
    dynamic_w: Decimal
    energy_mj: Decimal
    map_per_joule: Decimal


class Guideline(Record):
    """A recommendation with the limits it is made for; ``max_loss_pp`` against FP32, null where it is in words."""

    priority: str
    model: str
    variant: Variant
    max_loss_pp: Decimal | None
    min_ms: Decimal
    max_ms: Decimal


class Figure(Record):
    """A figure of one row, said in the text."""

    where: str
    quantity: Quantity
    model: str
    variant: Variant
    value: Decimal


class Range(Record):
    """A statistic over models, said in the text; over all of them where none is named."""

    where: str
    quantity: Quantity
    statistic: Literal["mean", "max", "range"]
    variant: Variant
    values: list[Decimal]
    models: list[str] = Field(default_factory=list)


class Saying(Record):
    value: str
    where: str


class Setting(Record):
    """One thing said in several places."""

    name: str
    said: list[Saying]


class PrintedFormulas(Record):
    """What two definitions say as they are printed."""

    mean_ap_where: str
    mean_ap_is: Literal["sum", "mean"] = Field(description="of the classes' areas under their curves")
    classes: int
    optimal_where: str
    optimal_is: Literal["beaten", "not beaten"] = Field(description="by another choice, in no objective worse")


class Front(Record):
    """The models called Pareto-optimal."""

    where: str
    variant: Variant
    models: list[str]


class RealTime(Record):
    """Whether a model is said to reach so many frames per second."""

    where: str
    subject: str
    fps: Decimal
    least_fps: Decimal
    said: bool


class Practical(Record):
    """Frames per second of a whole application on a stream."""

    where: str
    model: str
    variant: Variant
    fps: Decimal
    stream_fps: Decimal


class Prevalence(Record):
    """Of all situations, in how many each is said to be the best, in percent."""

    where: str
    percent: dict[str, Decimal]


class ModelsTable(Record):
    where: str
    rows: list[ClaimedModel]


class SurveyTable(Record):
    where: str
    rows: list[Surveyed]


class MeasuredTable(Record):
    where: str
    rows: list[ClaimedRow]


class EfficiencyTable(Record):
    where: str
    rows: list[ClaimedEfficiency]


class GuidelineTable(Record):
    where: str
    rows: list[Guideline]


class Claims(Record):
    """All of it."""

    label: Literal["claimed"]
    source: Source
    board: ClaimedBoard
    accuracy: ClaimedAccuracy
    surveyed: SurveyTable
    models: ModelsTable
    measured: list[MeasuredTable]
    efficiency: EfficiencyTable
    guidelines: GuidelineTable
    flops_per_mac: int
    flops_where: str
    figures: list[Figure]
    ranges: list[Range]
    settings: list[Setting]
    formulas: PrintedFormulas
    fronts: list[Front]
    real_time: list[RealTime]
    practical: list[Practical]
    prevalence: Prevalence

    def row(self, model: str, variant: str) -> ClaimedRow:
        """The measured row; a KeyError where no table has it."""
        return self.rows[model, variant]

    @property
    def rows(self) -> dict[tuple[str, str], ClaimedRow]:
        """Every measured row, in the order of the tables."""
        return {(row.model, row.variant): row for table in self.measured for row in table.rows}

    @property
    def table_of(self) -> dict[tuple[str, str], str]:
        """Where each measured row is printed."""
        return {(row.model, row.variant): table.where for table in self.measured for row in table.rows}


class KnownBoard(Record):
    """What is known of a board from others than the paper, and from whom."""

    sm: str
    gpu_cores: int
    gpu_max_hz: int
    gpu_source: str
    tensorrt: str = Field(description="newest release that runs there")
    python: str = Field(description="newest release that it runs there with")
    software_source: str
    throttle_trip_c: Decimal
    throttle_source: str
    idle_w: tuple[Decimal, Decimal]
    idle_source: str
    gpu_busy_w: Decimal = Field(description="of the GPU alone, at full load and its top clock")
    gpu_busy_source: str


class KnownDetector(Record):
    """What its authors publish."""

    params_m: Decimal
    gmacs: Decimal
    ap50: Decimal | None
    newest_release: str | None
    source: str


class Known(Record):
    boards: dict[str, KnownBoard]
    detectors: dict[str, KnownDetector]


def load_paper() -> Claims:
    """The claims of the paper that this project follows."""
    return Claims.model_validate_json(files("edgejoule_analyst").joinpath("data/paper.json").read_bytes())


def load_known() -> Known:
    """What is known of its board and its detectors."""
    return Known.model_validate_json(files("edgejoule_analyst").joinpath("data/known.json").read_bytes())
