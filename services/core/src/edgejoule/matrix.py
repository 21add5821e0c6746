"""From spec to plan: one cell per model x precision x device x batch, and the steps that decide each.

Pure: what must be asked of the world (the devices, the hashes of files) is handed in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgejoule.devices import Device
from edgejoule.plan import Cell, Plan, Ref, Source, Step
from edgejoule.spec import Model, Qat, Role, Spec, Train

# precision in the spec -> (weights, precision of the engine, step that makes its ONNX, for /<model> behind it)
VARIANTS = {
    "fp32": ("base", "fp32", "export"),
    "fp16": ("base", "fp16", "export"),
    "int8-ptq": ("base", "int8", "ptq"),
    "int8-qat": ("qat", "int8", "qat"),
    "fp32-qat": ("qat", "fp32", "export-qat"),
    "fp16-qat": ("qat", "fp16", "export-qat"),
}

Inputs = Mapping[str, Ref | Source]


def make_plan(
    spec: Spec,
    devices: Mapping[str, Device],
    source_of: Callable[[Path], Source],
    written: Mapping[str, Any],
    session: str = "1",
) -> Plan:
    """The plan that answers ``spec``.

    Args:
        devices: each device of the spec, by its label, as probed.
        source_of: names a file or folder by the hash of its content.
        written: the spec as the results shall quote it.
        session: measuring session; another one measures everything measured anew.
    """
    builder = _Builder(spec, devices, source_of, session)
    return builder.plan(written)


class _Builder:
    def __init__(
        self, spec: Spec, devices: Mapping[str, Device], source_of: Callable[[Path], Source], session: str
    ) -> None:
        self.spec = spec
        self.devices = devices
        self.source_of = source_of
        self.session = session
        self.models = [single for model in spec.models for single in model.at_each_input()]
        self.steps: dict[str, Step] = {}

    def plan(self, written: Mapping[str, Any]) -> Plan:
        self.import_data()
        for model in self.models:
            self.prepare(model)
        cells = [
            self.cell(model, batch, variant, device.label)
            for model in self.models
            for batch in model.batch
            for variant in sorted(self.spec.precisions, key=lambda variant: variant != "fp32")  # the others' reference
            for device in self.spec.devices
        ]
        if self.spec.protocol.comparable:
            self.measure_last(cells)
        else:
            self.finish_rows_early(cells)
        for cell in cells:
            self.repeat(cell)
        self.analyze(cells, written)
        return Plan(self.steps, tuple(cells))

    def measure_last(self, cells: Sequence[Cell]) -> None:
        """Benchmarks once every engine is there: each trial sees all cells, in an order of its own."""
        for cell in cells:
            self.build(cell)
            self.predict(cell)
            self.score(cell)
        for trial in range(self.spec.protocol.trials):
            for cell in shuffled(cells, self.spec.random_seed, trial):
                self.benchmark(cell, trial)

    def finish_rows_early(self, cells: Sequence[Cell]) -> None:
        """One cell after the other: for a look, a first row soon is worth more than a fair order."""
        for cell in cells:
            self.build(cell)
            for trial in range(self.spec.protocol.trials):
                self.benchmark(cell, trial)
            self.predict(cell)
            self.score(cell)

    def add(self, step_id: str, kind: str, parameters: Mapping[str, Any], inputs: Inputs) -> None:
        self.steps[step_id] = Step(step_id, kind, parameters, inputs)

    # --- per run ---

    def import_data(self) -> None:
        """Draws every set that the spec names, also one no precision needs today: adding one moves no image."""
        data = self.spec.data
        used = {name: data.sources[name] for name in sorted({chosen.source for chosen in data.sets.values()})}
        inputs: dict[str, Source] = {}
        for name, source in used.items():
            inputs[f"annotations.{name}"] = self.source_of(source.annotations)
            inputs[f"images.{name}"] = self.source_of(source.images)
        parameters = {
            "sets": {r: {"source": s.source, "count": self.spec.set_size(r)} for r, s in data.sets.items()},
            "shards": {role: self.shards(role) for role in data.sets},
            "seed": self.spec.random_seed,
            "skip_bad": data.skip_bad,
        }
        self.add("import-data", "import-data", parameters, inputs)

    def shards(self, role: Role) -> int:
        """Only the evaluation set is read in parallel."""
        return self.spec.data.shards if role == "evaluation" else 1

    def draw_again(self, seed: int | None) -> str:
        """The step that draws the images to calibrate on: by another seed, from what no other set has."""
        if seed is None:
            return "import-data"
        sets = self.spec.data.sets
        name, source = sets["calibration"].source, self.spec.data.sources[sets["calibration"].source]
        parameters = {
            "sets": {"calibration": {"source": name, "count": self.spec.set_size("calibration")}},
            "shards": {"calibration": 1},
            "seed": seed,
            "skip_bad": self.spec.data.skip_bad,
        }
        inputs: dict[str, Ref | Source] = {
            f"annotations.{name}": self.source_of(source.annotations),
            f"images.{name}": self.source_of(source.images),
            "apart": Ref("import-data", "record"),
            **{f"apart-{role}": Ref("import-data", role) for role in sets if role != "calibration"},
        }
        step = f"import-data/seed-{seed}"
        self.add(step, "import-data", parameters, inputs)
        return step

    def images(self, role: Role, name: str = "images", step: str = "import-data") -> dict[str, Ref]:
        """Inputs ``<name>-000``...: the image shards of a role."""
        return {f"{name}-{shard:03d}": Ref(step, f"{role}-images-{shard:03d}") for shard in range(self.shards(role))}

    def role(self, role: Role, step: str = "import-data") -> dict[str, Ref]:
        """Inputs ``<role>`` and ``<role>-images-000``...: annotations and images of a role, as ``step`` drew it."""
        return {role: Ref(step, role), **self.images(role, f"{role}-images", step)}

    # --- per model ---

    def prepare(self, model: Model) -> None:
        """Weights, imported and trained as asked."""
        size = {"height": model.side, "width": model.side} if model.side else None
        if model.weights is not None:
            parameters = {"detector": model.detector, "input": size}
            self.add(
                f"import-weights/{model.name}", "import-weights", parameters, {"file": self.source_of(model.weights)}
            )
        if model.train is not None:
            start = {"weights": Ref(f"import-weights/{model.name}", "weights")} if model.weights is not None else {}
            training = {"detector": model.detector, "input": size, **self.training(model.train)}
            self.add(f"train/{model.name}", "train", training, {**start, **self.role("train")})

    def training(self, how: Train | Qat, seed: int | None = None) -> dict[str, Any]:
        """The parameters by which both kinds of training are carried out; by the run's seed where none is given."""
        recipe = {**how.recipe(), "seed": self.spec.random_seed if seed is None else seed}
        return {"recipe": recipe, "compute": how.compute(), "threads": how.threads}

    def make_onnx(self, cell: Cell) -> None:
        """The graph of a cell, made just before its first engine, so that it holds up no other cell.

        It is made for one image; for several it is rewritten, so nothing is trained or quantized by batch.
        """
        self.make_onnx_for_one(cell)
        if cell.batch > 1:
            single = Ref(f"{VARIANTS[cell.variant][2]}/{cell.graph}", "onnx")
            self.add(self.onnx_of(cell).step, "batch", {"batch": cell.batch}, {"onnx": single})

    def make_onnx_for_one(self, cell: Cell) -> None:
        maker, model = VARIANTS[cell.variant][2], cell.model
        weights = {"weights": Ref(self.weights_step(model), "weights")}
        if maker == "export":
            self.add(f"export/{model}", "export", {}, weights)
            return
        calibration = self.role("calibration", self.draw_again(cell.seed))
        choice = self.spec.quantization.model_dump(mode="json")
        self.add(f"ptq/{cell.graph}", "ptq", choice, {**weights, **calibration, **self.role("tuning")})
        if maker == "ptq":
            return
        start = {**weights, "ptq": Ref(f"ptq/{cell.graph}", "record"), "rounded": Ref(f"ptq/{cell.graph}", "weights")}
        sets = {**self.role("train"), **self.role("tuning")}
        self.add(f"qat/{cell.graph}", "qat", self.training(self.spec.qat, cell.seed), {**start, **sets})
        if maker == "export-qat":
            self.add(f"export-qat/{model}", "export", {}, {"weights": Ref(f"qat/{model}", "weights")})

    def weights_step(self, model: str) -> str:
        """The last step that changes the weights of a model."""
        return next(step for step in (f"train/{model}", f"import-weights/{model}") if step in self.steps)

    # --- per cell ---

    def cell(self, model: Model, batch: int, variant: str, device: str) -> Cell:
        weights, _, maker = VARIANTS[variant]
        cell = Cell(model.name, model.detector, weights, variant, device, (), batch=batch)
        prepared = [f"{kind}/{model.name}" for kind in ("import-weights", "train")]
        makers = {"qat": ["ptq", "qat"], "export-qat": ["ptq", "qat", "export-qat"]}.get(maker, [maker])
        own = [
            *(f"{step}/{model.name}" for step in makers),
            *([self.onnx_of(cell).step] if batch > 1 else []),
            f"build/{cell.name}",
            *(f"benchmark/{cell.name}/{trial}" for trial in range(self.spec.protocol.trials)),
            *(f"predict/{cell.name}/{shard:03d}" for shard in range(self.spec.data.shards)),
            f"score/{cell.name}",
        ]
        return replace(cell, steps=("import-data", *(step for step in prepared if step in self.steps), *own))

    def onnx_of(self, cell: Cell) -> Ref:
        maker = VARIANTS[cell.variant][2]
        if cell.batch > 1:
            return Ref(f"batch/{cell.row_model}/{maker}{cell.by_seed}", "onnx")
        return Ref(f"{maker}/{cell.graph}", "onnx")

    def engine_of(self, cell: Cell) -> dict[str, Ref]:
        return {
            "engine": Ref(f"build/{cell.name}", "engine"),
            "engine_record": Ref(f"build/{cell.name}", "record"),
        }

    def build(self, cell: Cell) -> None:
        self.make_onnx(cell)
        hardware = dict(self.devices[cell.device].hardware)
        by_tensorrt = "tensorrt" in hardware.get("runtimes", ())  # others have none, and stay as they are
        parameters = {
            "precision": VARIANTS[cell.variant][1],
            "threads": self.spec.threads,
            "device": cell.board,
            "hardware": hardware,
            **({"workspace_mb": self.spec.protocol.workspace_mb} if by_tensorrt else {}),
        }
        samples = self.images("calibration") if "calibration" in self.spec.data.sets else {}
        self.add(f"build/{cell.name}", "build", parameters, {"onnx": self.onnx_of(cell), **samples})

    def benchmark(self, cell: Cell, trial: int) -> None:
        device = self.devices[cell.device]
        parameters = {
            "device": device.id,
            "environment": dict(device.environment),
            "protocol": self.spec.protocol.measuring(),
            "seed": self.spec.random_seed,
            "session": self.session,
            "threads": self.spec.threads,
            "trial": trial,
            **({"power_mode": cell.power_mode} if cell.power_mode else {}),
        }
        inputs = {**self.engine_of(cell), "images-000": Ref("import-data", "evaluation-images-000")}
        self.add(f"benchmark/{cell.name}/{trial}", "benchmark", parameters, inputs)

    def predict(self, cell: Cell) -> None:
        protocol = self.spec.protocol
        operating = {"confidence": protocol.confidence, "nms_iou": protocol.nms_iou}
        for shard in range(self.spec.data.shards):
            images = Ref("import-data", f"evaluation-images-{shard:03d}")
            parameters = {"threads": self.spec.threads, "operating": operating}
            self.add(
                f"predict/{cell.name}/{shard:03d}",
                "predict",
                parameters,
                {**self.engine_of(cell), "images-000": images},
            )

    def predictions(self, cell_name: str, output: str, name: str, *, tolerant: bool = False) -> dict[str, Ref]:
        return {
            f"{name}-{shard:03d}": Ref(f"predict/{cell_name}/{shard:03d}", output, tolerant)
            for shard in range(self.spec.data.shards)
        }

    def score(self, cell: Cell) -> None:
        """Scored against the truth, and against the detections of the same model in FP32 where there are any."""
        protocol = self.spec.protocol
        inputs: dict[str, Ref] = {
            "dataset": Ref("import-data", "evaluation"),
            **self.predictions(cell.name, "detections", "detections"),
            **self.predictions(cell.name, "operating", "operating"),
        }
        parameters: dict[str, Any] = {
            "operating": {"confidence": protocol.confidence, "nms_iou": protocol.nms_iou},
            "scorer": self.spec.scorer,
        }
        if cell.variant != "fp32" and "fp32" in self.spec.precisions:
            reference = f"{cell.row_model}/fp32/{cell.device}"
            parameters["reference"] = reference
            inputs.update(self.predictions(reference, "detections", "reference", tolerant=True))
        self.add(f"score/{cell.name}", "score", parameters, inputs)

    # --- INT8 by other seeds ---

    def repeat(self, cell: Cell) -> None:
        """A row's INT8 made anew and scored; not timed, since scales and weights do not change what is computed."""
        for again in self.repeats_of(cell):
            self.build(again)
            self.predict(again)
            self.score(again)

    def repeats_of(self, cell: Cell) -> list[Cell]:
        """A row by each further seed; none where there are none to make."""
        if self.why_no_repeats(cell):
            return []
        return [replace(cell, steps=(), seed=seed) for seed in self.spec.seeds(self.times(cell))[1:]]

    def times(self, cell: Cell) -> int:
        """By how many seeds the spec asks to make a row, the run's own among them."""
        repeats = self.spec.repeats
        return {"int8-ptq": repeats.calibration, "int8-qat": repeats.qat}.get(cell.variant, 1)

    def why_no_repeats(self, cell: Cell) -> str | None:
        """Why a row is not made anew; None where it is: on one device and at one batch, since weights and scales are
        the same on all."""
        if VARIANTS[cell.variant][1] != "int8":
            return "only INT8 is made anew by other seeds"
        if self.times(cell) == 1:
            what = "calibrate" if cell.variant == "int8-ptq" else "train"
            return f"the spec does not ask to {what} anew by other seeds (repeats)"
        told = {label: device.precisions or {} for label, device in self.devices.items()}
        where = next((label for label, found in told.items() if found.get("fast_int8") is not False), None)
        if where is None:
            return "no device of the spec runs INT8"
        if cell.device != where:
            return f"what is made anew by other seeds is scored on {where} alone"
        first = next(model.batch[0] for model in self.models if model.name == cell.model)
        return None if cell.batch == first else f"what is made anew by other seeds is scored at batch {first} alone"

    # --- the answer ---

    def analyze(self, cells: Sequence[Cell], written: Mapping[str, Any]) -> None:
        inputs: dict[str, Ref] = {"data": Ref("import-data", "record", tolerant=True)}
        for role in ("evaluation", "calibration"):
            if role in self.spec.data.sets:
                inputs[role] = Ref("import-data", role, tolerant=True)
        for index, cell in enumerate(cells):
            onnx = self.onnx_of(cell)
            made_by = f"qat/{cell.model}" if cell.weights == "qat" else self.weights_step(cell.model)
            weights = Ref(made_by, "weights")
            inputs |= {
                f"weights-{index}": Ref(weights.step, weights.output, tolerant=True),
                f"onnx-{index}": Ref(onnx.step, onnx.output, tolerant=True),
                f"build-{index}": Ref(f"build/{cell.name}", "record", tolerant=True),
                f"engine-{index}": Ref(f"build/{cell.name}", "engine", tolerant=True),
                f"score-{index}": Ref(f"score/{cell.name}", "record", tolerant=True),
                f"matches-{index}": Ref(f"score/{cell.name}", "matches", tolerant=True),
            }
            if VARIANTS[cell.variant][1] == "int8":
                maker = VARIANTS[cell.variant][2]
                inputs[f"quantization-{index}"] = Ref(f"{maker}/{cell.graph}", "record", tolerant=True)
            for trial in range(self.spec.protocol.trials):
                step = f"benchmark/{cell.name}/{trial}"
                inputs[f"benchmark-{index}-{trial}"] = Ref(step, "record", tolerant=True)
                inputs[f"samples-{index}-{trial}"] = Ref(step, "samples", tolerant=True)
            for again in self.repeats_of(cell):
                inputs |= {
                    f"rebuild-{index}-{again.seed}": Ref(f"build/{again.name}", "record", tolerant=True),
                    f"rescore-{index}-{again.seed}": Ref(f"score/{again.name}", "record", tolerant=True),
                }
        parameters = {
            "cells": [
                {
                    "name": cell.name,
                    "model": cell.row_model,
                    "detector": cell.detector,
                    "weights": cell.weights,
                    "variant": cell.variant,
                    "precision": VARIANTS[cell.variant][1],
                    "device": cell.device,
                    "protocol": self.spec.protocol.name,
                    "comparable": self.spec.protocol.comparable,
                    "seeds": [self.spec.random_seed, *(again.seed for again in self.repeats_of(cell))],
                    "why_no_repeats": self.why_no_repeats(cell),
                    **({"batch": cell.batch} if cell.batch > 1 else {}),
                    **({"simulated": True} if self.devices[cell.device].hardware.get("simulated") else {}),
                }
                for cell in cells
            ],
            "run": self.spec.name,
            "spec": dict(written),
        }
        self.add("analyze", "analyze", parameters, inputs)


def shuffled(cells: Sequence[Cell], seed: int, trial: int) -> list[Cell]:
    """The order of one trial: all cells once, so that slow drift (heat, clocks) favours none of them.

    >>> cells = [Cell("m", "m", "base", variant, "host", ()) for variant in ("fp32", "fp16", "int8-ptq")]
    >>> [cell.variant for cell in shuffled(cells, 42, 0)] == [cell.variant for cell in shuffled(cells, 42, 0)]
    True
    """
    return random.Random(f"{seed}/{trial}").sample(cells, len(cells))
