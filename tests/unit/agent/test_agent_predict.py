"""The step ``predict``: what an engine says of a shard's images, as columns. Valid on Python 3.6."""

import json

import numpy as np
import pytest

from edgejoule_agent import host
from edgejoule_agent.errors import AgentError, EngineError, ImageError, ModelError
from edgejoule_agent.npz import write_npz
from edgejoule_agent.predict import predict, read_engine_record

OPERATING = {"confidence": 0.6, "nms_iou": 0.45}
BOXES = [[0.1, 0.2, 0.4, 0.5], [0.5, 0.2, 0.9, 0.8], [0.2, 0.6, 0.4, 0.9]]
SCORES = [[0.9, 0.0], [0.0, 0.7], [0.002, 0.0]]


def steadfast():
    """A graph under the engine contract that says BOXES and SCORES of every image, as a ModelProto."""
    onnx = pytest.importorskip("onnx")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    values = {"fixed_boxes": BOXES, "fixed_scores": SCORES, "nothing": 0.0}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
            helper.make_node("Add", ["fixed_scores", "zero"], ["scores"]),
            helper.make_node("Identity", ["fixed_boxes"], ["boxes"]),
        ],
        "steadfast",
        [helper.make_tensor_value_info("image", number, [1, 3, 32, 48])],
        [
            helper.make_tensor_value_info("boxes", number, [1, 3, 4]),
            helper.make_tensor_value_info("scores", number, [1, 3, 2]),
        ],
        [
            onnx.numpy_helper.from_array(np.array(value if name == "nothing" else [value], np.float32), name)
            for name, value in values.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture
def seen(tmp_path, manifest):
    """Predicts a shard with the steadfast detector; gives the record and the folder of the outputs."""
    pytest.importorskip("onnxruntime")

    def run(images, **changes):
        (tmp_path / "engine").write_bytes(steadfast().SerializeToString())
        hardware = host.hardware_class("onnxruntime")
        record = dict({"hardware": hardware, "options": {}, "model": manifest, "simulated": False}, **changes)
        outputs = {name: tmp_path / name for name in ("detections", "operating")}
        parameters = {"threads": 1, "operating": OPERATING}
        return predict(tmp_path / "engine", record, images, parameters, outputs, lambda *said: None), tmp_path

    return run


def test_predict_writes_the_detections_of_every_image_down_to_a_low_score(seen, shard):
    record, folder = seen(shard)
    with np.load(str(folder / "detections")) as found, np.load(str(folder / "operating")) as shown:
        assert found["images"].tolist() == shown["images"].tolist() == [5, 6, 7]
        assert found["image_id"].tolist() == [5, 5, 5, 6, 6, 6, 7, 7, 7]
        assert found["category_id"].tolist() == [7, 90, 7] * 3
        assert found["score"] == pytest.approx(np.array([0.9, 0.7, 0.002] * 3))
        assert shown["image_id"].tolist() == [5, 5, 6, 6, 7, 7]
        # frames of 72 x 48 in an input of 48 x 32: a pixel there is 1.5 here
        assert found["bbox"][0] == pytest.approx(np.array([7.2, 9.6, 21.6, 14.4]), abs=1e-4)
        assert [found[name].dtype for name in ("image_id", "score", "bbox")] == [np.int64, np.float32, np.float32]
    assert (record["images"], record["detections"], record["operating"]) == (3, 9, 6)
    assert record["nms"]["detections"]["score_floor"] == 0.001
    assert record["nms"]["operating"]["iou"] == OPERATING["nms_iou"]


def test_predict_refuses_an_engine_of_another_board_and_names_the_image_it_cannot_decode(seen, shard, tmp_path, tar):
    with pytest.raises(AgentError, match=r"built for .*a Cray"):
        seen(shard, hardware=dict(host.hardware_class("onnxruntime"), processor="a Cray"))
    with pytest.raises(ImageError, match=r"Image 9: .*skip_bad"):
        seen(tar(tmp_path / "bad.tar", [("000000000009.png", b"no image")]))


def with_area(model):
    """A ModelProto whose corners, all from 0 to 1, become those of boxes that have an area."""
    onnx = pytest.importorskip("onnx")
    next(node for node in model.graph.node if "boxes" in node.output).output[0] = "corners"
    for name, value in (("half", 0.5), ("far", [0.0, 0.0, 0.5, 0.5])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    model.graph.node.append(onnx.helper.make_node("Mul", ["corners", "half"], ["halves"]))
    model.graph.node.append(onnx.helper.make_node("Add", ["halves", "far"], ["boxes"]))
    return model


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_whole_batches_give_each_image_the_detections_that_it_has_alone(tmp_path, toy, manifest, shard, runtime):
    pytest.importorskip(runtime)
    manifest["nms"]["origin"]["iou"] = 0.95  # many stay
    hardware, parameters, kept = host.hardware_class(runtime), {"threads": 1, "operating": OPERATING}, []
    for batch in (1, 2):  # of three images: half of the second batch is filling
        (tmp_path / "engine").write_bytes(with_area(toy(batch=batch)).SerializeToString())
        record = {"hardware": hardware, "options": {}, "model": manifest, "simulated": False, "batch": batch}
        outputs, told = {name: tmp_path / name for name in ("detections", "operating")}, []
        found = predict(
            tmp_path / "engine", record, shard, parameters, outputs, lambda *said, told=told: told.append(said)
        )
        assert found["images"] == 3
        assert told[-1] == (3, 3, "images")
        with np.load(str(tmp_path / "detections")) as columns:
            kept.append(dict(columns))
    alone, together = kept
    counts = np.bincount(alone["image_id"])[5:]
    assert counts.min() > 0
    assert len(set(counts.tolist())) > 1  # the pictures differ
    for name in ("images", "image_id", "category_id"):
        assert together[name].tolist() == alone[name].tolist()
    assert np.allclose(together["score"], alone["score"], atol=1e-5)
    assert np.allclose(together["bbox"], alone["bbox"], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("nothing", EngineError, "is not JSON .*build it again"),
        ("[]", EngineError, "it has no hardware; build it again"),
        ('{"hardware": {}, "options": {}, "model": {}, "simulated": false}', ModelError, "manifest has"),
    ],
)
def test_engine_record_that_is_none_is_refused_in_a_sentence(tmp_path, text, error, sentence):
    (tmp_path / "record").write_text(text)
    with pytest.raises(error, match=sentence):
        read_engine_record(tmp_path / "record")


def test_equal_arrays_give_equal_bytes(tmp_path):
    for name in ("one", "other"):
        write_npz(tmp_path / name, {"score": np.arange(3, dtype=np.float32)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_engine_record_of_a_build_is_read_whole(tmp_path, manifest):
    record = {"hardware": {}, "options": {}, "model": manifest, "simulated": True, "more": 1}
    (tmp_path / "record").write_text(json.dumps(record))
    assert read_engine_record(tmp_path / "record") == record
