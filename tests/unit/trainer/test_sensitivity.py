"""Sensitivity of layers against the quantizer written out by hand, on a network of three convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import ModelError
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import place_quantizers
from edgejoule_trainer.quantize.sensitivity import NO_ERROR_DB, Error, Sensitivity, layer_sensitivity


class TwoHeads(nn.Module):
    """A stem and two heads, of which the second reads the stem's output after padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 6, 3, 2), nn.ReLU6()
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 5, 3, 2, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.act(self.stem(x))
        return self.left(x), self.right(F.pad(x, (0, 1, 0, 1)))


SCALES = {"x": 0.03, "act": 0.02}


@pytest.fixture(scope="module")
def network() -> TwoHeads:
    torch.manual_seed(0)
    return TwoHeads().eval()


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    return [torch.randn(1, 3, 13, 17, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def found(network: TwoHeads, images: list[Tensor]) -> Sensitivity:
    folded = fold_batch_norm(network)
    return layer_sensitivity(folded, place_quantizers(folded), SCALES, images)


def rounded(x: Tensor, scale: float) -> Tensor:
    return (x / scale).round().clamp(-128, 127) * scale


def eight_bit(conv: nn.Conv2d, x: Tensor, scale: float) -> Tensor:
    """The convolution with its weights and its input on their grids, by the definition."""
    steps = conv.weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    weight = (conv.weight / steps).round() * steps
    return F.conv2d(rounded(x, scale), weight, conv.bias, conv.stride)


def by_hand(network: TwoHeads, image: Tensor, quantized: set[str]) -> tuple[Tensor, Tensor, Tensor]:
    """The stem's own output and both results with only the named layers in 8 bits."""

    def run(name: str, x: Tensor, scale: float) -> Tensor:
        conv = getattr(network, name)
        return eight_bit(conv, x, scale) if name in quantized else conv(x)

    stem = run("stem", image, SCALES["x"])
    x = network.act(stem)
    return stem, run("left", x, SCALES["act"]), run("right", F.pad(x, (0, 1, 0, 1)), SCALES["act"])


def power(tensors: list[Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors)


def db(exact: list[Tensor], given: list[Tensor]) -> float:
    error = power([a - b for a, b in zip(exact, given, strict=True)])
    return 10 * float(torch.log10(torch.tensor(power(exact) / error))) if error else NO_ERROR_DB


@pytest.mark.parametrize("name", ["stem", "left", "right"])
@torch.no_grad()
def test_each_layer_alone_disturbs_the_outputs_as_computed_by_hand(network, images, found, name) -> None:
    exact = [by_hand(network, image, set()) for image in images]
    given = [by_hand(network, image, {name}) for image in images]
    (layer,) = (layer for layer in found.layers if layer.name == name)
    for output in (0, 1):
        wanted, got = ([each[1 + output] for each in run] for run in (exact, given))
        assert layer.outputs[output].sqnr_db == pytest.approx(db(wanted, got), abs=0.01)
        size = sum(tensor.numel() for tensor in wanted)
        error = power([a - b for a, b in zip(wanted, got, strict=True)])
        assert layer.outputs[output].msqe == pytest.approx(error / size, rel=2e-3)
    own = {"stem": 0, "left": 1, "right": 2}[name]
    assert layer.own.sqnr_db == pytest.approx(db([e[own] for e in exact], [g[own] for g in given]), abs=0.01)


@torch.no_grad()
def test_whole_is_all_layers_together(network, images, found) -> None:
    exact = [by_hand(network, image, set()) for image in images]
    given = [by_hand(network, image, {"stem", "left", "right"}) for image in images]
    for output, error in enumerate(found.whole):
        wanted = db([e[1 + output] for e in exact], [g[1 + output] for g in given])
        assert error.sqnr_db == pytest.approx(wanted, abs=0.05)


def test_layers_are_ranked_for_each_output_apart(found) -> None:
    assert [layer.name for layer in found.layers] == ["stem", "left", "right"]
    assert found.ranked(0)[-1].name == "right"  # which does not touch that output
    assert found.ranked(1)[-1].name == "left"
    record = found.record()
    assert sorted(entry["outputs"][0]["rank"] for entry in record["layers"]) == [1, 2, 3]
    assert record["layers"][1]["outputs"][1]["sqnr_db"] == NO_ERROR_DB


def test_a_layer_that_runs_twice_is_quantized_in_both_runs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.conv(self.conv(x)),)

    torch.manual_seed(1)
    network = fold_batch_norm(Twice())
    image = torch.randn(1, 2, 8, 8)
    (layer,) = layer_sensitivity(network, place_quantizers(network), {"x": 0.05, "conv": 0.05}, [image]).layers
    conv = network.conv
    with torch.no_grad():
        given = eight_bit(conv, eight_bit(conv, image, 0.05), 0.05)
        assert layer.outputs[0].sqnr_db == pytest.approx(db([conv(conv(image))], [given]), abs=0.01)


def test_sensitivity_refuses_no_images(network) -> None:
    folded = fold_batch_norm(network)
    with pytest.raises(ModelError, match="no image"):
        layer_sensitivity(folded, place_quantizers(folded), SCALES, [])


def test_error_of_a_tensor_that_is_zero_is_told_without_dividing_by_it() -> None:
    error = Error()
    error.add(torch.zeros(3), torch.zeros(3))
    assert (error.sqnr_db, error.msqe) == (NO_ERROR_DB, 0)
    error.add(torch.zeros(3), torch.ones(3))
    assert (error.sqnr_db, error.msqe) == (0, 0.5)
