"""Synthetic cells, written as the input files of an ``analyze`` step and read back by its real code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgejoule.folder_store import FolderStore
from edgejoule.job import Job
from edgejoule.records import (
    Accuracy,
    BenchmarkRecord,
    Candidate,
    Contention,
    EngineRecord,
    Evidence,
    Fidelity,
    HardwareClass,
    InputSize,
    Label,
    LayerError,
    ModelManifest,
    Nms,
    OperatingPoint,
    Preconditioning,
    QuantizationError,
    Resize,
    Results,
    Row,
    ScoreRecord,
    SizeErrors,
    TensorError,
)
from edgejoule_analyst.average_precision import AccuracyCurves, Matches
from edgejoule_analyst.latency import pool
from edgejoule_analyst.measurements import Cell, Measurements, Trial, read_cell
from edgejoule_analyst.plausibility import Images, checked
from edgejoule_analyst.rows import fronts, make_evidence, make_row, with_pareto
from edgejoule_analyst.steps import analyze
from edgejoule_analyst.words import row_name

IMAGES, CATEGORIES, TRIALS, SEED = 80, 6, 3, 42
NO_POWER = "the host shows no RAPL counter (/sys/class/powercap is empty)"


@dataclass
class Synthetic:
    """One cell to make up: its figures, or how it ended."""

    model: str = "nanodet_m"
    variant: str = "fp32"
    precision: str = "fp32"
    device: str = "host"
    graph: str = ""
    """Its graph, where that is not its own: the variant whose graph it has."""
    skill: float = 0.75
    latency_ms: float = 9.0
    size_mb: float = 3.9
    ended: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Step kind to (outcome, reason): onnx, build, score, benchmark."""
    contended: bool = False
    throttled: str = "no"
    power_w: float | None = None
    sensor_error_mj: float | None = None
    power_scatter: float = 0.0
    """Share by which each trial's power, and so its energy, is above that of the one before."""
    preconditioning: Preconditioning | None = None
    simulated: bool = False
    steady: bool = False
    protocol: str = "standard"
    energy_factor: float = 1.0
    """Energy as measured over power times latency."""
    ap_shift: float = 0.0
    """How far the scorer's AP is from that of its matches."""
    idle_w: float = 1.2
    int8_share: float = 0.97
    score_floor: float = 0.001
    gmacs: float = 0.36
    side: int = 320
    """Of its square input."""
    shared_images: int = 0
    """How many calibration images are evaluated on too."""
    runtime: str = "openvino"
    environment: dict[str, Any] = field(default_factory=dict)
    """Facts of the device beside the usual ones."""
    fast_int8: bool | None = None
    by_seed: tuple[float | None, ...] = ()
    """AP more than that of its own seed by each further one, 43, 44, ...; AP50 is twice as much more. None: failed."""
    remade_for: str = "openvino"
    batch: int = 1

    @property
    def name(self) -> str:
        return f"{self.model}/{self.variant}/{self.device}"


FP32 = Synthetic()
INT8 = Synthetic(variant="int8-ptq", precision="int8", skill=0.735, latency_ms=6.8, size_mb=1.1)
QAT = Synthetic(variant="int8-qat", precision="int8", skill=0.745, latency_ms=6.9, size_mb=1.1)
FP16 = Synthetic(
    variant="fp16",
    precision="fp16",
    ended={
        "build": ("unsupported", "this CPU computes float16 in float32, so an fp16 engine would be fp32 in disguise")
    },
)
FAILED = Synthetic(
    model="nanodet_m_416",
    variant="int8-ptq",
    precision="int8",
    ended={"onnx": ("failed", "calibration saw a NaN in layer head.cls.2; the weights have diverged, train again")},
)


def size_errors(found: int, false_positives: int, objects: int = 100) -> SizeErrors:
    return SizeErrors(
        objects=objects,
        found=found,
        recall=found / objects if objects else None,
        shown=found + false_positives,
        false_positives=false_positives,
        false_positives_per_image=false_positives / IMAGES,
    )


SIZE_ERRORS = {
    "small": size_errors(found=30, false_positives=64),
    "medium": size_errors(found=80, false_positives=24),
    "large": size_errors(objects=0, found=0, false_positives=2),
}


def synthetic_matches(skill: float) -> Matches:
    """Detections whose luck is drawn once, so that two engines differ only by ``skill``."""
    random = np.random.default_rng(7)
    gt_count = random.poisson(0.5, (IMAGES, CATEGORIES)).astype(np.int32)
    image, category, luck, score = [], [], [], []
    for i, c in zip(*np.nonzero(gt_count), strict=True):
        for _ in range(gt_count[i, c]):
            image.append(i), category.append(c), luck.append(random.random()), score.append(random.beta(5, 2))
        for _ in range(random.poisson(1.5)):
            image.append(i), category.append(c), luck.append(2.0), score.append(random.beta(2, 5))
    order = np.lexsort((-np.array(score), image))
    strictness = np.linspace(1.0, 0.15, 10)[:, None]
    tp = np.array(luck)[order] < skill * strictness
    counts_of = np.random.default_rng(8).integers(0, 2, len(image)) == np.arange(3)[:, None]  # small or medium
    is_object = np.array(luck)[order] < 2  # each has a detection, if a wrong one
    return Matches(
        image_ids=np.arange(1, IMAGES + 1),
        category_ids=np.arange(1, CATEGORIES + 1),
        ious=np.linspace(0.5, 0.95, 10),
        det_image=np.array(image, np.int32)[order],
        det_category=np.array(category, np.int32)[order],
        det_score=np.array(score, np.float32)[order],
        tp=tp,
        ignored=np.zeros((10, len(image)), bool),
        gt_count=gt_count,
        size_tp=np.packbits(tp & counts_of[:, None], axis=2),
        size_ignored=np.packbits(np.repeat(~counts_of[:, None], 10, axis=1), axis=2),
        size_gt=counts_of[:, is_object],
        gt_image=np.array(image, np.int32)[order][is_object],
        gt_category=np.array(category, np.int32)[order][is_object],
        operating=synthetic_errors(),
    )


def synthetic_errors() -> np.ndarray:
    """What ``SIZE_ERRORS`` tells, by image: as the matches keep it."""
    random, errors = np.random.default_rng(9), np.zeros((3, 4, IMAGES), np.int32)
    for of_size, told in zip(errors, SIZE_ERRORS.values(), strict=True):
        objects, wrong = random.integers(0, IMAGES, told.objects), random.integers(0, IMAGES, told.false_positives)
        for counts, images in zip(
            of_size, (objects, objects[: told.found], [*objects[: told.found], *wrong], wrong), strict=True
        ):
            np.add.at(counts, np.asarray(images, int), 1)
    return errors


def manifest(detector: str, side: int) -> ModelManifest:
    nms = Nms(score_floor=0.001, top_k=1000, iou=0.6, class_wise=True, limit=100)
    return ModelManifest(
        detector=detector,
        labels=[Label(id=1, name="circle")],
        input=InputSize(height=side, width=side),
        resize=Resize(policy="stretch", interpolation="bilinear", alignment="half_pixel", fill_rgb=(0, 0, 0)),
        clip="after_nms",
        nms={"origin": nms, "common": nms},
        params_m=0.95,
        gmacs=0.36,
    )


def engine_record(cell: Synthetic) -> EngineRecord:
    share = cell.int8_share if cell.precision == "int8" else None
    absent = {"reformat_layers": "OpenVINO does not tell"}
    if share is None:
        absent["int8_share"] = "the engine is not INT8"
    return EngineRecord(
        precision=cell.precision,
        ran_as="int8+fp32" if cell.precision == "int8" else cell.precision,
        hardware=HardwareClass(
            machine="x86_64",
            processor="Example CPU (6/143/8)",
            features=["avx2", "avx512_vnni"],
            runtime=cell.runtime,
            runtime_version="2026.1",
        ),
        options={"INFERENCE_PRECISION_HINT": "f32"},
        size_bytes=int(cell.size_mb * 1e6),
        int8_share=share,
        reformat_layers=None,
        candidates=[
            Candidate(runtime="openvino", correct=True, reason="", latency_ms=cell.latency_ms),
            Candidate(runtime="onnxruntime", correct=True, reason="", latency_ms=cell.latency_ms * 1.2),
        ],
        chosen_because="openvino is correct and 1.20 times as fast as onnxruntime",
        model=manifest(cell.model, cell.side).model_copy(update={"gmacs": cell.gmacs}),
        simulated=cell.simulated,
        absent=absent,
    )


def quantization_error(cell: Synthetic) -> QuantizationError:
    """Twelve layers, of which one stays in float; the eighth is the worst, and training leaves a third of the error."""
    of = 1 / 3 if cell.variant == "int8-qat" else 1.0

    def layer(number: int) -> LayerError:
        if number == 5:
            return LayerError(name="block.5.squeeze", weights=None, input=None, float_because="it reads one cell")
        share = of * (1e-2 if number == 8 else 1e-5 * (1 + number % 4))
        weights, read = (TensorError(msqe=share * power, power=power) for power in (0.04, 2.5))
        return LayerError(name=f"block.{number}.conv", weights=weights, input=read, float_because=None)

    return QuantizationError(images=16, layers=[layer(number) for number in range(1, 13)])


def score_record(cell: Synthetic, matches: Matches) -> ScoreRecord:
    curves = AccuracyCurves(matches)
    (whole,) = curves.at(np.ones((1, IMAGES), np.int64)).tolist()
    figures = dict(zip(curves.figures, whole, strict=True))
    fidelity = (
        None
        if cell.variant == "fp32"
        else Fidelity(ap=0.962, ap50=0.985, reference=f"{cell.model}/fp32/{cell.device}", confidence=0.3, boxes=412)
    )
    return ScoreRecord(
        accuracy=Accuracy(
            ap=figures["ap"] + cell.ap_shift,
            ap50=figures["ap50"],
            ap75=figures["ap75"],
            ap_small=figures["ap_small"],
            ap_medium=figures["ap_medium"],
            ap_large=None,
            ar100=figures["ar100"],
        ),
        operating_point=OperatingPoint(
            confidence=0.25,
            nms_iou=0.45,
            precision=0.55,
            recall=0.55,
            f1=0.55,
            ap50=0.49,
            detections=200,
            by_size=SIZE_ERRORS,
        ),
        fidelity=fidelity,
        images=IMAGES,
        detections=len(matches.det_score),
        scorer="hotcoco",
        score_floor=cell.score_floor,
        ap_by_category={"circle": 0.5},
        absent={} if fidelity else {"fidelity": "no reference: this is the FP32 engine itself, or the plan has none"},
    )


NOT_HERE = (
    "temperature_c",
    "states",
    "execution_ms",
    "throughput",
    "device_memory_mb",
    "preconditioning",
)
UNCERTAIN = {
    "power_of": "rail VDD_IN",
    "power_uncertainty_w": 0.02,
    "energy_uncertainty_mj": 0.3,
    "idle_power_w": 1.2,
    "idle_power_uncertainty_w": 0.01,
    "energy_above_idle_mj": 5.0,
    "energy_above_idle_uncertainty_mj": 0.4,
    "sampling": {"period_s": 0.1, "max_gap_s": 0.2, "samples": 100, "realtime": "yes"},
    "window_s": 10.0,
    "window_inferences": 1000,
}
POWER = ("power_w", "energy_mj", *UNCERTAIN)


def samples_of(cell: Synthetic, trial: int) -> np.ndarray:
    random = np.random.default_rng(trial)
    if cell.steady:
        return np.full(200, cell.latency_ms)
    return cell.latency_ms * (1 + 0.01 * trial + random.gamma(1.2, 0.02, 200))


def benchmark_record(cell: Synthetic, trial: int) -> BenchmarkRecord:
    power_w = None if cell.power_w is None else cell.power_w * (1 + cell.power_scatter * (trial - 1))
    energy = None if power_w is None else power_w * cell.latency_ms * cell.energy_factor
    absent = dict.fromkeys(NOT_HERE, "no such sensor")
    if cell.preconditioning is not None:
        del absent["preconditioning"]
    if cell.sensor_error_mj is None:
        absent["sensor_error_mj"] = "no data sheet tells this sensor's largest error"
    if energy is None:
        absent |= dict.fromkeys(POWER, NO_POWER)
    return BenchmarkRecord(
        device=cell.device,
        trial=trial,
        protocol=cell.protocol,
        warmup_iterations=50,
        iterations=200,
        threads=1,
        latency_ms=pool([samples_of(cell, trial)]),
        stages_ms={"pre": 1.0, "infer": cell.latency_ms, "post": 0.5},
        load_ms=80,
        load_memory_mb=31.5,
        batch=cell.batch,
        memory_peak_mb=210,
        power_w=power_w,
        energy_mj=energy,
        temperature_c=None,
        throttled=cell.throttled,
        throttled_evidence="as made up",
        **{**dict.fromkeys(NOT_HERE[1:]), "preconditioning": cell.preconditioning},
        sensor_error_mj=cell.sensor_error_mj,
        **(dict.fromkeys(UNCERTAIN) if energy is None else {**UNCERTAIN, "idle_power_w": cell.idle_w}),
        protocol_values={},
        started_at=f"2026-11-26T12:00:{trial:02d}+00:00",
        contention=Contention(
            contended=cell.contended,
            other_cpu_share=0.31 if cell.contended else 0.01,
            load1_before=0.4,
            load1_after=0.9,
            pressure_some_us=None,
        ),
        environment={
            "id": "host",
            "hardware": {"machine": "x86_64", "processor": "Example CPU (6/143/8)"},
            "environment": {"kernel": "6.1.0", "cpus": 2, "governor": None, "turbo": True, **cell.environment},
            "precisions": {"fast_int8": cell.fast_int8, "learnt": "the test says so"},
        },
        simulated=cell.simulated,
        absent=absent,
    )


def _images(ids: range) -> bytes:
    """A set as import-data writes it, as far as the analysis reads it."""
    images = [{"id": id_, "sha256": hashlib.sha256(b"%d" % id_).hexdigest()} for id_ in ids]
    return json.dumps({"images": images}).encode()


def write_inputs(cells: list[Synthetic], folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Parameters and input files of an analyze step."""
    inputs: dict[str, Path] = {}

    def put(name: str, content: bytes) -> None:
        inputs[name] = folder / name
        inputs[name].write_bytes(content)

    for index, cell in enumerate(cells):
        ended = {
            kind: json.dumps({"outcome": outcome, "reason": reason, "step": f"{kind}/{cell.name}"}).encode()
            for kind, (outcome, reason) in cell.ended.items()
        }
        for upstream, downstream in (("onnx", "build"), ("build", "score"), ("build", "benchmark")):
            if upstream in ended:
                ended.setdefault(downstream, ended[upstream])
        put(f"weights-{index}", b"\x10weights of " + cell.model.removesuffix(f"-b{cell.batch}").encode())
        put(f"onnx-{index}", ended.get("onnx", b"\x08onnx of " + f"{cell.model} {cell.graph or cell.variant}".encode()))
        put(f"engine-{index}", ended.get("build", b"engine of " + cell.name.encode()))
        put(f"build-{index}", ended.get("build") or engine_record(cell).model_dump_json().encode())
        if cell.precision == "int8":
            record = {"detector": cell.model, "quantization_error": quantization_error(cell).model_dump()}
            put(f"quantization-{index}", ended.get("onnx") or json.dumps(record).encode())
        matches = synthetic_matches(cell.skill)
        put(f"score-{index}", ended.get("score") or score_record(cell, matches).model_dump_json().encode())
        put(f"matches-{index}", ended.get("score", b""))
        if "score" not in ended:
            with open(inputs[f"matches-{index}"], "wb") as file:
                np.savez(file, **vars(matches))
        for trial in range(TRIALS):
            put(
                f"benchmark-{index}-{trial}",
                ended.get("benchmark") or benchmark_record(cell, trial).model_dump_json().encode(),
            )
            put(f"samples-{index}-{trial}", ended.get("benchmark", b""))
            if "benchmark" not in ended:
                with open(inputs[f"samples-{index}-{trial}"], "wb") as file:
                    np.savez(file, latency_ms=samples_of(cell, trial))
        for seed, more in enumerate(cell.by_seed, SEED + 1):
            if more is None:
                failed = {"outcome": "failed", "reason": f"the calibration by seed {seed} diverged", "step": "ptq/x"}
                put(f"rebuild-{index}-{seed}", json.dumps(failed).encode())
                put(f"rescore-{index}-{seed}", json.dumps(failed).encode())
            else:
                put(
                    f"rebuild-{index}-{seed}",
                    engine_record(replace(cell, runtime=cell.remade_for)).model_dump_json().encode(),
                )
                score = score_record(cell, matches)
                score.accuracy.ap += more
                score.accuracy.ap50 += 2 * more
                put(f"rescore-{index}-{seed}", score.model_dump_json().encode())
    boxes = {"images": IMAGES, "boxes": 240, "crowd_boxes": 3, "categories": CATEGORIES}
    sets = {"evaluation": {"source": "shapes", **boxes}, "calibration": {"source": "shapes", **boxes, "images": 64}}
    left_out = [{"file": "000007.jpg", "id": 7, "problem": "truncated JPEG"}]
    data = {"seed": 42, "skip_bad": True, "sets": sets, "sources": {"shapes": {"images": 400, "left_out": left_out}}}
    put("data", json.dumps(data).encode())
    shared = next((cell.shared_images for cell in cells if cell.shared_images), 0)
    put("evaluation", _images(range(1, 1 + IMAGES)))
    put("calibration", _images(range(1 + IMAGES - shared, 65 + IMAGES - shared)))
    described = [
        {
            "name": cell.name,
            "model": cell.model,
            "detector": "nanodet_m",
            "weights": "qat" if cell.variant.endswith("-qat") else "base",
            "variant": cell.variant,
            "precision": cell.precision,
            "device": cell.device,
            "batch": cell.batch,
            "protocol": cell.protocol,
            "comparable": cell.protocol != "quick",
            "seeds": [SEED + number for number in range(1 + len(cell.by_seed))],
            "why_no_repeats": None if cell.by_seed else "the spec does not ask for it",
        }
        for cell in cells
    ]
    protocol = {"name": cells[0].protocol, "warmup_iterations": 50, "iterations": 200, "trials": TRIALS}
    return {"cells": described, "run": "synthetic", "spec": {"seed": SEED, "protocol": protocol}}, inputs


def analyzed(cells: list[Synthetic], folder: Path) -> tuple[Results, Path]:
    """The results of a real analyze step on made-up cells, and the folder of its outputs."""
    parameters, inputs = write_inputs(cells, folder)
    outputs = folder / f"out-{hashlib.sha256(repr(cells).encode()).hexdigest()[:8]}"
    outputs.mkdir(exist_ok=True)
    analyze.run(Job(parameters, inputs, outputs, folder, lambda done, total, unit: None))
    return Results.model_validate_json((outputs / "results").read_bytes()), outputs


@pytest.fixture
def cells() -> SimpleNamespace:
    """The made-up cells by name; ``dataclasses.replace`` makes others of them."""
    return SimpleNamespace(fp32=FP32, fp16=FP16, int8=INT8, qat=QAT, failed=FAILED)


class MakeResults:
    """``make_results(cells)``: results of made-up cells, once for all tests of a module; the usual cells by name."""

    fp32, fp16, int8, qat, failed = FP32, FP16, INT8, QAT, FAILED

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def __call__(self, cells: Iterable[Synthetic], count: int | None = None) -> Results:
        """Results of the cells; ``multiplied`` to ``count`` rows where it is given."""
        results = analyzed(list(cells), self._factory.mktemp("made"))[0]
        return results if count is None else multiplied(results, count)


@pytest.fixture(scope="session")
def make_results(tmp_path_factory: pytest.TempPathFactory) -> MakeResults:
    return MakeResults(tmp_path_factory)


def multiplied(results: Results, count: int) -> Results:
    """So many rows: copies of those that there are, as other models with latencies of their own; to resample them all
    would only take time.
    """
    rows, evidence, differences, quantization = [], {}, [], []
    for number in range(-(-count // len(results.rows))):

        def renamed(name: str, number: int = number) -> str:
            return f"m{number:03}_{name}" if number else name

        for row in results.rows:
            latency = row.latency_ms and row.latency_ms.model_copy(update={"mean": row.latency_ms.mean * (1 + number)})
            of_copy = {"model": renamed(row.model), "latency_ms": latency, "fps": latency and 1000 / latency.mean}
            of_copy |= {"pareto": None, "repeats": None} if number else {"pareto": None}
            absent = {**row.absent, "pareto": "not decided yet"} | ({"repeats": "a copy"} if number else {})
            rows.append(row.model_copy(update={**of_copy, "absent": absent}))
        evidence |= {renamed(name): found for name, found in results.evidence.items()}
        differences += [
            found.model_copy(update={"row": renamed(found.row), "against": renamed(found.against)})
            for found in results.differences
        ]
        quantization += [found.model_copy(update={"model": renamed(found.model)}) for found in results.quantization]
    rows = with_pareto(rows[:count])
    names = {row_name(row) for row in rows}
    return results.model_copy(
        update={
            "rows": rows,
            "evidence": {name: evidence[name] for name in names},
            "fronts": fronts(rows),
            "differences": [found for found in differences if {found.row, found.against} <= names],
            "quantization": quantization,
        }
    )


@pytest.fixture
def analyze_cells(tmp_path: Path) -> Callable[..., tuple[Results, Path]]:
    """``analyze_cells(FP32, INT8, ...)``: results, and the folder with ``results`` and ``report``."""
    return lambda *cells: analyzed(list(cells), tmp_path)


def checked_cells(cells: list[Synthetic], folder: Path) -> tuple[list[Row], dict[str, Evidence]]:
    """Rows and evidence of made-up cells with their checks, as the step makes them but for the intervals."""
    parameters, inputs = write_inputs(cells, folder)
    described = [Cell.model_validate(cell) for cell in parameters["cells"]]
    measured = {cell.name: read_cell(i, inputs, cell.precision == "int8") for i, cell in enumerate(described)}
    return checked(
        [make_row(cell, measured[cell.name], None) for cell in described],
        {name: make_evidence(found, None) for name, found in measured.items()},
        {name: [trial for trial in found.trials if isinstance(trial, Trial)] for name, found in measured.items()},
        *(Images.of(json.loads(inputs[role].read_bytes())) for role in ("evaluation", "calibration")),
    )


@pytest.fixture
def check_cells(tmp_path: Path) -> Callable[..., tuple[list[Row], dict[str, Evidence]]]:
    """``check_cells(INT8, ...)``: rows, and evidence by name, with their checks."""
    return lambda *cells: checked_cells(list(cells), tmp_path)


@pytest.fixture
def read_measurements(tmp_path: Path) -> Callable[[Synthetic], tuple[Cell, Measurements]]:
    """``read_measurements(FP32)``: the cell and what its steps left behind, before a row is made of it."""

    def read(cell: Synthetic) -> tuple[Cell, Measurements]:
        parameters, inputs = write_inputs([cell], tmp_path)
        return Cell.model_validate(parameters["cells"][0]), read_cell(0, inputs, cell.precision == "int8")

    return read


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """FP32 and INT8 measured, FP16 unsupported, another model failed: what a report must be able to show."""
    return analyzed([FP32, FP16, INT8, FAILED], tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as ``edgejoule run`` leaves them, beside the store of their matches: one, a worse and a smaller one."""
    worse = replace(INT8, skill=0.45, latency_ms=9.0)
    made = {}
    top = tmp_path_factory.mktemp("runs")
    store = FolderStore(top / ".store")
    for name, cells in {"was": [FP32, FP16, INT8], "worse": [FP32, FP16, worse], "less": [FP32]}.items():
        work = tmp_path_factory.mktemp(name)
        _, outputs = analyzed(cells, work)
        made[name] = top / name
        made[name].mkdir()
        (made[name] / "results.json").write_bytes((outputs / "results").read_bytes())
        for matches in work.glob("matches-*"):
            store.put(matches.read_bytes())
    return made
