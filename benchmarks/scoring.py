"""Scoring speed: hotcoco against pycocotools on 5,000 generated images with 100 detections each.

    python benchmarks/scoring.py [--images 5000] [--repeats 3] [--skip-pycocotools]

Both get the same arrays and must give the same precision and recall; the times are from arrays to AP.
"""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from edgejoule_evaluator.detections import Detections
from edgejoule_evaluator.ground_truth import GroundTruth
from edgejoule_evaluator.matching import match
from edgejoule_evaluator.scoring import accuracy, curves

CATEGORIES = 80
OBJECTS = 7  # per image, as COCO val2017 has on average
DETECTIONS = 100  # per image

T = TypeVar("T")


def problem(images: int, seed: int = 0) -> tuple[GroundTruth, Detections]:
    """Objects of all sizes, one in a hundred a crowd; detections are shaken objects, a third of another class."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(1, images + 1)
    size = np.exp(rng.uniform(np.log(8), np.log(300), (images * OBJECTS, 2)))
    bbox = np.hstack([rng.uniform(0, 500, (images * OBJECTS, 2)), size])
    category = rng.integers(1, CATEGORIES + 1, len(bbox))
    truth = GroundTruth(
        images=numbers,
        categories=np.arange(1, CATEGORIES + 1),
        names=tuple(f"class {number}" for number in range(1, CATEGORIES + 1)),
        image_id=np.repeat(numbers, OBJECTS),
        category_id=category,
        bbox=bbox,
        area=bbox[:, 2] * bbox[:, 3] * rng.uniform(0.4, 1.0, len(bbox)),
        crowd=rng.random(len(bbox)) < 0.01,
    )
    source = (rng.integers(0, OBJECTS, (images, DETECTIONS)) + np.arange(images)[:, None] * OBJECTS).ravel()
    shaken = bbox[source] + rng.normal(0, 0.15, (len(source), 4)) * np.tile(size[source], 2)
    other = rng.integers(1, CATEGORIES + 1, len(source))
    detections = Detections(
        images=numbers,
        image_id=np.repeat(numbers, DETECTIONS),
        category_id=np.where(rng.random(len(source)) < 0.67, category[source], other),
        score=rng.beta(0.5, 3.0, len(source)).astype(np.float32),
        bbox=np.hstack([shaken[:, :2], shaken[:, 2:].clip(1.0)]).astype(np.float32),
    )
    return truth, detections


def best_of(work: Callable[[], T], repeats: int) -> tuple[T, float]:
    """The result, and the shortest time in seconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
    return result, min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3, help="of the fast ones; pycocotools runs once")
    parser.add_argument("--skip-pycocotools", action="store_true", help="it takes minutes")
    options = parser.parse_args()

    truth, detections = problem(options.images)
    print(f"{options.images} images, {len(truth)} objects, {len(detections)} detections, {CATEGORIES} categories")
    fast, fast_s = best_of(lambda: curves(truth, detections, "hotcoco"), options.repeats)
    print(f"hotcoco       {fast_s:8.2f} s   AP {accuracy(fast).ap:.6f}")
    _, match_s = best_of(lambda: match(truth, detections), options.repeats)
    print(f"our matching  {match_s:8.2f} s   (kept per image, for the bootstrap)")
    if not options.skip_pycocotools:
        reference, reference_s = best_of(lambda: curves(truth, detections, "pycocotools"), 1)
        print(f"pycocotools   {reference_s:8.2f} s   AP {accuracy(reference).ap:.6f}")
        apart = max(
            float(np.abs(fast.precision - reference.precision).max()),
            float(np.abs(fast.recall - reference.recall).max()),
        )
        print(f"pycocotools / hotcoco = {reference_s / fast_s:.1f}; largest difference of any entry = {apart:.1e}")


if __name__ == "__main__":
    main()
