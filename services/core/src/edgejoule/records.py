"""The records that steps write and people read: typed JSON with units in the names.

A value that nobody measured is ``None`` and ``absent`` maps its field to the reason; never 0, never
an estimate. The JSON Schema files under ``docs/reference/schemas`` and in the agent are made from
these classes (``make schemas``), and a test compares them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Batch = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[float, Field(ge=0)]
Status = Literal["ok", "unsupported", "failed", "oom", "throttled", "unreachable"]


class Record(BaseModel):
    """Base: unknown fields are errors, NaN and infinity are not numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Measured(Record):
    """A record whose optional values, when ``None``, are explained in ``absent``."""

    absent: dict[str, str] = Field(default_factory=dict, description="field not measured -> why")

    @model_validator(mode="before")
    @classmethod
    def _older_records_say_so(cls, values: Any) -> Any:
        """A field with the default ``None`` is younger than some records, which do not know it."""
        if not isinstance(values, dict) or not isinstance(told := values.get("absent", {}), dict):
            return values
        younger = [
            name for name, field in cls.model_fields.items() if not field.is_required() and field.default is None
        ]
        silent = {name: "the version that wrote this did not tell" for name in younger if name not in values}
        return {**values, "absent": {**silent, **told}} if silent else values

    @model_validator(mode="after")
    def _every_none_has_a_reason(self) -> Measured:
        empty = {n for n in type(self).model_fields if n not in ("absent", "reason") and getattr(self, n) is None}
        if unexplained := sorted(empty - self.absent.keys()):
            raise ValueError(f"no reason in absent for {', '.join(unexplained)}")
        if contradicted := sorted(set(self.absent) - empty):
            raise ValueError(f"absent names {', '.join(contradicted)}, which is not null")
        return self


# --- the engine contract -------------------------------------------------------------------------


class Label(Record):
    """One output class: its data-set category."""

    id: int | None = Field(description="category id; null: a column of the origin without a category")
    name: str


class InputSize(Record):
    height: int
    width: int


class Resize(Record):
    """How a frame becomes the network's input.

    ``stretch`` fills the input; ``letterbox_centre`` and ``letterbox_top_left`` keep the aspect and fill the rest.
    ``alignment``: ``half_pixel`` maps pixel centres (x+0.5), as cv2.resize does; ``corner`` maps pixel
    indices (u = s*x), as cv2.warpAffine with a pure scale does.
    """

    policy: Literal["stretch", "letterbox_centre", "letterbox_top_left"]
    interpolation: Literal["bilinear", "area", "bicubic", "nearest"]
    alignment: Literal["half_pixel", "corner"]
    fill_rgb: tuple[int, int, int]


class Nms(Record):
    """Non-maximum suppression: floor, top-k before, IoU, per class or not, how many are kept."""

    score_floor: float
    top_k: int = Field(description="candidates (box x class) kept by score before suppression")
    iou: float
    class_wise: bool
    limit: int


class ModelManifest(Record):
    """Written by the exporter into the ONNX metadata (key ``edgejoule``); all that pre- and post-processing need.

    The graph is ``image: float32[B,3,H,W]`` (RGB, 0-255, already resized) to ``boxes: float32[B,N,4]``
    (x1,y1,x2,y2 as fractions of the network input, padding included) and ``scores: float32[B,N,C]``.
    """

    format: Literal[1] = 1
    detector: str
    labels: list[Label] = Field(description="index of a score column -> data-set category")
    input: InputSize
    resize: Resize
    clip: Literal["before_nms", "after_nms"] = Field(description="when boxes are clipped to the frame")
    nms: dict[Literal["origin", "common"], Nms] = Field(description="the authors' own values, and the common ones")
    params_m: float = Field(description="trainable parameters, millions, batch norm included")
    gmacs: float = Field(description="multiply-accumulates of one image, 1e9 (Eq. 1 is twice this)")


# --- what steps write ----------------------------------------------------------------------------


class HardwareClass(Record):
    """What an engine is bound to: same class, same engine."""

    machine: str = Field(description="x86_64, aarch64")
    processor: str = Field(description="CPU or GPU model; with SM on NVIDIA")
    features: list[str] = Field(description="instruction sets that decide kernels: avx2, avx512_vnni, ...")
    runtime: str
    runtime_version: str
    l4t: str | None = Field(None, description="release of the board's Linux for Tegra; null on other hosts")
    gpu: str | None = Field(None, description="NVIDIA GPUs of a host whose engine runs on one; null elsewhere")
    simulated: bool | None = Field(None, description="true: the processor is a board that is not there; else null")


class Candidate(Record):
    """One runtime tried for one cell, and how it did."""

    runtime: str
    correct: bool | None = Field(description="by the reference; null where nothing could check it, and reason says so")
    reason: str
    latency_ms: float | None = Field(description="of one inference, least of a short timing; null when it did not run")


class EngineRecord(Measured):
    """Output ``record`` of a ``build`` step."""

    precision: Literal["fp32", "fp16", "int8"]
    ran_as: str = Field(description="what the layers really run in: fp32, int8+fp32, ...; w7: 7-bit weights")
    hardware: HardwareClass
    options: dict[str, str] = Field(description="runtime options that were set")
    batch: Batch = Field(default=1, description="images that one inference takes")
    size_bytes: int
    int8_share: float | None = Field(description="share of MACs executed in INT8, read from the built engine")
    compute_shares: dict[str, float] | None = Field(
        None, description="share of MACs by the precision they are executed in: int8, fp16, fp32; read as int8_share is"
    )
    reformat_layers: int | None
    candidates: list[Candidate]
    chosen_because: str
    model: ModelManifest
    simulated: bool


class Latency(Record):
    mean: Milliseconds
    std: Milliseconds
    p50: Milliseconds
    p90: Milliseconds
    p99: Milliseconds
    n: int
    trials: int


class Contention(Record):
    """What others did on the host while we measured."""

    contended: bool
    other_cpu_share: float = Field(description="CPU time of other processes / all CPU time available, 0-1")
    load1_before: float
    load1_after: float
    pressure_some_us: int | None = Field(
        description="growth of the CPU pressure-stall total; null where the kernel has none"
    )


class Preconditioning(Record):
    """How the device was brought to its starting temperature, and whether it got there."""

    waited_s: float = Field(description="rest and waiting together")
    temp_c: float | None = Field(description="at its end; null where no temperature can be read")
    slope_c_min: float | None = Field(description="of its last seconds, °C per minute")
    reached: Literal["yes", "no", "unknown"] = Field(description="within the protocol's band and slope")
    words: str


class Sampling(Record):
    """How a window's power was sampled. Counters that miss nothing are read twice and have no gap."""

    period_s: float = Field(description="median interval between readings")
    max_gap_s: float
    samples: int
    realtime: str = Field(description="real-time scheduling of the sampler, which it asks for: yes, or why not")


class Throughput(Record):
    """Many inferences under way at a time."""

    images_per_s: float = Field(description="batch x inferences / wall_s")
    streams: int
    inferences: int
    wall_s: float


class BenchmarkRecord(Measured):
    """Output ``record`` of a ``benchmark`` step: one trial.

    An inference is one call of the engine, with ``batch`` images. Output ``samples`` (npz) holds all of ``latency_ms``,
    and ``execution_ms`` where the engine times it. Uncertainties are half-widths at 95 %.
    """

    device: str
    trial: int
    protocol: str
    protocol_values: dict[str, Any] = Field(description="all that it says of one trial")
    warmup_iterations: int
    iterations: int
    threads: int
    batch: Batch = Field(default=1, description="images that one inference takes")
    started_at: str = Field(description="UTC; tells the order in which cells were measured")
    preconditioning: Preconditioning | None
    latency_ms: Latency = Field(
        description="of one inference, from its images to their boxes and scores by wall clock, copies included"
    )
    execution_ms: Latency | None = Field(
        description="of one inference, the execution alone by the device's or the runtime's clock, no copies: "
        "the paper's t_inf"
    )
    throughput: Throughput | None
    stages_ms: dict[Literal["pre", "infer", "post"], float] | None = Field(
        description="mean per image, the inference's its share of a batch, of decoding-free pre-processing, inference "
        "and post-processing (Eq. 11)"
    )
    load_ms: float | None
    load_memory_mb: float | None = Field(
        None, description="growth of the process's resident memory by loading the engine, its runtime's libraries too"
    )
    memory_peak_mb: float | None = Field(description="greatest resident memory of the measuring process")
    device_memory_mb: float | None = Field(description="what loading the engine took of the GPU's memory")
    power_of: str | None = Field(description="what the power is of, and what is not in it")
    power_w: float | None = Field(description="mean over the window")
    power_uncertainty_w: float | None
    energy_mj: float | None = Field(description="per inference (per image: / batch), idling included")
    energy_uncertainty_mj: float | None = Field(description="per inference: sampling, resolution and gaps")
    sensor_error_mj: float | None = Field(
        description="per inference: the sensor's own by its data sheet; alike in all rows of a board"
    )
    idle_power_w: float | None = Field(description="before this trial, without the engine")
    idle_power_uncertainty_w: float | None
    energy_above_idle_mj: float | None = Field(
        description="per inference (per image: / batch), beyond what idling for as long takes"
    )
    energy_above_idle_uncertainty_mj: float | None
    sampling: Sampling | None
    window_s: float | None = Field(description="length of the window whose energy was taken")
    window_inferences: int | None = Field(description="in that window; the timed ones are the first of them")
    states: dict[str, float] | None = Field(
        description="means over the window: clocks, loads, fan, memory, e.g. gpu_clock_hz, gpu_load_share"
    )
    temperature_c: float | None = Field(description="at the end")
    throttled: Literal["yes", "no", "unknown"]
    throttled_evidence: str = Field(description="by what, in words")
    contention: Contention
    environment: dict[str, Any] = Field(description="probe of the device before; equal after, or the trial is void")
    simulated: bool


class PredictRecord(Record):
    """Output ``record`` of a ``predict`` step: one engine over one shard."""

    images: int
    detections: int = Field(description="kept for AP")
    operating: int = Field(description="kept at the operating point")
    nms: dict[Literal["detections", "operating"], Nms] = Field(description="what made each of the two")
    threads: int
    simulated: bool


class Accuracy(Record):
    """COCO bounding-box metrics, as fractions; null where there is no ground truth of that kind."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar100: float


class SizeErrors(Record):
    """Objects, and detections shown, of one size: small under 32^2 square pixels, large from 96^2 on, at IoU 0.5.

    An object has the size of its annotation's area, a detection that of its own box, so a small one that is wrong is
    told as small, whatever it lies on.
    """

    objects: int
    found: int
    recall: float | None
    shown: int = Field(description="detections that count: those on crowd regions do not")
    false_positives: int
    false_positives_per_image: float


class OperatingPoint(Record):
    """The paper's confidence 0.25 and NMS IoU 0.45: what a deployed detector shows, not an AP."""

    confidence: float
    nms_iou: float
    precision: float | None
    recall: float | None
    f1: float | None
    ap50: float = Field(description="area above the confidence only; not comparable with AP50")
    detections: int
    by_size: dict[Literal["small", "medium", "large"], SizeErrors] = Field(
        default_factory=dict, description="empty in records of before it was told"
    )


class Fidelity(Record):
    """AP of these detections against the reference engine's own confident ones; needs no labels."""

    ap: float
    ap50: float
    reference: str = Field(description="which engine's detections were taken as truth")
    confidence: float = Field(description="a reference detection at or above this counts")
    boxes: int


class ScoreRecord(Measured):
    """Output ``record`` of a ``score`` step."""

    accuracy: Accuracy
    operating_point: OperatingPoint
    fidelity: Fidelity | None
    images: int
    detections: int
    scorer: Literal["hotcoco", "pycocotools"]
    score_floor: float
    ap_by_category: dict[str, float | None]


# --- what 8 bits do to a graph -------------------------------------------------------------------


class TensorError(Record):
    """The quantization error of a tensor x, which INT8 reads as DQ(Q(x)): the paper's Eqs. 2, 3 and 8."""

    msqe: float = Field(description="mean of (x - DQ(Q(x)))^2, in the tensor's own unit squared")
    power: float = Field(description="mean of x^2: power / msqe is the signal-to-quantization-noise ratio")


class LayerError(Record):
    """One convolution or linear layer of an INT8 graph."""

    name: str
    weights: TensorError | None = Field(description="null: the layer stays in float")
    input: TensorError | None = Field(
        description="of what it reads, over every tensor that shares its scale; null: the layer stays in float"
    )
    float_because: str | None = Field(description="why it stays in float; null: it is in 8 bits")


class QuantizationError(Record):
    """Every layer of an INT8 graph in the order in which it runs them, as the step that made the graph measured it.

    The graph runs in 8 bits meanwhile, so what a layer reads has the errors of those before it (the paper's Eq. 9).
    """

    images: int = Field(description="of the tuning set, on which the inputs were looked at")
    layers: list[LayerError]


# --- results.json --------------------------------------------------------------------------------


class GraphError(Measured):
    """What 8 bits do to the layers of a model's INT8 graph, which is the same on every device and at every batch."""

    model: str = Field(description="as its rows of batch 1 call it")
    variant: str
    error: QuantizationError | None


class Hashes(Record):
    """The bytes that produced a row."""

    weights: Sha256 | None
    onnx: Sha256 | None
    engine: Sha256 | None
    data: Sha256 | None
    calibration: Sha256 | None


class Repeat(Record):
    """What a row's model scores when its INT8 is made by a seed."""

    seed: int = Field(description="of calibration and, for int8-qat, of training; the spec's own is the row itself")
    ap: float
    ap50: float
    runtime: str = Field(description="of its engine, chosen for each anew where a device has several")
    ran_as: str


class Row(Measured):
    """One detector x weights x precision x device x batch.

    An inference is one call of the engine, with ``batch`` images: its latency is what one waits for. What is held
    against other rows beside it is per image.
    """

    detector: str
    model: str = Field(
        description="the name the spec gives this entry, with its input and batch where they tell it apart"
    )
    weights: Literal["base", "qat"]
    precision: Literal["fp32", "fp16", "int8"]
    variant: str = Field(description="as in the spec: fp32, fp16, int8-ptq, ...")
    ran_as: str | None
    device: str
    batch: Batch = Field(default=1, description="images that one inference takes")
    runtime: str | None
    status: Status
    reason: str | None
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar100: float | None
    accuracy_from: Literal["same-engine", "host-proxy"] | None
    operating_point: OperatingPoint | None
    fidelity: Fidelity | None
    repeats: list[Repeat] | None = Field(
        description="by the spec's own seed first, and then by those that have a score"
    )
    latency_ms: Latency | None = Field(description="of one inference")
    execution_ms: Latency | None = Field(
        description="of one inference, the execution alone by the device's or the runtime's clock: the paper's t_inf"
    )
    fps: float | None = Field(description="images per second: 1000 x batch / latency_ms.mean")
    stages_ms: dict[Literal["pre", "infer", "post"], float] | None = Field(description="mean per image")
    size_mb: float | None = Field(description="serialized engine, 1e6 bytes")
    params_m: float | None
    gmacs: float | None = Field(description="of one image")
    int8_share: float | None
    power_w: float | None
    energy_mj: float | None = Field(description="per inference (per image: / batch), idling included")
    energy_uncertainty_mj: float | None = Field(
        description="per inference, half-width at 95 %: the trials' own (mean) and their scatter about the mean, added "
        "as squares"
    )
    energy_above_idle_mj: float | None = Field(description="per inference (per image: / batch)")
    energy_above_idle_uncertainty_mj: float | None
    map_per_joule: float | None = Field(description="100 x AP50 / energy per image in joules")
    memory_peak_mb: float | None
    throttled: Literal["yes", "no", "unknown"] | None
    contended: bool | None
    simulated: bool
    pareto: bool | None = Field(description="on the front of AP against latency, within its device")
    protocol: str
    comparable: bool = Field(description="false for protocol quick: its figures are for looking, not comparing")
    hashes: Hashes
    flags: list[str] = Field(default_factory=list, description="plausibility findings, in words")

    def per_image(self, energy_mj: float | None) -> float | None:
        """An energy of one inference as an image's share of it."""
        return None if energy_mj is None else energy_mj / self.batch


class Difference(Record):
    """AP of one row less that of another on the same images, with its paired bootstrap interval and its test."""

    metric: Literal["ap", "ap50"]
    row: str = Field(description="model/variant/device")
    against: str
    difference: float
    low: float = Field(description="of its own interval, not corrected for the number of differences")
    high: float
    level: float
    resamples: int
    images: int
    p: float | None = Field(
        None, description="two-sided, of the paired permutation test over images; null in results of before it was made"
    )
    p_holm: float | None = Field(
        None, description="p after Holm's correction over all differences of the run, AP and AP50; null where p is"
    )
    verdict: str = Field(description="lower, higher, or no evidence of a difference: by p_holm at 1 - level")


class Front(Record):
    """The rows of a device that no other beats in both AP and mean latency, and the hypervolume of what they beat."""

    device: str
    rows: list[str] = Field(description="model/variant/device")
    hypervolume_ap_ms: float = Field(
        description="area between the front and the reference point, AP as a fraction; only fronts with one reference"
        " point may be held against each other"
    )
    reference_ap: float
    reference_latency_ms: float = Field(description="1.1 times the slowest row that was compared")


class SeedTest(Measured):
    """A t-test of a difference in accuracy over the seeds by which INT8 was made: of seeds, not of images."""

    metric: Literal["ap", "ap50"]
    row: str = Field(description="model/variant/device")
    against: str
    test: Literal["paired", "one-sample"] = Field(
        description="paired by seed; or, against a row that no seed changes, of the differences from its one value"
    )
    seeds: list[int]
    difference: float = Field(description="mean over the seeds of the row less that of the other")
    low: float | None = Field(description="of Student's interval")
    high: float | None
    level: float
    effect: float | None = Field(
        description="Cohen's d_z: the mean difference in standard deviations of the differences"
    )
    t: float | None
    freedom: int | None = Field(description="degrees of freedom")
    p: float | None = Field(description="two-sided")
    p_holm: float | None = Field(description="p after Holm's correction over all of these tests of the run")
    verdict: str


class Interval(Record):
    """Where a figure may lie, judged by resampling the images: a basic bootstrap interval of an AP or AR, a percentile
    one of what is told of the operating point."""

    low: float
    high: float
    level: float


class SizeIntervals(Record):
    """Where what ``SizeErrors`` tells of one size may lie."""

    recall: Interval | None = Field(description="null where there is no object of this size")
    false_positives_per_image: Interval


class Check(Record):
    """One plausibility check of one row, with its arithmetic."""

    name: str
    verdict: Literal["plausible", "implausible", "not checked"]
    said: str = Field(description="the figures that were compared, or why nothing could be")


def _of_every_percent(values: list[float]) -> list[float]:
    if len(values) not in (0, 101):
        raise ValueError(f"{len(values)} percentiles where 101 are due, from the 0th to the 100th, or none")
    return values


Percentiles = Annotated[list[float], AfterValidator(_of_every_percent)]


class Evidence(Record):
    """What lies behind one row: enough to draw its plots and to repeat it; empty or null where nothing was measured."""

    ap_interval: Interval | None = None
    ap50_interval: Interval | None = None
    ap75_interval: Interval | None = None
    ap_small_interval: Interval | None = None
    ap_medium_interval: Interval | None = None
    ap_large_interval: Interval | None = None
    ar100_interval: Interval | None = None
    precision_interval: Interval | None = Field(None, description="at the operating point, as the next two")
    recall_interval: Interval | None = None
    f1_interval: Interval | None = None
    errors_by_size: dict[Literal["small", "medium", "large"], SizeIntervals] = Field(
        default_factory=dict, description="at the operating point; empty in results of before it was told"
    )
    images: int | None = Field(None, description="evaluation images scored")
    scorer: str | None = None
    score_floor: float | None = Field(None, description="detections below are not scored")
    latency_curve_ms: Percentiles = Field(
        default_factory=list, description="0th, 1st, ..., 100th percentile of the pooled samples"
    )
    ap_draws: Percentiles = Field(
        default_factory=list, description="0th, 1st, ..., 100th percentile of AP over resamples of the images"
    )
    ap50_draws: Percentiles = Field(default_factory=list, description="the same of AP50")
    matches: Sha256 | None = Field(None, description="output matches of the score step: what AP is computed from")
    trial_means_ms: list[float] = Field(default_factory=list)
    started_at: list[str] = Field(
        default_factory=list, description="of each trial, UTC: in which order rows were measured"
    )
    power_of: str | None = Field(None, description="what the power is of, and what is not in it")
    trial_p50_ms: list[float] = Field(default_factory=list, description="of each trial on its own; p90 and p99 alike")
    trial_p90_ms: list[float] = Field(default_factory=list)
    trial_p99_ms: list[float] = Field(default_factory=list)
    trial_energies_mj: list[float] = Field(
        default_factory=list, description="per inference; empty unless every trial measured it"
    )
    sensor_error_mj: float | None = Field(
        None,
        description="per inference, the mean of the trials: the power sensor's own by its data sheet, a half-width at"
        " 95 %; not in energy_uncertainty_mj; alike in all rows of a board; null where no data sheet tells it",
    )
    trial_powers_w: list[float] = Field(default_factory=list, description="empty unless every trial measured it")
    trial_memory_peaks_mb: list[float] = Field(default_factory=list, description="empty unless every trial measured it")
    load_memory_mb: float | None = Field(
        None, description="growth of the process by loading the engine, greatest of the trials; null unless all have it"
    )
    device_memory_mb: float | None = Field(
        None, description="what loading took of the GPU's memory, greatest of the trials; null unless all have it"
    )
    warmup_iterations: int | None = None
    iterations: int | None = Field(None, description="timed inferences per trial")
    threads: int | None = None
    other_cpu_share: float | None = Field(None, description="greatest of the trials: CPU time of other processes, 0-1")
    input: InputSize | None = Field(None, description="of the network, pixels")
    hardware: HardwareClass | None = None
    environment: dict[str, Any] = Field(default_factory=dict, description="probe of the device at the first trial")
    options: dict[str, str] = Field(default_factory=dict, description="runtime options that were set")
    candidates: list[Candidate] = Field(default_factory=list)
    chosen_because: str | None = None
    idle_power_w: float | None = Field(None, description="mean of the trials, before each; null unless all have it")
    checks: list[Check] = Field(default_factory=list, description="whether the row can be; what cannot is a flag of it")


class Results(Record):
    """The file ``results.json``."""

    format: Literal[1] = 1
    run: str
    edgejoule_version: str
    spec: dict[str, Any]
    rows: list[Row]
    differences: list[Difference]
    seed_tests: list[SeedTest] = Field(default_factory=list, description="where INT8 was made by several seeds")
    fronts: list[Front] = Field(default_factory=list, description="of each device that has a row with status ok")
    evidence: dict[str, Evidence] = Field(default_factory=dict, description="model/variant/device -> what is behind it")
    quantization: list[GraphError] = Field(
        default_factory=list,
        description="of each INT8 graph: before an engine is built from it, by which weights may be rounded again",
    )
    data: dict[str, Any] = Field(description="per set: images, boxes, left out and why")
    notes: list[str]

    @model_validator(mode="after")
    def _names_are_of_rows(self) -> Results:
        """Each row once, and nothing said of a row that is not there; a row without evidence gets an empty one."""
        rows = [f"{row.model}/{row.variant}/{row.device}" for row in self.rows]
        if twice := next((name for name in rows if rows.count(name) > 1), None):
            raise ValueError(f"row {twice} stands more than once")
        named = {
            "differences": [name for found in self.differences for name in (found.row, found.against)],
            "seed_tests": [name for found in self.seed_tests for name in (found.row, found.against)],
            "fronts": [name for found in self.fronts for name in found.rows],
            "evidence": list(self.evidence),
        }
        for where, names in named.items():
            if strange := next((name for name in names if name not in rows), None):
                raise ValueError(f"{where} names {strange}, which is no row")
        self.evidence = {name: self.evidence.get(name) or Evidence.model_validate({}) for name in rows}
        return self
