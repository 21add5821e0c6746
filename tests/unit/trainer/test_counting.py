"""Counting parameters and multiply-accumulates."""

import torch
from torch import nn

from edgejoule_trainer.counting import conv_macs, count_macs, count_parameters


def test_count_macs_equals_count_by_hand_for_grouped_and_strided_convolutions() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 9*3*8 MACs at each of 16*12 cells
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # 9*8
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    assert count_macs(network, (1, 3, 32, 24)) == (9 * 3 * 8 + 9 * 8) * 16 * 12 + 8 * 5


def test_count_macs_counts_a_shared_layer_each_time_it_runs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x))

    assert count_macs(Twice(), (1, 3, 4, 4)) == 2 * 9 * 16


def test_count_macs_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    count_macs(network, (1, 3, 8, 8))
    assert network.training
    assert int(network[1].num_batches_tracked) == 0
    assert not network[0]._forward_hooks


def test_count_parameters_includes_batch_norm_but_not_its_statistics() -> None:
    assert count_parameters(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))) == 3 * 4 * 9 + 2 * 4


def test_conv_macs_is_half_of_equation_1() -> None:
    kernel, in_channels, out_channels, output = 3, 24, 58, (40, 40)
    flops = 2 * (kernel * kernel * in_channels) * out_channels * output[0] * output[1]
    assert 2 * conv_macs((kernel, kernel), in_channels, out_channels, 1, output) == flops
