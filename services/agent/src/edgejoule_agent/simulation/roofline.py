"""How long an inference takes on a declared GPU: the roofline, layer by layer.

S. Williams, A. Waterman, D. Patterson: "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009. A layer takes as long as its arithmetic or its memory traffic, whichever is longer,
and then the next is launched. Layers are convolutions and matrix products; what stands between them is taken to be
fused.
"""

from typing import Any, List, NamedTuple

import numpy as np

from edgejoule_agent.macs import macs_by_node, shapes_of
from edgejoule_agent.simulation.declared import Gpu

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class Layer(NamedTuple):
    """What a layer computes and moves: multiply-accumulates, and elements of weights, input and output."""

    macs: int
    elements: int


def layers_of(model: Any) -> List[Layer]:
    """The layers of a ModelProto with static shapes."""
    macs, shapes = macs_by_node(model), shapes_of(model)
    return [
        Layer(macs[node.name], sum(_size(shapes[name]) for name in [*node.input[:2], node.output[0]]))
        for node in model.graph.node
        if node.name in macs
    ]


def layer_s(layer: Layer, gpu: Gpu, precision: str, clock_hz: float) -> float:
    """Seconds of one layer; a multiply-accumulate is two operations.

    >>> gpu = Gpu({"fp32": 100.0}, {"fp32": 0.5}, 1e3, 1.0, 0.25, 10.0)
    >>> layer_s(Layer(5000, 10), gpu, "fp32", 10.0), layer_s(Layer(0, 250), gpu, "fp32", 10.0)
    (20.25, 1.25)
    """
    arithmetic = 2 * layer.macs / (gpu.flops_per_clock[precision] * gpu.reach[precision] * clock_hz)
    traffic = BYTES[precision] * layer.elements / (gpu.bandwidth_bytes_s * gpu.bandwidth_reach)
    return max(arithmetic, traffic) + gpu.launch_s


def latency_s(layers: List[Layer], gpu: Gpu, precision: str, clock_hz: float) -> float:
    """Seconds of one inference at a clock."""
    return sum(layer_s(layer, gpu, precision, clock_hz) for layer in layers)


def _size(shape: Any) -> int:
    return int(np.prod(shape, dtype=np.int64))
