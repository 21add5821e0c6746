"""Prior boxes, their code, and the multibox loss, against loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgejoule_trainer.detectors.detector import Target
from edgejoule_trainer.detectors.prior_boxes import corners, decode, encode, grid_priors, join_levels
from edgejoule_trainer.losses.multibox import assign, hard_negatives, match, multibox_loss

PRIORS = grid_priors([(4, 6), (2, 3)], [[(0.2, 0.3), (0.4, 0.2)], [(0.5, 0.5), (0.3, 0.9), (0.8, 0.4)]])


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def random_boxes(count, seed):
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0.1, 0.9, (count, 2)), rng.uniform(0.1, 0.6, (count, 2))
    return torch.tensor(np.concatenate([centre - size / 2, centre + size / 2], axis=1), dtype=torch.float32)


def test_grid_priors_run_by_level_row_column_and_shape():
    assert PRIORS.shape == (4 * 6 * 2 + 2 * 3 * 3, 4)
    position = (1 * 6 + 4) * 2 + 1  # row 1, column 4, second shape
    assert PRIORS[position].tolist() == pytest.approx([4.5 / 6, 1.5 / 4, 0.4, 0.2])
    position = 48 + (1 * 3 + 2) * 3 + 1
    assert PRIORS[position].tolist() == pytest.approx([2.5 / 3, 1.5 / 2, 0.3, 0.9])


def test_join_levels_has_the_order_of_the_priors():
    maps = []
    for level, (rows, columns, shapes) in enumerate([(4, 6, 2), (2, 3, 3)]):
        values = torch.zeros(1, shapes * 5, rows, columns)
        for shape in range(shapes):
            for row in range(rows):
                for column in range(columns):
                    values[0, shape * 5 : shape * 5 + 5, row, column] = torch.tensor([level, row, column, shape, 7.0])
        maps.append(values)
    joined = join_levels(maps, 5)
    assert joined.shape == (1, len(PRIORS), 5)
    assert joined[0, (1 * 6 + 4) * 2 + 1].tolist() == [0, 1, 4, 1, 7]
    assert joined[0, 48 + (1 * 3 + 2) * 3 + 1].tolist() == [1, 1, 2, 1, 7]


def test_decode_inverts_encode():
    boxes = random_boxes(len(PRIORS), 0)
    torch.testing.assert_close(decode(encode(boxes, PRIORS), PRIORS), boxes, rtol=1e-5, atol=1e-6)


def test_decode_equals_the_formula():
    code, (cx, cy, w, h) = [1.0, -2.0, 0.5, 3.0], PRIORS[50].tolist()
    x, y = cx + 0.1 * code[0] * w, cy + 0.1 * code[1] * h
    wide, high = w * math.exp(0.2 * code[2]), h * math.exp(0.2 * code[3])
    expected = [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]
    assert decode(torch.tensor([code]), PRIORS[50:51])[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_decode_keeps_boxes_finite_when_growth_is_limited():
    boxes = decode(torch.full((1, 4), 1e4), PRIORS[:1], largest_dw=math.log(2.0))
    assert (boxes[0, 2:] - boxes[0, :2]).tolist() == pytest.approx([0.4, 0.6], abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_match_equals_a_loop_over_priors_and_objects(seed):
    priors, boxes = corners(PRIORS), random_boxes(4, seed)
    table = [[overlap(box, prior) for box in boxes.tolist()] for prior in priors.tolist()]
    expected = [int(np.argmax(row)) if max(row) >= 0.5 else -1 for row in table]
    for index in reversed(range(len(boxes))):
        expected[int(np.argmax([row[index] for row in table]))] = index
    assert match(priors, boxes).tolist() == expected
    assert set(range(len(boxes))) <= set(expected)


def test_match_gives_background_when_there_are_no_objects():
    assert (match(corners(PRIORS), torch.empty(0, 4)) == -1).all()


def test_hard_negatives_are_the_three_worst_of_each_positive():
    losses = torch.tensor([[9.0, 1, 5, 4, 3, 2], [1, 2, 3, 4, 5, 6]])
    positive = torch.tensor([[True, False, False, False, False, False], [False] * 6])
    chosen = hard_negatives(losses, positive)
    assert chosen.tolist() == [[False, False, True, True, True, False], [False] * 6]
    assert hard_negatives(losses, positive, at_least=2)[1].tolist() == [False] * 4 + [True] * 2


def test_hard_negatives_never_hold_a_positive_when_there_are_too_few():
    positive = torch.tensor([[True, True, True, False]])
    assert hard_negatives(torch.ones(1, 4), positive).tolist() == [[False, False, False, True]]


def test_multibox_loss_equals_a_loop():
    torch.manual_seed(0)
    size = (200, 400)
    scale = torch.tensor([400.0, 200.0, 400.0, 200.0])
    targets = [
        Target(random_boxes(3, 1) * scale, torch.tensor([0, 2, 1])),
        Target(torch.empty(0, 4), torch.empty(0, dtype=torch.long)),
        Target(random_boxes(1, 2) * scale, torch.tensor([2])),
    ]
    assignment = assign(PRIORS, targets, size)
    class_losses, code = torch.rand(3, len(PRIORS)), torch.randn(3, len(PRIORS), 4)
    found = multibox_loss(class_losses, code, assignment, negatives_at_least=3)

    classification = localization = positives = 0.0
    for image, target in enumerate(targets):
        owner = match(corners(PRIORS), target.boxes / scale).tolist()
        negatives = []
        for prior, index in enumerate(owner):
            value = class_losses[image, prior].item()
            if index < 0:
                negatives.append(value)
                assert assignment.labels[image, prior] == 0
                continue
            assert assignment.labels[image, prior] == target.labels[index] + 1
            positives += 1
            classification += value
            wanted = encode(target.boxes[index : index + 1] / scale, PRIORS[prior : prior + 1])[0]
            for difference in (code[image, prior] - wanted).abs().tolist():
                localization += 0.5 * difference**2 if difference < 1 else difference - 0.5
        count = max(3, 3 * (len(owner) - len(negatives)))
        classification += sum(sorted(negatives, reverse=True)[:count])
    assert found["classification"].item() == pytest.approx(classification / positives, rel=1e-5)
    assert found["localization"].item() == pytest.approx(localization / positives, rel=1e-5)


def test_multibox_loss_is_finite_and_differentiable_when_no_image_has_objects():
    empty = [Target(torch.empty(0, 4), torch.empty(0, dtype=torch.long))] * 2
    logits = torch.randn(2, len(PRIORS), 3, requires_grad=True)
    code = torch.randn(2, len(PRIORS), 4, requires_grad=True)
    assignment = assign(PRIORS, empty, (64, 64))
    class_losses = F.cross_entropy(logits.transpose(1, 2), assignment.labels, reduction="none")
    losses = multibox_loss(class_losses, code, assignment)
    sum(losses.values()).backward()
    assert losses["classification"] == 0
    assert torch.isfinite(code.grad).all()
    assert torch.isfinite(logits.grad).all()
