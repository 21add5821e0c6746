"""A plain training loop whose checkpoints resume exactly, for training and for quantization-aware training.

Everything random is drawn from (seed, iteration, position), never from a running generator, so an
interrupted run and an uninterrupted one see the same images, augmented the same way, in the same order.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from edgejoule.errors import DataError, StepError
from edgejoule_trainer.augment import Augmentation, augment
from edgejoule_trainer.compute import ON_CPU, Compute, choose_device, half_type, memory_format, place, settings
from edgejoule_trainer.detectors.detector import Detector, Target
from edgejoule_trainer.losses.distillation import distillation_loss
from edgejoule_trainer.norm_statistics import measure_folded_norms
from edgejoule_trainer.training_images import Sample
from edgejoule_trainer.training_log import TrainingLog

Batch = tuple[Tensor, list[Target]]

SNAPSHOTS = 4  # of a judged run, evenly spaced, the end among them
NORM_BATCHES = 4  # the first ones, to measure batch norms by that came folded into their convolutions


class TrainingImages(Protocol):
    """Images with their objects: uint8[h, w, 3] RGB, float32[n, 4] x1 y1 x2 y2, int64[n] class indices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Recipe:
    """What is computed. The schedule is a linear warm-up, then a cosine to zero (the paper's Eq. 6).

    weight_decay: AdamW's; without it AdamW is Adam. average_decay: of the running average of the weights, which is
    what a run gives; 0 gives the last weights. frozen_norms: share of the iterations, at the end, in which batch norms
    use the running statistics that they will use for good. Statistics of each batch hide a picture whose activations
    are far out of the ordinary; frozen ones let the losses see it. distillation: share of the teacher's loss in the
    whole, 0 to 1; at 1 no label is read.
    """

    iterations: int
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_iterations: int = 50
    average_decay: float = 0.998
    gradient_clip: float = 35.0
    frozen_norms: float = 0.2
    distillation: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 42


@dataclass
class Course:
    """How a run went: the loss by term and the time, of each iteration done by this process."""

    iterations: list[int] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    judged: dict[int, float] = field(default_factory=dict)
    """Iteration to how bad the weights were judged then; 0 is the start."""
    chosen: int | None = None
    """The iteration whose weights the run ended with, where it was judged."""

    def median_step_ms(self) -> float | None:
        """Of one iteration with everything in it, the wait for data too; None where none was done."""
        return statistics.median(self.step_ms) if self.step_ms else None


def cosine_rate(iteration: int, recipe: Recipe) -> float:
    """Learning rate of an iteration, eta_t of Eq. 6 with eta_min = 0, after the warm-up.

    >>> recipe = Recipe(iterations=110, warmup_iterations=10, learning_rate=1.0)
    >>> [round(cosine_rate(i, recipe), 3) for i in (0, 9, 10, 60, 110)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if iteration < recipe.warmup_iterations:
        return recipe.learning_rate * (iteration + 1) / recipe.warmup_iterations
    passed = (iteration - recipe.warmup_iterations) / max(1, recipe.iterations - recipe.warmup_iterations)
    return 0.5 * recipe.learning_rate * (1 + float(np.cos(np.pi * passed)))


def norms_are_frozen(iteration: int, recipe: Recipe) -> bool:
    """Whether batch norms use their running statistics in this iteration.

    >>> [norms_are_frozen(i, Recipe(iterations=10, frozen_norms=0.2)) for i in (0, 7, 8, 9)]
    [False, False, True, True]
    """
    return iteration >= recipe.iterations - round(recipe.frozen_norms * recipe.iterations)


def batch_indices(iteration: int, images: int, recipe: Recipe) -> list[int]:
    """Which images an iteration sees: a fresh permutation each epoch, none left out, none twice.

    >>> recipe = Recipe(iterations=2, batch=2)
    >>> sorted(batch_indices(0, 4, recipe) + batch_indices(1, 4, recipe))
    [0, 1, 2, 3]
    """
    positions = range(iteration * recipe.batch, (iteration + 1) * recipe.batch)
    orders = {
        epoch: np.random.default_rng([recipe.seed, 1, epoch]).permutation(images)
        for epoch in {position // images for position in positions}
    }
    return [int(orders[position // images][position % images]) for position in positions]


def load_batch(iteration: int, data: TrainingImages, detector: Detector, recipe: Recipe) -> Batch:
    """The augmented images and targets of an iteration; a function of (seed, iteration) alone."""
    views, targets = [], []
    for position, index in enumerate(batch_indices(iteration, len(data), recipe)):
        image, boxes, labels = data[index]
        rng = np.random.default_rng([recipe.seed, 2, iteration, position])
        view, placed, keep = augment(image, boxes, detector.resize, detector.input_size, recipe.augmentation, rng)
        views.append(view)
        targets.append(Target(torch.from_numpy(placed[keep]), torch.from_numpy(labels[keep])))
    return torch.from_numpy(np.stack(views)), targets


def _batches(
    start: int, data: TrainingImages, detector: Detector, recipe: Recipe, workers: int
) -> Iterator[tuple[int, Batch]]:
    """Batches in order, the next ones prepared while the present one is trained on."""
    with ThreadPoolExecutor(workers) as pool:
        coming: deque[Future[Batch]] = deque()
        asked = start
        for iteration in range(start, recipe.iterations):
            while asked < min(iteration + workers + 1, recipe.iterations):
                coming.append(pool.submit(load_batch, asked, data, detector, recipe))
                asked += 1
            yield iteration, coming.popleft().result()


def parameter_groups(detector: Detector, weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and batch norms, the tensors of one dimension, do not."""
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


class _Average:
    """A running average of a detector's weights."""

    def __init__(self, detector: Detector) -> None:
        self.detector = copy.deepcopy(detector)
        pairs = list(zip(self.detector.state_dict().values(), detector.state_dict().values(), strict=True))
        self._moving = [(mean, now) for mean, now in pairs if mean.dtype.is_floating_point]
        self._counted = [(mean, now) for mean, now in pairs if not mean.dtype.is_floating_point]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        means, values = ([pair[side] for pair in self._moving] for side in (0, 1))
        torch._foreach_lerp_(means, values, 1 - decay)
        for mean, now in self._counted:
            mean.copy_(now)


def train(
    detector: Detector,
    data: TrainingImages,
    recipe: Recipe,
    compute: Compute = ON_CPU,
    *,
    teacher: Detector | None = None,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 30.0,
    log: Path | None = None,
    judge: Callable[[Detector], float] | None = None,
    progress: Callable[[int, int, dict[str, float]], None] = lambda done, total, losses: None,
) -> Course:
    """Train in place; ``detector`` ends as the running average of the weights, which is what to use, on the CPU.

    Args:
        teacher: whose answers the distillation share of the loss compares with, in evaluation mode.
        checkpoint: where to keep the state; if the file is there, training goes on from it, with the same
            result as if it had never stopped.
        log: folder for TensorBoard's event files.
        judge: how bad weights are, on images that are not trained on; then ``detector`` ends as the best of the
            start, the end and SNAPSHOTS - 1 moments between.
        progress: called after each iteration with (done, total, loss by term).

    Raises:
        DataError: no images.
        StepError: the loss is no longer a number.
        UnsupportedError: the device that was asked for is not there.
    """
    if not len(data):
        raise DataError("There is not one image to train on; give the training set at least one.")
    device = choose_device(compute.device)
    batches = (load_batch(iteration, data, detector, recipe)[0] for iteration in range(NORM_BATCHES))
    measure_folded_norms(detector.network, (detector.normalize(images) for images in batches))
    with settings(device, compute):
        place(detector, device, compute)
        if teacher is not None:
            place(teacher.eval(), device, compute)
        run = _Run(detector, recipe, compute, device, teacher)
        start = run.load(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
        course = Course()
        scalars = TrainingLog(log, start) if log is not None else None
        saved_at = clock = time.monotonic()
        if judge is not None and run.best is None:
            run.consider(judge, 0)
        detector.train()
        try:
            for iteration, (images, targets) in _batches(start, data, detector, recipe, compute.workers):
                losses = run.step(iteration, images, targets)
                done, now = iteration + 1, time.monotonic()
                course.iterations.append(done)
                course.losses.append(losses)
                course.step_ms.append(1e3 * (now - clock))
                clock = now
                if scalars is not None:
                    rate = cosine_rate(iteration, recipe)
                    scalars.add(done, {**{f"loss/{k}": v for k, v in losses.items()}, "learning_rate": rate})
                progress(done, recipe.iterations, losses)
                if judge is not None and is_snapshot(done, recipe.iterations):
                    run.consider(judge, done)
                if checkpoint is not None and done < recipe.iterations and now - saved_at > checkpoint_every_s:
                    run.save(checkpoint, done)
                    saved_at = now
        finally:
            if scalars is not None:
                scalars.close()
        if run.best is not None:
            course.chosen, course.judged = run.best.iteration, run.judged
        detector.load_state_dict(run.average.detector.state_dict() if run.best is None else run.best.weights)
        for module in (detector, teacher):
            if module is not None:
                place(module.eval(), torch.device("cpu"), ON_CPU)
    return course


def is_snapshot(done: int, iterations: int) -> bool:
    """Whether a judged run of so many iterations is judged after this one.

    >>> [done for done in range(1, 11) if is_snapshot(done, 10)]
    [3, 5, 8, 10]
    """
    return done * SNAPSHOTS // iterations > (done - 1) * SNAPSHOTS // iterations


class _Best(NamedTuple):
    """The best weights so far."""

    iteration: int
    weights: dict[str, Tensor]


class _Run:
    """The state of a run, and one step of it."""

    def __init__(
        self, detector: Detector, recipe: Recipe, compute: Compute, device: torch.device, teacher: Detector | None
    ) -> None:
        self.detector, self.recipe, self.compute, self.device, self.teacher = (
            detector,
            recipe,
            compute,
            device,
            teacher,
        )
        torch.manual_seed(recipe.seed)
        self.average = _Average(detector)
        self.norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        self.optimizer = torch.optim.AdamW(parameter_groups(detector, recipe.weight_decay), lr=recipe.learning_rate)
        self.judged: dict[int, float] = {}
        self.best: _Best | None = None
        scaled = compute.mixed_precision and half_type(device) is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def step(self, iteration: int, images: Tensor, targets: list[Target]) -> dict[str, float]:
        """One optimizer step; the loss by term.

        Raises:
            StepError: the loss is not a number.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(iteration, self.recipe)
        if norms_are_frozen(iteration, self.recipe):
            for norm in self.norms:
                norm.eval()
        images = images.to(self.device, non_blocking=True, memory_format=memory_format(self.device, self.compute))
        losses = self._losses(images, [target.to(self.device) for target in targets])
        total: Tensor = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            terms = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
            raise StepError(
                f"The loss became {total.item()} at iteration {iteration} ({terms}); lower learning_rate "
                f"(now {self.recipe.learning_rate:g})."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), self.recipe.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # A short run would otherwise keep its random start in the average.
        self.average.update(min(self.recipe.average_decay, (1 + iteration) / (10 + iteration)))
        return {name: value.item() for name, value in losses.items()}

    def _losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        share = self.recipe.distillation if self.teacher is not None else 0.0
        raw = self._forward(self.detector, images)
        losses: dict[str, Tensor] = {}
        if share < 1:
            losses = {name: (1 - share) * value for name, value in self.detector.loss(raw, targets).items()}
        if self.teacher is not None and share > 0:
            with torch.no_grad():
                wanted = self.teacher.decode(self._forward(self.teacher, images))
            apart = distillation_loss(*self.detector.decode(raw), *wanted, self.detector.input_size)
            losses |= {name: share * value for name, value in apart.items()}
        return losses

    def _forward(self, detector: Detector, images: Tensor) -> tuple[Tensor, ...]:
        """The raw maps in float32, in which losses and box decoding are computed whatever the network ran in."""
        half = half_type(self.device)
        with torch.autocast(self.device.type, dtype=half, enabled=self.compute.mixed_precision):
            raw = detector.network(detector.normalize(images))
        return tuple(level.float() for level in raw)

    def consider(self, judge: Callable[[Detector], float], done: int) -> None:
        """Judge the averaged weights, on the CPU, and keep them if there were none as good.

        In the plain layout: in the other one SSD-MobileNetV2's 8-bit form was a sixth farther from its float form.
        """
        candidate = copy.deepcopy(self.average.detector).eval()
        place(candidate, torch.device("cpu"), ON_CPU)
        value = judge(candidate)
        if not self.judged or value < min(self.judged.values()):
            self.best = _Best(done, candidate.state_dict())
        self.judged[done] = value

    def save(self, path: Path, iteration: int) -> None:
        """Write the whole state, so that a kill while writing leaves the one before."""
        state = {
            "iteration": iteration,
            "detector": self.detector.state_dict(),
            "averaged": self.average.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "judged": self.judged,
            "best": tuple(self.best) if self.best is not None else None,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # else a power cut may leave the name without the bytes
        os.replace(partial, path)

    def load(self, path: Path) -> int:
        """Go back to what ``save`` wrote; the iterations done by then."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.detector.load_state_dict(state["detector"])
        self.average.detector.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["torch_rng"].cpu())
        self.judged = state["judged"]
        self.best = _Best(*state["best"]) if state["best"] is not None else None
        return int(state["iteration"])


class InMemory:
    """Training images held in memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]
