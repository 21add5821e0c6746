"""The blocks that the five detectors are made of, quantized: each against ONNX Runtime node by node, and OpenVINO.

Deep networks answer to any rounding with many others, so engines are compared on single blocks, where few flip.
"""

import io
import warnings

import numpy as np
import onnx
import onnxslim
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgejoule_agent import cpu
from edgejoule_agent.build import signal_to_error_db
from edgejoule_agent.candidates import u8_once
from edgejoule_agent.engines import onnxruntime_engine
from edgejoule_trainer.quantize import lint
from edgejoule_trainer.quantize.calibrate import collect_statistics
from edgejoule_trainer.quantize.fake import insert_quantizers
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.quantize.placement import SQUEEZED, place_quantizers
from edgejoule_trainer.quantize.scales import choose_scale_minmax

WIDTH, SIDE = 16, 16


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, act: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), act, gate
        self.reduce, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


class Residual(nn.Module):
    """Inverted residual of MobileNetV2, V3 or EfficientNet: expand, depthwise, maybe squeeze, project, add."""

    def __init__(self, act: type[nn.Module], squeeze: nn.Module | None = None) -> None:
        super().__init__()
        self.expand, self.depthwise = conv_norm(WIDTH, 4 * WIDTH), conv_norm(4 * WIDTH, 4 * WIDTH, 3, 1, 4 * WIDTH)
        self.act, self.squeeze, self.project = act(), squeeze, conv_norm(4 * WIDTH, WIDTH)
        self.stem, self.head = nn.Conv2d(3, WIDTH, 3, 1, 1), nn.Conv2d(WIDTH, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.stem(x)
        y = self.act(self.depthwise(self.act(self.expand(x))))
        y = y if self.squeeze is None else self.squeeze(y)
        return (self.head(x + self.project(y)),)


class Csp(nn.Module):
    """Two branches and a chain of poolings, concatenated; then up and beside the input, as in YOLOv5."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_norm(3, WIDTH, 3), conv_norm(3, WIDTH, 3), conv_norm(WIDTH, WIDTH, 3)
        self.pool, self.act, self.up = nn.MaxPool2d(5, 1, 2), nn.SiLU(), nn.Upsample(scale_factor=2.0, mode="nearest")
        self.join, self.down = conv_norm(4 * WIDTH, WIDTH), conv_norm(WIDTH, WIDTH, 3, 2)
        self.head = nn.Conv2d(2 * WIDTH, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        a = self.act(self.a(x))
        a = a + self.act(self.c(a))
        pooled = self.pool(a)
        x = self.act(self.join(torch.cat([a, pooled, self.pool(pooled), self.act(self.b(x))], 1)))
        return (self.head(torch.cat([self.up(self.act(self.down(x))), x], 1)),)


class PaddedConv(nn.Module):
    """TensorFlow's SAME at stride 2, twice: on the network's input and inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, WIDTH, 3, 2), nn.SiLU()
        self.depthwise, self.head = nn.Conv2d(WIDTH, WIDTH, 5, 2, groups=WIDTH), nn.Conv2d(WIDTH, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.act(self.stem(F.pad(x, (0, 1, 0, 1))))
        return (self.head(self.act(self.depthwise(F.pad(x, (1, 2, 1, 2))))),)


class WeightedSum(nn.Module):
    """Three maps at one size, each times a learned share, as in a BiFPN; pooling like SAME, nearest enlargement."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.twice = (
            conv_norm(3, WIDTH, 3),
            conv_norm(3, WIDTH, 3, 4),
            conv_norm(3, WIDTH, 3, 2),
        )
        self.weights, self.act = nn.Parameter(torch.tensor([0.5, 1.5, 1.0])), nn.SiLU()
        self.pool, self.up = nn.MaxPool2d(3, 2, ceil_mode=True), nn.Upsample(scale_factor=2.0, mode="nearest")
        self.depthwise, self.head = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=WIDTH), nn.Conv2d(WIDTH, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        weights = self.weights.relu()
        weights = weights / (weights.sum() + 1e-4)
        y = self.pool(self.fine(x)) * weights[0] + self.up(self.coarse(x) * weights[1]) + self.twice(x) * weights[2]
        return (self.head(self.depthwise(self.act(y))),)


class SharedHead(nn.Module):
    """One convolution for two levels, each with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, WIDTH, 3, 2, 1), nn.MaxPool2d(2)
        self.depthwise, self.conv = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=WIDTH), nn.Conv2d(WIDTH, WIDTH, 1)
        self.norms, self.act = nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in range(2)), nn.SiLU()
        self.predict = nn.Conv2d(WIDTH, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fine = self.stem(x)
        levels = zip((fine, self.down(fine)), self.norms, strict=True)
        return tuple(self.predict(self.act(norm(self.conv(self.depthwise(level))))) for level, norm in levels)


BLOCKS = {
    "MobileNetV2": lambda: Residual(nn.ReLU6),
    "MobileNetV3": lambda: Residual(nn.Hardswish, SqueezeExcite(4 * WIDTH, nn.ReLU(), nn.Hardsigmoid())),
    "MBConv": lambda: Residual(nn.SiLU, SqueezeExcite(4 * WIDTH, nn.SiLU(), nn.Sigmoid())),
    "CSP": Csp,
    "padding": PaddedConv,
    "weighted sum": WeightedSum,
    "shared head": SharedHead,
}


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, SIDE, SIDE, generator=generator) for _ in range(count)]


class Quantized:
    """A block in float (norms folded), in fake quantization, and as an ONNX graph."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.original = BLOCKS[name]()
        for module in self.original.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
        with torch.no_grad():
            self.original.train()(torch.cat(images(8)))
        self.original.eval()
        self.folded = fold_batch_norm(self.original)
        self.placement = place_quantizers(self.folded)
        statistics = collect_statistics(self.folded, self.placement, images(8))
        scales = {name: choose_scale_minmax(seen.values) for name, seen in statistics.items()}
        self.fake = insert_quantizers(self.folded, self.placement, scales).eval()
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(self.fake, (images(1)[0],), buffer, dynamo=False, opset_version=lint.OPSET)
        self.model = onnxslim.slim(onnx.load_from_string(buffer.getvalue()))
        self.input = self.model.graph.input[0].name


@pytest.fixture(scope="module", params=BLOCKS)
def block(request: pytest.FixtureRequest) -> Quantized:
    return Quantized(request.param)


def flat(tensors: list) -> np.ndarray:
    return np.concatenate([np.ravel(tensor) for tensor in tensors])


def exactly(block: Quantized, image: Tensor) -> np.ndarray:
    """The outputs by ONNX Runtime with every optimization off."""
    session = onnxruntime_engine.session(block.model.SerializeToString(), onnxruntime_engine.UNOPTIMIZED, 1)
    return flat(session.run(None, {block.input: image.numpy()}))


@torch.no_grad()
def test_folded_block_is_the_block(block) -> None:
    for wanted, given in zip(block.original(images(1)[0]), block.folded(images(1)[0]), strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_fake_quantized_block_computes_what_its_graph_does(block) -> None:
    for image in images(3):
        wanted, given = exactly(block, image), flat([tensor.numpy() for tensor in block.fake(image)])
        exact = flat([tensor.numpy() for tensor in block.folded(image)])
        assert signal_to_error_db(wanted, given) > 45  # nearly all agree to the last digits; a few flip by one step
        assert 20 < signal_to_error_db(exact, given) < 60  # and it is quantized


def test_graph_of_block_keeps_every_rule(block) -> None:
    graph = lint.Graph(block.model)
    rules = [rule for rule in lint.RULES if rule is not lint.keeps_the_contract]
    assert [violation for rule in rules for violation in rule(graph)] == []


def test_graph_of_block_has_no_padding_of_its_own(block) -> None:
    assert not [node.name for node in block.model.graph.node if node.op_type in ("Pad", "BatchNormalization")]


def test_only_squeezes_stay_in_float(block) -> None:
    squeezes = {name for name, _ in block.folded.named_modules() if name in ("squeeze.reduce", "squeeze.expand")}
    assert dict(block.placement.float_layers) == dict.fromkeys(squeezes, SQUEEZED)
    graph = lint.Graph(block.model)
    convolutions = list(graph.of_type("Conv"))
    eight_bit = [node for node in convolutions if graph.quantized_weight(node.input[1])]
    assert len(convolutions) - len(eight_bit) == len(squeezes)


def test_openvino_computes_the_block_as_the_reference_does(block) -> None:
    openvino = pytest.importorskip("openvino")
    if not any("vnni" in feature for feature in cpu.features()):
        pytest.skip("INT8 saturates on x86 processors without VNNI, where build checks and finds another way")
    core = openvino.Core()
    model = core.read_model(u8_once(block.model).SerializeToString(), b"")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for image in images(3):
        given = flat([compiled({block.input: image.numpy()})[port] for port in compiled.outputs])
        assert signal_to_error_db(exactly(block, image), given) > 35


def test_concatenation_shares_one_scale_through_pooling_and_enlarging() -> None:
    placement = Quantized("CSP").placement
    assert len({placement.scale_of[name] for name in ("add", "act_2", "cat")}) == 1
    assert len({placement.scale_of[name] for name in ("act_3", "act_4", "cat_1")}) == 1
    assert "pool" not in placement.scale_of


def test_shared_convolution_becomes_one_for_each_norm() -> None:
    block = Quantized("shared head")
    names = {name for name, module in block.folded.named_modules() if isinstance(module, nn.Conv2d)}
    assert names == {"stem", "depthwise", "conv_0", "conv_1", "predict"}
