"""A plain training loop whose checkpoints resume exactly.

Everything random is drawn from (seed, iteration, position), never from a running generator, so an
interrupted run and an uninterrupted one see the same images, augmented the same way, in the same order.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgejoule.errors import DataError, StepError
from edgejoule_trainer.augment import Augmentation, augment
from edgejoule_trainer.detectors.detector import Detector, Target

Sample = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]
Batch = tuple[Tensor, list[Target]]


class TrainingImages(Protocol):
    """Images with their objects: uint8[h, w, 3] RGB, float32[n, 4] x1 y1 x2 y2, int64[n] class indices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Recipe:
    """How to train. The schedule is a linear warm-up, then a cosine to zero (the paper's Eq. 6)."""

    iterations: int
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_iterations: int = 50
    average_decay: float = 0.998
    gradient_clip: float = 35.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 42


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
        view, placed, keep = augment(
            image, boxes, detector.input_size, recipe.augmentation, rng, detector.resize.fill_rgb
        )
        views.append(view)
        targets.append(Target(torch.from_numpy(placed[keep]), torch.from_numpy(labels[keep])))
    return torch.from_numpy(np.stack(views)), targets


def _batches(start: int, data: TrainingImages, detector: Detector, recipe: Recipe) -> Iterator[tuple[int, Batch]]:
    """Batches in order, the next one prepared while the present one is trained on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(load_batch, start, data, detector, recipe)
        for iteration in range(start, recipe.iterations):
            batch = coming.result()
            if iteration + 1 < recipe.iterations:
                coming = pool.submit(load_batch, iteration + 1, data, detector, recipe)
            yield iteration, batch


def parameter_groups(detector: Detector, weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and batch norms, the tensors of one dimension, do not."""
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _average(averaged: Detector, detector: Detector, decay: float) -> None:
    for mean, now in zip(averaged.state_dict().values(), detector.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)


def train(
    detector: Detector,
    data: TrainingImages,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 30.0,
    progress: Callable[[int, int, dict[str, float]], None] = lambda done, total, losses: None,
) -> Detector:
    """Train in place; returns the running average of the weights, which is what to use.

    Args:
        checkpoint: where to keep the state; if the file is there, training goes on from it, with the same
            result as if it had never stopped.
        progress: called after each iteration with (done, total, loss by term).

    Raises:
        DataError: no images.
        StepError: the loss is no longer a number.
    """
    if not len(data):
        raise DataError("There is not one image to train on; give the training set at least one.")
    averaged = copy.deepcopy(detector)
    optimizer = torch.optim.AdamW(parameter_groups(detector, recipe.weight_decay), lr=recipe.learning_rate)
    torch.manual_seed(recipe.seed)
    start = 0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        start = state["iteration"]
        detector.load_state_dict(state["detector"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
    saved_at = time.monotonic()
    detector.train()
    for iteration, (images, targets) in _batches(start, data, detector, recipe):
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(iteration, recipe)
        losses = detector.loss(detector.network(detector.normalize(images)), targets)
        total: Tensor = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise StepError(
                f"The loss became {total.item()} at iteration {iteration}; lower train.learning_rate "
                f"(now {recipe.learning_rate:g})."
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), recipe.gradient_clip)
        optimizer.step()
        # A short run would otherwise keep its random start in the average.
        _average(averaged, detector, min(recipe.average_decay, (1 + iteration) / (10 + iteration)))
        done = iteration + 1
        progress(done, recipe.iterations, {name: value.item() for name, value in losses.items()})
        if checkpoint is not None and done < recipe.iterations and time.monotonic() - saved_at > checkpoint_every_s:
            save_checkpoint(checkpoint, done, detector, averaged, optimizer)
            saved_at = time.monotonic()
    detector.load_state_dict(averaged.state_dict())
    return detector.eval()


def save_checkpoint(
    path: Path, iteration: int, detector: Detector, averaged: Detector, optimizer: torch.optim.Optimizer
) -> None:
    """Write the whole state, so that a kill while writing leaves the one before."""
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "iteration": iteration,
            "detector": detector.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
        },
        partial,
    )
    with open(partial, "rb") as file:
        os.fsync(file.fileno())  # else a power cut may leave the name without the bytes
    os.replace(partial, path)


class InMemory:
    """Training images held in memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]
