"""Rounding with feedback, against the same done one weight at a time with the inverse computed anew for each."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule_trainer.quantize import rounding
from edgejoule_trainer.quantize.fake import insert_quantizers, weight_scales
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import place_quantizers
from edgejoule_trainer.quantize.rounding import DAMPING, InputMoments, block_count, round_layer, rounded_weights


def correlated(inputs: int, seed: int = 0) -> Tensor:
    """E[x x^T] of inputs that go together."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(inputs, 3, generator=generator) @ torch.randn(3, 500, generator=generator)
    x += 0.3 * torch.randn(inputs, 500, generator=generator)
    return x @ x.T


def slowly(row: Tensor, step: float, moments: Tensor) -> Tensor:
    """One output channel: round a weight, then let those left minimize d^T H d given its error."""
    h = moments.double() + DAMPING * moments.double().diagonal().mean() * torch.eye(len(moments))
    left, rounded = row.double().clone(), []
    for index in range(len(row)):
        inverse = torch.linalg.inv(h[index:, index:])
        rounded.append(float((left[index] / step).round().clamp(-127, 127) * step))
        left[index + 1 :] -= (left[index] - rounded[-1]) / inverse[0, 0] * inverse[1:, 0]
    return torch.tensor(rounded)


def test_round_layer_equals_the_definition_for_every_output_channel() -> None:
    torch.manual_seed(0)
    weight, moments = torch.randn(4, 10), correlated(10)
    expected = torch.stack(
        [slowly(row, float(s), moments) for row, s in zip(weight, weight_scales(weight), strict=True)]
    )
    torch.testing.assert_close(round_layer(weight, 1, moments[None]), expected, rtol=0, atol=1e-6)


def test_round_layer_feeds_errors_back_within_groups_and_blocks_only() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 1, 2)  # two groups, each of whose 8 inputs are cut into two blocks
    moments = torch.stack([correlated(4, seed) for seed in range(4)])
    rounded = round_layer(weight, 2, moments).flatten(1)
    steps = weight_scales(weight)
    for output, row in enumerate(weight.flatten(1)):
        for part in range(2):
            expected = slowly(row[4 * part : 4 * part + 4], float(steps[output]), moments[2 * (output // 3) + part])
            torch.testing.assert_close(rounded[output, 4 * part : 4 * part + 4], expected, rtol=0, atol=1e-6)


def test_round_layer_rounds_to_the_nearest_where_inputs_do_not_go_together() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 9)
    steps = weight_scales(weight)[:, None]
    rounded = round_layer(weight, 1, torch.diag(torch.rand(9) + 0.1)[None])
    torch.testing.assert_close(rounded, (weight / steps).round() * steps, rtol=0, atol=1e-6)


def test_round_layer_survives_inputs_that_are_always_zero() -> None:
    weight = torch.randn(3, 4)
    steps = weight_scales(weight)[:, None]
    torch.testing.assert_close(round_layer(weight, 1, torch.zeros(1, 4, 4)), (weight / steps).round() * steps)


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(6, 8, 3, 2, 1, groups=2), nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)]
)
def test_moments_say_how_far_a_change_of_the_weights_moves_the_output(conv, monkeypatch) -> None:
    monkeypatch.setattr(rounding, "POSITIONS", 1_000_000)  # every cell
    torch.manual_seed(0)
    network = fold_batch_norm(nn.Sequential(conv))
    moments = InputMoments(network, place_quantizers(network))
    images = [torch.randn(2, conv.in_channels, 9, 11) for _ in range(3)]
    with moments.watching(), torch.no_grad():
        for image in images:
            network(image)
    network(images[0])  # not watched
    change = torch.randn_like(conv.weight)
    moved = sum(
        F.conv2d(image, change, None, conv.stride, conv.padding, conv.dilation, conv.groups).square().sum((0, 2, 3))
        for image in images
    )
    (found,) = moments.of.values()
    for output, row in enumerate(change.flatten(1)):
        h = found[output // (conv.out_channels // conv.groups)]
        assert float(row @ h @ row) == pytest.approx(float(moved[output]), rel=1e-4)


def test_large_layers_are_cut_into_equal_blocks_of_whole_channels() -> None:
    assert block_count(nn.Conv2d(32, 8, 1)) == 1
    assert block_count(nn.Conv2d(512, 8, 3)) == 4  # 4608 inputs in blocks of 1152
    assert block_count(nn.Conv2d(32, 32, 3, groups=32)) == 32


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.c(F.relu(self.b(F.relu(self.a(x))))),)


def test_rounded_network_is_nearer_to_the_float_one_and_on_its_steps() -> None:
    torch.manual_seed(0)
    network = fold_batch_norm(Toy())
    placement = place_quantizers(network)
    generator = torch.Generator().manual_seed(1)
    images = [
        F.interpolate(torch.randn(1, 3, 6, 6, generator=generator), size=(24, 24), mode="bicubic") for _ in range(8)
    ]
    moments = InputMoments(network, placement)
    with moments.watching(), torch.no_grad():
        for image in images[:4]:
            network(image)
    scales = dict.fromkeys(placement.scales, 1.0)
    rounded = rounded_weights(network, moments.of)
    nearest, better = (insert_quantizers(network, placement, scales, weights) for weights in (None, rounded))
    for fake in (nearest, better):
        for name in placement.scales:
            fake.quantizers[name].forward = lambda x: x  # activations stay float: the weights' share of the error
    with torch.no_grad():
        errors = [
            sum(float((fake(image)[0] - network(image)[0]).square().sum()) for image in images[4:])
            for fake in (nearest, better)
        ]
    assert errors[1] < 0.5 * errors[0]
    for name, layer in (("a", better.a), ("c", better.c)):
        steps = layer.conv.weight / layer.weight_quantizer.scale.view(-1, 1, 1, 1)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        torch.testing.assert_close(layer.weight_quantizer(layer.conv.weight), rounded[name], rtol=0, atol=1e-7)


def test_round_layer_does_not_depend_on_the_number_of_threads() -> None:
    """It did where it inverted by LU: wrong inverses or an error, with two threads of MKL on some processors."""
    code = """
import sys, torch
from edgejoule_trainer.quantize.rounding import round_layer
torch.set_num_threads(int(sys.argv[1]))
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(24, 40, 120, generator=generator)
moments = inputs @ inputs.transpose(1, 2)
weight = torch.randn(48, 40, 1, 1, generator=generator)
print(round_layer(weight, 24, moments).double().sum().item())
"""
    answers = {
        subprocess.run(
            [sys.executable, "-c", code, str(threads)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2)
    }
    assert len(answers) == 1
