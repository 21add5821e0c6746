"""Step ``train``: weights from a training set, starting from given ones or from random ones.

Parameters: ``detector``, ``input`` ({height, width} or null), ``recipe`` (fields of
``edgejoule_trainer.training.Recipe``; ``augmentation`` its own fields), ``compute`` (fields of
``edgejoule_trainer.compute.Compute``), ``threads``. Inputs: ``train`` (annotations), ``train-images-*`` (shards),
optionally ``weights`` to start from. Outputs: ``weights``; ``events`` (for TensorBoard); ``record``.

Weights to start from keep their categories where the training set has no other ones. Otherwise the detector gets
those of the training set, and the tensors whose shape that changes start from random values; the record lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgejoule.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgejoule.records import Label
    from edgejoule_trainer.detectors import Detector

VERSION = 2
QUEUE = "train"
EXCLUSIVE = False
OUTPUTS = ("weights", "events", "record")
SOURCES = (
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
    "edgejoule_trainer.quantize.fold",
    "edgejoule_trainer.weights",
    "edgejoule_agent.cpu",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.shards",
)


def run(job: Job) -> None:
    """Train, with a checkpoint in the scratch folder from which a killed attempt goes on."""
    import torch

    from edgejoule.records import Label
    from edgejoule_trainer.compute import prepare_process
    from edgejoule_trainer.detectors import create
    from edgejoule_trainer.training_images import ShardImages
    from edgejoule_trainer.training_run import train_in_job
    from edgejoule_trainer.weights import read_weights, write_weights

    prepare_process(int(job.parameters["threads"]))
    size = job.parameters["input"]
    input_size = (size["height"], size["width"]) if size else None
    annotations = job.read_json("train")
    labels = [Label(**category) for category in annotations["categories"]]
    torch.manual_seed(job.parameters["recipe"]["seed"])
    begun_anew: list[str] = []
    if "weights" in job.inputs:
        detector = read_weights(job.inputs["weights"], input_size)
        if not set(labels_of(labels)) <= set(labels_of(detector.labels)):
            detector, begun_anew = with_labels(detector, labels)
    else:
        detector = create(job.parameters["detector"], labels, input_size)

    with ShardImages(annotations, job.inputs_named("train-images"), detector.labels) as images:
        record: dict[str, Any] = train_in_job(job, detector, images)
    write_weights(job.output("weights"), detector)
    job.write_json("record", {"detector": detector.name, "begun_anew": begun_anew, **record})


def labels_of(labels: Sequence[Label]) -> list[tuple[int | None, str]]:
    """Id and name of each, to compare."""
    return [(label.id, label.name) for label in labels]


def with_labels(detector: Detector, labels: Sequence[Label]) -> tuple[Detector, list[str]]:
    """The same detector for other categories, and the names of the tensors that start from random values."""
    from edgejoule_trainer.detectors import create

    changed = create(detector.name, labels, detector.input_size)
    own, given = changed.state_dict(), detector.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    changed.load_state_dict(fitting, strict=False)
    return changed, sorted(own.keys() - fitting.keys())
