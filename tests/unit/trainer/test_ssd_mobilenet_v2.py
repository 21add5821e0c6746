"""SSD-MobileNetV2: the published counts, TensorFlow's padding and priors, its names, its graph where it is at hand."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgejoule.errors import WeightsError
from edgejoule.records import Label
from edgejoule_trainer.detectors import create
from edgejoule_trainer.detectors.coco_labels import coco80
from edgejoule_trainer.detectors.detector import Target
from edgejoule_trainer.detectors.ssd_mobilenet_v2 import ConvNorm, SsdMobileNetV2, prior_shapes
from edgejoule_trainer.losses.boxes import iou
from edgejoule_trainer.weights import load_tensors, tensorflow_js

LABELS = [Label(id=3, name="disc"), Label(id=9, name="star")]
SHARED = Path(os.environ.get("EDGEJOULE_SHARED", Path(__file__).parents[4] / "shared"))
GENUINE = SHARED / "data/weights/ssdlite_mobilenet_v2_tfjs/model.json"
genuine = pytest.mark.skipif(not GENUINE.exists(), reason="the genuine weights are not on this machine")


def test_counts_equal_published_ones():
    manifest = create("ssd_mobilenet_v2", coco80(), (320, 320)).manifest()
    assert manifest.params_m == pytest.approx(4.3, rel=0.01)
    assert round(manifest.gmacs, 1) == 0.8  # published with one digit


@pytest.mark.parametrize(("size", "priors"), [((300, 300), 1917), ((320, 320), 2034), ((192, 256), 972)])
def test_outputs_keep_the_engine_contract(size, priors):
    boxes, scores = create("ssd_mobilenet_v2", LABELS, size).eval()(torch.rand(2, 3, *size) * 255)
    assert boxes.shape == (2, priors, 4)
    assert scores.shape == (2, priors, 2)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize(("cells", "first"), [(10, 0), (11, 1)])
def test_stride_2_pads_as_tensorflow_does(cells, first):
    """An even map gets its row of zeros at the end, an odd one gets one at both ends."""
    layer = ConvNorm(1, 1, (cells, cells), kernel=3, stride=2, linear=True).eval()
    layer.norm.running_var.fill_(1 - 0.001)
    layer.conv.weight.data = torch.arange(9.0).view(1, 1, 3, 3)
    image = torch.zeros(1, 1, cells, cells)
    image[0, 0, 0, 0] = 1
    out = layer(image)
    assert out.shape[2:] == (math.ceil(cells / 2),) * 2
    assert out[0, 0, 0, 0].item() == pytest.approx(3 * first + first)


def test_priors_are_square_in_pixels_when_the_input_is_not():
    assert prior_shapes((200, 400))[2][0] == pytest.approx((0.25, 0.5))  # half of 200 pixels, both ways


def test_priors_have_the_configured_scales_and_aspects():
    levels = prior_shapes((300, 300))
    assert levels[0] == [pytest.approx(s) for s in ((0.1, 0.1), (0.2828427, 0.1414214), (0.1414214, 0.2828427))]
    between = math.sqrt(0.95 * 1.0)
    assert levels[5][3] == pytest.approx((0.95 * math.sqrt(3), 0.95 / math.sqrt(3)))
    assert levels[5][4] == pytest.approx((0.95 * math.sqrt(0.3333), 0.95 / math.sqrt(0.3333)))
    assert levels[5][5] == pytest.approx((between, between))


def test_background_has_no_column():
    detector = create("ssd_mobilenet_v2", LABELS, (64, 64)).eval()
    raw = detector.network(torch.zeros(1, 3, 64, 64))
    raw = tuple(torch.zeros_like(level) for level in raw)
    for level in raw[:6]:
        level.view(1, -1, 3, *level.shape[2:])[:, :, 0] = 9.0  # background
    _, scores = detector.decode(raw)
    assert (scores == 0.5).all()


def test_trained_on_one_image_it_finds_the_objects_there():
    """In evaluation mode, so with the statistics that batch norm kept."""
    torch.manual_seed(0)
    small = create("ssd_mobilenet_v2", LABELS, (64, 64)).train()
    image = torch.rand(2, 3, 64, 64) * 60
    image[:, 0, 8:44, 8:40] = 250.0
    targets = [Target(torch.tensor([[8.0, 8.0, 40.0, 44.0]]), torch.tensor([1]))] * 2
    optimizer = torch.optim.AdamW(small.parameters(), lr=2e-3)
    values = []
    for _ in range(80):
        loss = sum(small.loss(small.network(small.normalize(image)), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.1 * values[0]
    with torch.no_grad():
        boxes, scores = small.eval()(image[:1])
    best = scores[0].amax(dim=1).argmax()
    assert scores[0, best, 1] > 0.5 > scores[0, best, 0]
    assert iou(boxes[0, best] * 64, targets[0].boxes[0]) > 0.6


def test_loss_is_finite_when_an_image_has_no_objects():
    detector = create("ssd_mobilenet_v2", LABELS, (64, 64)).eval()
    raw = detector.network(detector.normalize(torch.zeros(1, 3, 64, 64)))
    losses = detector.loss(raw, [Target(torch.empty(0, 4), torch.empty(0, dtype=torch.long))])
    assert losses["classification"] > 0  # TensorFlow's miner takes three negatives even so
    assert losses["localization"] == 0


def tensorflow_shapes():
    """Scopes of ssdlite_mobilenet_v2_coco's layers: kind, kernel, inputs, outputs."""
    root = "FeatureExtractor/MobilenetV2"
    yield f"{root}/Conv", "conv", 3, 3, 32
    widths = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    for block, (inputs, outputs) in enumerate(zip([32, *widths], widths, strict=False)):
        scope = f"{root}/expanded_conv_{block}" if block else f"{root}/expanded_conv"
        wide = 6 * inputs if block else inputs
        if block:
            yield f"{scope}/expand", "conv", 1, inputs, wide
        yield f"{scope}/depthwise", "depthwise", 3, wide, 1
        yield f"{scope}/project", "conv", 1, wide, outputs
    yield f"{root}/Conv_1", "conv", 1, 320, 1280
    for i, inputs, outputs in ((2, 1280, 512), (3, 512, 256), (4, 256, 256), (5, 256, 128)):
        yield f"{root}/layer_19_1_Conv2d_{i}_1x1_{outputs // 2}", "conv", 1, inputs, outputs // 2
        yield f"{root}/layer_19_2_Conv2d_{i}_3x3_s2_{outputs}_depthwise", "depthwise", 3, outputs // 2, 1
        yield f"{root}/layer_19_2_Conv2d_{i}_3x3_s2_{outputs}", "conv", 1, outputs // 2, outputs
    for level, (inputs, shapes) in enumerate(((576, 3), (1280, 6), (512, 6), (256, 6), (256, 6), (128, 6))):
        for predictor, width in (("ClassPredictor", 91), ("BoxEncodingPredictor", 4)):
            yield f"BoxPredictor_{level}/{predictor}_depthwise", "depthwise", 3, inputs, 1
            yield f"BoxPredictor_{level}/{predictor}", "predictor", 1, inputs, shapes * width


@pytest.fixture(scope="module")
def variables():
    """A checkpoint's variables, random."""
    rng = np.random.default_rng(0)

    def tensor(low, high, *shape):
        return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))

    state = {"global_step": torch.tensor(200000)}
    for scope, kind, kernel, inputs, outputs in tensorflow_shapes():
        channels = inputs if kind == "depthwise" else outputs
        bound = math.sqrt(3 / (kernel * kernel * (1 if kind == "depthwise" else inputs)))
        name = "depthwise_weights" if kind == "depthwise" else "weights"
        state[f"{scope}/{name}"] = tensor(-bound, bound, kernel, kernel, inputs, outputs)
        if kind == "predictor":
            state[f"{scope}/biases"] = tensor(-1, 1, channels)
            continue
        state[f"{scope}/BatchNorm/gamma"] = tensor(0.5, 1.5, channels)
        state[f"{scope}/BatchNorm/beta"] = tensor(-0.2, 0.2, channels)
        state[f"{scope}/BatchNorm/moving_mean"] = tensor(-0.2, 0.2, channels)
        state[f"{scope}/BatchNorm/moving_variance"] = tensor(0.5, 1.5, channels)
        state[f"{scope}/{name}/RMSProp"] = tensor(0, 1, 2)
    return state


def folded(variables):
    """The same network as TensorFlow.js's converter writes it: gains in the weights of dense convolutions."""
    state = {}
    for name, tensor in variables.items():
        scope = name.rsplit("/", 1)[0]
        norm = f"{scope}/BatchNorm/"
        if name.startswith("BoxPredictor"):
            state[name] = tensor
        elif name.endswith(("/weights", "/depthwise_weights")):
            gain = variables[norm + "gamma"] / torch.sqrt(variables[norm + "moving_variance"] + 0.001)
            if name.endswith("/depthwise_weights"):
                state[name] = tensor
                state[f"{scope}/BatchNorm/batchnorm/mul"] = gain
            else:
                state[f"{scope}/Conv2D/merged_input"] = tensor * gain
            state[f"{scope}/BatchNorm/batchnorm/sub"] = (
                variables[norm + "beta"] - variables[norm + "moving_mean"] * gain
            )
    return {name: tensor for name, tensor in state.items() if not name.endswith("RMSProp")}


def imported(state):
    official = SsdMobileNetV2.from_official(state)
    model = create("ssd_mobilenet_v2", SsdMobileNetV2.official_labels()).eval()
    load_tensors(model, official.tensors, Path("state"))
    return model, official


def test_checkpoint_and_folded_graph_of_one_network_give_the_same(variables):
    model, official = imported(variables)
    model_of_graph, _ = imported(folded(variables))
    image = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(3)) * 255
    with torch.no_grad():
        boxes, scores = model(image)
        boxes_of_graph, scores_of_graph = model_of_graph(image)
    assert scores.std(dim=1).mean() > 0.01
    torch.testing.assert_close(boxes, boxes_of_graph, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, scores_of_graph, rtol=0, atol=1e-4)
    assert official.unused["global_step"] == "the iteration at which training stopped"
    assert {why for name, why in official.unused.items() if "RMSProp" in name} == {"the optimizer's state"}
    assert len(official.unused) + 404 == len(variables)


def test_box_codes_come_with_x_first(variables):
    model, _ = imported(variables)
    theirs = variables["BoxPredictor_2/BoxEncodingPredictor/biases"]  # y, x, h, w of six priors
    ours = model.network.regressors[2].out.bias
    assert ours[4:8].tolist() == theirs[[5, 4, 7, 6]].tolist()


def test_missing_and_strange_tensors_are_named(variables):
    state = dict(variables)
    del state["FeatureExtractor/MobilenetV2/Conv_1/BatchNorm/beta"]
    state["FeatureExtractor/MobilenetV2/Conv_2/weights"] = torch.ones(1)
    with pytest.raises(WeightsError, match=r"missing network\.backbone\.last\.norm\.bias.*left over .*Conv_2/weights"):
        imported(state)


def test_state_of_something_else_is_refused():
    with pytest.raises(WeightsError, match="not a ssdlite_mobilenet_v2"):
        SsdMobileNetV2.from_official({"backbone.conv1.weight": torch.ones(1)})


def test_graph_with_other_priors_is_refused(variables):
    with pytest.raises(WeightsError, match=r"3 priors.*are not the 1917"):
        SsdMobileNetV2.from_official(folded(variables) | {"Postprocessor/ExpandDims": torch.zeros(1, 3, 4)})


@pytest.fixture(scope="module")
def constants():
    return tensorflow_js.read(GENUINE)


@genuine
def test_every_constant_of_the_genuine_graph_is_accounted_for(constants):
    official = SsdMobileNetV2.from_official(constants)
    floats = {name for name in official.unused if constants[name].is_floating_point()}
    assert floats == {
        *("Preprocessor/mul/x", "Preprocessor/sub/y", "Postprocessor/ExpandDims"),
        *(f"ConstantFolding/Postprocessor/Decode/div{which}_recip" for which in ("", "_2", "_4")),
    }
    assert {
        name for name, tensor in constants.items() if tensor.dtype == torch.int32
    } == official.unused.keys() - floats


@genuine
def test_genuine_weights_give_what_their_graph_gives(constants):
    model, _ = imported(constants)
    image = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(5)) * 255
    with torch.no_grad():
        boxes, scores = model(image)
        their_boxes, their_scores = run_graph(constants, image)
    torch.testing.assert_close(boxes, their_boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores, their_scores, rtol=0, atol=1e-5)


def run_graph(constants, image):
    """The genuine graph from its normalization on, node by node, in TensorFlow's layout."""
    nodes = {node["name"]: node for node in json.loads(GENUINE.read_text())["modelTopology"]["node"]}
    values = {"Preprocessor/map/TensorArrayStack/TensorArrayGatherV3": image.permute(0, 2, 3, 1)}

    def value(name):
        name, _, output = name.partition(":")
        if name not in values:
            values[name] = run(nodes[name])
        return values[name][int(output or 0)] if isinstance(values[name], tuple) else values[name]

    def run(node):
        kind, attr = node["op"], node["attr"]
        if kind == "Const":
            return constants[node["name"]]
        inputs = [value(name) for name in node["input"] if not name.startswith("^")]
        return OPERATIONS[kind](attr, *inputs)

    boxes, scores = value("Postprocessor/ExpandDims_1"), value("Postprocessor/Slice")
    return boxes[:, :, 0, [1, 0, 3, 2]], scores


def convolve(attr, x, weight, depthwise=False):
    stride = int(attr["strides"]["list"]["i"][1])
    padding = []
    for cells, kernel in ((x.shape[2], weight.shape[1]), (x.shape[1], weight.shape[0])):
        total = max(0, (math.ceil(cells / stride) - 1) * stride + kernel - cells)
        padding += [total // 2, total - total // 2]
    weight = weight.permute(2, 3, 0, 1) if depthwise else weight.permute(3, 2, 0, 1)
    padded = F.pad(x.permute(0, 3, 1, 2), padding)
    return F.conv2d(padded, weight, stride=stride, groups=len(weight) if depthwise else 1).permute(0, 2, 3, 1)


def normalize(attr, x, gamma, beta, mean, variance):
    return (x - mean) / torch.sqrt(variance + attr["epsilon"]["f"]) * gamma + beta


def strided_slice(attr, x, begin, end, strides):
    return x[int(begin)]  # the graph only takes one number of a shape


OPERATIONS = {
    "Conv2D": convolve,
    "DepthwiseConv2dNative": lambda attr, x, weight: convolve(attr, x, weight, depthwise=True),
    "FusedBatchNorm": normalize,
    "Add": lambda attr, a, b: a + b,
    "AddN": lambda attr, *terms: sum(terms),
    "Sub": lambda attr, a, b: a - b,
    "Mul": lambda attr, a, b: a * b,
    "BiasAdd": lambda attr, x, bias: x + bias,
    "Relu6": lambda attr, x: x.clamp(0, 6),
    "Exp": lambda attr, x: x.exp(),
    "Sigmoid": lambda attr, x: x.sigmoid(),
    "Shape": lambda attr, x: torch.tensor(x.shape),
    "StridedSlice": strided_slice,
    "Pack": lambda attr, *parts: torch.stack([torch.as_tensor(part) for part in parts], int(attr["axis"]["i"])),
    "Unpack": lambda attr, x: x.unbind(int(attr["axis"]["i"])),
    "Reshape": lambda attr, x, shape: x.reshape(shape.tolist()),
    "Transpose": lambda attr, x, order: x.permute(order.tolist()),
    "ConcatV2": lambda attr, *parts: torch.cat(parts[:-1], int(parts[-1])),
    "Squeeze": lambda attr, x: x.squeeze(int(attr["squeeze_dims"]["list"]["i"][0])),
    "ExpandDims": lambda attr, x, axis: x.unsqueeze(int(axis)),
    "Tile": lambda attr, x, times: x.repeat(times.tolist()),
    "Slice": lambda attr, x, begin, size: x[:, :, int(begin[2]) :],
}
