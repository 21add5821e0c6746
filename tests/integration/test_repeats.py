"""INT8 by two seeds, and at two batches, with the real steps, each called in this process: from pictures to results.

Nothing is timed, so there is neither a benchmark nor a race of runtimes: ONNX Runtime takes every graph as it is.
"""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from edgejoule.canonical import hash_file, hash_json
from edgejoule.devices import Device
from edgejoule.job import Job
from edgejoule.kinds import Kinds
from edgejoule.matrix import make_plan
from edgejoule.plan import Source
from edgejoule.records import EngineRecord, Results
from edgejoule.spec import as_written, check_spec
from edgejoule.yamltree import Tree
from edgejoule_agent import host
from edgejoule_agent.build import batch_of
from edgejoule_agent.contract import read_model
from edgejoule_trainer.data import generate

START = Path(__file__).parents[2] / "examples/nanodet_m_shapes.safetensors"
NOT_TIMED = {"outcome": "failed", "reason": "this test times nothing", "step": "benchmark"}


def plan_in(folder):
    value = {
        "name": "seeds",
        "models": [{"detector": "nanodet_m", "weights": str(START), "input": 96, "batch": [1, 3]}],
        "precisions": ["fp32", "int8-ptq", "int8-qat"],
        "data": {
            "sources": {
                name: {"images": f"data/{name}", "annotations": f"data/annotations/{name}.json"}
                for name in ("train", "val")
            },
            "sets": {
                "calibration": {"source": "train", "count": 4},
                "tuning": {"source": "train", "count": 4},
                "train": {"source": "train", "count": 8},
                "evaluation": {"source": "val"},
            },
            "shards": 1,
        },
        "protocol": {"preset": "quick", "trials": 1},
        "quantization": {"calibrators": ["minmax"], "threads": 1},
        "qat": {"preset": "short", "iterations": 6, "batch": 4, "learning_rate": 0.001, "threads": 1},
        "repeats": {"calibration": 2, "qat": 2},
    }
    tree = Tree(value, {(): "spec"})
    spec = check_spec(tree, folder, {})
    here = Device("host", "host-1", host.hardware(), {})
    return make_plan(spec, {"host": here}, lambda path: Source(path, hash_json(str(path))), as_written(spec, tree))


def build(job):
    """What step build makes where ONNX Runtime wins."""
    model, manifest = read_model(job.inputs["onnx"])
    engine = Path(job.inputs["onnx"]).read_bytes()
    job.output("engine").write_bytes(engine)
    precision = job.parameters["precision"]
    absent = dict.fromkeys(("int8_share", "reformat_layers"), "not looked at")
    record = EngineRecord(
        precision=precision,
        ran_as=precision,
        hardware=host.hardware_class("onnxruntime"),
        options={},
        batch=batch_of(model),
        size_bytes=len(engine),
        candidates=[],
        chosen_because="the only one",
        model=manifest,
        simulated=False,
        absent=absent,
        **dict.fromkeys(absent),
    )
    job.write_json("record", record.model_dump(mode="json"))


def carry_out(plan, folder):
    """Every step but the benchmarks; where the outputs of each are."""
    kinds, outputs = Kinds(), {}
    for number, step in enumerate(plan.steps.values()):
        if step.kind == "benchmark":
            continue
        inputs = {}
        for name, given in step.inputs.items():
            inputs[name] = given.path if isinstance(given, Source) else outputs.get(given.step, folder) / given.output
            if not inputs[name].exists():
                assert given.step.startswith("benchmark/")
                inputs[name] = folder / "not-timed"
        outputs[step.id] = folder / f"{number:02d}"
        outputs[step.id].mkdir()
        job = Job(step.parameters, inputs, outputs[step.id], outputs[step.id], lambda *_: None)
        if step.kind == "build":
            build(job)
        else:
            importlib.import_module(kinds[step.kind].module).run(job)
    return outputs


def assert_batches_agree(single, triple, outputs):
    """Of eight images by threes, the last batch filled up: one INT8 and one set of weights, and the same found."""
    assert [(row.model, row.batch) for row in triple] == [("nanodet_m-b3", 3)] * 3
    assert not [step for step in outputs if step.startswith(("export/", "ptq/", "qat/")) and "-b3" in step]
    for one, three in zip(single, triple, strict=True):
        assert (one.variant, one.status, one.hashes.weights) == (three.variant, three.status, three.hashes.weights)
        assert one.hashes.onnx != three.hashes.onnx
        assert three.repeats is None
        found = []
        for row in (one, three):
            with np.load(outputs[f"predict/{row.model}/{row.variant}/{row.device}/000"] / "detections") as columns:
                found.append(dict(columns))
        assert set(found[0]["images"].tolist()) == set(found[1]["images"].tolist())
        assert len(found[0]["score"]) > 8
        for name in ("image_id", "category_id"):
            assert np.array_equal(found[0][name], found[1][name])
        assert np.allclose(found[0]["score"], found[1]["score"], atol=1e-4)
        assert np.allclose(found[0]["bbox"], found[1]["bbox"], atol=1e-2)
        assert three.ap == pytest.approx(one.ap, abs=1e-6)


def test_int8_by_two_seeds_and_at_two_batches_is_made_scored_and_tested(tmp_path):
    generate.generate(tmp_path / "data", {"train": 32, "val": 8}, seed=3)
    (tmp_path / "not-timed").write_text(json.dumps(NOT_TIMED))
    outputs = carry_out(plan_in(tmp_path), tmp_path)

    graphs = {step: hash_file(outputs[step] / "onnx") for step in outputs if step.startswith(("ptq/", "qat/"))}
    assert set(graphs) == {f"{kind}/nanodet_m{seed}" for kind in ("ptq", "qat") for seed in ("", "/seed-43")}
    assert graphs["ptq/nanodet_m"] != graphs["ptq/nanodet_m/seed-43"]
    assert graphs["qat/nanodet_m"] != graphs["qat/nanodet_m/seed-43"]
    records = [json.loads((outputs[f"ptq/nanodet_m{seed}"] / "record").read_text()) for seed in ("", "/seed-43")]
    assert records[0]["sets"]["calibration"]["ids_sha256"] != records[1]["sets"]["calibration"]["ids_sha256"]
    assert records[0]["sets"]["tuning"] == records[1]["sets"]["tuning"]

    results = Results.model_validate_json((outputs["analyze"] / "results").read_bytes())
    single, triple = results.rows[:3], results.rows[3:]
    assert_batches_agree(single, triple, outputs)
    for row in single[1:]:
        own, again = row.repeats
        name = f"{row.model}/{row.variant}/{row.device}"
        scored = json.loads((outputs[f"score/{name}/seed-43"] / "record").read_text())["accuracy"]
        assert (own.seed, own.ap, own.ap50) == (42, row.ap, row.ap50)
        assert (again.seed, again.ap, again.ap50) == (43, scored["ap"], scored["ap50"])
    assert [(test.row.split("/")[1], test.against.split("/")[1], test.test) for test in results.seed_tests[::2]] == [
        ("int8-ptq", "fp32", "one-sample"),
        ("int8-qat", "fp32", "one-sample"),
        ("int8-qat", "int8-ptq", "paired"),
    ]
    ptq, qat = single[1:]
    gains = [ours.ap - theirs.ap for ours, theirs in zip(qat.repeats, ptq.repeats, strict=True)]
    assert results.seed_tests[4].difference == pytest.approx(sum(gains) / 2, abs=1e-12)
