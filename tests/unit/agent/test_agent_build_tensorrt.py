"""``build`` on a device with TensorRT: the whole way in real child processes, on the double."""

import copy
import functools
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import played_tensorrt
import pytest

from edgejoule_agent import build_tensorrt, engines, host, jetson, limits
from edgejoule_agent.build import build
from edgejoule_agent.build_tensorrt import Allowance
from edgejoule_agent.engines import Deferred, load, onnxruntime_engine, open_engine
from edgejoule_agent.engines.tensorrt_engine import builder
from edgejoule_agent.errors import EngineError, HostError, OutOfMemoryError, TimeLimitError, UnsupportedError
from edgejoule_agent.isolate import run
from edgejoule_agent.simulation import trees
from edgejoule_agent.step_process import Job
from edgejoule_agent.steps import build as build_step

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def silent(done, total, unit):
    pass


@pytest.fixture
def device_with(monkeypatch, tmp_path, cudart):
    """A function that makes this process and its children a device with TensorRT of a release."""
    site = str(played_tensorrt.write(tmp_path / "site").parent)
    agent = str(pathlib.Path(build_tensorrt.__file__).resolve().parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([site, agent, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(cudart.parent))
    monkeypatch.setenv("EDGEJOULE_AGENT_STATE", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    def install(release, sm="87", **world):
        monkeypatch.setenv("TENSORRT_DOUBLE", json.dumps(dict(world, release=release)))
        monkeypatch.setenv("CUDART_DOUBLE_SM", sm)

    return install


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def no_reference(monkeypatch):
    """Such a board has no ONNX Runtime; and it is quicker."""

    def not_here(model, noise, folder, progress):
        raise UnsupportedError("onnxruntime is not installed")

    monkeypatch.setattr(build_tensorrt.checks, "reference", not_here)


def run_build(tmp_path, toy, precision, shards=()):
    onnx_path = save(toy(quantized=precision == "int8"), tmp_path / "m.onnx")
    return json.loads(json.dumps(build(onnx_path, precision, 1, list(shards), tmp_path / "engine", silent)))


def test_a_host_without_tensorrt_takes_the_hosts_way(tmp_path, toy):
    assert run_build(tmp_path, toy, "fp32")["hardware"]["runtime"] in host.RUNTIMES


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_jetson_without_the_module_does_not_build_for_its_processor(tmp_path, toy, monkeypatch, precision):
    root = trees.write("nano_jp4", tmp_path / "board")
    monkeypatch.setattr(jetson, "is_jetson", functools.partial(jetson.is_jetson, root))
    with pytest.raises(UnsupportedError, match="a Jetson whose Python has no module tensorrt"):
        run_build(tmp_path, toy, precision)
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize(
    ("release", "precision", "name", "ran_as"),
    [
        ("8.2", "fp16", "tensorrt, precisions by flag", "fp16"),
        ("8.5", "int8", "tensorrt, precisions by flag, rest in float16", "int8+fp16"),
        ("11.1", "int8", "tensorrt, types of the graph, rest in float32", "int8+fp32"),
    ],
)
def test_build_takes_tensorrt_where_it_is(
    tmp_path, toy, shard, manifest, device_with, release, precision, name, ran_as
):
    device_with(release)
    record = run_build(tmp_path, toy, precision, [shard])
    assert record["hardware"] == host.hardware_class("tensorrt")
    assert record["size_bytes"] == (tmp_path / "engine").stat().st_size
    assert record["model"] == manifest
    assert record["ran_as"] == ran_as
    assert record["int8_share"] == (1.0 if precision == "int8" else None)
    assert sum(record["compute_shares"].values()) == 1
    assert {kind for kind, share in record["compute_shares"].items() if share} <= set(ran_as.split("+"))
    assert (record["compute_shares"].get("int8") or None) == record["int8_share"]
    assert (record["reformat_layers"] > 0) == ("fp16" in ran_as)
    assert record["absent"] == ({} if precision == "int8" else {"int8_share": f"precision {precision} has no INT8"})
    assert record["options"]["decode"] == "float32"
    assert record["options"]["avg_timing_iterations"] == "1000"
    (candidate,) = record["candidates"]
    assert (candidate["runtime"], candidate["correct"]) == (name, True)
    assert "dB from the reference" in candidate["reason"]
    assert candidate["latency_ms"] > 0
    assert "is this device's runtime" in record["chosen_because"]
    assert os.listdir(str(tmp_path / "state" / "tensorrt-timing"))

    call = {"engine": str(tmp_path / "engine"), "record": record}
    assert run("toy_tensorrt:answers_as_onnxruntime", dict(call, onnx=str(tmp_path / "m.onnx")), silent, 10**10, 60)


@pytest.fixture(autouse=True)
def helpers_of_children(monkeypatch):
    """``toy_tensorrt`` can be imported in children."""
    folder = str(pathlib.Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))


def test_an_engine_is_refused_elsewhere_by_name_of_both(tmp_path, toy, device_with, no_reference):
    device_with("8.2")
    record = run_build(tmp_path, toy, "fp32")
    other = copy.deepcopy(record)
    other["hardware"].update(processor="NVIDIA Jetson Nano (SM 5.3)", runtime_version="8.0.1")
    with pytest.raises(EngineError, match=r"built for .*Jetson Nano \(SM 5\.3\).*8\.0\.1, but this host is .*tensorrt"):
        load(tmp_path / "engine", other, 1)


def test_an_engine_is_refused_beside_another_gpu_of_a_host_by_name_of_both(
    tmp_path, toy, device_with, no_reference, monkeypatch
):
    device_with("10.3")
    monkeypatch.setattr(host, "_gpu", lambda root: "NVIDIA L4")
    record = run_build(tmp_path, toy, "fp32")
    assert record["hardware"]["gpu"] == "NVIDIA L4"
    monkeypatch.setattr(host, "_gpu", lambda root: "NVIDIA H100 80GB HBM3")
    with pytest.raises(EngineError, match=r"built for .* on NVIDIA L4, but this host is .* on NVIDIA H100 80GB HBM3;"):
        load(tmp_path / "engine", record, 1)


def test_int8_without_hardware_for_it_is_unsupported_and_says_what_runs(tmp_path, toy, device_with):
    device_with("8.2", sm="53", fast_int8=False)
    with pytest.raises(
        UnsupportedError, match=r"int8 does not run here: this GPU \(SM 5\.3\) .*TensorRT 8\.2.* at fp16"
    ):
        run_build(tmp_path, toy, "int8")


def test_when_flags_do_not_hold_decoding_a_typed_graph_is_taken_where_the_release_can(tmp_path, toy, device_with):
    device_with("10.3", ignores_constraints=True)
    record = run_build(tmp_path, toy, "fp16")
    flags, typed = record["candidates"]
    assert (flags["correct"], flags["latency_ms"]) == (False, None)
    assert flags["reason"].startswith("decoding is not in float32 though it was asked for, in ")
    assert typed["runtime"] == "tensorrt, types of the graph"
    assert typed["correct"]
    assert "precisions by flag is out: decoding is not in float32" in record["chosen_because"]


def test_when_flags_do_not_hold_decoding_an_old_release_gives_no_engine(tmp_path, toy, device_with, no_reference):
    device_with("8.2", ignores_constraints=True)
    with pytest.raises(EngineError, match=r"decoding is not in float32 .*take fp32 with this release"):
        run_build(tmp_path, toy, "fp16")
    assert not (tmp_path / "engine").exists()


def test_the_workspace_is_stepped_down_when_memory_is_short(tmp_path, toy, device_with, no_reference):
    device_with("8.4", memory_bytes=300_000_000)
    assert run_build(tmp_path, toy, "fp32")["options"]["workspace_mb"] == "250"


@pytest.mark.parametrize(("parameters", "built_with"), [({"workspace_mb": 300}, "300"), ({}, "1000")])
def test_the_protocols_workspace_is_the_builders(tmp_path, toy, device_with, no_reference, parameters, built_with):
    device_with("8.5")
    for folder in ("outputs", "scratch"):
        (tmp_path / folder).mkdir()
    request = {
        "parameters": dict(parameters, precision="fp32", threads=1),
        "inputs": {"onnx": str(save(toy(), tmp_path / "m.onnx"))},
        "outputs": str(tmp_path / "outputs"),
        "scratch": str(tmp_path / "scratch"),
    }
    build_step.run(Job(request, silent))
    assert json.loads((tmp_path / "outputs" / "record").read_text())["options"]["workspace_mb"] == built_with


@pytest.mark.parametrize("release", [None, "8.5"])
def test_a_build_leaves_tmp_alone_which_is_small_on_a_board(tmp_path, toy, request, monkeypatch, release):
    if release:
        request.getfixturevalue("device_with")(release)
    for folder in ("outputs", "scratch", "tmp"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    asked = {
        "parameters": {"precision": "fp32", "threads": 1},
        "inputs": {"onnx": str(save(toy(), tmp_path / "m.onnx"))},
        "outputs": str(tmp_path / "outputs"),
        "scratch": str(tmp_path / "scratch"),
    }
    # a folder's time is that of the last file that came or went
    untouched, before = [(tmp_path / name).stat().st_mtime_ns for name in ("tmp", "scratch")]
    build_step.run(Job(asked, silent))
    assert (tmp_path / "tmp").stat().st_mtime_ns == untouched
    assert (tmp_path / "scratch").stat().st_mtime_ns > before
    assert not list((tmp_path / "scratch").glob("tmp*"))
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(tmp_path / "tmp")


def test_a_build_that_the_kernel_ends_is_out_of_memory(tmp_path, toy, device_with, no_reference):
    device_with("10.16", killed=True)
    with pytest.raises(OutOfMemoryError, match="signal 9"):
        run_build(tmp_path, toy, "fp32")


def test_a_full_disk_is_not_taken_for_a_way_that_fails(tmp_path, toy, device_with, no_reference, monkeypatch):
    def full(*_):
        raise HostError("full")

    device_with("8.5")
    monkeypatch.setattr(build_tensorrt, "build_within_limits", full)
    with pytest.raises(HostError, match=r"^full$"):
        run_build(tmp_path, toy, "int8")


def test_a_board_without_the_reference_says_that_nobody_checked(tmp_path, toy, device_with, no_reference):
    device_with("8.6")
    record = run_build(tmp_path, toy, "fp32")
    assert record["candidates"][0]["correct"] is None
    assert record["candidates"][0]["reason"] == (
        "unchecked: the reference does not run here (onnxruntime is not installed)"
    )
    assert "unchecked" in record["chosen_because"]


@pytest.mark.parametrize("error", [EngineError, TimeLimitError])
def test_a_reference_that_crashes_or_is_slow_leaves_an_engine_that_nobody_checked(
    tmp_path, toy, device_with, monkeypatch, error
):
    def fails(model, noise, folder, progress):
        raise error("the reference crashed with SIGILL")

    device_with("8.6")
    monkeypatch.setattr(build_tensorrt.checks, "reference", fails)
    (candidate,) = run_build(tmp_path, toy, "fp32")["candidates"]
    assert candidate["correct"] is None
    assert candidate["reason"] == "unchecked: the reference does not run here (the reference crashed with SIGILL)"


def test_a_fault_in_timing_an_engine_does_not_throw_it_away(tmp_path, toy, device_with, no_reference, monkeypatch):
    def fails(*_):
        raise TimeLimitError("the race took too long")

    device_with("8.6")
    monkeypatch.setattr(build_tensorrt.checks, "race", fails)
    record = run_build(tmp_path, toy, "fp32")
    assert record["candidates"][0]["latency_ms"] is None
    assert "tensorrt was not timed (the race took too long)" in record["chosen_because"]


# --- limits --------------------------------------------------------------------------------------


class Builds:
    """Stands for ``isolate.run``: fails as told and keeps what was asked."""

    def __init__(self, *errors):
        self.errors, self.asked, self.limits_s = list(errors), [], []

    def __call__(self, task, request, progress, memory_limit_bytes, time_limit_s, waiting, floor_bytes):
        waiting(1.0)
        assert floor_bytes == pytest.approx(memory_limit_bytes / 9, abs=1)
        self.limits_s.append(time_limit_s)
        self.asked.append((request["workspace_bytes"] // 10**6, request["averaging_iterations"]))
        error = self.errors.pop(0)
        if error is not None:
            raise error("short")
        return {"options": {}, "warnings": []}


@pytest.fixture
def request_of_a_build(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\0" * 1000)
    return {"onnx": str(tmp_path / "m.onnx")}


def test_memory_and_time_are_stepped_down_each_for_itself(request_of_a_build):
    builds = Builds(OutOfMemoryError, TimeLimitError, OutOfMemoryError, None)
    told = []
    build_tensorrt.build_within_limits(
        request_of_a_build, 10**10, Allowance(), lambda *progress: told.append(progress), builds
    )
    assert builds.asked == [(1000, 1000), (500, 1000), (500, 8), (250, 8)]
    assert told[0] == (1.0, 10800.0, "s of the time that TensorRT may take")


def test_the_last_step_down_is_the_end(request_of_a_build):
    builds = Builds(*[OutOfMemoryError] * 5)
    with pytest.raises(OutOfMemoryError):
        build_tensorrt.build_within_limits(request_of_a_build, 10**10, Allowance(), silent, builds)
    assert [size for size, _ in builds.asked] == [1000, 500, 250, 125, 62]
    builds = Builds(TimeLimitError, TimeLimitError)
    with pytest.raises(EngineError, match="short, with few averaging iterations too; take a smaller model"):
        build_tensorrt.build_within_limits(request_of_a_build, 10**10, Allowance(), silent, builds)


def test_what_was_too_much_in_one_way_is_not_asked_for_in_the_next(request_of_a_build):
    builds, allowance = Builds(OutOfMemoryError, TimeLimitError, None, None, TimeLimitError), Allowance()
    for _ in range(2):
        build_tensorrt.build_within_limits(request_of_a_build, 10**10, allowance, silent, builds)
    with pytest.raises(EngineError):
        build_tensorrt.build_within_limits(request_of_a_build, 10**10, allowance, silent, builds)
    assert builds.asked == [(1000, 1000), (500, 1000), (500, 8), (500, 8), (500, 8)]


def test_builds_of_all_ways_end_before_the_steps_limit_and_say_so(request_of_a_build):
    builds = Builds(TimeLimitError, None)
    build_tensorrt.build_within_limits(request_of_a_build, 10**10, Allowance(limit_s=2.5 * 3600), silent, builds)
    assert builds.limits_s == [pytest.approx(2.5 * 3600, abs=60), pytest.approx(2 * 3600)]
    with pytest.raises(EngineError, match="TensorRT built no engine in 0 h; take a smaller model"):
        build_tensorrt.build_within_limits(request_of_a_build, 10**10, Allowance(limit_s=0.0), silent, builds)
    limit_s = build_tensorrt.BUILD_LIMIT_S
    assert sum(limit_s.values()) + limit_s[builder.FEWER_ITERATIONS] <= build_tensorrt.ALL_BUILDS_LIMIT_S
    children = [build_tensorrt.ASK_LIMIT_S, *[build_tensorrt.checks.TIME_LIMIT_S] * 5]  # two references, two ways, race
    assert build_tensorrt.ALL_BUILDS_LIMIT_S + sum(children) <= build_step.TIME_LIMIT_S


def test_a_workspace_below_the_least_is_tried_as_it_is(request_of_a_build):
    builds = Builds(OutOfMemoryError)
    with pytest.raises(OutOfMemoryError):
        build_tensorrt.build_within_limits(request_of_a_build, 10**10, Allowance(20 * 10**6), silent, builds)
    assert builds.asked == [(20, 1000)]
    with pytest.raises(OutOfMemoryError, match="and a workspace of 20 MB or more, but 160 MB may be used"):
        build_tensorrt.build_within_limits(request_of_a_build, 160_000_000, Allowance(20 * 10**6), silent, builds)


def test_a_build_that_cannot_fit_is_refused_before_it_starts(request_of_a_build):
    builds = Builds()
    with pytest.raises(
        OutOfMemoryError,
        match=r"building takes at least 150 MB \(by ONNX Runtime's use; TensorRT's was not measured\), "
        r"and a workspace of 62 MB or more, but 200 MB .* swap is not counted",
    ):
        build_tensorrt.build_within_limits(request_of_a_build, 200_000_000, Allowance(), silent, builds)
    builds = Builds(None)
    build_tensorrt.build_within_limits(request_of_a_build, 450_000_000, Allowance(), silent, builds)
    assert builds.asked == [(250, builder.AVERAGING_ITERATIONS)]
    assert limits.estimate_bytes(request_of_a_build["onnx"]) == 150_004_000


def test_a_deferred_engine_is_opened_by_its_first_inference_and_tells_its_memory(toy, monkeypatch):
    content, opened, held = toy().SerializeToString(), [], iter([10**8, 10**8 + 4096])
    monkeypatch.setattr(engines, "resident_memory_bytes", lambda: next(held))

    def opener():
        opened.append(1)
        return open_engine("onnxruntime", content, onnxruntime_engine.UNOPTIMIZED, 1)

    with Deferred(opener) as engine:
        assert not engine.is_open
        assert engine.host_memory_bytes == 0
        boxes, _ = engine.infer(np.zeros((1, 3, 32, 48), np.float32))
        engine.infer(np.zeros((1, 3, 32, 48), np.float32))
        assert boxes.shape == (1, 96, 4)
        assert engine.is_open
        assert len(opened) == 1
        assert engine.host_memory_bytes == 4096
    assert not engine.is_open
    assert engine.host_memory_bytes == 0
