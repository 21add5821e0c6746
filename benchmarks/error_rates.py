"""Do intervals cover, do tests err, do they see? By simulation, where the truth is known.

Two made-up engines look at the same images. Each object is found or not by luck that they share in part, as two engines
on one set of images do. Told are: how often a 95 % interval of their AP50 difference holds the true one, where it is
zero; how often the permutation test calls them different then, for one pair and anywhere in ten, with Holm's correction
and without, for engines of several kinds; how often a Student interval of the trials' 99th percentiles of latency
holds, for inferences that hang together; how often the interval of one AP50 holds, by several methods and for the same
kinds; how often one of ten equal rows is called worse than the best of them; and how often a true difference is seen,
by its size. The last is drawn to ``--power FILE.svg``.

    python benchmarks/error_rates.py [--repetitions 1000] [--power docs/images/power.svg]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from edgejoule_analyst.average_precision import ApCurves, FloatArray, Matches
from edgejoule_analyst.bootstrap import Estimate, basic_interval, distribution, percentile_interval
from edgejoule_analyst.permutation import paired_permutation
from edgejoule_analyst.significance import Spread, holm

PAIRS = 10
SKILL, SHARED = 0.6, 0.7
LOSSES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.12)
IMAGES_OF_CURVE = (100, 400)
POPULATION = 40_000


@dataclass(frozen=True)
class World:
    """What engines look at, and how well their scores tell right from wrong."""

    categories: int = 2
    """Equally frequent when there are two; of more, the k-th is 1/k as frequent as the first."""
    telling: bool = False
    """Whether a wrong detection has a lower score than a right one: precision then falls with recall, else it is flat.
    """

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        if self.categories == 2:
            return random.integers(0, 2, count)
        weights = 1 / np.arange(1, self.categories + 1)
        return random.choice(self.categories, count, p=weights / weights.sum())


WORLDS = {
    "2 categories": World(),
    "2, scores that tell": World(telling=True),
    "20 categories, rare ones": World(20),
    "20, scores that tell": World(20, telling=True),
}


def engines(
    images: int, loss: float, random: np.random.Generator, world: World = WORLDS["2 categories"]
) -> tuple[Matches, Matches]:
    """Two engines on the same images with 1-4 objects each; the second finds ``loss`` fewer.

    Each finds an object in the share ``SKILL`` of cases; the share ``SHARED`` of objects has one luck for both. Each
    raises its own false alarms, whose scores overlap with those of the right detections.
    """
    objects = random.integers(1, 5, images)
    image = np.repeat(np.arange(images), objects)
    category = world.draw(len(image), random)
    gt_count = np.zeros((images, world.categories), np.int32)
    np.add.at(gt_count, (image, category), 1)
    common, is_shared = random.random(len(image)), random.random(len(image)) < SHARED
    made = []
    for skill in (SKILL, SKILL - loss):
        luck = np.where(is_shared, common, random.random(len(image)))
        alarms = random.integers(0, images, images)
        right = random.beta(4, 2, len(image))
        own = np.where(luck < skill, right, random.beta(2, 4, len(image))) if world.telling else right
        score = np.concatenate([own, random.beta(2, 4, len(alarms))])
        made.append(
            Matches(
                image_ids=np.arange(images),
                category_ids=np.arange(world.categories),
                ious=np.array([0.5]),
                det_image=np.concatenate([image, alarms]).astype(np.int32),
                det_category=np.concatenate([category, world.draw(images, random)]).astype(np.int32),
                det_score=score.astype(np.float32),
                tp=np.concatenate([luck < skill, np.zeros(images, bool)])[None],
                ignored=np.zeros((1, len(score)), bool),
                gt_count=gt_count,
            )
        )
    return made[0], made[1]


def ap50(matches: Matches) -> float:
    return float(ApCurves(matches).at(np.ones((1, len(matches.image_ids)), np.int64))[0, 0])


def p_value(first: Matches, second: Matches, seed: int, count: int = 199) -> float:
    return paired_permutation(first, second, "ap50", count=count, seed=seed).p


def without_difference(repetitions: int, world: World, images: int = 200) -> str:
    """Coverage and errors where both engines are alike; of families of ``PAIRS`` tests, how many err anywhere."""
    random = np.random.default_rng(1)
    covered, p_values = [], []
    for seed in range(repetitions):
        pair = engines(images, 0.0, random, world)
        values = [ap50(each) for each in pair]
        draws = [distribution(ApCurves(each).at, images, count=400, seed=seed)[:, 0] for each in pair]
        interval = percentile_interval(values[1] - values[0], draws[1] - draws[0])
        covered.append(interval.low <= 0 <= interval.high)
        p_values.append(p_value(*pair, seed=seed, count=399))
    families = [p_values[start : start + PAIRS] for start in range(0, repetitions, PAIRS)]
    erring = [np.mean([min(correct(family)) <= 0.05 for family in families]) for correct in (list, holm)]
    return (
        f"interval holds zero {np.mean(covered):.1%}; p <= .05 {np.mean(np.array(p_values) <= 0.05):.1%}; anywhere in"
        f" {PAIRS} tests, {len(families)} families: not corrected {erring[0]:.1%}, after Holm {erring[1]:.1%}"
    )


def bca_interval(value: float, draws: FloatArray, without_one: FloatArray) -> Estimate:
    """Efron's bias-corrected and accelerated interval; ``without_one``: the value without each image, [I]."""
    bias = stats.norm.ppf(np.clip(np.mean(draws < value), 1 / len(draws), 1 - 1 / len(draws)))
    influence = without_one.mean() - without_one
    bend = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    reach = bias + stats.norm.ppf((0.025, 0.975))
    low, high = np.quantile(draws, stats.norm.cdf(bias + reach / (1 - bend * reach)))
    return Estimate(value, float(low), float(high), 0.95)


def single_ap(repetitions: int, images: int = 200) -> None:
    """How often an interval of one AP50 holds that of all images, and how much of its bias resampling sees."""
    print(f"one AP50 on {images} images: bias, and what of it resampling sees; 95 % intervals that hold the truth")
    for name, world in WORLDS.items():
        random = np.random.default_rng(4)
        truth = ap50(engines(POPULATION, 0.0, random, world)[0])
        biases, seen = [], []
        held: dict[str, list[bool]] = {}
        for seed in range(repetitions):
            curves = ApCurves(engines(images, 0.0, random, world)[0])
            value = float(curves.at(np.ones((1, images), np.int64))[0, 0])
            draws = distribution(curves.at, images, count=400, seed=seed)[:, 0]
            without_one = curves.at(1 - np.eye(images, dtype=np.int64))[:, 0]
            biases.append(value - truth)
            seen.append(draws.mean() - value)
            for method, found in (
                ("percentile", percentile_interval(value, draws)),
                ("BCa", bca_interval(value, draws, without_one)),
                ("basic", basic_interval(value, draws)),
            ):
                held.setdefault(method, []).append(found.low <= truth <= found.high)
        rates = ", ".join(f"{method} {np.mean(hits):.1%}" for method, hits in held.items())
        print(f"  {name:24}  {100 * np.mean(biases):+.1f} points, {100 * np.mean(seen):+.1f} seen; {rates}")


def latency_quantiles(repetitions: int, trials: int = 5, inferences: int = 400) -> None:
    """Trials with a level of their own, inferences that remember the last ones, and a long tail."""
    random = np.random.default_rng(2)
    noise = random.normal(0, 1, (10 * repetitions, trials, inferences)).astype(np.float32)
    for step in range(1, inferences):
        noise[..., step] = 0.6 * noise[..., step - 1] + 0.8 * noise[..., step]
    level = random.normal(0, 0.2, noise.shape[:2])
    p99 = 9 + level + np.exp(0.5 * np.percentile(noise, 99, axis=2))
    truth = p99.mean()
    intervals = [Spread.of(row.tolist()).interval(0.95) for row in p99[:repetitions]]
    held = np.mean([low <= truth <= high for low, high in intervals])
    print(f"95 % interval of the p99 of latency, {trials} trials:       {held:.1%} of {repetitions}")


def best_of(repetitions: int, trials: int, rows: int = 10) -> str:
    """Rows that are all alike, the fastest by chance held against each other one by Welch's test, as recommend does."""
    random = np.random.default_rng(5)
    erring = np.zeros(2)
    for _ in range(repetitions):
        spreads = [Spread.of(of_row.tolist()) for of_row in random.normal(9, 0.1, (rows, trials))]
        best = min(spreads, key=lambda spread: spread.value)
        p_values = [spread.less(best).p for spread in spreads if spread is not best]
        pairs = rows * (rows - 1) // 2
        erring += [min(holm(p_values)) <= 0.05, min(holm(p_values, among=pairs)) <= 0.05]
    of_others, of_pairs = erring / repetitions
    return (
        f"any of {rows - 1} equals called worse than the best, {trials} trials: {of_pairs:.1%}; corrected for"
        f" {rows - 1} tests only {of_others:.1%}"
    )


def power(repetitions: int) -> dict[int, list[tuple[float, float]]]:
    """Images to (true difference of AP50 in points, share of experiments that see it)."""
    random = np.random.default_rng(3)
    found: dict[int, list[tuple[float, float]]] = {images: [] for images in IMAGES_OF_CURVE}
    for loss in LOSSES:
        truth = [ap50(each) for each in engines(POPULATION, loss, random)]
        for images in IMAGES_OF_CURVE:
            seen = [p_value(*engines(images, loss, random), seed=seed) <= 0.05 for seed in range(repetitions)]
            found[images].append((100 * (truth[0] - truth[1]), float(np.mean(seen))))
            print(f"{images} images, true difference {found[images][-1][0]:5.2f} points: seen in {np.mean(seen):.0%}")
    return found


def drawing(curves: dict[int, list[tuple[float, float]]]) -> str:
    """The power curves as SVG, 480 x 300."""
    reach = max(points for curve in curves.values() for points, _ in curve)

    def place(points: float, share: float) -> str:
        return f"{50 + 410 * max(points, 0) / reach:.1f},{250 - 220 * share:.1f}"

    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 300" font-family="sans-serif" font-size="12">',
        '<rect width="480" height="300" fill="#fff"/>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = 250 - 220 * share
        lines.append(
            f'<path d="M50 {y}H460" stroke="#ddd"/><text x="44" y="{y + 4}" text-anchor="end">{share:.0%}</text>'
        )
    for points in range(0, int(reach) + 1, 2):
        x = 50 + 410 * points / reach
        lines.append(f'<text x="{x:.1f}" y="266" text-anchor="middle">{points}</text>')
    lines.append(f'<path d="M50 {250 - 220 * 0.05}H460" stroke="#888" stroke-dasharray="4 3"/>')
    lines.append(f'<text x="456" y="{246 - 220 * 0.05}" text-anchor="end" fill="#666">5 %: what chance may do</text>')
    for (images, curve), colour, dash in zip(curves.items(), ("#b3541e", "#1f5fa8"), ("6 4", "none"), strict=True):
        told = " ".join(place(*point) for point in curve)
        lines.append(
            f'<polyline points="{told}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        x, y = place(*curve[len(curve) // 2]).split(",")
        lines.append(f'<text x="{float(x) + 8:.1f}" y="{float(y) + 14:.1f}" fill="{colour}">{images} images</text>')
    lines.append('<text x="255" y="290" text-anchor="middle">true difference of AP50, points</text>')
    lines.append('<text x="50" y="18">experiments in which the permutation test sees it (p ≤ .05)</text></svg>')
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--power", type=Path, help="draw the power curves to this file; a fifth of the repetitions")
    options = parser.parse_args()
    print("pairs of equal engines, 200 images each: the difference's 95 % interval, the permutation test, its families")
    for name, world in WORLDS.items():
        print(f"  {name:24}  {without_difference(options.repetitions, world)}", flush=True)
    single_ap(options.repetitions)
    latency_quantiles(options.repetitions)
    for trials in (5, 10):
        print(best_of(options.repetitions, trials))
    if options.power:
        options.power.write_text(drawing(power(options.repetitions // 5)), encoding="utf-8")


if __name__ == "__main__":
    main()
