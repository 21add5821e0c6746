"""What the agent writes, core must read: the agent knows core's records by their shape only."""

import importlib
import json

import numpy as np
import onnx
import pytest
from toy_model import MANIFEST, write_model, write_shard

from edgejoule.job import Job
from edgejoule.protocols import PRESETS
from edgejoule.records import BenchmarkRecord, EngineRecord, PredictRecord
from edgejoule_evaluator.detections import read_detections
from edgejoule_trainer.rebatch import rebatch


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


def test_records_of_build_benchmark_and_predict_are_cores_records(tmp_path, step):
    write_model(tmp_path / "1.onnx")
    onnx.save(rebatch(onnx.load(tmp_path / "1.onnx"), 2), tmp_path / "m.onnx")
    write_shard(tmp_path / "s.tar")
    built = step(
        "build",
        {"precision": "fp32", "threads": 1, "device": "host"},
        {"onnx": tmp_path / "m.onnx", "images-000": tmp_path / "s.tar"},
    )
    engine = EngineRecord.model_validate_json((built / "record").read_text())
    assert engine.model == MANIFEST
    assert engine.batch == 2

    measured = step(
        "benchmark",
        {
            "device": "host",
            "trial": 0,
            "threads": 1,
            "seed": 0,
            "session": "s",
            "protocol": {**PRESETS["quick"].measuring(), "warmup_iterations": 2, "iterations": 5},
        },
        {"engine": built / "engine", "engine_record": built / "record", "images-000": tmp_path / "s.tar"},
    )
    record = BenchmarkRecord.model_validate_json((measured / "record").read_text())
    assert record.latency_ms.n == 5
    assert record.batch == 2
    assert not record.simulated
    with np.load(measured / "samples") as samples:
        assert samples["latency_ms"].shape == (5,)

    seen = step(
        "predict",
        {"threads": 1, "operating": {"confidence": 0.25, "nms_iou": 0.45}},
        {"engine": built / "engine", "engine_record": built / "record", "images-000": tmp_path / "s.tar"},
    )
    told = PredictRecord.model_validate_json((seen / "record").read_text())
    assert told.nms["operating"].score_floor == 0.25
    assert len(read_detections(seen / "detections")) == told.detections


def test_manifests_that_core_writes_are_read_by_the_agent():
    contract = importlib.import_module("edgejoule_agent.contract")
    contract.check_manifest(json.loads(MANIFEST.model_dump_json()), "m.onnx")
