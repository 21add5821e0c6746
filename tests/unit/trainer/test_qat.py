"""Quantization-aware training: the graph of ptq, its gradients, and the way back to float weights."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgejoule.errors import ModelError
from edgejoule.records import Label
from edgejoule_trainer.augment import NONE
from edgejoule_trainer.detectors import create, with_network
from edgejoule_trainer.export import export_onnx
from edgejoule_trainer.quantize.fake import insert_quantizers
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import place_quantizers
from edgejoule_trainer.quantize.ptq import quantize_detector
from edgejoule_trainer.quantize.qat import answers, disagreement, from_ptq, into_float
from edgejoule_trainer.training import InMemory, Recipe, train
from edgejoule_trainer.weights import read_weights, write_weights

LABELS = [Label(id=1, name="disc"), Label(id=2, name="star")]


def images(count):
    generator = torch.Generator().manual_seed(4)
    return [torch.rand(1, 3, 64, 64, generator=generator) * 255 for _ in range(count)]


@pytest.fixture(scope="module")
def detector():
    """Random weights with batch norms that fit them, so that every tensor has a range."""
    torch.manual_seed(0)
    made = create("nanodet_m", LABELS, (64, 64)).train()
    with torch.no_grad():
        for convolution in made.network.head.gfl_cls:  # scores and boxes that differ from place to place
            convolution.weight.mul_(40)
            convolution.bias[: len(LABELS)] = -1.0
        for _ in range(30):
            made.network(made.normalize(torch.cat(images(4))))
    return made.eval()


@pytest.fixture(scope="module")
def ptq(detector):
    return quantize_detector(detector, images(4), images(2), ["minmax"])


def weights_of(model):
    return {n: layer.weight.clone() for n, layer in model.network.named_modules() if isinstance(layer, nn.Conv2d)}


def test_graph_is_that_of_ptq_by_its_record(detector, ptq, tmp_path):
    again = from_ptq(detector, ptq.record, into_float(detector, ptq.detector))
    export_onnx(ptq.detector, tmp_path / "ptq.onnx", detector.manifest())
    export_onnx(again, tmp_path / "qat.onnx", detector.manifest())
    assert (tmp_path / "ptq.onnx").read_bytes() == (tmp_path / "qat.onnx").read_bytes()


def test_record_of_another_network_is_refused(detector, ptq):
    record = copy.deepcopy(ptq.record)
    record["activations"].pop(next(iter(record["activations"])))
    with pytest.raises(ModelError, match=r"does not fit nanodet_m: 1 scales.*quantize these weights again"):
        from_ptq(detector, record, into_float(detector, ptq.detector))


def test_training_lowers_the_disagreement_and_moves_only_weights(detector, ptq):
    pupil = from_ptq(detector, ptq.record, into_float(detector, ptq.detector))
    with torch.no_grad():  # coarse weights, as a stand-in for a network that 8 bits hurt
        for _, layer in pupil.network.named_modules():
            if hasattr(layer, "weight_quantizer"):
                layer.weight_quantizer.scale.mul_(12)
    buffers = {n: b.clone() for n, b in pupil.network.named_buffers()}
    before = weights_of(pupil)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(6)]
    data = InMemory([(p, np.array([[8, 8, 40, 40]], np.float32), np.array([0])) for p in pictures])
    recipe = Recipe(
        iterations=40,
        batch=3,
        learning_rate=2e-3,
        weight_decay=0.0,
        warmup_iterations=0,
        average_decay=0.0,
        distillation=1.0,
        augmentation=NONE,
    )
    course = train(pupil, data, recipe, teacher=detector)
    losses = [sum(terms.values()) for terms in course.losses]
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])
    assert all(torch.equal(b, buffers[n]) for n, b in pupil.network.named_buffers())
    assert any(not torch.equal(w, before[n]) for n, w in weights_of(pupil).items())


def test_gradient_passes_straight_through_what_is_not_clipped(detector, ptq):
    layer = next(
        m
        for m in from_ptq(detector, ptq.record, into_float(detector, ptq.detector)).network.modules()
        if hasattr(m, "weight_quantizer")
    )
    weight = layer.conv.weight.detach().clone().requires_grad_()
    layer.weight_quantizer(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


@pytest.mark.parametrize("name", ["nanodet_m", "efficientdet_d0"])  # the second one's heads are shared by its levels
def test_trained_weights_run_in_float_and_come_back_from_a_file(name, tmp_path):
    torch.manual_seed(0)
    detector = create(name, LABELS, (128, 128)).eval()
    network = fold_batch_norm(detector.network)
    placement = place_quantizers(network)
    pupil = with_network(detector, insert_quantizers(network, placement, dict.fromkeys(placement.scales, 1.0)))
    with torch.no_grad():
        for parameter in pupil.network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(4)) * 255
    plain = into_float(detector, pupil)
    write_weights(tmp_path / "qat.safetensors", plain)
    again = read_weights(tmp_path / "qat.safetensors")
    for module_name, layer in list(pupil.network.named_modules()):  # what is left when nothing is rounded
        if hasattr(layer, "weight_quantizer"):
            pupil.network.set_submodule(module_name, layer.conv)
        elif module_name.startswith("quantizers."):
            pupil.network.set_submodule(module_name, nn.Identity())
    with torch.no_grad():
        wanted = pupil(image)
        for ours, read, expected in zip(plain(image), again(image), wanted, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
            assert torch.equal(read, ours)


def test_disagreement_is_that_by_which_ptq_chose(detector, ptq):
    found = disagreement(
        from_ptq(detector, ptq.record, into_float(detector, ptq.detector)), images(2), answers(detector, images(2))
    )
    assert found.cells == ptq.record["confident_cells"] > 0
    assert found.total == pytest.approx(ptq.record["candidates"]["minmax"]["disagreement"])
