"""Export under the engine contract, and the steps that write ONNX, on a small NanoDet-m with random weights."""

import json
import tarfile

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgejoule.errors import ModelError
from edgejoule.job import Job
from edgejoule.records import Label, ModelManifest, QuantizationError
from edgejoule_agent.contract import read_model
from edgejoule_trainer.detectors import create
from edgejoule_trainer.export import export_onnx
from edgejoule_trainer.quantize.lint import OPSET, violations
from edgejoule_trainer.quantize.ptq import Disagreement, quantize_detector
from edgejoule_trainer.quantize.scales import CALIBRATORS
from edgejoule_trainer.rebatch import rebatch
from edgejoule_trainer.steps import batch, export, ptq
from edgejoule_trainer.weights import write_weights

LABELS = [Label(id=3, name="cup"), Label(id=7, name="box")]


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 64, 96, generator=generator) * 255 for _ in range(count)]


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    made = create("nanodet_m", LABELS, (64, 96)).train()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over the images, or the signal dies on its way
    with torch.no_grad():
        for image in images(8, seed=1):  # batch norm's statistics
            made.network(made.normalize(torch.cat([image, image.flip(3)])))
        for head in made.network.head.gfl_cls:  # some cells are confident
            head.weight.mul_(4)
            head.bias.zero_()
    return made.eval()


@pytest.fixture(scope="module")
def quantized(detector):
    return quantize_detector(detector, images(2), images(2, seed=2))


def answers(model, image):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["boxes", "scores"], {"image": image.numpy()})


def test_exported_graph_answers_as_the_detector(detector, tmp_path):
    model = export_onnx(detector, tmp_path / "float.onnx")
    image = images(1, seed=5)[0]
    with torch.no_grad():
        expected = detector(image)
    for given, wanted in zip(answers(model, image), expected, strict=True):
        np.testing.assert_allclose(given, wanted.numpy(), atol=1e-4)


def test_graph_for_two_images_answers_as_the_graph_for_one_does_to_each(detector, tmp_path):
    export_onnx(detector, tmp_path / "1.onnx")
    export_onnx(detector, tmp_path / "2.onnx", batch=2)
    one, two = (read_model(tmp_path / f"{batch}.onnx")[0] for batch in (1, 2))
    pair = images(2, seed=3)
    for both, *each in zip(answers(two, torch.cat(pair)), *(answers(one, image) for image in pair), strict=True):
        np.testing.assert_allclose(both, np.concatenate(each), atol=1e-5)
        assert np.abs(each[0] - each[1]).max() > 0.01


def test_rebatched_8_bit_graph_has_the_same_scales_and_answers_as_that_for_one_image(quantized, tmp_path):
    one = export_onnx(quantized.detector, tmp_path / "1.onnx")
    job_ = Job({"batch": 3}, {"onnx": tmp_path / "1.onnx"}, tmp_path, tmp_path, lambda *_: None)
    batch.run(job_)
    three, _ = read_model(job_.output("onnx"))
    assert three.metadata_props == one.metadata_props
    assert [node.op_type for node in three.graph.node] == [node.op_type for node in one.graph.node]
    reshapes = {node.input[1] for node in one.graph.node if node.op_type == "Reshape"}
    for was, is_ in zip(one.graph.initializer, three.graph.initializer, strict=True):
        assert was.name in reshapes or was == is_  # every weight, scale and zero point
    several = images(3, seed=3)
    for together, *each in zip(
        answers(three, torch.cat(several)), *(answers(one, image) for image in several), strict=True
    ):
        np.testing.assert_allclose(together, np.concatenate(each), atol=1e-5)
        assert np.abs(each[0] - each[1]).max() > 0.01


def test_graph_that_is_not_for_one_image_or_mixes_images_is_refused(detector, tmp_path):
    model = export_onnx(detector, tmp_path / "1.onnx")
    with pytest.raises(ModelError, match=r"tensor 'image' has shape \[2, 3, 64, 96\] for one image"):
        rebatch(rebatch(model, 2), 4)
    (boxes,) = (node for node in model.graph.node if "boxes" in node.output)
    boxes.output[0] = "unmixed"
    mean = onnx.helper.make_node("ReduceMean", ["unmixed"], ["boxes"], axes=[0], keepdims=1)
    model.graph.node.append(mean)
    with pytest.raises(ModelError, match=r"tensor 'boxes' has shape \[1, \d+, 4\] for one image and"):
        rebatch(model, 4)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("ssd_mobilenet_v2", 64),
        ("ssdlite_mobilenet_v3", 64),
        ("yolov5n", 64),
        ("efficientdet_d0", 128),
        ("nanodet_m", 64),
    ],
)
@torch.no_grad()
def test_decoding_answers_to_two_images_as_to_each(name, side):
    made = create(name, LABELS, (side, side)).eval()
    generator = torch.Generator().manual_seed(3)
    raw = [torch.randn(2, *map_.shape[1:], generator=generator) for map_ in made.network(torch.zeros(1, 3, side, side))]
    alone = [made.decode(tuple(map_[i : i + 1] for map_ in raw)) for i in (0, 1)]
    for both, *each in zip(made.decode(tuple(raw)), *alone, strict=True):
        torch.testing.assert_close(both, torch.cat(each), rtol=1e-6, atol=1e-6)
        assert float((each[0] - each[1]).abs().max()) > 0.01


def test_exported_graph_carries_its_manifest_and_opset(detector, tmp_path):
    export_onnx(detector, tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "float.onnx")
    assert model.opset_import[0].version == OPSET
    (entry,) = model.metadata_props
    assert entry.key == "edgejoule"
    assert ModelManifest(**json.loads(entry.value)) == detector.manifest()


def test_export_writes_the_same_bytes_twice_and_no_path_of_this_machine(detector, quantized, tmp_path):
    for index, made in enumerate((detector, quantized.detector)):
        export_onnx(made, tmp_path / f"{index}-a.onnx")
        export_onnx(made, tmp_path / f"{index}-b.onnx")
        content = (tmp_path / f"{index}-a.onnx").read_bytes()
        assert content == (tmp_path / f"{index}-b.onnx").read_bytes()
        assert b".py" not in content


def test_quantized_graph_passes_the_lint_and_answers_as_the_fake_quantized_detector(quantized, tmp_path):
    model = export_onnx(quantized.detector, tmp_path / "int8.onnx")
    assert violations(model) == []
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 100
    image = images(1, seed=5)[0]
    with torch.no_grad():
        boxes, scores = (tensor.numpy() for tensor in quantized.detector(image))
    given_boxes, given_scores = answers(model, image)
    # a value at the edge of two steps may round either way, so the mean is compared
    assert np.abs(given_scores - scores).mean() < 0.02
    assert np.abs(given_boxes - boxes).mean() < 0.02


def test_quantized_detector_leaves_the_float_one_as_it_was(detector, quantized):
    assert not any("quantizer" in name for name, _ in detector.named_modules())


def test_record_scores_every_calibrator_and_names_the_best(quantized):
    record = quantized.record
    assert set(record["candidates"]) == set(CALIBRATORS)
    disagreement = {name: scores["disagreement"] for name, scores in record["candidates"].items()}
    assert record["calibrator"] == min(disagreement, key=disagreement.get)
    assert record["confident_cells"] > 0
    assert all(entry["mean_squared_error"] > 0 for entry in record["activations"].values())


def test_quantize_refuses_no_tuning_images(detector):
    with pytest.raises(ModelError, match="no tuning image"):
        quantize_detector(detector, images(1), [])


def test_disagreement_is_zero_for_equal_answers_and_counts_cells_either_is_confident_in():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0]]])
    scores = torch.tensor([[[0.9, 0.0], [0.1, 0.1], [0.1, 0.0]]])
    same = Disagreement()
    same.add(boxes, scores, boxes, scores)
    assert (same.cells, same.total) == (1, pytest.approx(0, abs=1e-6))

    moved = Disagreement()
    moved_boxes = boxes.clone()
    moved_boxes[0, 0] = torch.tensor([0.0, 0.0, 0.5, 0.25])
    moved_scores = scores.clone()
    moved_scores[0, 2] = torch.tensor([0.1, 0.4])
    moved.add(moved_boxes, moved_scores, boxes, scores)
    assert moved.cells == 2
    assert moved.box_loss == pytest.approx(0.5 / 2)
    assert moved.score_rms == pytest.approx((0.4**2 / 2) ** 0.5)


def shard(path, ids):
    random = np.random.default_rng(0)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for image_id in ids:
            file = path.parent / f"{image_id:012d}.jpg"
            cv2.imwrite(str(file), random.integers(0, 255, (48, 80, 3), dtype=np.uint8))
            archive.add(file, arcname=file.name)
    return path


def job(folder, told=None, **inputs):
    folder.mkdir()
    parameters = {"threads": 1, "calibrators": ["minmax", "sensitivity"]}
    return Job(
        parameters, inputs, folder, folder, lambda *told_now: told.append(told_now) if told is not None else None
    )


def test_export_step_writes_onnx_and_record(detector, tmp_path):
    write_weights(tmp_path / "weights", detector)
    step = job(tmp_path / "out", weights=tmp_path / "weights")
    export.run(step)
    assert violations(onnx.load(step.output("onnx"))) == []
    assert json.loads(step.output("record").read_text())["opset"] == OPSET


def test_ptq_step_quantizes_from_shards_and_tells_progress(detector, tmp_path):
    write_weights(tmp_path / "weights", detector)
    inputs = {"weights": tmp_path / "weights"}
    for role, ids in (("calibration", [1, 2, 3]), ("tuning", [4])):
        inputs[role] = tmp_path / f"{role}.json"
        inputs[role].write_text(json.dumps({"images": [{"id": i} for i in ids], "annotations": [], "categories": []}))
        inputs[f"{role}-images-000"] = shard(tmp_path / f"{role}.tar", ids)
    told = []
    step = job(tmp_path / "out", told, **inputs)
    ptq.run(step)
    assert [(done, total) for done, total, _ in told] == [(done, 5) for done in (1, 2, 3, 4, 5)]
    record = json.loads(step.output("record").read_text())
    error = QuantizationError.model_validate(record["quantization_error"])
    assert error.images == 1
    assert [layer.name for layer in error.layers if layer.float_because] == list(record["float_layers"])
    assert {layer.weights is None for layer in error.layers if layer.float_because is None} == {False}
    assert record["sets"]["calibration"]["images"] == 3
    assert set(record["candidates"]) == {"minmax", "sensitivity"}
    model = onnx.load(step.output("onnx"))
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert ModelManifest(**json.loads(model.metadata_props[0].value)) == detector.manifest()  # the float one's costs
