"""Step ``train``: weights from a training set, starting from given ones or from random ones.

Parameters: ``detector``, ``input`` ({height, width} or null), ``recipe`` (fields of
``edgejoule_trainer.training.Recipe``; ``augmentation`` its own fields), ``threads``.
Inputs: ``train`` (annotations), ``train-images-*`` (shards), optionally ``weights`` to start from.
"""

from __future__ import annotations

from typing import Any

from edgejoule.job import Job

VERSION = 1
QUEUE = "train"
EXCLUSIVE = False
OUTPUTS = ("weights", "record")
SOURCES = (
    "edgejoule_trainer.training",
    "edgejoule_trainer.augment",
    "edgejoule_trainer.training_images",
    "edgejoule_trainer.detectors",
    "edgejoule_trainer.losses",
    "edgejoule_trainer.counting",
    "edgejoule_trainer.weights",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.shards",
)


def run(job: Job) -> None:
    """Train, with a checkpoint in the scratch folder from which a killed attempt goes on."""
    import torch

    from edgejoule.records import Label
    from edgejoule_trainer.augment import Augmentation
    from edgejoule_trainer.detectors import create
    from edgejoule_trainer.training import Recipe, train
    from edgejoule_trainer.training_images import ShardImages
    from edgejoule_trainer.weights import read_weights, write_weights

    torch.set_num_threads(int(job.parameters.get("threads", 1)))
    recipe_values: dict[str, Any] = dict(job.parameters["recipe"])
    augmentation = recipe_values.pop("augmentation", {})
    recipe = Recipe(**recipe_values, augmentation=Augmentation(**augmentation))
    size = job.parameters.get("input")
    input_size = (size["height"], size["width"]) if size else None
    annotations = job.read_json("train")
    labels = [Label(**category) for category in annotations["categories"]]
    torch.manual_seed(recipe.seed)
    if "weights" in job.inputs:
        detector = read_weights(job.inputs["weights"], input_size)
    else:
        detector = create(job.parameters["detector"], labels, input_size)

    last: dict[str, float] = {}

    def tell(done: int, total: int, losses: dict[str, float]) -> None:
        last.update(losses)
        job.progress(done, total, f"iterations, loss {sum(losses.values()):.3f}")

    with ShardImages(annotations, job.inputs_named("train-images"), detector.labels) as images:
        train(detector, images, recipe, checkpoint=job.scratch / "checkpoint.pt", progress=tell)
        write_weights(job.output("weights"), detector)
        job.write_json("record", {"detector": detector.name, "images": len(images), "last_loss": last})
