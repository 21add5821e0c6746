"""TensorRT under ten releases, by a double with each release's names (``tensorrt_double.py``)."""

import ctypes
import functools
import json
import time

import numpy as np
import pytest

from edgejoule_agent import candidates, host, measure, watch
from edgejoule_agent.engines import Deferred, onnxruntime_engine, open_engine
from edgejoule_agent.engines.tensorrt_engine import builder, cuda, graph, inspector, releases, runner
from edgejoule_agent.errors import EngineError, OutOfMemoryError, UnsupportedError
from edgejoule_agent.macs import macs_by_node
from edgejoule_agent.simulation import trees

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RELEASES = ["8.2", "8.4", "8.5", "8.6", "10.0", "10.3", "10.7", "10.13", "10.16", "11.1"]
each_release = pytest.mark.parametrize("release", RELEASES)


def silent(done, total, unit):
    pass


def an_image(seed=5):
    return np.random.RandomState(seed).randint(0, 256, (1, 3, 32, 48)).astype(np.float32)


def request_for(model, folder, way, **other):
    """What ``builder.build_engine`` is asked for; ``model`` is a ModelProto with named nodes."""
    onnx_path = folder / "model.onnx"
    onnx_path.write_bytes(model.SerializeToString())
    request = {
        "onnx": str(onnx_path),
        "engine": str(folder / "engine"),
        "layers": str(folder / "layers.json"),
        "precision": way.precision,
        "typed": way.typed,
        "half": way.half,
        "workspace_bytes": builder.WORKSPACE_BYTES,
        "averaging_iterations": builder.AVERAGING_ITERATIONS,
        "timing_cache": str(folder / "timing"),
        "nodes": [node.name for node in model.graph.node],
        "decode": graph.decode_nodes(model),
    }
    return dict(request, **other)


def prepared(toy, way):
    named = graph.name_nodes(toy(quantized=way.precision == "int8"))
    return graph.typed_float16(named) if way.typed and way.precision == "fp16" else named


def inspected(model, folder):
    layers = inspector.read_layers((folder / "layers.json").read_text(), [node.name for node in model.graph.node])
    return inspector.inspect(layers, macs_by_node(model), graph.decode_nodes(model))


# --- the table of releases -----------------------------------------------------------------------


@each_release
def test_each_row_of_the_table_is_what_the_releases_names_allow(double, release):
    row = releases.release_of(double.VERSIONS[release])
    names = {owner: double.members(release, owner) for owner in double.TABLE["api"]}
    flags = names["NetworkDefinitionCreationFlag"]
    assert set(row.network) <= set(flags)
    assert row.can_be_typed == ("STRONGLY_TYPED" in flags)
    for flag in ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"):
        assert row.weakly_typed == (flag in names["BuilderFlag"])
    for member in ("precision", "set_output_type"):
        assert row.weakly_typed == (member in names["ILayer"])
    assert row.workspace in names["IBuilderConfig"]
    assert (row.workspace == "set_memory_pool_limit") == ("WORKSPACE" in names["MemoryPoolType"])
    assert row.min_timing_iterations == ("min_timing_iterations" in names["IBuilderConfig"])
    assert row.tells_fast_precisions == ("platform_has_fast_int8" in names["Builder"])
    assert row.context_memory in names["ICudaEngine"]
    assert (row.context_memory == "device_memory_size_v2") == ("device_memory_size_v2" in names["ICudaEngine"])
    assert (row.input_output == "tensors") == ("execute_async_v3" in names["IExecutionContext"])
    for member in ("avg_timing_iterations", "profiling_verbosity", "create_timing_cache", "set_timing_cache"):
        assert member in names["IBuilderConfig"]


@pytest.mark.parametrize(
    ("version", "since"), [("8.3.0", (8, 2)), ("8.6.1.6", (8, 5)), ("12.0", (11, 0)), ("10.2", (10, 0))]
)
def test_a_version_between_two_rows_is_the_earlier_ones(version, since):
    assert releases.release_of(version).since == since


def test_a_release_older_than_the_table_is_refused():
    with pytest.raises(UnsupportedError, match=r"TensorRT 7\.1\.3\.0 is older than 8\.2"):
        releases.release_of("7.1.3.0")


def test_without_tensorrt_the_message_says_where_it_comes_from():
    with pytest.raises(UnsupportedError, match=r"tensorrt cannot be imported.*python3-libnvinfer"):
        releases.load()


# --- the double fails as TensorRT would ----------------------------------------------------------


def test_the_double_lacks_what_a_release_lacks(here_is):
    old, new = here_is("8.2"), here_is("11.1")
    assert not hasattr(old, "MemoryPoolType")
    assert not hasattr(new.BuilderFlag, "FP16")
    assert not hasattr(new.Builder, "platform_has_fast_int8")
    config = here_is("10.0").IBuilderConfig()
    with pytest.raises(AttributeError, match="no attribute 'max_workspace_size'"):
        config.max_workspace_size = 1
    with pytest.raises(AttributeError):
        new.ILayer().precision = new.DataType.FLOAT
    with pytest.raises(AttributeError):
        new.IExecutionContext().execute_async_v2(bindings=[], stream_handle=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda context: context.execute_async_v3(),
        lambda context: context.execute_async_v3(1, 2),
        lambda context: context.execute_async_v3(stream=1),
        lambda context: context.execute_async_v3(stream_handle="1"),
        lambda context: context.set_tensor_address("image"),
        lambda context: context.set_tensor_address(name="image", address=3),
    ],
)
def test_the_double_takes_no_other_arguments_than_the_release(here_is, call):
    with pytest.raises(TypeError):
        call(here_is("10.3").IExecutionContext())


@pytest.mark.parametrize(
    ("actual", "believed"),
    [("8.2", "8.4"), ("8.4", "8.5"), ("8.6", "10.0"), ("10.0", "8.6"), ("11.1", "10.16"), ("10.0", "10.3")],
)
def test_taken_for_another_release_the_same_code_fails(monkeypatch, here_is, toy, tmp_path, actual, believed):
    module = here_is(actual)
    wrong = releases.release_of(believed)
    monkeypatch.setattr(releases, "load", lambda: (module, wrong))
    way = builder.ways(wrong, "fp16", ["fp16"])[0]

    def build_and_run():
        builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
        with open_engine("tensorrt", (tmp_path / "engine").read_bytes(), {}, 1) as engine:
            engine.infer(an_image())

    with pytest.raises((AttributeError, TypeError, EngineError)):
        build_and_run()


# --- build, inspect, run -------------------------------------------------------------------------


@each_release
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_inspected_and_run(here_is, toy, tmp_path, release, precision):
    here_is(release)
    row = releases.load()[1]
    wanted = None
    for number, way in enumerate(builder.ways(row, precision, ["fp16", "int8"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = prepared(toy, way)
        built = builder.build_engine(request_for(model, folder, way), silent)
        found = inspected(model, folder)

        flags = set(built["options"]["builder_flags"].split())
        assert ("FP16" in flags, "INT8" in flags) == (
            (way.half and not way.typed),
            (precision == "int8" and not way.typed),
        )
        assert ("OBEY_PRECISION_CONSTRAINTS" in flags) == bool(flags)
        assert found.shares is not None, found.shares_absent
        assert found.shares[precision] == 1.0
        assert (
            found.precisions
            == {
                "fp32": ("fp32",),
                "fp16": ("fp16",) if not way.typed else ("fp16", "fp32"),  # the typed graph normalizes in float32
                "int8": ("int8", "fp16") if way.half else ("int8", "fp32"),
            }[precision]
        )
        assert found.decode_wrong == ()
        assert found.decode_unknown == ()
        assert (found.reformat_layers > 0) == way.half

        wanted = reference(toy(quantized=precision == "int8"))
        with open_engine("tensorrt", (folder / "engine").read_bytes(), built["options"], 1) as engine:
            for seed in (5, 6):
                for expected, got in zip(wanted(seed), engine.infer(an_image(seed))):
                    assert np.allclose(expected, got, atol=2e-3 if way.typed and precision == "fp16" else 1e-6)
            assert engine.execution_ms > 0
    assert wanted is not None


def reference(model):
    """ONNX Runtime's own outputs for an image of a seed."""
    opened = open_engine("onnxruntime", model.SerializeToString(), onnxruntime_engine.UNOPTIMIZED, 1)
    return lambda seed: [part.copy() for part in opened.infer(an_image(seed))]


@each_release
def test_workspace_and_iterations_are_the_papers(here_is, toy, tmp_path, release):
    here_is(release)
    row = releases.load()[1]
    way = builder.ways(row, "fp32", [])[0]
    built = builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    header = (tmp_path / "engine").read_bytes().split(b"\n", 2)[2]
    told = json.loads(header[: header.index(b"}]}") + 3].decode())
    assert told["workspace"] == 10**9
    assert told["avg_timing_iterations"] == 1000
    assert told["min_timing_iterations"] == (1 if row.min_timing_iterations else None)
    assert "TF32" not in told["flags"]
    assert built["options"]["workspace_mb"] == "1000"


@each_release
def test_a_timing_cache_is_kept_and_one_of_other_hardware_is_left(here_is, toy, tmp_path, release):
    here_is(release)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    request = request_for(prepared(toy, way), tmp_path, way)
    uses = [builder.build_engine(request, silent)["options"]["timing_cache"] for _ in range(2)]
    assert uses == ["new", "used"]
    assert (tmp_path / "timing").read_bytes() == b"one|entry;entry;"
    here_is(release, cache_hardware="another")
    assert builder.build_engine(request, silent)["options"]["timing_cache"] == "new"
    assert (tmp_path / "timing").read_bytes() == b"another|entry;"
    assert builder.build_engine(dict(request, timing_cache=""), silent)["options"]["timing_cache"] == "none"


@pytest.mark.parametrize("release", ["8.2", "8.6", "10.16"])
def test_decoding_that_is_not_in_float32_is_seen_though_it_was_asked_for(here_is, toy, tmp_path, release):
    here_is(release, ignores_constraints=True)
    way = builder.ways(releases.load()[1], "fp16", ["fp16"])[0]
    model = prepared(toy, way)
    built = builder.build_engine(request_for(model, tmp_path, way), silent)
    assert "requested constraints" in built["warnings"][0]
    assert inspected(model, tmp_path).decode_wrong


def test_a_layer_that_one_node_made_several_of_is_held_but_not_one_of_a_like_name(here_is, toy, tmp_path):
    nodes = {"/Mul", "/Mul_1", "Conv/head"}
    assert builder._onnx_node("/Mul_1", nodes) == "/Mul_1"
    assert builder._onnx_node("/Mul_7", nodes) == "/Mul"
    assert builder._onnx_node("(Unnamed Layer* 3) [Constant]", nodes) not in nodes


# --- what goes wrong -----------------------------------------------------------------------------


@each_release
def test_int8_is_refused_before_the_build_where_the_gpu_has_none(here_is, monkeypatch, release):
    here_is(release, fast_int8=False)
    monkeypatch.setenv("CUDART_DOUBLE_SM", "53")
    found = builder.capabilities({}, silent)
    assert found["sm"] == [5, 3]
    assert found["fast"] == ["fp16"]
    builder.check_precision("fp32", found)
    builder.check_precision("fp16", found)
    with pytest.raises(UnsupportedError, match=r"int8 does not run here: this GPU \(SM 5\.3\).* run at fp16"):
        builder.check_precision("int8", found)


@each_release
def test_an_orin_has_both(here_is, monkeypatch, release):
    here_is(release)
    monkeypatch.setenv("CUDART_DOUBLE_SM", "87")
    assert builder.capabilities({}, silent)["fast"] == ["fp16", "int8"]


@pytest.mark.parametrize("release", ["8.2", "8.5", "10.0"])
def test_a_quantized_network_on_hardware_without_int8_is_unsupported(here_is, toy, tmp_path, release):
    here_is(release, fast_int8=False)
    way = builder.ways(releases.load()[1], "int8", ["fp16"])[0]
    with pytest.raises(UnsupportedError, match=r"Error Code 9.*require hardware with Int8 support"):
        builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)


@each_release
def test_memory_that_is_short_is_told_as_such(here_is, toy, tmp_path, release):
    here_is(release, memory_bytes=300_000_000)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    request = request_for(prepared(toy, way), tmp_path, way)
    with pytest.raises(OutOfMemoryError, match="Error Code 2: OutOfMemory"):
        builder.build_engine(request, silent)
    assert not (tmp_path / "engine").exists()
    assert builder.build_engine(dict(request, workspace_bytes=250_000_000), silent)["options"]["workspace_mb"] == "250"


@each_release
def test_an_operator_that_a_release_lacks_is_unsupported(here_is, toy, tmp_path, release):
    here_is(release)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    model = prepared(toy, way)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Det"
    with pytest.raises(UnsupportedError, match=r"does not take this graph .*No importer registered for op: Det"):
        builder.build_engine(request_for(model, tmp_path, way), silent)


def test_a_graph_of_a_later_opset_than_the_release_reads_is_a_failure(here_is, toy, tmp_path):
    here_is("8.2")
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    model = prepared(toy, way)
    model.opset_import[0].version = 14
    with pytest.raises(EngineError, match=r"TensorRT 8\.2\.1\.8 does not take this graph .*opset 14"):
        builder.build_engine(request_for(model, tmp_path, way), silent)


@each_release
def test_no_gpu_is_told_by_what_tensorrt_says(here_is, release):
    here_is(release, no_gpu=True)
    if releases.load()[1].tells_fast_precisions:
        with pytest.raises(EngineError, match=r"does not start here .*CUDA initialization failure"):
            builder.capabilities({}, silent)
    with pytest.raises(EngineError, match="does not start here"):
        open_engine("tensorrt", b"", {}, 1)


@each_release
def test_an_engine_of_another_release_is_refused_by_tensorrt_too(here_is, toy, tmp_path, release):
    here_is(release)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    here_is("8.5" if release != "8.5" else "8.6")
    with pytest.raises(
        EngineError, match=r"does not load this engine; build it on this device: .*Version tag does not match"
    ):
        open_engine("tensorrt", (tmp_path / "engine").read_bytes(), {}, 1)


# --- running -------------------------------------------------------------------------------------


@pytest.fixture
def engine(here_is, toy, tmp_path, release):
    here_is(release)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    with open_engine("tensorrt", (tmp_path / "engine").read_bytes(), {}, 1) as opened:
        yield opened


@pytest.mark.parametrize("release", ["8.2", "8.5", "10.0", "10.3", "11.1"])
def test_an_engine_tells_what_memory_it_takes_and_gives_it_back(engine, cudart, release):
    count = ctypes.CDLL(str(cudart)).stand_in_alive
    image, boxes, scores = 4 * 3 * 32 * 48, 4 * 96 * 4, 4 * 96 * 2
    assert engine.memory.taken_bytes == image + boxes + scores
    assert engine.memory.context_bytes == 4096
    alive = count()
    told = []
    found = engine.throughput(an_image(), streams=3, window_s=0.05, tell=told.append)
    assert found.streams == 3
    assert found.inferences == len(told) >= 3
    assert told[-2] < 0.05 <= told[-1] <= found.wall_s
    assert found.images_per_s == pytest.approx(found.inferences / found.wall_s)
    assert engine.throughput(an_image(), streams=3, window_s=0.0, tell=told.append).inferences == 3
    assert count() == alive
    engine.close()
    assert count() == alive - 10  # three buffers on either side, a stream and three events
    engine.close()


GENERATIONS = ["8.2", "8.5", "10.3", "11.1"]  # bindings by index; tensors by name


@pytest.mark.parametrize("release", GENERATIONS)
def test_two_engines_at_once_are_each_loaded_by_their_first_use_and_freed_alone(here_is, toy, tmp_path, release):
    here_is(release)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    engines = []
    for batch in (1, 3):
        model = prepared(lambda quantized, batch=batch: toy(quantized=quantized, batch=batch), way)
        builder.build_engine(request_for(model, tmp_path, way), silent)
        content = (tmp_path / "engine").read_bytes()
        engines.append(Deferred(functools.partial(open_engine, "tensorrt", content, {}, 1)))

    def free_bytes():
        return cuda.load().memory_bytes()[0]

    before, single = free_bytes(), 4 * (3 * 32 * 48 + 96 * 4 + 96 * 2)
    images = np.concatenate([an_image(seed) for seed in (5, 6, 7)])
    with engines[0] as one, engines[1] as three:
        assert (one.is_open, three.is_open, before - free_bytes()) == (False, False, 0)
        one.infer(an_image())
        assert (one.is_open, three.is_open, before - free_bytes()) == (True, False, single)
        assert (one.device_memory_bytes, three.device_memory_bytes) == (single, None)
        wanted = [part.copy() for part in three.infer(images)]
        assert (one.device_memory_bytes, three.device_memory_bytes) == (single, 3 * single)
        assert before - free_bytes() == 4 * single
        for place, seed in enumerate((5, 6, 7)):  # in turns, while both are loaded
            for whole, found in zip(wanted, one.infer(an_image(seed))):
                assert np.allclose(whole[place], found[0], atol=1e-6)
        one.close()
        assert (one.is_open, one.device_memory_bytes, before - free_bytes()) == (False, None, 3 * single)
        for whole, found in zip(wanted, three.infer(images)):
            assert (whole == found).all()
        one.infer(an_image())  # opened anew
        assert (one.device_memory_bytes, before - free_bytes()) == (single, 4 * single)
    assert free_bytes() == before


@pytest.mark.parametrize("release", GENERATIONS)
def test_engines_that_were_raced_are_freed(here_is, toy, tmp_path, cudart, release):
    here_is(release)
    alive = ctypes.CDLL(str(cudart)).stand_in_alive
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    np.save(str(tmp_path / "inputs.npy"), an_image()[None])
    asked = {"engine": str(tmp_path / "engine"), "runtime": "tensorrt", "options": {}}
    before, told = alive(), []
    request = {"engines": [asked, asked], "threads": 1, "inputs": str(tmp_path / "inputs.npy")}
    times_ms = candidates.race(request, lambda done, total, unit: told.append((done, alive())))
    assert len(times_ms) == 2
    assert min(times_ms) > 0
    assert told[0] == (1, before + 20)  # of each three buffers on either side, a stream and three events
    assert alive() == before


def measured(tmp_path, shard, manifest, root, progress=silent, **protocol):
    """One trial of the engine on the device whose files lie under a root."""
    record = {"hardware": host.hardware_class("tensorrt"), "options": {}, "model": manifest}
    request = {
        "engine": str(tmp_path / "engine"),
        "engine_record": record,
        "shard": str(shard),
        "samples": str(tmp_path / "samples"),
        "threads": 1,
        "stage_images": 1,
        "root": root,
        "protocol": dict(
            {
                "iterations": 12,
                "warmup_iterations": 1,
                "power_sampling_ms": 100,
                "power_window_s": 0.0,
                "cool_down_s": 0.0,
                "start_wait_s": 0.0,
            },
            **protocol,
        ),
    }
    return measure.trial(request, progress)


@pytest.mark.parametrize("release", ["8.2", "10.3"])
def test_a_trial_tells_execution_alone_device_memory_and_throughput(engine, tmp_path, shard, manifest, release):
    found = measured(tmp_path, shard, manifest, trees.write("nano_2gb_jp4", tmp_path / "nano"))
    with np.load(str(tmp_path / "samples")) as samples:
        assert samples["execution_ms"].shape == samples["latency_ms"].shape == (12,)
        assert (samples["execution_ms"] <= samples["latency_ms"]).all()  # copies come on top
        assert found["execution_ms"] == measure.summarize(samples["execution_ms"])
    assert found["device_memory_mb"] == engine.memory.taken_bytes / 1e6
    assert (found["throughput"]["streams"], found["throughput"]["inferences"]) == (2, 2)
    assert found["throughput"]["images_per_s"] > 0


@pytest.mark.parametrize(("available", "told"), [((900, 640), 260), ((640, 900), None), ((640, 640), None)])
def test_a_jetsons_gpu_takes_of_the_hosts_memory(here_is, toy, tmp_path, monkeypatch, available, told):
    """Where the kernel gave back more than the engine took, nobody knows what that was."""
    here_is("8.2")
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    left = list(available)
    monkeypatch.setattr(runner.jetson, "is_jetson", lambda: True)
    monkeypatch.setattr(runner.host, "memory_available_bytes", lambda: left.pop(0))
    with open_engine("tensorrt", (tmp_path / "engine").read_bytes(), {}, 1) as loaded:
        assert loaded.device_memory_bytes == told


@pytest.mark.parametrize("release", ["8.2", "10.3"])
def test_throughput_takes_a_time_and_tells_how_far_it_is(engine, tmp_path, shard, manifest, release):
    told = []

    def progress(done, total, unit):
        if unit == "seconds of the throughput":
            told.append((time.monotonic(), total))

    root = trees.write("nano_2gb_jp4", tmp_path / "nano")
    found = measured(tmp_path, shard, manifest, root, progress, power_window_s=1.3)["throughput"]
    assert 1.3 <= found["wall_s"] < 30
    assert found["inferences"] != 12
    assert {total for _, total in told} == {1}
    times = [at for at, _ in told]
    assert all(later - earlier > 0.9 * measure.PROGRESS_S for earlier, later in zip(times, times[1:]))


class Counter:
    """An energy counter of a GPU's board at 50 W."""

    name, step_j, update_s = "NVIDIA Toy at 0000:01:00.0", 1e-3, 0.02

    def read_uj(self):
        return {self.name: int(50e6 * time.monotonic())}

    def grown_j(self, before, after):
        return [(after[self.name] - before[self.name]) / 1e6]


@pytest.mark.parametrize("release", ["10.3"])
def test_a_trial_on_a_hosts_gpu_has_the_power_of_its_board(engine, monkeypatch, tmp_path, shard, manifest, release):
    root, rest = trees.write("x86_host", tmp_path / "host"), {"idle_s": 0.3, "power_window_s": 0.5}
    monkeypatch.setattr(watch, "find_gpu_energy", lambda: (Counter(), ""))
    found = measured(tmp_path, shard, manifest, root, **rest)
    assert found["power_of"].startswith("gpu board, NVIDIA Toy at 0000:01:00.0, by NVML; not in it: ")
    assert found["power_w"] == pytest.approx(50, rel=0.05)
    assert found["energy_mj"] == pytest.approx(1e3 * found["power_w"] * found["window_s"] / found["window_inferences"])
    monkeypatch.setattr(watch, "find_gpu_energy", lambda: (None, "NVML says no"))
    found = measured(tmp_path, shard, manifest, root, **rest)
    assert {found[name] for name in measure.POWER} == {None}  # though the tree has RAPL
    assert {found["absent"][name] for name in measure.POWER} == {"NVML says no"}


@pytest.mark.parametrize("release", ["8.2", "8.5", "11.1"])
def test_a_batch_is_an_axis_like_others(here_is, toy, tmp_path, release):
    here_is(release)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    single, model = prepared(toy, way), prepared(lambda quantized: toy(quantized=quantized, batch=3), way)
    builder.build_engine(request_for(model, tmp_path, way), silent)
    images = np.concatenate([an_image(seed) for seed in (5, 6, 7)])
    with open_engine("tensorrt", (tmp_path / "engine").read_bytes(), {}, 1) as engine:
        boxes, scores = engine.infer(images)
        assert (boxes.shape, scores.shape) == ((3, 96, 4), (3, 96, 2))
        for place, seed in enumerate((5, 6, 7)):
            for wanted, found in zip(reference(single)(seed), (boxes, scores)):
                assert np.allclose(wanted[0], found[place], atol=1e-6)
        found = engine.throughput(images, streams=2, window_s=0.0, tell=lambda passed_s: None)
        assert found.images_per_s == pytest.approx(6 / found.wall_s)


@pytest.mark.parametrize("release", ["8.4", "8.6", "11.1"])
def test_an_image_of_another_shape_or_type_is_refused(engine):
    with pytest.raises(EngineError, match=r"built for float32\[1, 3, 32, 48\], the image is float32\[2, 3, 32, 48\]"):
        engine.infer(np.zeros((2, 3, 32, 48), np.float32))
    with pytest.raises(EngineError, match="the image is float64"):
        engine.infer(np.zeros((1, 3, 32, 48)))


@pytest.mark.parametrize("release", ["8.2", "10.7"])
def test_streams_that_do_not_fit_are_out_of_memory_and_leave_the_engine_as_it_was(engine, cudart, release):
    library = ctypes.CDLL(str(cudart))
    library.stand_in_limit.argtypes = (ctypes.c_size_t,)
    library.stand_in_limit(engine.memory.taken_bytes * 3)
    alive = library.stand_in_alive()
    try:
        with pytest.raises(OutOfMemoryError, match="cudaMalloc"):
            engine.throughput(an_image(), 5, 0.0, lambda passed_s: None)
        assert library.stand_in_alive() == alive
        engine.infer(an_image())
    finally:
        library.stand_in_limit(2**30)


@pytest.mark.parametrize("release", GENERATIONS)
def test_a_context_that_tensorrt_does_not_make_for_memory_is_out_of_memory(here_is, toy, tmp_path, cudart, release):
    module = here_is(release, no_contexts=[2])
    alive = ctypes.CDLL(str(cudart)).stand_in_alive
    before = alive()
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    content = (tmp_path / "engine").read_bytes()
    with open_engine("tensorrt", content, {}, 1) as engine:
        with pytest.raises(OutOfMemoryError, match=r"TensorRT made no execution context: .*OutOfMemory"):
            engine.throughput(an_image(), 2, 0.0, lambda passed_s: None)
        engine.infer(an_image())
    module.world.no_contexts = [1]
    with pytest.raises(OutOfMemoryError, match=r"TensorRT made no execution context: .*OutOfMemory"):
        open_engine("tensorrt", content, {}, 1)
    assert alive() == before


@pytest.mark.parametrize("release", ["8.5", "10.3"])
def test_what_tensorrt_said_of_memory_counts_against_no_later_failure(here_is, toy, tmp_path, monkeypatch, release):
    module = here_is(release, no_contexts=[2])
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    with open_engine("tensorrt", (tmp_path / "engine").read_bytes(), {}, 1) as engine:
        with pytest.raises(OutOfMemoryError):
            engine.throughput(an_image(), 2, 0.0, lambda passed_s: None)
        monkeypatch.setattr(module.IExecutionContext, "set_tensor_address", lambda *_: False)
        with pytest.raises(EngineError, match="TensorRT took no address for image: TensorRT gave no reason"):
            engine.throughput(an_image(), 2, 0.0, lambda passed_s: None)


@pytest.mark.parametrize("release", ["8.2", "10.3"])
def test_closing_frees_the_rest_and_hides_no_error(here_is, toy, tmp_path, cudart, monkeypatch, release):
    here_is(release)
    way = builder.ways(releases.load()[1], "fp32", [])[0]
    builder.build_engine(request_for(prepared(toy, way), tmp_path, way), silent)
    content = (tmp_path / "engine").read_bytes()
    alive = ctypes.CDLL(str(cudart)).stand_in_alive
    before = alive()

    def refuse(self, address):
        raise EngineError("cudaFree: an illegal memory access was encountered")

    monkeypatch.setattr(cuda.Cuda, "free", refuse)
    with pytest.raises(EngineError, match=r"^cudaFree: an illegal"):
        open_engine("tensorrt", content, {}, 1).close()
    assert alive() == before + 3  # the device's side of three buffers
    with pytest.raises(EngineError, match=r"^the cause$"), open_engine("tensorrt", content, {}, 1):
        raise EngineError("the cause")
    assert alive() == before + 6


@pytest.mark.parametrize("release", ["8.5", "10.3"])
def test_work_under_way_is_waited_for_before_anything_is_freed(engine, monkeypatch, tmp_path, release):
    did, opened = [], []

    def note(name):
        real = getattr(cuda.Cuda, name)

        def noted(self, what):
            did.append((name, opened[0]._lane._context is not None))
            real(self, what)

        monkeypatch.setattr(cuda.Cuda, name, noted)

    for name in ("wait_for_stream", "free", "destroy_event", "destroy_stream"):
        note(name)
    opened.append(open_engine("tensorrt", (tmp_path / "engine").read_bytes(), {}, 1))
    opened[0]._lane.enqueue(an_image())
    opened[0].close()
    assert did[0] == ("wait_for_stream", True)
    assert did[-1] == ("destroy_stream", False)
    assert ("free", True) not in did
