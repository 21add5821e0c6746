"""Folding, placement, calibration and the fake-quantized network, on toy networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule.errors import ModelError
from edgejoule_trainer.quantize.calibrate import collect_statistics
from edgejoule_trainer.quantize.errors import weight_errors
from edgejoule_trainer.quantize.fake import insert_quantizers, weight_scales
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import Placement, place_quantizers


class ShuffleToy(nn.Module):
    """Stem, max-pool, split, concatenation, channel shuffle, a second split, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.branch_a = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.1, inplace=True))
        self.branch_b = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.BatchNorm2d(4), nn.SiLU())
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.pool(self.stem(x))
        for branch in (self.branch_a, self.branch_b):
            kept, changed = x.chunk(2, dim=1)
            x = torch.cat([kept, branch(changed)], dim=1)
            b, c, h, w = x.shape
            x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return (self.head(x).flatten(2),)


class ResidualToy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four = (nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = x + self.two(F.silu(self.one(x)))  # x is 8-bit for self.one, so for the sum too
        return (self.three(x) + self.four(x),)  # two layers meet: one of them is left to be fused


def trained_like(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def images(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(count)]


def quantized(network: nn.Module) -> tuple[nn.Module, Placement]:
    folded = fold_batch_norm(network)
    placement = place_quantizers(folded)
    statistics = collect_statistics(folded, placement, images())
    scales = {name: seen.values.maximum / 127 for name, seen in statistics.items()}
    return insert_quantizers(folded, placement, scales), placement


def test_fold_batch_norm_keeps_the_function_and_leaves_the_original() -> None:
    network = trained_like(ShuffleToy())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for image in images():
        torch.testing.assert_close(folded(image)[0], network(image)[0], rtol=1e-4, atol=1e-5)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_fold_batch_norm_leaves_a_norm_whose_convolution_others_read() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            y = self.conv(x)
            return (y + self.norm(y),)

    assert any(isinstance(module, nn.BatchNorm2d) for module in fold_batch_norm(trained_like(Shared())).modules())


def test_placement_shares_one_scale_through_concat_shuffle_and_split() -> None:
    placement = place_quantizers(fold_batch_norm(ShuffleToy()))
    # input; stem = pool = both blocks, since halves are kept; nothing is quantized after the head
    assert len(placement.scales) == 2
    assert {"x", "stem_2", "branch_a_2", "branch_b_2"} == set(placement.sources)
    assert len({placement.scale_of[name] for name in ("stem_2", "branch_a_2", "branch_b_2", "cat", "cat_1")}) == 1
    assert not any(name.startswith(("head", "flatten")) for name in placement.scale_of)


def test_placement_leaves_one_operand_of_a_sum_of_two_layers_in_float() -> None:
    placement = place_quantizers(fold_batch_norm(ResidualToy()))
    assert set(placement.scale_of) == {"x", "silu", "add", "three"}


def test_placement_keeps_concatenated_head_maps_in_float() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (torch.cat([self.a(x), self.b(x)], dim=1).flatten(2),)

    assert set(place_quantizers(fold_batch_norm(Heads())).scale_of) == {"x"}


def test_placement_shares_one_scale_through_stack() -> None:
    class Interleaved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(6, 3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.c(torch.stack([self.a(x), self.b(x)], dim=2).flatten(1, 2)),)

    placement = place_quantizers(fold_batch_norm(Interleaved()))
    assert placement.sources == {"x", "a", "b"}
    assert len({placement.scale_of[name] for name in ("a", "b", "stack", "flatten")}) == 1


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_placement_shares_a_scale_through_nearest_upsampling_only(mode) -> None:
    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            small = self.b(self.a(x))
            return (self.c(F.interpolate(small, scale_factor=2.0, mode=mode)),)

    placement = place_quantizers(fold_batch_norm(Up()))
    assert placement.sources == {"x", "a", "b" if mode == "nearest" else "interpolate"}


def test_statistics_count_each_source_once_and_estimate_squared_gradients() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.body(x),)

    folded = fold_batch_norm(Head())
    batches = [torch.randn(1, 3, 64, 64) for _ in range(8)]
    statistics = collect_statistics(folded, place_quantizers(folded), batches)["x"]
    assert statistics.values.counts.sum() == 8 * 3 * 64 * 64
    exact = float(network[0].weight.detach().square().sum()) * 8 * 64 * 64  # the diagonal of J^T J, summed
    assert statistics.sensitivity.counts.sum() == pytest.approx(exact, rel=0.05)


def test_calibration_names_the_tensor_that_is_not_finite() -> None:
    network = trained_like(ShuffleToy())
    nn.init.constant_(network.stem[0].weight, float("inf"))
    folded = fold_batch_norm(network)
    with pytest.raises(ModelError, match="stem_2 cannot be quantized"):
        collect_statistics(folded, place_quantizers(folded), images())


def test_calibration_refuses_no_images() -> None:
    folded = fold_batch_norm(ShuffleToy())
    with pytest.raises(ModelError, match="no calibration image"):
        collect_statistics(folded, place_quantizers(folded), [])


def test_weight_scales_are_per_channel_and_survive_a_dead_channel() -> None:
    weight = torch.stack([torch.full((2, 1, 1), 1.27), torch.zeros(2, 1, 1)])
    torch.testing.assert_close(weight_scales(weight), torch.tensor([0.01, 1 / 127]))


def test_quantized_network_is_near_the_float_one() -> None:
    network = trained_like(ShuffleToy())
    fake, _ = quantized(network)
    for image in images():
        exact, near = network(image)[0], fake(image)[0]
        noise = (exact - near).square().mean() / exact.square().mean()
        assert 0 < noise < 1e-3


def test_quantized_tensors_lie_on_the_grid_of_their_shared_scale() -> None:
    fake, placement = quantized(trained_like(ShuffleToy()))
    inputs: list[Tensor] = []
    fake.head.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    fake(images()[0])
    scale = fake.quantizers[placement.scale_of["cat_1"]].scale
    steps = inputs[0] / scale
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert int(steps.round().min()) >= -128
    assert int(steps.round().max()) <= 127


def test_quantized_network_can_be_trained_through_its_quantizers() -> None:
    fake, _ = quantized(trained_like(ShuffleToy()))
    optimizer = torch.optim.SGD(fake.parameters(), lr=0.01)
    scales = {name: buffer.clone() for name, buffer in fake.named_buffers()}
    target = torch.zeros(1, 5, 64)
    losses = []
    for _ in range(5):
        loss = F.mse_loss(fake(images()[0])[0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    for name, buffer in fake.named_buffers():
        torch.testing.assert_close(buffer, scales[name], rtol=0, atol=0)


def test_quantized_network_loads_its_own_state() -> None:
    fake, _ = quantized(trained_like(ShuffleToy()))
    other, _ = quantized(trained_like(ShuffleToy()))
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(fake.state_dict())
    torch.testing.assert_close(other(images()[0])[0], fake(images()[0])[0], rtol=0, atol=0)


def test_weight_errors_equal_direct_quantization() -> None:
    network = trained_like(ResidualToy())
    fake, _ = quantized(network)
    weight = network.two.weight.detach()
    steps = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    expected = ((weight / steps).round() * steps - weight).square().mean()
    found = weight_errors(fold_batch_norm(network), fake)["two"]
    assert found.msqe == pytest.approx(float(expected), rel=1e-3)
    assert found.power == pytest.approx(float(weight.square().mean()), rel=1e-5)
