"""Train the demo's small start: ``python -m edgejoule_trainer.demo_weights`` (``make demo-weights``).

NanoDet-m from random weights on generated pictures, none of which the demo's own data set holds (another
seed). The result, in half precision, is what ``examples/nanodet_m_shapes.safetensors`` is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgejoule.records import Label
from edgejoule_trainer.augment import Augmentation
from edgejoule_trainer.data.generate import CATEGORIES, draw
from edgejoule_trainer.detectors import create
from edgejoule_trainer.training import Recipe, Sample, train
from edgejoule_trainer.weights import write_weights

SEED = 7_000


class Drawn:
    """Generated pictures, drawn as they are asked for."""

    def __init__(self, images: int) -> None:
        self._images = images

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> Sample:
        image, boxes, labels, _areas = draw(SEED, index)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        return image, corners.astype(np.float32), labels


def main() -> None:
    """Train and write the file; resumes from its checkpoint if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("examples/nanodet_m_shapes.safetensors"))
    parser.add_argument("--iterations", type=int, default=2_000)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    detector = create("nanodet_m", [Label(**category) for category in CATEGORIES])
    recipe = Recipe(
        iterations=options.iterations,
        learning_rate=2e-3,
        augmentation=Augmentation(zoom=(0.8, 1.25), jitter=0.1),
        seed=SEED,
    )
    checkpoint = options.out.with_suffix(".checkpoint")
    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns) as display:
        task = display.add_task("training", total=recipe.iterations, loss="")

        def show(done: int, total: int, losses: dict[str, float]) -> None:
            terms = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            display.update(task, completed=done, total=total, loss=terms)

        train(detector, Drawn(options.images), recipe, checkpoint=checkpoint, progress=show)
    write_weights(options.out, detector, dtype=torch.float16)
    checkpoint.unlink(missing_ok=True)
    print(f"Wrote {options.out}, {options.out.stat().st_size / 1e6:.2f} MB.")


if __name__ == "__main__":
    main()
