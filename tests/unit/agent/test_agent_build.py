import json
import re

import numpy as np
import pytest

from edgejoule_agent import build as building
from edgejoule_agent import host
from edgejoule_agent.build import Result, build, choose, disturb, signal_to_error_db
from edgejoule_agent.candidates import Candidate, as_it_is, candidates
from edgejoule_agent.engines import load, onnxruntime_engine, open_engine, openvino_engine
from edgejoule_agent.errors import EngineError, ModelError, UnsupportedError
from edgejoule_agent.preprocess import decode, prepare
from edgejoule_agent.shards import ShardReader

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def silent(done, total, unit):
    pass


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def reference(model, image):
    with open_engine("onnxruntime", model.SerializeToString(), onnxruntime_engine.UNOPTIMIZED, 1) as engine:
        return [part.copy() for part in engine.infer(image)]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_build_takes_the_fastest_engine_that_is_right(tmp_path, toy, shard, manifest, precision):
    pytest.importorskip("openvino")
    # weights at the edge: where 16-bit sums can saturate, some candidate is wrong here and must be refused
    model = toy(quantized=precision == "int8", largest_weight=127)
    onnx_path, engine_path = save(model, tmp_path / "m.onnx"), tmp_path / "engine"
    record = json.loads(json.dumps(build(onnx_path, precision, 1, [shard], engine_path, silent)))

    assert record["ran_as"] in {"fp32": ["fp32"], "int8": ["int8+fp32", "int8w7+fp32"]}[precision]
    assert record["size_bytes"] == engine_path.stat().st_size
    assert record["model"] == manifest
    assert {candidate["runtime"].split(",")[0] for candidate in record["candidates"]} == {"onnxruntime", "openvino"}
    right = [candidate for candidate in record["candidates"] if candidate["correct"]]
    assert right
    if precision == "fp32":
        assert {candidate["runtime"] for candidate in right} == {"onnxruntime", "openvino"}
    assert all(candidate["latency_ms"] > 0 and "dB from the reference" in candidate["reason"] for candidate in right)
    assert record["chosen_because"].startswith(tuple(candidate["runtime"] for candidate in right))
    if precision == "int8":
        assert 0 < record["int8_share"] <= 1
    else:
        assert record["int8_share"] is None

    with ShardReader(shard) as reader:
        image = prepare(decode(reader.read(reader.ids[0])), manifest)[0]
    with load(engine_path, record, threads=1) as engine:
        for wanted, found in zip(reference(model, image), engine.infer(image)):
            assert wanted.shape == found.shape
            assert signal_to_error_db(wanted, found) > (35 if record["ran_as"] != "int8w7+fp32" else 20)


def test_onnxruntime_by_itself_runs_int8_in_every_release(tmp_path, toy, shard, monkeypatch):
    """Also 1.10 under Python 3.6, which leaves a convolution with a bias in float32 unless the bias is int32."""
    monkeypatch.setattr(building, "candidates", lambda precision: candidates(precision)[:1])
    record = build(save(toy(quantized=True), tmp_path / "m.onnx"), "int8", 1, [shard], tmp_path / "engine", silent)
    assert record["ran_as"] == "int8+fp32"
    assert {each["runtime"].split(",")[0] for each in record["candidates"]} == {"onnxruntime"}
    # one convolution's result goes straight to a quantizer: the others' to a ReLU and to the output
    assert record["int8_share"] == 8 * 9 * 8 * 12 / (8 * 3 * 9 * 16 * 24 + 8 * 9 * 8 * 12 + 6 * 8 * 8 * 12)


def test_build_checks_on_seeded_images_when_there_is_no_shard(tmp_path, toy):
    record = build(save(toy(), tmp_path / "m.onnx"), "fp32", 1, [], tmp_path / "engine", silent)
    assert any(candidate["correct"] for candidate in record["candidates"])


def test_build_checks_a_graph_that_takes_several_images_at_once(tmp_path, toy, shard):
    record = build(save(toy(batch=2), tmp_path / "m.onnx"), "fp32", 1, [shard], tmp_path / "engine", silent)
    assert any(candidate["correct"] for candidate in record["candidates"])
    assert record["batch"] == 2
    with load(tmp_path / "engine", record, threads=1) as engine:
        assert [part.shape for part in engine.infer(np.zeros((2, 3, 32, 48), np.float32))] == [(2, 96, 4), (2, 96, 2)]


@pytest.mark.parametrize(
    ("quantized", "precision", "match"),
    [(False, "int8", "quantize it first"), (True, "fp32", "give the float one")],
)
def test_build_refuses_a_graph_that_does_not_fit_the_precision(tmp_path, toy, quantized, precision, match):
    path = save(toy(quantized=quantized), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=match):
        build(path, precision, 1, [], tmp_path / "engine", silent)


def test_build_says_what_the_runtimes_answer_when_fp16_is_not_here(tmp_path, toy):
    pytest.importorskip("openvino")
    if "FP16" in openvino_engine.capabilities():
        pytest.skip("this processor computes in float16")
    with pytest.raises(UnsupportedError, match=r"OpenVINO reports .*FP32.*, and ONNX Runtime .*float"):
        build(save(toy(), tmp_path / "m.onnx"), "fp16", 1, [], tmp_path / "engine", silent)


def test_build_refuses_a_model_whose_outputs_are_not_numbers(tmp_path, toy):
    model = toy()
    for tensor in model.graph.initializer:
        if tensor.name == "head.bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, np.nan, np.float32), tensor.name))
    with pytest.raises(ModelError, match="hold NaN or infinity on ordinary images"):
        build(save(model, tmp_path / "m.onnx"), "fp32", 1, [], tmp_path / "engine", silent)


def test_disturbed_model_answers_otherwise_though_its_input_is_quantized(toy):
    model = toy(quantized=True)
    image = np.full((1, 3, 32, 48), 128.0, np.float32)
    clean = reference(model, image)
    # noise that comes with the image ends at the first quantizer: a whole pixel value lies inside a step
    assert np.array_equal(clean[1], reference(model, image + np.float32(1e-4))[1])
    before = model.SerializeToString()
    found = [signal_to_error_db(clean[1], reference(disturb(model, noise), image)[1]) for noise in (1e-6, 1e-3)]
    assert 20 < found[1] < found[0] < 300
    assert model.SerializeToString() == before


def result(name, correct=True, share=1.0):
    return Result(Candidate(name, name, {}, as_it_is, "int8+fp32"), "", 1, correct, f"{name} told", True, share)


def test_choose_takes_the_fastest_correct_and_names_the_others():
    results = [result("a"), result("b"), result("c", correct=False)]
    chosen, because = choose(results, {"a": 3.0, "b": 2.0, "c": 1.0}, "fp32")
    assert chosen.candidate.name == "b"
    assert because == "b takes 2.00 ms; a takes 3.00 ms; c is out: c told"


def test_choose_prefers_what_really_runs_in_int8():
    results = [result("a", share=0.02), result("b", share=0.9)]
    chosen, because = choose(results, {"a": 1.0, "b": 2.0}, "int8")
    assert chosen.candidate.name == "b"
    assert because == "b takes 2.00 ms; a takes 1.00 ms but runs 2% of its MACs in INT8"
    assert choose(results[:1], {"a": 1.0}, "int8")[0].candidate.name == "a"


def test_choose_refuses_when_nothing_is_right_or_nothing_is_int8():
    with pytest.raises(EngineError, match="no runtime gives right numbers at fp32: a: a told"):
        choose([result("a", correct=False)], {}, "fp32")
    none = result("onnxruntime", share=0.0)
    version = host.installed_version("onnxruntime")
    told = f"in INT8: onnxruntime {version} would compute its Q/DQ in float32; take fp32; on a host OpenVINO runs more"
    with pytest.raises(UnsupportedError, match=re.escape(told)):
        choose([none], {"onnxruntime": 1.0}, "int8")
    with pytest.raises(UnsupportedError, match=r"onnxruntime \S+ and openvino \S+ would compute .* take fp32$"):
        choose([none, result("openvino", share=0.0)], {"onnxruntime": 1.0, "openvino": 1.0}, "int8")


def test_load_refuses_an_engine_of_another_hardware_class_naming_both(tmp_path):
    other = dict(host.hardware_class("onnxruntime"), processor="Another CPU", runtime_version="0.1")
    with pytest.raises(EngineError, match=r"built for .* Another CPU .* with onnxruntime 0\.1, but this host is"):
        load(tmp_path / "engine", {"hardware": other, "options": {}}, threads=1)


def test_load_refuses_an_engine_of_another_l4t(tmp_path):
    other = dict(host.hardware_class("onnxruntime"), l4t="32.7.1")
    with pytest.raises(EngineError, match=r"built for .* on L4T 32\.7\.1, but this host is"):
        load(tmp_path / "engine", {"hardware": other, "options": {}}, threads=1)


def test_load_takes_null_for_what_this_host_does_not_have(tmp_path):
    (tmp_path / "engine").write_bytes(b"no model")
    same = dict(host.hardware_class("onnxruntime"), l4t=None)  # as core writes the record
    with pytest.raises(EngineError, match="does not take this model"):
        load(tmp_path / "engine", {"hardware": same, "options": {}}, threads=1)


def test_open_engine_says_in_one_line_when_the_bytes_are_no_model():
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        with pytest.raises(EngineError, match="does not take this model") as told:
            open_engine(runtime, b"no model", {}, 1)
        assert "\n" not in str(told.value)
