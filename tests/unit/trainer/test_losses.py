"""Losses and assignment against formulas written out the slow way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgejoule_trainer.losses.atss import assign
from edgejoule_trainer.losses.boxes import giou, iou
from edgejoule_trainer.losses.focal import distribution_focal_loss, quality_focal_loss

corner = st.integers(0, 40)
box = st.tuples(corner, corner, st.integers(1, 30), st.integers(1, 30)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def pixels(b):
    return {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}


@given(box, box)
def test_iou_and_giou_equal_pixel_counts(a, b):
    inside, union = pixels(a) & pixels(b), pixels(a) | pixels(b)
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    first, second = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    expected = len(inside) / len(union)
    assert iou(first, second).item() == pytest.approx(expected)
    assert giou(first, second).item() == pytest.approx(expected - (hull - len(union)) / hull)


@given(st.floats(-8, 8), st.floats(0, 1))
def test_quality_focal_loss_equals_equation_2(logit, quality):
    sigma = 1 / (1 + math.exp(-logit))
    cross_entropy = -((1 - quality) * math.log(1 - sigma) + quality * math.log(sigma))
    got = quality_focal_loss(torch.tensor(logit, dtype=torch.float64), torch.tensor(quality, dtype=torch.float64))
    assert got.item() == pytest.approx(abs(quality - sigma) ** 2 * cross_entropy, abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8), st.floats(0, 6.9))
def test_distribution_focal_loss_equals_equation_5(logits, target):
    probability = np.exp(logits) / np.exp(logits).sum()
    left = int(target)
    expected = -((left + 1 - target) * np.log(probability[left]) + (target - left) * np.log(probability[left + 1]))
    got = distribution_focal_loss(
        torch.tensor([logits], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    )
    assert got.item() == pytest.approx(expected, abs=1e-9)


def slow_assignment(anchors, sizes, boxes, topk):
    """Algorithm 1 of the ATSS paper, one object and one anchor at a time."""
    owner, best = [-1] * len(anchors), [-1.0] * len(anchors)
    centres = [((a[0] + a[2]) / 2, (a[1] + a[3]) / 2) for a in anchors]
    for g, b in enumerate(boxes):
        middle = ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2)
        candidates, start = [], 0
        for size in sizes:
            level = sorted(range(start, start + size), key=lambda i: math.dist(centres[i], middle))
            candidates += level[:topk]
            start += size
        overlaps = [iou(torch.tensor(anchors[i]), torch.tensor(b)).item() for i in candidates]
        threshold = np.mean(overlaps) + np.std(overlaps, ddof=1)
        for i, overlap in zip(candidates, overlaps, strict=True):
            x, y = centres[i]
            inside = min(x - b[0], y - b[1], b[2] - x, b[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > best[i]:
                owner[i], best[i] = g, overlap
    return owner


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_assignment_equals_algorithm_written_out(seed):
    rng = np.random.default_rng(seed)
    anchors, sizes = [], []
    for stride in (8, 16):
        cells = [(x * stride + 3.5, y * stride + 3.5) for y in range(64 // stride) for x in range(64 // stride)]
        sizes.append(len(cells))
        anchors += [[x - 2.5 * stride, y - 2.5 * stride, x + 2.5 * stride, y + 2.5 * stride] for x, y in cells]
    top_left = rng.uniform(0, 40, (3, 2))
    boxes = np.concatenate([top_left, top_left + rng.uniform(4, 30, (3, 2))], axis=1).astype(np.float32)
    got = assign(torch.tensor(anchors), sizes, torch.from_numpy(boxes), topk=5)
    assert got.tolist() == slow_assignment(anchors, sizes, boxes.tolist(), topk=5)


def test_assignment_is_all_background_when_there_are_no_objects():
    assert assign(torch.rand(7, 4), [7], torch.empty(0, 4)).tolist() == [-1] * 7
