"""Train the demo's small starts: ``python -m edgejoule_trainer.demo_weights DETECTOR`` (``make demo-weights``).

From random weights on generated pictures, none of which the demo's own data set holds (another seed). Training sees
crops of a third of the pixels, with objects as large as they are at 320x320, which costs a third. The result, in half
precision, is ``examples/<detector>_shapes.safetensors``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from edgejoule.records import Label
from edgejoule_trainer.augment import Augmentation
from edgejoule_trainer.compute import Compute
from edgejoule_trainer.data.generate import CATEGORIES, draw
from edgejoule_trainer.detectors import create
from edgejoule_trainer.training import Recipe, train
from edgejoule_trainer.training_images import Sample
from edgejoule_trainer.weights import write_weights

DETECTORS = ("nanodet_m", "yolov5n")
SEED = 7_000
CROP = (192, 192)
INPUT = (320, 320)
ZOOM = (1.3, 2.2)  # on the size that would fit the whole picture into a crop: 0.8 to 1.3 of its own size


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
    parser.add_argument("detector", choices=DETECTORS)
    parser.add_argument("--into", type=Path, default=Path("examples"))
    parser.add_argument("--iterations", type=int, default=2_000)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--mixed-precision", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    labels = [Label.model_validate(category) for category in CATEGORIES]
    detector = create(options.detector, labels, CROP)
    recipe = Recipe(
        iterations=options.iterations,
        learning_rate=2e-3,
        augmentation=Augmentation(zoom=ZOOM, jitter=0.1),
        seed=SEED,
    )
    compute = Compute(mixed_precision=options.mixed_precision, channels_last=True)
    out = options.into / f"{options.detector}_shapes.safetensors"
    checkpoint = out.with_suffix(".checkpoint")
    columns = (*Progress.get_default_columns(), TimeElapsedColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns) as display:
        task = display.add_task("training", total=recipe.iterations, loss="")

        def show(done: int, total: int, losses: dict[str, float]) -> None:
            terms = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            display.update(task, completed=done, total=total, loss=terms)

        train(detector, Drawn(options.images), recipe, compute, checkpoint=checkpoint, progress=show)
    whole = create(options.detector, labels, INPUT)
    whole.load_state_dict(detector.state_dict())
    write_weights(out, whole, dtype=torch.float16)
    checkpoint.unlink(missing_ok=True)
    print(f"Wrote {out}, {out.stat().st_size / 1e6:.2f} MB.")


if __name__ == "__main__":
    main()
