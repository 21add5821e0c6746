"""Batch norms that were folded away, measured again before training."""

import numpy as np
import pytest
import torch
from torch import nn

from edgejoule.errors import DataError
from edgejoule.records import Label
from edgejoule_trainer.detectors import create
from edgejoule_trainer.norm_statistics import folded_norms, measure_folded_norms
from edgejoule_trainer.training import InMemory, Recipe, train


def fold(conv, norm):
    """As TensorFlow.js's converter does: the gain goes into the weights, the norm keeps the shift alone."""
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.data *= gain.view(-1, 1, 1, 1)
    norm.bias.data -= norm.running_mean * gain
    norm.weight.data.fill_(1)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)


@pytest.fixture
def networks():
    """A trained network and the same one folded, with the batch that the statistics are of."""
    torch.manual_seed(0)
    batch = torch.randn(8, 3, 12, 12)

    def make():
        return nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=0.001, momentum=1.0), nn.ReLU(), nn.Conv2d(5, 4, 1, bias=False),
            nn.BatchNorm2d(4, eps=0.001, momentum=1.0),
        )  # fmt: skip

    whole, folded = make(), make()
    for norm in (whole[1], whole[4]):
        norm.weight.data.uniform_(0.3, 3)
        norm.bias.data.normal_()
    whole.train()(batch)
    whole.train()(batch)
    folded.load_state_dict(whole.state_dict())
    folded[0].bias.data.zero_()
    whole[0].bias.data.zero_()
    fold(folded[0], folded[1])
    fold(folded[3], folded[4])
    return whole.eval(), folded.eval(), batch


def test_folded_norms_are_told_from_fresh_and_trained_ones(networks):
    whole, folded, _ = networks
    assert folded_norms(whole) == []
    assert folded_norms(nn.BatchNorm2d(3)) == []
    assert folded_norms(folded) == [folded[1], folded[4]]


def test_measured_network_infers_as_before_and_trains_as_the_whole_one(networks):
    whole, folded, batch = networks
    with torch.no_grad():
        before = folded(batch)
        folded_in_training = folded.train()(batch)
        torch.testing.assert_close(before, whole(batch), rtol=1e-4, atol=1e-4)
        for norm in (folded[1], folded[4]):  # the training pass above has changed them
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
        assert measure_folded_norms(folded.eval(), [batch[:4], batch[4:]]) == 2
        torch.testing.assert_close(folded(batch), before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(folded.train()(batch), before, rtol=1e-3, atol=1e-3)
        assert (folded_in_training - before).abs().max() > 0.5
    assert folded_norms(folded) == []


def test_mode_is_kept(networks):
    _, folded, batch = networks
    measure_folded_norms(folded.train(), [batch])
    assert folded.training


def test_no_image_is_refused(networks):
    with pytest.raises(DataError, match="no image"):
        measure_folded_norms(networks[1], [])


def test_network_without_folded_norms_is_left_alone(networks):
    whole, _, batch = networks
    state = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    assert measure_folded_norms(whole, [batch]) == 0
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.state_dict().items())


def test_training_begins_with_what_a_folded_detector_computes():
    torch.manual_seed(0)
    detector = create("ssdlite_mobilenet_v3", [Label(id=1, name="disc")], (64, 64))
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = InMemory([(picture, np.array([[8, 8, 40, 40]], np.float32), np.array([0]))] * 2)
    train(detector, data, Recipe(iterations=1, batch=2, learning_rate=0.0, weight_decay=0.0, warmup_iterations=0))
    assert folded_norms(detector) == []
    assert detector.network.backbone.features[0][0][1].weight.std() > 0  # gains that match the statistics
