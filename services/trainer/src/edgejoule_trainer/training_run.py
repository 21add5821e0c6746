"""What the steps ``train`` and ``qat`` have in common: a job's parameters to a run, and its course to a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgejoule.job import Job
from edgejoule_trainer import training_log
from edgejoule_trainer.augment import Augmentation
from edgejoule_trainer.compute import Compute, choose_device, describe
from edgejoule_trainer.detectors import Detector
from edgejoule_trainer.training import Course, Recipe, TrainingImages, train

POINTS = 200
"""Of the curve in the record: enough to draw it, whatever the number of iterations."""


def recipe_of(job: Job) -> Recipe:
    """Parameter ``recipe``: fields of Recipe, with those of Augmentation under ``augmentation``."""
    values: dict[str, Any] = dict(job.parameters["recipe"])
    return Recipe(**{**values, "augmentation": Augmentation(**values.get("augmentation", {}))})


def train_in_job(
    job: Job,
    detector: Detector,
    images: TrainingImages,
    teacher: Detector | None = None,
    judge: Callable[[Detector], float] | None = None,
) -> dict[str, Any]:
    """Train ``detector`` in place, write output ``events``, and return what the record says of the run."""
    recipe, compute = recipe_of(job), Compute(**job.parameters["compute"])
    logs = job.scratch / "log"

    def tell(done: int, total: int, losses: dict[str, float]) -> None:
        job.progress(done, total, f"iterations, loss {sum(losses.values()):.3f}")

    course = train(
        detector,
        images,
        recipe,
        compute,
        teacher=teacher if recipe.distillation else None,
        checkpoint=job.scratch / "checkpoint.pt",
        log=logs,
        judge=judge,
        progress=tell,
    )
    training_log.join(logs, job.output("events"))
    return {
        "images": len(images),
        "device": describe(choose_device(compute.device)),
        "step_ms": course.median_step_ms(),
        "course": curve(course),
        "judged": {str(iteration): value for iteration, value in course.judged.items()},
        "chosen_iteration": course.chosen,
    }


def curve(course: Course) -> dict[str, list[float]]:
    """At most POINTS iterations, evenly spaced: means of each loss term over the iterations up to that one.

    >>> curve(Course([1, 2], [{"a": 1.0}, {"a": 3.0}], [5.0, 5.0]))
    {'iteration': [1, 2], 'a': [1.0, 3.0]}
    """
    count = len(course.iterations)
    ends = sorted({round((number + 1) * count / min(POINTS, count)) for number in range(min(POINTS, count))})
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    terms = course.losses[0] if course.losses else {}
    found: dict[str, list[float]] = {"iteration": [course.iterations[end - 1] for end in ends]}
    for name in terms:
        found[name] = [sum(loss[name] for loss in course.losses[a:b]) / (b - a) for a, b in spans]
    return found
