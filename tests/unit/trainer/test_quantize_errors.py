"""The error of each layer of a graph in 8 bits, against the same arithmetic by hand."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import ModelError
from edgejoule.records import LayerError
from edgejoule_trainer.quantize.errors import quantization_error
from edgejoule_trainer.quantize.fake import insert_quantizers
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import SQUEEZED, place_quantizers

SCALES = {"x": 0.05, "silu": 0.02}


class Toy(nn.Module):
    """A layer, a second one whose result is joined with the first's, a third, and one that reads a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
        self.three, self.gate = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 5, 1)
        self.mean = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        a = F.silu(self.one(x))
        out = self.three(torch.cat([a, self.two(a)], dim=1))
        return (out * torch.sigmoid(self.gate(self.mean(out))),)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return Toy().eval()


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(1, 3, 12, 12, generator=generator) for _ in range(2)]


def detector(network: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(network=network, normalize=lambda image: image)


@pytest.fixture(scope="module")
def layers(network, images) -> dict[str, LayerError]:
    folded = fold_batch_norm(network)
    placement = place_quantizers(folded)
    assert set(placement.scales) == set(SCALES)
    told: list[int] = []
    quantized = insert_quantizers(folded, placement, SCALES)
    found = quantization_error(detector(folded), detector(quantized), images, told.append)
    assert (found.images, told) == (2, [1, 2])
    return {layer.name: layer for layer in found.layers}


def restored(x: Tensor, scale: Tensor | float) -> Tensor:
    """Eqs. 2, 8 and 3 with Z = 0."""
    return (x / scale).round().clamp(-128, 127) * scale


def weight(layer: nn.Conv2d) -> Tensor:
    return restored(layer.weight, layer.weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127)


def test_layers_come_as_they_run_and_what_stays_in_float_says_why(layers) -> None:
    assert list(layers) == ["one", "two", "three", "gate"]
    assert {name: layer.float_because for name, layer in layers.items() if layer.float_because} == {"gate": SQUEEZED}
    assert (layers["gate"].weights, layers["gate"].input) == (None, None)


@torch.no_grad()
def test_error_of_weights_is_that_to_the_float_ones(network, layers) -> None:
    for name in ("one", "two", "three"):
        layer = getattr(network, name)
        assert layers[name].weights.msqe == pytest.approx(float((layer.weight - weight(layer)).square().mean()), 1e-4)
        assert layers[name].weights.power == pytest.approx(float(layer.weight.square().mean()), 1e-5)


@torch.no_grad()
def test_error_of_an_input_is_of_what_reaches_it_in_8_bits_and_of_all_that_share_its_scale(
    network, images, layers
) -> None:
    exact: dict[str, list[Tensor]] = {"x": [], "silu": []}
    for image in images:
        x = restored(image, SCALES["x"])
        a = F.silu(F.conv2d(x, weight(network.one), network.one.bias))
        b = F.conv2d(restored(a, SCALES["silu"]), weight(network.two), network.two.bias)
        exact["x"].append(image.flatten())
        exact["silu"] += [a.flatten(), b.flatten()]  # joined they are on the steps, and no error is added
    for scale, names in (("x", ["one"]), ("silu", ["two", "three"])):
        values = torch.cat(exact[scale]).double()
        error = (values - restored(values, SCALES[scale])).square().mean()
        for name in names:
            assert layers[name].input.msqe == pytest.approx(float(error), 2e-3)
            assert layers[name].input.power == pytest.approx(float(values.square().mean()), 1e-4)


def test_no_image_is_refused(network) -> None:
    folded = fold_batch_norm(network)
    quantized = insert_quantizers(folded, place_quantizers(folded), SCALES)
    with pytest.raises(ModelError, match="no image"):
        quantization_error(detector(folded), detector(quantized), [])
