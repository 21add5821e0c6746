"""How long post-processing takes at its largest: EfficientDet-D0's 49,104 boxes x 90 classes of one image.

Run: python benchmarks/postprocess.py
"""

import statistics
import time

import numpy as np

from edgejoule_agent.postprocess import detect
from edgejoule_agent.preprocess import Frame

BOXES, CLASSES, REPEATS = 49_104, 90, 7
FRAME = Frame(640, 480, 512, 512, 0.8, 0.8, 0.0, 0.0)


def measure(scores: np.ndarray, boxes: np.ndarray, floor: float) -> float:
    """Median milliseconds of one image."""
    nms = {"score_floor": floor, "top_k": 5000, "iou": 0.5, "class_wise": True, "limit": 100}
    manifest = {"clip": "before_nms", "labels": [{"id": index, "name": str(index)} for index in range(CLASSES)]}
    times_ms = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        detect(boxes, scores, FRAME, manifest, nms)
        times_ms.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times_ms)


def main() -> None:
    random = np.random.default_rng(0)
    corners = random.random((BOXES, 2), dtype=np.float32)
    boxes = np.concatenate([corners, corners + 0.2 * random.random((BOXES, 2), dtype=np.float32)], axis=1)
    trained = random.beta(0.1, 5, (BOXES, CLASSES)).astype(np.float32)
    untrained = random.random((BOXES, CLASSES), dtype=np.float32)
    crowd = np.repeat(boxes[:1], BOXES, axis=0)  # all suppress each other: the slow case for a loop over kept boxes
    print(f"{BOXES} boxes x {CLASSES} classes, milliseconds per image (median of {REPEATS})")
    print(f"  scores of a trained detector, floor 0.05   {measure(trained, boxes, 0.05):7.1f}")
    print(f"  the same, floor 0.001                      {measure(trained, boxes, 0.001):7.1f}")
    print(f"  every score over the floor                 {measure(untrained, boxes, 0.001):7.1f}")
    print(f"  every box the same                         {measure(trained, crowd, 0.001):7.1f}")


if __name__ == "__main__":
    main()
