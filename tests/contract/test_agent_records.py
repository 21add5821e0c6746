"""What the agent writes, core must read: the agent knows core's records by their shape only."""

import importlib
import io
import json
import tarfile

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper

from edgejoule.job import Job
from edgejoule.records import BenchmarkRecord, EngineRecord, ModelManifest

NMS = {"score_floor": 0.05, "top_k": 100, "iou": 0.5, "class_wise": True, "limit": 100}
MANIFEST = ModelManifest.model_validate(
    {
        "detector": "toy",
        "labels": [{"id": 1, "name": "person"}],
        "input": {"height": 32, "width": 32},
        "resize": {"policy": "stretch", "interpolation": "bilinear", "alignment": "half_pixel", "fill_rgb": (0, 0, 0)},
        "clip": "before_nms",
        "nms": {"origin": NMS, "common": NMS},
        "params_m": 0.0,
        "gmacs": 0.0,
    }
)


def write_model(path):
    """One convolution to 64 boxes with one class each, under the engine contract."""
    weight = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32) / 1000
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["cells"], name="conv", strides=[4, 4]),
        helper.make_node("Reshape", ["cells", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Sigmoid", ["columns"], ["fractions"]),
        helper.make_node("Split", ["fractions", "parts"], ["boxes", "scores"], axis=2),
    ]
    constants = {"weight": weight, "shape": np.array([1, 5, 64]), "parts": np.array([4, 1])}
    shapes = {"image": [1, 3, 32, 32], "boxes": [1, 64, 4], "scores": [1, 64, 1]}
    tensors = {name: helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "toy",
        [tensors["image"]],
        [tensors["boxes"], tensors["scores"]],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.metadata_props.add(key="edgejoule", value=MANIFEST.model_dump_json())
    path.write_bytes(model.SerializeToString())


def write_shard(path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    content = cv2.imencode(".png", picture)[1].tobytes()
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("000000000001.png")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def step(tmp_path):
    """Runs a step kind of the agent as the worker does and returns its output folder."""

    def run(kind, parameters, inputs):
        folder, scratch = tmp_path / kind, tmp_path / f"{kind}-scratch"
        folder.mkdir()
        scratch.mkdir()
        module = importlib.import_module(f"edgejoule_agent.steps.{kind}")
        module.run(Job(parameters, inputs, folder, scratch, lambda done, total, unit: None))
        assert sorted(path.name for path in folder.iterdir()) == sorted(module.OUTPUTS)
        return folder

    return run


def test_records_of_build_and_benchmark_are_cores_records(tmp_path, step):
    write_model(tmp_path / "m.onnx")
    write_shard(tmp_path / "s.tar")
    built = step(
        "build",
        {"precision": "fp32", "threads": 1, "device": "host"},
        {"onnx": tmp_path / "m.onnx", "images-000": tmp_path / "s.tar"},
    )
    engine = EngineRecord.model_validate_json((built / "record").read_text())
    assert engine.model == MANIFEST

    measured = step(
        "benchmark",
        {
            "device": "host",
            "trial": 0,
            "threads": 1,
            "seed": 0,
            "session": "s",
            "protocol": {"name": "quick", "warmup_iterations": 2, "iterations": 5},
        },
        {"engine": built / "engine", "engine_record": built / "record", "images-000": tmp_path / "s.tar"},
    )
    record = BenchmarkRecord.model_validate_json((measured / "record").read_text())
    assert record.latency_ms.n == 5
    assert not record.simulated
    with np.load(measured / "samples") as samples:
        assert samples["latency_ms"].shape == (5,)


def test_manifests_that_core_writes_are_read_by_the_agent():
    contract = importlib.import_module("edgejoule_agent.contract")
    contract.check_manifest(json.loads(MANIFEST.model_dump_json()), "m.onnx")
