"""Every detector, torch against ONNX Runtime: before suppression with random weights, after it with genuine ones."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import fx, nn

from edgejoule.records import Label
from edgejoule_agent import postprocess, preprocess
from edgejoule_agent.engines.tensorrt_engine import graph
from edgejoule_trainer.counting import count_macs
from edgejoule_trainer.detectors import create, detector_class, names
from edgejoule_trainer.export import export_onnx
from edgejoule_trainer.rebatch import rebatch
from edgejoule_trainer.weights import import_weights

LABELS = [Label(id=3, name="disc"), Label(id=9, name="star"), Label(id=11, name="cross")]
SHARED = Path(os.environ.get("EDGEJOULE_SHARED", Path(__file__).parents[4] / "shared"))
IMAGES = SHARED / "data/coco/val2017"
GENUINE = {
    "nanodet_m": SHARED / "data/weights/nanodet_m.pth",
    "ssd_mobilenet_v2": SHARED / "data/weights/ssdlite_mobilenet_v2_tfjs/model.json",
}
PIXELS = 0.5  # how far apart boxes may be
SCORE = 1e-3
SMALL = sorted(set(names()) - {"yolov5s", "yolov5m", "yolov5l", "yolov5x"})  # those differ from yolov5n in size alone


def picture(size, seed):
    """Gradients with rectangles of plain colours on them, float32[1,3,h,w], RGB 0-255."""
    rng = np.random.default_rng(seed)
    height, width = size
    image = np.zeros((3, height, width), np.float32)
    image += np.linspace(0, 200, width, dtype=np.float32) + rng.uniform(0, 50, (3, 1, 1)).astype(np.float32)
    for _ in range(6):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        image[:, y : y + rng.integers(8, height // 2), x : x + rng.integers(8, width // 2)] = rng.uniform(
            0, 255, (3, 1, 1)
        )
    return torch.from_numpy(np.rint(image))[None]


def settled(name, size):
    """A detector with random weights whose batch norms have the statistics of some pictures."""
    torch.manual_seed(0)
    detector = create(name, LABELS, size).train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        detector.network(detector.normalize(torch.cat([picture(size, seed) for seed in range(8)])))
    return detector.eval()


def smallest_size(name):
    multiple = detector_class(name).input_multiple
    return (-(-64 // multiple) * multiple, -(-96 // multiple) * multiple)


def session_of(detector, path):
    export_onnx(detector, path)  # which checks the opset and every operator against those of TensorRT 8.2
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def session_for(batch, path):
    content = rebatch(onnx.load(path), batch).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", SMALL)
def test_exported_graph_answers_as_the_detector_before_suppression_also_to_two_images_at_once(name, tmp_path):
    size = smallest_size(name)
    detector = settled(name, size)
    session = session_of(detector, tmp_path / "model.onnx")
    found = []
    for seed in (0, 20):
        image = picture(size, seed)
        with torch.no_grad():
            boxes, scores = detector(image)
        found.append(session.run(["boxes", "scores"], {"image": image.numpy()}))
        assert scores.shape == (1, boxes.shape[1], len(LABELS))
        assert np.abs(found[-1][0] - boxes.numpy()).max() * max(size) < PIXELS
        assert np.abs(found[-1][1] - scores.numpy()).max() < SCORE
    pair = torch.cat([picture(size, seed) for seed in (0, 20)]).numpy()
    together = session_for(2, tmp_path / "model.onnx").run(["boxes", "scores"], {"image": pair})
    for both, *each in zip(together, *found, strict=True):
        assert np.abs(both - np.concatenate(each)).max() < 1e-4
        assert np.abs(each[0] - each[1]).max() > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_graph_typed_float16_for_tensorrt_decodes_in_float32_and_answers_alike(name, tmp_path):
    size = smallest_size(name)
    named = graph.name_nodes(export_onnx(settled(name, size), tmp_path / "model.onnx"))
    typed = graph.typed_float16(named)
    values = onnx.shape_inference.infer_shapes(typed).graph.value_info
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    decode = set(graph.decode_nodes(named))
    assert {"Sigmoid", "Softmax"} & {node.op_type for node in named.graph.node if node.name in decode}
    for node in typed.graph.node:
        if node.name in decode:
            assert {kinds.get(output, onnx.TensorProto.FLOAT) for output in node.output} <= {onnx.TensorProto.FLOAT}
        elif node.op_type == "Conv":
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT16
    image = {"image": picture(size, 20).numpy()}
    answers = []
    for model in (named, typed):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        answers.append(session.run(["boxes", "scores"], image))
    for found, wanted in zip(*answers, strict=True):
        assert 0 < np.abs(found - wanted).max() < 0.02 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("name", SMALL)
def test_network_is_traced_whole_and_gives_the_same(name):
    size = smallest_size(name)
    detector = settled(name, size)
    traced = fx.symbolic_trace(detector.network)
    image = detector.normalize(picture(size, 30))
    with torch.no_grad():
        for given, wanted in zip(traced(image), detector.network(image), strict=True):
            torch.testing.assert_close(given, wanted, rtol=0, atol=0)
    assert count_macs(traced, (1, 3, *size)) == count_macs(detector.network, (1, 3, *size))


def assert_same_detections(ours, theirs, floor):
    """Each detection of one has its partner in the other, but at the very floor."""
    for one, other in ((ours, theirs), (theirs, ours)):
        sure = one.score > floor + SCORE
        assert sure.any()
        for category, score, box in zip(one.category_id[sure], one.score[sure], one.bbox[sure], strict=True):
            apart = np.abs(other.bbox - box).max(axis=1)
            partner = (other.category_id == category) & (apart < PIXELS) & (np.abs(other.score - score) < SCORE)
            assert partner.any(), f"category {category} at {box} with {score} has no partner"


@pytest.mark.parametrize("name", sorted(GENUINE))
def test_genuine_weights_give_the_same_detections_in_torch_and_onnxruntime(name, tmp_path):
    if not GENUINE[name].exists():
        pytest.skip("the genuine weights are not on this machine")
    detector, _ = import_weights(GENUINE[name], name)
    session = session_of(detector, tmp_path / "model.onnx")
    manifest = detector.manifest().model_dump(mode="json")
    nms = manifest["nms"]["origin"] | {"score_floor": 0.05}
    for path in sorted(IMAGES.glob("*.jpg"))[:4]:
        image, frame = preprocess.prepare(preprocess.decode(path.read_bytes()), manifest)
        with torch.no_grad():
            boxes, scores = (output.numpy() for output in detector(torch.from_numpy(image)))
        ours = postprocess.detect(boxes, scores, frame, manifest, nms)
        theirs = postprocess.detect(*session.run(["boxes", "scores"], {"image": image}), frame, manifest, nms)
        assert_same_detections(ours, theirs, nms["score_floor"])
