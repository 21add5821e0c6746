"""Why OpenVINO seemed 24 dB worse than ONNX Runtime on weighted sums, and that our graphs avoid it; see ADR 8.

The smallest graph that shows it: two 1x1 convolutions of one input, summed with weights, and a convolution after.
"""

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from edgejoule_agent.build import signal_to_error_db
from edgejoule_agent.host import hardware
from edgejoule_agent.rewrites import rewrite_u8
from edgejoule_trainer.quantize.fake import insert_quantizers
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import Placement, place_quantizers

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

pytestmark = pytest.mark.skipif(
    not {"avx512_vnni", "avx_vnni"} & set(hardware()["features"]), reason="8-bit sums saturate on this processor"
)
WIDTH = 16


class WeightedSum(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.after = (nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(3))

    def forward(self, x):
        return self.after(self.a(x) * 0.7 + self.b(x) * 0.3)


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, WIDTH, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return fold_batch_norm(WeightedSum())


def quantized(network, image, *more):
    """An ONNX graph with our quantizers, and more behind the nodes named."""
    placement = place_quantizers(network)
    scale_of = {**placement.scale_of, **{name: name for name in more}}
    largest = {}

    class Watcher(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            if n.name in scale_of:
                largest[scale_of[n.name]] = float(value.abs().max())
            return value

    with torch.no_grad():
        Watcher(network).run(image)
    scales = {name: value / 127 for name, value in largest.items()}
    whole = insert_quantizers(network, Placement(scale_of, placement.sources | set(more)), scales)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole.eval(), (image,), buffer, dynamo=False, opset_version=13, input_names=["x"], output_names=["y"]
        )
    return onnx.load_from_string(buffer.getvalue())


def by_reference(model, image):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": image.numpy()})[0]


def by_openvino(model, image):
    core = openvino.Core()
    content = rewrite_u8(model).SerializeToString()
    compiled = core.compile_model(core.read_model(content, b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(image.numpy())[0]


def test_openvino_agrees_when_our_quantizer_leaves_the_operands_in_float(network, image):
    model = quantized(network, image)
    assert signal_to_error_db(by_reference(model, image), by_openvino(model, image)) > 60


def test_openvino_only_clips_one_operand_when_both_are_quantized(network, image):
    both = quantized(network, image, "a", "b")
    found = by_openvino(both, image)
    assert signal_to_error_db(by_reference(both, image), found) < 45
    # It fuses a, its quantizer, the sum and the next quantizer into one convolution and leaves a's rounding out:
    # the numbers are those of the graph in which only b is quantized.
    only_b = by_reference(quantized(network, image, "b"), image)
    assert signal_to_error_db(only_b, found) > 60
    # So the answer is nearer to the float network's than the reference's is: an engine more exact, not a wrong one.
    with torch.no_grad():
        wanted = network(image).numpy()
    assert np.square(wanted - found).sum() < np.square(wanted - by_reference(both, image)).sum()
