"""Do the analyst's intervals hold the truth as often as they say? Measured on real matches.

Takes the ``matches`` outputs of two score steps on the same images as the whole world, so that the truth is known;
draws small sets from it, each image at most once; and counts how often an interval made from a small set alone holds
the world's value. A set that is no small part of the world varies less than one drawn from an endless one, so coverage
comes out somewhat too good, for all kinds of interval alike.

    python benchmarks/interval_coverage.py MATCHES_A MATCHES_B --images 60 --sets 200
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgejoule_analyst.average_precision import ApCurves, FloatArray, Matches
from edgejoule_analyst.bootstrap import Estimate, distribution, percentile_interval

RESAMPLES = 300


def basic_interval(value: float, draws: FloatArray) -> Estimate:
    """As the analyst's, but also for differences, which are no fractions."""
    drawn = percentile_interval(value, draws)
    return Estimate(value, 2 * value - drawn.high, 2 * value - drawn.low, drawn.level)


INTERVALS: dict[str, Callable[[float, FloatArray], Estimate]] = {
    "percentile": percentile_interval,
    "basic": basic_interval,
}


def part(matches: Matches, images: np.ndarray) -> Matches:
    """The matches of some images, given by rising index."""
    place = np.full(len(matches.image_ids), -1, np.int32)
    place[images] = np.arange(len(images))
    kept = place[matches.det_image] >= 0
    return replace(
        matches,
        image_ids=matches.image_ids[images],
        det_image=place[matches.det_image[kept]],
        det_category=matches.det_category[kept],
        det_score=matches.det_score[kept],
        tp=matches.tp[:, kept],
        ignored=matches.ignored[:, kept],
        gt_count=matches.gt_count[images],
        size_tp=matches.size_tp[:0],  # sizes are not asked for
    )


def ap_and_draws(matches: Matches, seed: int) -> tuple[float, FloatArray]:
    curves, images = ApCurves(matches), len(matches.image_ids)
    whole = curves.at(np.ones((1, images), np.int64)).mean()
    return float(whole), distribution(curves.at, images, count=RESAMPLES, seed=seed).mean(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matches", type=Path, nargs=2, help="matches files of two engines")
    parser.add_argument("--images", type=int, default=60, help="images per small set")
    parser.add_argument("--sets", type=int, default=200, help="small sets drawn")
    arguments = parser.parse_args()
    world = [Matches.load(path) for path in arguments.matches]
    everywhere = len(world[0].image_ids)
    truths = [float(ApCurves(each).at(np.ones((1, everywhere), np.int64)).mean()) for each in world]
    random = np.random.default_rng(0)
    values: list[float] = []
    held: dict[tuple[str, str], list[bool]] = {}
    for seed in range(arguments.sets):
        images = np.sort(random.choice(everywhere, arguments.images, replace=False))
        (first, first_draws), (second, second_draws) = (ap_and_draws(part(each, images), seed) for each in world)
        values.append(first)
        for name, interval in INTERVALS.items():
            for figure, value, draws, truth in (
                ("AP", first, first_draws, truths[0]),
                ("difference", second - first, second_draws - first_draws, truths[1] - truths[0]),
            ):
                found = interval(value, draws)
                held.setdefault((figure, name), []).append(found.low <= truth <= found.high)
    print(f"AP of all {everywhere} images {truths[0]:.4f}; mean AP of {arguments.images} images {np.mean(values):.4f}")
    for (figure, name), hits in sorted(held.items()):
        print(f"{figure:10}  {name:10}  95 % interval holds the truth in {np.mean(hits):.1%} of {len(hits)} sets")


if __name__ == "__main__":
    main()
