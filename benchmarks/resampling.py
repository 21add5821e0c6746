"""How long 10,000 resamples of COCO-sized matches take: 5,000 generated images, 80 categories, 500,000 detections.

    python benchmarks/resampling.py [--images 5000] [--resamples 10000] [--workers 2] [--by-size]

Of each: AP, AP50, AP75, AR100 and, with ``--by-size``, AP of small, medium and large objects. The resamples are
shared among ``--workers`` processes, as two cells of a matrix are. Told are the time and the CPU time that it took;
on a machine with other work the CPU time is what counts.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from scoring import problem

from edgejoule_analyst.average_precision import AccuracyCurves, Matches
from edgejoule_analyst.bootstrap import distribution
from edgejoule_evaluator.matching import match


def draw(matches: Matches, by_size: bool, count: int, seed: int) -> tuple[dict[str, np.ndarray], float]:
    """Each figure under each resample, [count], and the CPU seconds it took."""
    began = time.process_time()
    curves = AccuracyCurves(matches, by_size=by_size)
    drawn = distribution(curves.at, len(matches.image_ids), count=count, seed=seed)
    return dict(zip(curves.figures, drawn.T, strict=True)), time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--by-size", action="store_true", help="AP by size of object too, which takes as long again")
    options = parser.parse_args()
    matches = Matches(**vars(match(*problem(options.images))))
    shares = [len(part) for part in np.array_split(np.arange(options.resamples), options.workers)]
    print(
        f"{options.images} images, {len(matches.det_score)} detections, {matches.tp[0].sum()} of them right at IoU .5"
    )
    began = time.perf_counter()
    with ProcessPoolExecutor(options.workers) as pool:
        of_each = [matches] * options.workers, [options.by_size] * options.workers
        parts = list(pool.map(draw, *of_each, shares, range(options.workers)))
    elapsed = time.perf_counter() - began
    cpu = [seconds for _, seconds in parts]
    print(f"{sum(shares)} resamples: {elapsed:.1f} s; CPU {', '.join(f'{s:.1f}' for s in cpu)} s of {options.workers}")
    print(f"load of the machine {os.getloadavg()[0]:.1f}")
    for figure in parts[0][0]:
        drawn = np.concatenate([values[figure] for values, _ in parts])
        print(f"{figure:9}  {drawn.mean():.4f}, standard error {drawn.std():.5f}")


if __name__ == "__main__":
    main()
