"""Step ``qat``: the 8-bit graph of step ``ptq`` with its weights trained on.

Inputs: ``weights`` (float, what ``ptq`` quantized); ``ptq`` and ``rounded`` (that step's record and weights);
``train`` (annotations) with ``train-images-*``; ``tuning`` with ``tuning-images-*``. Outputs: ``onnx`` (Q/DQ, opset
13); ``weights`` (the trained ones in float, for engines of other precisions); ``events`` (for TensorBoard);
``record``.
Parameters: ``recipe`` and ``compute`` as of step ``train``, ``threads``.

The disagreement with the float detector on the tuning images is judged at the start, which is what ``ptq`` made, and at
a few moments of the training (``judged``); the weights of the best one are taken (``chosen_iteration``; 0: training
brought nothing). Of these the record has the error of every layer (``quantization_error``), its weights' against the
trained ones in float. The evaluation images have no part in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgejoule.job import Job

if TYPE_CHECKING:
    from edgejoule_trainer.detectors import Detector

VERSION = 2
QUEUE = "train"
EXCLUSIVE = False
OUTPUTS = ("onnx", "weights", "events", "record")
SOURCES = (
    "edgejoule_trainer.quantize",
    "edgejoule_trainer.export",
    "edgejoule_trainer.training",
    "edgejoule_trainer.training_images",
    "edgejoule_trainer.training_log",
    "edgejoule_trainer.training_run",
    "edgejoule_trainer.augment",
    "edgejoule_trainer.compute",
    "edgejoule_trainer.detectors",
    "edgejoule_trainer.losses",
    "edgejoule_trainer.norm_statistics",
    "edgejoule_trainer.counting",
    "edgejoule_trainer.weights",
    "edgejoule_agent.cpu",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.shards",
)


def run(job: Job) -> None:
    """Train, with a checkpoint in the scratch folder from which a killed attempt goes on."""
    from edgejoule_trainer.compute import prepare_process
    from edgejoule_trainer.export import export_onnx
    from edgejoule_trainer.quantize.errors import LOOKED_AT, quantization_error
    from edgejoule_trainer.quantize.lint import OPSET
    from edgejoule_trainer.quantize.qat import answers, disagreement, from_ptq, into_float
    from edgejoule_trainer.training_images import ShardImages, prepared
    from edgejoule_trainer.training_run import train_in_job
    from edgejoule_trainer.weights import read_weights, write_weights

    prepare_process(int(job.parameters["threads"]))
    detector = read_weights(job.inputs["weights"])
    manifest = detector.manifest()
    calibrated = job.read_json("ptq")
    quantized = from_ptq(detector, calibrated, read_weights(job.inputs["rounded"]))
    layout = manifest.model_dump(mode="json")
    tuning = list(prepared(job.inputs_named("tuning-images"), layout))
    of_float = answers(detector, tuning)

    def judge(candidate: Detector) -> float:
        return disagreement(candidate, tuning, of_float).total

    told = calibrated["confident_cells"] > 0  # else all weights would be judged alike
    with ShardImages(job.read_json("train"), job.inputs_named("train-images"), detector.labels) as images:
        record: dict[str, Any] = train_in_job(job, quantized, images, teacher=detector, judge=judge if told else None)

    export_onnx(quantized, job.output("onnx"), manifest)
    trained = into_float(detector, quantized)
    write_weights(job.output("weights"), trained)
    error = quantization_error(trained, quantized, tuning[:LOOKED_AT])
    about = {"detector": detector.name, "opset": OPSET, "calibrator": calibrated["calibrator"]}
    job.write_json("record", {**about, **record, "quantization_error": error.model_dump(mode="json")})
