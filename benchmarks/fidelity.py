"""AP and fidelity of our INT8 beside ONNX Runtime's quantize_static: same FP32 graph, same calibration images.

    edgejoule run examples/coco-nanodet.yaml --out runs/coco-nanodet
    python benchmarks/fidelity.py --store runs/.store --run coco-nanodet [--model NAME]...

Every INT8 variant of the run is told, as built and measured and as its graph is executed exactly.

Everything is taken from that run's store: the float graph, the calibration and evaluation images, and the
FP32 engine's detections, whose confident ones are the reference. The peer is quantized by min-max with its
defaults and executed node by node in float32, so that no kernel's rounding or saturation is held against it.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from edgejoule import runs
from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.reconcile import StepOutcome, survey
from edgejoule_agent import postprocess, preprocess
from edgejoule_agent.contract import read_model
from edgejoule_agent.detections import as_columns
from edgejoule_agent.engines import onnxruntime_engine, open_engine
from edgejoule_agent.predict import ap_nms
from edgejoule_agent.shards import ShardReader
from edgejoule_evaluator.detections import Detections, merge, read_detections
from edgejoule_evaluator.fidelity import fidelity
from edgejoule_evaluator.ground_truth import from_dataset
from edgejoule_evaluator.scoring import accuracy, curves


class Calibration(CalibrationDataReader):
    """The calibration images, prepared, one by one."""

    def __init__(self, images: Iterator[np.ndarray]) -> None:
        self._images = images

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


class FinishedRun:
    """The outputs of a run, by step and name."""

    def __init__(self, store: Path, run: str) -> None:
        self._store = FolderStore(store)
        plan = runs.load(run, self._store).plan
        self._found = survey(plan, self._store, Kinds())
        self.steps = list(plan.steps)

    @property
    def models(self) -> list[str]:
        """Those that were quantized."""
        return [step.partition("/")[2] for step in self.steps_in("ptq")]

    def steps_in(self, folder: str) -> list[str]:
        """The steps whose name begins so, slash by slash."""
        return [step for step in self.steps if step.startswith(f"{folder}/")]

    def output(self, step: str, name: str) -> Path:
        outcome = self._found[step]
        if not isinstance(outcome, StepOutcome) or outcome.manifest is None:
            raise SystemExit(f"step {step} of the run is not done; run it first")
        return self._store.fetch(outcome.manifest.outputs[name].sha256)

    def shards(self, role: str) -> list[Path]:
        outcome = self._found["import-data"]
        names = sorted(n for n in outcome.manifest.outputs if n.startswith(f"{role}-images-"))
        return [self.output("import-data", name) for name in names]


def prepared(shards: list[Path], manifest: dict) -> Iterator[np.ndarray]:
    for path in shards:
        with ShardReader(path) as shard:
            for _, content in shard:
                yield preprocess.prepare(preprocess.decode(content), manifest)[0]


def predict(onnx_path: Path, shards: list[Path], manifest: dict) -> Detections:
    """Detections of a graph executed without any optimization."""
    nms = ap_nms(manifest["nms"]["origin"])
    parts = []
    with open_engine("onnxruntime", onnx_path.read_bytes(), onnxruntime_engine.UNOPTIMIZED, 1) as engine:
        for path in shards:
            found = []
            with ShardReader(path) as shard:
                for _, content in shard:
                    image, frame = preprocess.prepare(preprocess.decode(content), manifest)
                    found.append(postprocess.detect(*engine.infer(image), frame, manifest, nms))
                parts.append(Detections(**as_columns(np.array(shard.ids, np.int64), found)))
    return merge(parts)


def compare(done: FinishedRun, model: str) -> None:
    """Print AP and fidelity of one model's INT8 variants and of the peer."""
    float_graph = done.output(f"export/{model}", "onnx")
    _, manifest = read_model(float_graph)
    truth = from_dataset(json.loads(done.output("import-data", "evaluation").read_text()))
    evaluation = done.shards("evaluation")

    def engine_detections(variant: str) -> Detections:
        steps = done.steps_in(f"predict/{model}/{variant}/host")
        return merge([read_detections(done.output(step, "detections")) for step in steps])

    reference = engine_detections("fp32")
    with tempfile.TemporaryDirectory() as folder:
        peer = Path(folder) / "static.onnx"
        quantize_static(str(float_graph), str(peer), Calibration(prepared(done.shards("calibration"), manifest)))
        contenders = {}
        for variant, step in (("int8-ptq", f"ptq/{model}"), ("int8-qat", f"qat/{model}")):
            if done.steps_in(f"predict/{model}/{variant}/host"):
                contenders[f"{variant}, as built and measured"] = engine_detections(variant)
                contenders[f"{variant}, executed exactly"] = predict(done.output(step, "onnx"), evaluation, manifest)
        contenders["quantize_static, min-max, executed exactly"] = predict(peer, evaluation, manifest)
    print(f"{model}: {len(reference.images)} images; AP of FP32 {accuracy(curves(truth, reference)).ap:.4f}")
    for name, detections in contenders.items():
        faith = fidelity(truth, detections, reference, "fp32", "hotcoco")
        print(f"{name:45s} AP {accuracy(curves(truth, detections)).ap:.4f}  fidelity {faith.ap:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--model", action="append", help="one of the run's models; all when left out")
    options = parser.parse_args()
    done = FinishedRun(options.store, options.run)
    for model in options.model or done.models:
        compare(done, model)


if __name__ == "__main__":
    main()
