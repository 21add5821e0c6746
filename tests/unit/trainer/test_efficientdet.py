"""EfficientDet-D0: the published counts, the engine contract, anchors and assignment against loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgejoule.errors import WeightsError
from edgejoule.records import Label
from edgejoule_agent.engines import open_engine
from edgejoule_agent.engines.openvino_engine import FULL_PRECISION
from edgejoule_trainer.detectors import create
from edgejoule_trainer.detectors.detector import Target
from edgejoule_trainer.detectors.efficientdet import STRIDES, Combine, EfficientDetD0, Shape, _pad_same
from edgejoule_trainer.export import export_onnx
from edgejoule_trainer.losses.argmax_matching import match
from edgejoule_trainer.losses.boxes import iou
from edgejoule_trainer.losses.focal import sigmoid_focal_loss
from edgejoule_trainer.quantize.ptq import quantize_detector

LABELS = [Label(id=3, name="disc"), Label(id=9, name="star")]
CELLS_128 = sum((128 // stride) ** 2 for stride in STRIDES)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return create("efficientdet_d0", LABELS, (128, 128)).eval()


def raw_zeros(height, width, classes):
    return tuple(torch.zeros(1, 9 * columns, height // s, width // s) for columns in (classes, 4) for s in STRIDES)


def test_counts_equal_published_ones():
    official = create("efficientdet_d0", EfficientDetD0.official_labels())
    manifest = official.manifest()
    assert manifest.params_m == pytest.approx(3.9, rel=0.01)
    # The authors' 2.54 comes from TensorFlow's profiler, which counts additions of biases and two operations of batch
    # norm an element too; the multiply-accumulates of Eq. 1 alone are 2 % fewer.
    assert manifest.gmacs == pytest.approx(2.54, rel=0.02)
    elementwise = 0

    def count(module, _, output):
        nonlocal elementwise
        is_norm = isinstance(module, nn.BatchNorm2d)
        elementwise += output.numel() * (2 if is_norm else module.bias is not None)

    for module in official.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        official.eval().network(torch.zeros(1, 3, 512, 512))
    assert manifest.gmacs + elementwise / 2 / 1e9 == pytest.approx(2.54, rel=0.003)


def test_outputs_keep_the_engine_contract(detector):
    boxes, scores = detector(torch.rand(2, 3, 128, 128) * 255)
    assert boxes.shape == (2, 9 * CELLS_128, 4)
    assert scores.shape == (2, 9 * CELLS_128, 2)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert ((scores > 0) & (scores < 1)).all()


def test_columns_are_the_90_ids_of_coco():
    labels = EfficientDetD0.official_labels()
    assert [label.id for label in labels[:13]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, None, 13]
    assert len(labels) == 90


def test_zero_offsets_give_the_anchors_in_the_authors_order(detector):
    wide = create("efficientdet_d0", LABELS, (128, 256))
    boxes, scores = wide.decode(raw_zeros(128, 256, 2))
    pixels = boxes[0].detach().numpy() * [256, 128, 256, 128]
    # Level 3, first cell, middle (4, 4): squares of side 32 * 2^(0, 1/3, 2/3), each stretched by 1.4 and .7.
    side = 32 * 2 ** (1 / 3)
    np.testing.assert_allclose(pixels[0], [4 - 16, 4 - 16, 4 + 16, 4 + 16], atol=1e-4)
    np.testing.assert_allclose(pixels[1], [4 - 22.4, 4 - 11.2, 4 + 22.4, 4 + 11.2], atol=1e-4)
    np.testing.assert_allclose(pixels[2], [4 - 11.2, 4 - 22.4, 4 + 11.2, 4 + 22.4], atol=1e-4)
    np.testing.assert_allclose(pixels[3], [4 - side / 2, 4 - side / 2, 4 + side / 2, 4 + side / 2], atol=1e-4)
    np.testing.assert_allclose(pixels[9], [12 - 16, 4 - 16, 12 + 16, 4 + 16], atol=1e-4)  # the cell to the right
    np.testing.assert_allclose(pixels[9 * 32], [4 - 16, 12 - 16, 4 + 16, 12 + 16], atol=1e-4)  # and the one below
    last = 512 * 2 ** (2 / 3)
    np.testing.assert_allclose(pixels[-1, 0], 192 - 0.7 * last / 2, atol=1e-3)
    assert scores[0, 0].tolist() == [0.5, 0.5]


def test_decode_moves_and_stretches_the_anchor(detector):
    raw = raw_zeros(128, 128, 2)
    raw[0][0, 2 * 4 + 1, 0, 1] = 2.0  # level 3, second cell, anchor 4, class 1
    raw[5][0, 4 * 4 : 4 * 4 + 4, 0, 1] = torch.tensor([0.5, -0.25, math.log(2), math.log(0.5)])  # x, y, w, h
    boxes, scores = detector.decode(raw)
    width, height = 32 * 2 ** (1 / 3) * 1.4, 32 * 2 ** (1 / 3) * 0.7
    x, y = 12 + 0.5 * width, 4 - 0.25 * height
    expected = np.array([x - width, y - height / 4, x + width, y + height / 4]) / 128
    np.testing.assert_allclose(boxes[0, 9 + 4].numpy(), expected, rtol=1e-5)
    assert scores[0, 9 + 4].tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-2))])


@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_equals_tensorflow_same(kernel):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 8, 8, generator=random)
    weight = torch.randn(1, 1, kernel, kernel, generator=random)
    ours = F.conv2d(_pad_same(x, kernel, 2), weight, stride=2)
    # "SAME": ceil(8 / 2) windows; what they lack is padded half before and the rest after.
    before = ((4 - 1) * 2 + kernel - 8) // 2
    expected = torch.zeros(4, 4)
    for i in range(4):
        for j in range(4):
            for k in range(kernel):
                for m in range(kernel):
                    row, column = 2 * i + k - before, 2 * j + m - before
                    if 0 <= row < 8 and 0 <= column < 8:
                        expected[i, j] += x[0, 0, row, column] * weight[0, 0, k, m]
    torch.testing.assert_close(ours[0, 0], expected)


def test_pooling_starts_at_the_first_pixel_and_never_sees_padding():
    combine = Combine({0: Shape(64, 8, 8), 1: Shape(64, 4, 4)}, Shape(64, 4, 4))
    with torch.no_grad():
        combine.edge_weights.copy_(torch.tensor([1.0, -1.0]))
    fine = -1 - torch.arange(64.0).view(1, 1, 8, 8).expand(1, 64, 8, 8)
    halved = combine([fine, torch.zeros(1, 64, 4, 4)])
    np.testing.assert_allclose(halved[0, 0].detach().numpy(), fine[0, 0, ::2, ::2].numpy() / 1.0001, rtol=1e-6)


def test_fusion_is_the_weighted_mean_without_negative_weights():
    combine = Combine({0: Shape(64, 4, 4), 1: Shape(64, 2, 2), 2: Shape(64, 4, 4)}, Shape(64, 4, 4))
    with torch.no_grad():
        combine.edge_weights.copy_(torch.tensor([1.0, 2.0, -3.0]))
    a, b, c = torch.randn(1, 64, 4, 4), torch.randn(1, 64, 2, 2), torch.randn(1, 64, 4, 4)
    enlarged = b.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(combine([a, b, c]), (a + 2 * enlarged) / 3.0001)


def matched_by_loops(anchors, boxes):
    owner = []
    overlap = [[float(iou(box, anchor)) for anchor in anchors] for box in boxes]
    for number in range(len(anchors)):
        best = max(range(len(boxes)), key=lambda index: overlap[index][number])
        owner.append(best if overlap[best][number] >= 0.5 else -1)
    for index in reversed(range(len(boxes))):
        if max(overlap[index]) > 0:
            owner[overlap[index].index(max(overlap[index]))] = index
    return owner


def test_matching_equals_the_rule_written_out():
    random = torch.Generator().manual_seed(3)
    corners = torch.rand(60, 2, generator=random) * 60
    anchors = torch.cat([corners, corners + 8 + torch.rand(60, 2, generator=random) * 30], dim=1)
    moved = anchors[:3] + torch.randn(3, 4, generator=random)
    twin = anchors[:1] + torch.randn(1, 4, generator=random)  # both may claim one anchor
    tiny = torch.tensor([[5.0, 5.0, 7.0, 7.0], [200.0, 200.0, 210.0, 210.0]])  # the second overlaps nothing
    boxes = torch.cat([moved, twin, tiny])
    found = match(anchors, boxes).tolist()
    assert found == matched_by_loops(anchors, boxes)
    assert 4 in found
    assert 5 not in found


def test_first_object_gets_the_anchor_that_two_claim():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    boxes = torch.tensor([[0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 10.0, 10.0]])
    assert match(anchors, boxes).tolist() == [0, -1]


def test_focal_loss_equals_its_definition():
    logits, present = torch.tensor([[1.5, -2.0, 0.3]]), torch.tensor([[1.0, 0.0, 0.0]])
    expected = []
    for logit, y in zip(logits[0].tolist(), present[0].tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        p_t, alpha_t = (p, 0.25) if y else (1 - p, 0.75)
        expected.append(-alpha_t * (1 - p_t) ** 1.5 * math.log(p_t))
    assert sigmoid_focal_loss(logits, present, 0.25, 1.5)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_loss_equals_the_authors_sums(detector):
    random = torch.Generator().manual_seed(1)
    raw = tuple(torch.randn(level.shape, generator=random) for level in raw_zeros(128, 128, 2))
    box, label = torch.tensor([20.0, 24.0, 61.0, 58.0]), 1
    losses = detector.loss(raw, [Target(box[None], torch.tensor([label]))])

    def flat(levels, columns):
        return torch.cat([level[0].permute(1, 2, 0).reshape(-1, columns) for level in levels])

    logits, offsets = flat(raw[:5], 2).double(), flat(raw[5:], 4).double()
    corner = detector.decode(raw_zeros(128, 128, 2))[0][0] * 128
    owner = match(corner, box[None])
    normalizer = int((owner >= 0).sum()) + 1
    focal = huber = 0.0
    for number, one in enumerate(owner.tolist()):
        for column in range(2):
            p = float(logits[number, column].sigmoid())
            is_it = one == 0 and column == label
            focal -= 0.25 * (1 - p) ** 1.5 * math.log(p) if is_it else 0.75 * p**1.5 * math.log(1 - p)
        if one == 0:
            x1, y1, x2, y2 = corner[number].double().tolist()
            wanted = [
                ((20 + 61) / 2 - (x1 + x2) / 2) / (x2 - x1),
                ((24 + 58) / 2 - (y1 + y2) / 2) / (y2 - y1),
                math.log(41 / (x2 - x1)),
                math.log(34 / (y2 - y1)),
            ]
            for found, target in zip(offsets[number].tolist(), wanted, strict=True):
                error = abs(found - target)
                huber += 0.5 * error**2 if error <= 0.1 else 0.1 * (error - 0.05)
    assert float(losses["focal"]) == pytest.approx(focal / normalizer, rel=1e-4)
    assert float(losses["huber"]) == pytest.approx(50 * huber / (4 * normalizer), rel=1e-3)


def test_loss_falls_when_overfitting_one_image():
    torch.manual_seed(1)
    small = create("efficientdet_d0", LABELS, (128, 128)).train()
    image = torch.rand(2, 3, 128, 128) * 255
    targets = [Target(torch.tensor([[16.0, 16.0, 80.0, 88.0]]), torch.tensor([1]))] * 2
    optimizer = torch.optim.Adam(small.parameters(), lr=5e-3)
    values = []
    for _ in range(8):
        loss = sum(small.loss(small.network(small.normalize(image)), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_loss_is_finite_when_no_image_has_objects(detector):
    raw = detector.network(detector.normalize(torch.zeros(1, 3, 128, 128)))
    losses = detector.loss(raw, [Target(torch.empty(0, 4), torch.empty(0, dtype=torch.long))])
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["huber"] == 0


def test_odd_input_size_is_refused_with_the_value():
    with pytest.raises(WeightsError, match=r"multiple of 128.*320x512"):
        create("efficientdet_d0", LABELS, (512, 320))


def test_file_of_another_detector_is_refused_with_what_is_missing():
    with pytest.raises(WeightsError, match=r"fnode.7.combine.edge_weights.*tf_efficientdet_d0"):
        EfficientDetD0.from_official({"backbone.conv1.0.weight": torch.zeros(1)})


def test_official_box_layer_is_put_in_our_order():
    state = {f"{name}": torch.zeros(1) for name in EfficientDetD0(LABELS, (128, 128)).network.state_dict()}
    rows = torch.arange(36.0)
    state["box_net.predict.conv_pw.bias"] = rows
    official = EfficientDetD0.from_official(state)
    assert not official.unused
    assert official.tensors["network.box_net.predict.conv_pw.bias"][:6].tolist() == [1, 0, 3, 2, 5, 4]


def test_exported_graph_has_neither_pads_nor_fusion_arithmetic_and_gives_the_same(detector, tmp_path):
    model = export_onnx(detector, tmp_path / "model.onnx")
    kinds = {node.op_type for node in model.graph.node}
    # padding goes into the convolutions; the fusion weights are constants
    assert not kinds & {"Pad", "Relu", "ReduceSum", "Shape", "Gather"}
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2)) * 255
    with torch.no_grad():
        wanted = detector(image)
    for runtime, options in (("onnxruntime", {}), ("openvino", FULL_PRECISION)):
        pytest.importorskip(runtime)
        with open_engine(runtime, (tmp_path / "model.onnx").read_bytes(), options, threads=1) as engine:
            found = engine.infer(image.numpy())
            np.testing.assert_allclose(found[0], wanted[0].numpy(), atol=1e-4)
            np.testing.assert_allclose(found[1], wanted[1].numpy(), atol=1e-5)


def test_quantized_graph_keeps_the_rules_of_boards_without_pads(detector, tmp_path):
    onnx = pytest.importorskip("onnx")
    images = [torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(i)) * 255 for i in range(2)]
    quantized = quantize_detector(detector, images[:1], images[1:], ["minmax"])
    model = export_onnx(quantized.detector, tmp_path / "int8.onnx", detector.manifest())  # checks the rules
    assert "Pad" not in {node.op_type for node in model.graph.node}
    # every level's batch norm is folded into a copy of the convolution that the levels share
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    pads = next(onnx.helper.get_attribute_value(a) for a in stem.attribute if a.name == "pads")
    assert list(pads) == [0, 0, 1, 1]
