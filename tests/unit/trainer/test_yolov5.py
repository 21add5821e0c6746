"""YOLOv5: published counts, the engine contract, decoding by hand, assignment and CIoU written out the slow way."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgejoule.errors import WeightsError
from edgejoule.records import Label
from edgejoule_trainer.detectors import create, detector_class
from edgejoule_trainer.detectors.coco_labels import coco80
from edgejoule_trainer.detectors.detector import Target
from edgejoule_trainer.detectors.yolov5 import ANCHORS, BATCH_NORM_EPS, STRIDES, YoloV5n, YoloV5s
from edgejoule_trainer.export import export_onnx
from edgejoule_trainer.losses.boxes import ciou
from edgejoule_trainer.losses.yolo_assignment import assign
from edgejoule_trainer.quantize.fold import folded_weights
from edgejoule_trainer.quantize.ptq import quantize_detector

LABELS = [Label(id=3, name="disc"), Label(id=9, name="star")]


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return create("yolov5n", LABELS, (64, 96)).eval()


def authors_state(detector):
    """The detector's tensors as an authors' state dict has them."""
    state = {name.removeprefix("network."): tensor for name, tensor in detector.state_dict().items()}
    return state | {"model.24.anchors": state.pop("anchors") / torch.tensor(STRIDES).view(3, 1, 1)}


def folded_state(detector, anchor_cells):
    """The constants of the authors' ONNX export: batch norm folded, anchors in pixels for every cell."""
    state = {}
    for name, module in detector.network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            norm = dict(detector.network.named_modules()).get(f"{name.removesuffix('.conv')}.bn")
            weight, bias = folded_weights(module, norm) if norm else (module.weight.detach(), module.bias.detach())
            state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    for number, (anchors, cells) in enumerate(zip(detector.anchors, anchor_cells, strict=True)):
        state[f"/model.24/Constant_{number}"] = anchors.view(1, 3, 1, 1, 2).expand(1, 3, cells, cells, 2)
        state[f"/model.24/Grid_{number}"] = torch.arange(3 * cells * cells * 2.0).view(1, 3, cells, cells, 2) - 0.5
    return state


# --- detector ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tensors"), [("n", 349), ("s", 349), ("m", 481), ("l", 613), ("x", 745)])
def test_counts_equal_published_ones_of_all_sizes(name, tensors):
    kind = detector_class(f"yolov5{name}")
    with torch.device("meta"):
        network = kind(coco80(), (640, 640))
    assert len(network.state_dict()) == tensors
    macs, outputs, norm_channels = 0, 0, 0

    def add(module, _, output):
        nonlocal macs, outputs, norm_channels
        if isinstance(module, torch.nn.Conv2d):
            macs += module.weight.numel() // module.groups * output.shape[2] * output.shape[3]
            outputs += output.numel()
        elif isinstance(module, torch.nn.BatchNorm2d):
            norm_channels += module.num_features

    for module in network.network.modules():
        module.register_forward_hook(add)
    network.network(torch.zeros(1, 3, 640, 640, device="meta"))
    published = kind.published
    assert macs / 1e9 == pytest.approx(published.gmacs, rel=0.01)
    # Theirs are counted with batch norm folded: scale and shift become one bias, counted as a MAC an output.
    assert round(2 * (macs + outputs) / 1e9, 1) == 2 * published.gmacs
    folded = sum(parameter.numel() for parameter in network.parameters()) - norm_channels
    assert round(folded / 1e6, 1) == published.params_m


def test_manifest_counts_the_same():
    manifest = create("yolov5n", coco80()).manifest()
    assert manifest.params_m == pytest.approx(1.872157)
    assert manifest.gmacs == pytest.approx(4.5 / 2, rel=0.01)


def test_outputs_keep_the_engine_contract(detector):
    with torch.no_grad():
        boxes, scores = detector(torch.rand(2, 3, 64, 96) * 255)
    predictions = 3 * (8 * 12 + 4 * 6 + 2 * 3)
    assert boxes.shape == (2, predictions, 4)
    assert scores.shape == (2, predictions, 2)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert ((scores > 0) & (scores < 1)).all()


def test_decode_gives_the_box_computed_by_hand(detector):
    raw = tuple(torch.zeros(1, 3 * 7, 64 // stride, 96 // stride) for stride in STRIDES)
    logit = math.log(3)  # whose sigmoid is 3/4
    raw[1][0, 2 * 7 : 3 * 7, 3, 5] = torch.tensor([logit, -logit, 0, logit, logit, -logit, 0])
    boxes, scores = detector.decode(raw)
    # Level of stride 16 and 4 x 6 cells, third anchor (59 x 119), row 3, column 5.
    x, y = (2 * 0.75 - 0.5 + 5) * 16, (2 * 0.25 - 0.5 + 3) * 16
    w, h = (2 * 0.5) ** 2 * 59, (2 * 0.75) ** 2 * 119
    place = 3 * 8 * 12 + 2 * 4 * 6 + 3 * 6 + 5
    expected = [(x - w / 2) / 96, (y - h / 2) / 64, (x + w / 2) / 96, (y + h / 2) / 64]
    np.testing.assert_allclose(boxes[0, place].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(scores[0, place].numpy(), [0.75 * 0.25, 0.75 * 0.5], rtol=1e-6)
    # All zeros: the middle of the cell, the anchor itself, scores 1/2 * 1/2.
    np.testing.assert_allclose(boxes[0, 0].numpy() * [96, 64, 96, 64], [4 - 5, 4 - 6.5, 4 + 5, 4 + 6.5], rtol=1e-5)
    assert scores[0, 0].tolist() == [0.25, 0.25]


def test_scores_of_an_untrained_head_expect_eight_objects_in_an_image(detector):
    biases = detector.network.model["24"].m[0].bias.view(3, 7).detach()
    per_image = 3 * 80 * 80 * math.exp(biases[:, 4].mean())  # anchors of the finest level at 640
    assert 3 * 8 / 2 < per_image < 3 * 8 * 2


def test_exported_graphs_run_as_the_detector_does(detector, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = export_onnx(detector, tmp_path / "float.onnx")
    assert "Resize" in Counter(node.op_type for node in graph.graph.node)
    image = torch.rand(1, 3, 64, 96) * 255
    found = onnxruntime.InferenceSession(str(tmp_path / "float.onnx")).run(None, {"image": image.numpy()})
    with torch.no_grad():
        for ours, theirs in zip(detector(image), found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5)


def test_quantized_graph_passes_every_check(detector, tmp_path):
    images = [torch.rand(1, 3, 64, 96) * 255 for _ in range(2)]
    quantized = quantize_detector(detector, images, images[:1], calibrators=["minmax"]).detector
    graph = export_onnx(quantized, tmp_path / "int8.onnx", detector.manifest()).graph
    eight_bit = sum(node.op_type == "QuantizeLinear" for node in graph.node)
    assert eight_bit > sum(node.op_type == "Conv" for node in graph.node)


def test_odd_input_size_is_refused_with_the_value():
    with pytest.raises(WeightsError, match=r"multiple of 32.*640x630"):
        create("yolov5s", LABELS, (630, 640))


# --- loss ----------------------------------------------------------------------------------------


def slow_assignment(boxes, anchors, stride, cells):
    """One object, one anchor, one neighbour at a time."""
    matches = []
    rows, columns = cells
    for owner, (x1, y1, x2, y2) in enumerate(boxes):
        for number, (aw, ah) in enumerate(anchors):
            w, h = x2 - x1, y2 - y1
            if max(w / aw, aw / w, h / ah, ah / h) >= 4:
                continue
            x, y = (x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride
            column, row = min(int(x), columns - 1), min(int(y), rows - 1)
            places = [(row, column)]
            if x > 1 and x - math.floor(x) < 0.5:
                places.append((row, math.floor(x) - 1))
            if x < columns - 1 and x - math.floor(x) > 0.5:
                places.append((row, math.floor(x) + 1))
            if y > 1 and y - math.floor(y) < 0.5:
                places.append((math.floor(y) - 1, column))
            if y < rows - 1 and y - math.floor(y) > 0.5:
                places.append((math.floor(y) + 1, column))
            matches += [(owner, number, *place) for place in places]
    return sorted(matches)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(range(3)))
def test_assignment_equals_the_slow_search(seed, level):
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, (96, 64), (12, 2)), rng.uniform(2, 200, (12, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    stride = STRIDES[level]
    cells = (64 // stride, 96 // stride)
    match = assign(torch.tensor(boxes), torch.tensor(ANCHORS[level]), stride, cells)
    assert sorted(zip(*(axis.tolist() for axis in match), strict=True)) == slow_assignment(
        boxes, ANCHORS[level], stride, cells
    )


def test_assignment_counts_a_centre_on_a_border_twice():
    match = assign(torch.tensor([[12.0, 8.0, 20.0, 16.0]]), torch.tensor([[10.0, 13.0]]), 8, (4, 4))
    # The centre is 16, 12: the border of columns 1 and 2, the middle of row 1.
    assert list(zip(match.row.tolist(), match.column.tolist(), strict=True)) == [(1, 2), (1, 1), (1, 2)]


@given(st.lists(st.floats(1, 90), min_size=8, max_size=8))
def test_ciou_equals_the_paper_s_equations(numbers):
    (ax, ay, aw, ah), (bx, by, bw, bh) = numbers[:4], numbers[4:]
    a, b = (ax, ay, ax + aw, ay + ah), (bx, by, bx + bw, by + bh)
    inside = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    overlap = inside / (aw * ah + bw * bh - inside)
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    apart = (ax + aw / 2 - bx - bw / 2) ** 2 + (ay + ah / 2 - by - bh / 2) ** 2
    v = 4 / math.pi**2 * (math.atan(bw / bh) - math.atan(aw / ah)) ** 2
    alpha = v / (1 - overlap + v) if v else 0
    expected = overlap - apart / diagonal - alpha * v
    got = ciou(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    assert got.item() == pytest.approx(expected, abs=1e-6)


def test_ciou_has_gradients_that_are_numbers_when_a_box_is_a_point():
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    ciou(point, torch.tensor([[0.0, 0.0, 4.0, 4.0]])).sum().backward()
    assert torch.isfinite(point.grad).all()


def test_loss_is_that_of_the_matches_computed_by_hand(detector):
    raw = tuple(torch.zeros(1, 3 * 7, 64 // stride, 96 // stride) for stride in STRIDES)
    # 200 x 33 is like three anchors, two of them on the level of stride 16.
    target = Target(torch.tensor([[-60.0, 23.5, 140.0, 56.5]]), torch.tensor([1]))
    losses = detector.loss(raw, [target])
    matches = [
        (level, anchor)
        for level, anchors in enumerate(ANCHORS)
        for anchor, (w, h) in enumerate(anchors)
        if max(200 / w, w / 200, 33 / h, h / 33) < 4
    ]
    assert matches == [(1, 1), (1, 2), (2, 0)]
    # Centre 40, 40: the middle of a cell at stride 16 (2.5) and a quarter into one at stride 32 (1.25): left, above.
    box = {}
    for level, anchor in matches:
        w, h = ANCHORS[level][anchor]
        stride = STRIDES[level]
        cells = [(2, 2)] if stride == 16 else [(1, 1), (1, 0), (0, 1)]
        centres = [((c + 0.5) * stride, (r + 0.5) * stride) for r, c in cells]
        predicted = torch.tensor([(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y in centres])
        box[level, anchor] = ciou(predicted, target.boxes).tolist()
    middle, coarse = box[1, 1] + box[1, 2], box[2, 0]
    assert losses["box"].item() == pytest.approx(0.05 * (2 - np.mean(middle) - np.mean(coarse)), rel=1e-5)
    assert losses["class"].item() == pytest.approx(0.5 * (2 / 80) * 2 * math.log(2), rel=1e-5)
    # At a logit of 0 the cross entropy is log 2 whatever is wanted.
    assert losses["objectness"].item() == pytest.approx(64 * 96 / 640**2 * (4 + 1 + 0.4) * math.log(2), rel=1e-5)


def test_objectness_learns_the_best_overlap_of_objects_in_one_place(detector):
    near, far = torch.tensor([23.0, 23.0, 33.0, 36.0]), torch.tensor([22.0, 20.0, 36.0, 40.0])
    raw = tuple(torch.zeros(1, 3 * 7, 64 // stride, 96 // stride, requires_grad=True) for stride in STRIDES)
    gradients = []
    for order in ([near, far], [far, near]):
        losses = detector.loss(raw, [Target(torch.stack(order), torch.tensor([0, 0]))])
        gradients.append(torch.autograd.grad(losses["objectness"], raw[0])[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    # Gradient of the cross entropy: (1/2 - wanted), weighed.
    wanted = 0.5 - gradients[0].view(3, 7, 8, 12)[0, 4, 3, 3] * (3 * 8 * 12) / (4 * 64 * 96 / 640**2)
    cell = torch.tensor([28.0 - 5, 28 - 6.5, 28 + 5, 28 + 6.5])
    assert wanted.item() == pytest.approx(max(ciou(cell, near).item(), ciou(cell, far).item()), abs=1e-4)


def test_loss_falls_when_overfitting_one_image():
    torch.manual_seed(1)
    small = create("yolov5n", LABELS, (64, 64)).train()
    image = torch.rand(2, 3, 64, 64) * 255
    targets = [Target(torch.tensor([[8.0, 8.0, 40.0, 44.0]]), torch.tensor([1]))] * 2
    optimizer = torch.optim.AdamW(small.parameters(), lr=2e-3)
    values = []
    for _ in range(30):
        loss = sum(small.loss(small.network(small.normalize(image)), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_loss_is_finite_when_no_image_has_objects(detector):
    raw = detector.network(torch.zeros(2, 3, 64, 96))
    losses = detector.loss(raw, [Target(torch.empty(0, 4), torch.empty(0, dtype=torch.long))] * 2)
    assert losses["box"] == losses["class"] == 0
    assert torch.isfinite(losses["objectness"])
    sum(losses.values()).backward()


# --- official files ------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_state_dict_maps_tensor_by_tensor(detector, prefix):
    state = {prefix + name: tensor for name, tensor in authors_state(detector).items()}
    official = YoloV5n.from_official(state)
    assert not official.unused
    assert official.tensors.keys() == detector.state_dict().keys()
    for name, tensor in detector.state_dict().items():
        torch.testing.assert_close(official.tensors[name], tensor, rtol=0, atol=0)


def test_half_precision_and_anchors_of_its_own_are_taken_from_the_file(detector):
    state = authors_state(detector)
    state["model.24.anchors"] = torch.arange(1.0, 19).view(3, 3, 2)
    halved = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    tensors = YoloV5n.from_official(halved).tensors
    assert {t.dtype for t in tensors.values()} == {torch.float32, torch.int64}
    np.testing.assert_array_equal(tensors["anchors"][2, 0], [13 * 32, 14 * 32])


@pytest.mark.parametrize("cells", [(8, 4, 2), (1, 1, 1)], ids=["static export", "dynamic export"])
def test_folded_graph_maps_with_a_batch_norm_that_changes_nothing(detector, cells):
    torch.manual_seed(2)
    random = create("yolov5n", LABELS, (64, 96)).eval()
    for module in random.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    random.anchors *= 1.25
    state = folded_state(random, cells)
    official = YoloV5n.from_official(state)
    assert len(official.unused) == 6
    folded = create("yolov5n", LABELS, (64, 96)).eval()
    folded.load_state_dict(official.tensors)
    image = torch.rand(1, 3, 64, 96) * 255
    with torch.no_grad():
        for found, expected in zip(folded(image), random(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_batch_norm_that_changes_nothing_is_exact_in_float32():
    norm = torch.nn.BatchNorm2d(3, eps=BATCH_NORM_EPS).eval()
    norm.running_var.fill_(1 - BATCH_NORM_EPS)
    x = torch.randn(2, 3, 16, 16) * 100
    torch.testing.assert_close(norm(x), x, rtol=0, atol=0)


def test_graph_without_anchors_is_refused(detector):
    state = {name: t for name, t in folded_state(detector, (8, 4, 2)).items() if "Constant_1" not in name}
    with pytest.raises(WeightsError, match="anchors of 2 levels, not of 3"):
        YoloV5n.from_official(state)


def test_another_size_is_refused_by_name(detector):
    with pytest.raises(WeightsError, match=r"16 wide \(YOLOv5n\); YOLOv5s's is 32"):
        YoloV5s.from_official(authors_state(detector))


def test_a_first_convolution_without_channels_is_refused(detector):
    with pytest.raises(WeightsError, match="0 wide"):
        YoloV5n.from_official(authors_state(detector) | {"model.0.conv.weight": torch.tensor(1.0)})


def test_another_network_is_refused():
    with pytest.raises(WeightsError, match=r"no tensor model\.0\.conv\.weight"):
        YoloV5s.from_official({"backbone.conv1.weight": torch.zeros(1)})


def test_a_stranger_among_the_tensors_stays_to_be_reported(detector):
    official = YoloV5n.from_official(authors_state(detector) | {"teacher.weight": torch.zeros(1)})
    assert official.tensors.keys() - detector.state_dict().keys() == {"teacher.weight"}
