"""Step ``ptq``: weights become an 8-bit ONNX graph (QuantizeLinear and DequantizeLinear, opset 13).

Inputs: ``weights``; ``calibration`` and ``tuning`` (annotations, for the order of the images) with their shards
``calibration-images-*`` and ``tuning-images-*``. Outputs: ``onnx``; ``record``, the error of every layer in it
(``quantization_error``); ``weights``, batch norm folded and rounded to 8 bits, from which step ``qat`` goes on.
Parameters: ``calibrators`` (names of those to try), ``threads``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgejoule.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

VERSION = 3
QUEUE = "train"
EXCLUSIVE = False
OUTPUTS = ("onnx", "weights", "record")
SOURCES = (
    "edgejoule_trainer.quantize",
    "edgejoule_trainer.export",
    "edgejoule_trainer.compute",
    "edgejoule_trainer.counting",
    "edgejoule_trainer.detectors",
    "edgejoule_trainer.losses",
    "edgejoule_trainer.training_images",
    "edgejoule_trainer.weights",
    "edgejoule_agent.cpu",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.shards",
)


def run(job: Job) -> None:
    """Calibrate, choose the calibrator on the tuning images, export, measure each layer's error."""
    from itertools import islice

    from edgejoule.canonical import hash_json
    from edgejoule_trainer.compute import prepare_process
    from edgejoule_trainer.detectors import with_network
    from edgejoule_trainer.export import export_onnx
    from edgejoule_trainer.quantize.errors import LOOKED_AT, quantization_error
    from edgejoule_trainer.quantize.fold import fold_batch_norm
    from edgejoule_trainer.quantize.lint import OPSET
    from edgejoule_trainer.quantize.ptq import quantize_detector
    from edgejoule_trainer.quantize.qat import into_float
    from edgejoule_trainer.training_images import prepared
    from edgejoule_trainer.weights import read_weights, write_weights

    prepare_process(int(job.parameters["threads"]))
    detector = read_weights(job.inputs["weights"])
    manifest = detector.manifest()
    layout = manifest.model_dump(mode="json")
    ids = {role: [image["id"] for image in job.read_json(role)["images"]] for role in ("calibration", "tuning")}
    judged = sum(map(len, ids.values()))
    offsets = {"calibration": 0, "tuning": len(ids["calibration"]), "errors": judged}
    total = judged + min(LOOKED_AT, len(ids["tuning"]))

    def tell(phase: str, images: int) -> None:
        job.progress(offsets[phase] + images, total, f"images, {phase}")

    def tuning() -> Iterator[Tensor]:
        return prepared(job.inputs_named("tuning-images"), layout)

    quantized = quantize_detector(
        detector,
        prepared(job.inputs_named("calibration-images"), layout),
        tuning(),
        job.parameters["calibrators"],
        tell,
    )
    error = quantization_error(
        with_network(detector, fold_batch_norm(detector.network)),
        quantized.detector,
        islice(tuning(), LOOKED_AT),
        lambda images: tell("errors", images),
    )
    export_onnx(quantized.detector, job.output("onnx"), manifest)
    write_weights(job.output("weights"), into_float(detector, quantized.detector))
    sets = {role: {"images": len(found), "ids_sha256": hash_json(found)} for role, found in ids.items()}
    record = {"detector": detector.name, "opset": OPSET, "sets": sets, **quantized.record}
    job.write_json("record", {**record, "quantization_error": error.model_dump(mode="json")})
