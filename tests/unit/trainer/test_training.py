"""The loop: exact resume, order of data, geometry of augmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgejoule.errors import DataError, StepError
from edgejoule.records import Label
from edgejoule_trainer.augment import NONE, Augmentation, augment
from edgejoule_trainer.detectors import create
from edgejoule_trainer.training import InMemory, Recipe, batch_indices, train

LABELS = [Label(id=1, name="disc")]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (6, 64, 80, 3), dtype=np.uint8)
    return InMemory([(p, np.array([[10, 10, 50, 40]], np.float32), np.array([0])) for p in picture])


def fresh():
    torch.manual_seed(3)
    return create("nanodet_m", LABELS, (64, 64))


def tensors(detector):
    return {name: tensor.clone() for name, tensor in detector.state_dict().items()}


def test_killed_training_resumes_to_the_same_weights(images, tmp_path):
    recipe = Recipe(iterations=6, batch=2, warmup_iterations=2)
    whole = tensors(train(fresh(), images, recipe))

    class Killed(Exception):
        pass

    def kill_at_four(done, total, losses):
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        train(fresh(), images, recipe, checkpoint=tmp_path / "c.pt", checkpoint_every_s=0, progress=kill_at_four)
    seen = []
    resumed = train(
        fresh(), images, recipe, checkpoint=tmp_path / "c.pt", progress=lambda done, total, losses: seen.append(done)
    )
    assert seen == [4, 5, 6]  # iteration 4 was not saved yet when the kill came
    for name, tensor in tensors(resumed).items():
        assert torch.equal(tensor, whole[name]), name


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_every_epoch_sees_each_image_once(images_count, batch, epoch):
    recipe = Recipe(iterations=1, batch=batch)
    first, last = epoch * images_count // batch, ((epoch + 1) * images_count - 1) // batch
    order = [i for iteration in range(first, last + 1) for i in batch_indices(iteration, images_count, recipe)]
    skip = epoch * images_count - first * batch
    assert sorted(order[skip : skip + images_count]) == list(range(images_count))


def test_no_images_is_an_error():
    with pytest.raises(DataError, match="at least one"):
        train(fresh(), InMemory([]), Recipe(iterations=1))


def test_diverged_loss_names_the_iteration_and_the_rate(images):
    detector = fresh()
    with torch.no_grad():
        detector.network.head.gfl_cls[0].bias.fill_(float("nan"))
    with pytest.raises(StepError, match=r"iteration 0.*learning_rate"):
        train(detector, images, Recipe(iterations=1, batch=2))


def test_view_without_augmentation_equals_the_letter_box_of_inference():
    from edgejoule_agent.preprocess import prepare

    rng = np.random.default_rng(2)
    image = rng.integers(0, 255, (48, 80, 3), dtype=np.uint8)
    view, _, _ = augment(image, np.empty((0, 4), np.float32), (64, 64), NONE, rng)
    detector = create("nanodet_m", LABELS, (64, 64))
    expected, _frame = prepare(image, detector.manifest().model_dump())
    np.testing.assert_allclose(view, expected[0], atol=1.0)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_boxes_follow_their_pixels(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((100, 120, 3), np.uint8)
    x, y = rng.integers(10, 60, 2)
    w, h = rng.integers(20, 40, 2)
    image[y : y + h, x : x + w] = 255
    box = np.array([[x, y, x + w, y + h]], np.float32)
    how = Augmentation(flip=0.5, zoom=(0.7, 1.3), jitter=0.0)
    view, placed, keep = augment(image, box, (96, 96), how, rng)
    if keep[0]:
        lit = np.argwhere(view[0] > 127)
        (y1, x1), (y2, x2) = lit.min(axis=0), lit.max(axis=0) + 1
        np.testing.assert_allclose(placed[0], [x1, y1, x2, y2], atol=1.6)
