"""Every detector trains, in every form in which training is computed, and takes a new head for other categories."""

import numpy as np
import pytest
import torch

from edgejoule.records import Label
from edgejoule_trainer.compute import Compute
from edgejoule_trainer.data.generate import CATEGORIES, draw
from edgejoule_trainer.detectors import create, detector_class
from edgejoule_trainer.steps.train import with_labels
from edgejoule_trainer.training import InMemory, Recipe, train

DETECTORS = ("ssd_mobilenet_v2", "ssdlite_mobilenet_v3", "yolov5n", "efficientdet_d0", "nanodet_m")
LABELS = [Label.model_validate(category) for category in CATEGORIES]
RECIPE = Recipe(iterations=2, batch=2, warmup_iterations=1)


@pytest.fixture(scope="module")
def images():
    samples = []
    for number in range(4):
        image, boxes, labels, _areas = draw(0, number)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
        samples.append((image, corners, labels))
    return InMemory(samples)


def fresh(name):
    torch.manual_seed(0)
    return create(name, LABELS, (128, 128))


@pytest.mark.parametrize("name", DETECTORS)
def test_first_loss_is_the_same_in_either_memory_layout(name, images):
    first = [
        train(fresh(name), images, RECIPE, Compute(device="cpu", channels_last=layout)).losses[0]
        for layout in (False, True)
    ]
    assert first[0] == pytest.approx(first[1], rel=1e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_mixed_precision_gives_about_the_same_first_loss(name, images):
    plain, mixed = (
        sum(train(fresh(name), images, RECIPE, Compute(device="cpu", mixed_precision=on)).losses[0].values())
        for on in (False, True)
    )
    assert plain == pytest.approx(mixed, rel=0.05)


def test_mixed_precision_stays_finite_beside_the_other_layout(images):
    recipe = Recipe(iterations=10, batch=4, learning_rate=1.5e-3, warmup_iterations=5)
    compute = Compute(device="cpu", mixed_precision=True, channels_last=True)
    course = train(fresh("ssd_mobilenet_v2"), images, recipe, compute)
    assert np.isfinite([sum(losses.values()) for losses in course.losses]).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_new_categories_take_a_new_head_and_nothing_else(name):
    official = create(name, detector_class(name).official_labels(), (128, 128))
    changed, begun_anew = with_labels(official, LABELS)
    assert 0 < len(begun_anew) < 0.2 * len(official.state_dict())
    assert [label.name for label in changed.labels] == [label.name for label in LABELS]
    kept = [name for name in official.state_dict() if name not in begun_anew]
    assert all(torch.equal(changed.state_dict()[name], official.state_dict()[name]) for name in kept)
