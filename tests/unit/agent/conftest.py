"""Fixtures of the agent's tests; everything is made here, nothing is fetched. Valid on Python 3.6."""

import contextlib
import copy
import importlib
import importlib.util
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile

import crowded  # noqa: F401  its profile is Hypothesis' own from here on
import cv2
import numpy as np
import pytest

with contextlib.suppress(ImportError):  # onnx 1.11 does not import it by itself; tests that need onnx skip without
    importlib.import_module("onnx.numpy_helper")

MANIFEST = {
    "format": 1,
    "detector": "toy",
    "labels": [{"id": 7, "name": "train"}, {"id": 90, "name": "toothbrush"}],
    "input": {"height": 32, "width": 48},
    "resize": {
        "policy": "letterbox_centre",
        "interpolation": "bilinear",
        "alignment": "half_pixel",
        "fill_rgb": [1, 2, 3],
    },
    "clip": "before_nms",
    "nms": {
        "origin": {"score_floor": 0.05, "top_k": 1000, "iou": 0.5, "class_wise": True, "limit": 100},
        "common": {"score_floor": 0.25, "top_k": 1000, "iou": 0.45, "class_wise": True, "limit": 100},
    },
    "params_m": 0.001,
    "gmacs": 0.001,
}


@pytest.fixture
def manifest():
    return copy.deepcopy(MANIFEST)


def encode(image):
    """RGB uint8[h,w,3] as PNG bytes."""
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def write_tar(path, members):
    """A tar of (name, content) pairs."""
    with tarfile.open(str(path), "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def tar():
    return write_tar


@pytest.fixture
def shard(tmp_path):
    """A shard of three pictures with structure."""
    random = np.random.RandomState(1)
    pictures = [np.kron(random.randint(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(3)]
    return write_tar(tmp_path / "shard.tar", [(f"{i + 5:012d}.png", encode(p)) for i, p in enumerate(pictures)])


@pytest.fixture
def pretend(tmp_path):
    """A function that writes files (path -> text) under a folder to be taken for ``/``."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / "root")

    return write


def toy_onnx(manifest, quantized=False, largest_weight=40, batch=1):
    """A small detector under the engine contract, as a ModelProto: three convolutions, 96 boxes, two classes.

    ``largest_weight``: of the int8 weights; near 127 the 16-bit sums of x86 kernels without VNNI saturate.
    """
    onnx = pytest.importorskip("onnx")
    helper, random = onnx.helper, np.random.RandomState(3)
    nodes, constants = [], {}

    def constant(name, value):
        constants[name] = np.asarray(value)
        return name

    def add(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}/{output}", **attributes))
        return output

    def quantize(tensor, scale, zero, **attributes):
        names = [constant(tensor + ".scale", np.float32(scale)), constant(tensor + ".zero", zero)]
        integer = add("QuantizeLinear", [tensor, *names], tensor + ".q", **attributes)
        return add("DequantizeLinear", [integer, *names], tensor + ".dq", **attributes)

    def convolve(tensor, output, shape, stride, groups=1):
        integers = np.clip(np.rint(random.standard_normal(shape) * largest_weight), -largest_weight, largest_weight)
        weight = constant(output + ".weight", (integers / 400).astype(np.float32))
        bias = constant(output + ".bias", random.standard_normal(shape[0]).astype(np.float32))
        if quantized:
            tensor = quantize(tensor, 1 / 40, np.int8(0))
            weight = quantize(weight, np.full(shape[0], 1 / 400), np.zeros(shape[0], np.int8), axis=0)
        pads = [shape[2] // 2] * 4
        return add("Conv", [tensor, weight, bias], output, strides=[stride] * 2, pads=pads, group=groups)

    x = add("Mul", ["image", constant("unit", np.float32(1 / 80))], "normal")
    x = add("Relu", [convolve(x, "first", (8, 3, 3, 3), 2)], "active")
    x = convolve(x, "depthwise", (8, 1, 3, 3), 2, groups=8)
    x = convolve(x, "head", (6, 8, 1, 1), 1)
    x = add("Reshape", [x, constant("flat", np.array([batch, 6, 96]))], "rows")
    x = add("Sigmoid", [add("Transpose", [x], "columns", perm=[0, 2, 1])], "fractions")
    axis = constant("last", np.array([2]))
    for name, begin, end in (("boxes", 0, 4), ("scores", 4, 6)):
        bounds = [constant(name + ".begin", np.array([begin])), constant(name + ".end", np.array([end]))]
        add("Slice", [x, *bounds, axis], name)
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [batch, 3, 32, 48])],
        [
            helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, [batch, 96, 4]),
            helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, 96, 2]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.metadata_props.add(key="edgejoule", value=json.dumps(manifest))
    return model


@pytest.fixture
def toy(manifest):
    """Makes a toy detector (see ``toy_onnx``)."""
    return lambda **options: toy_onnx(manifest, **options)


@pytest.fixture(scope="session")
def double():
    """The module ``tensorrt_double.py``, whose ``make(release, world)`` gives a module ``tensorrt``."""
    pytest.importorskip("onnxruntime")
    path = pathlib.Path(__file__).with_name("tensorrt_double.py")
    spec = importlib.util.spec_from_file_location("tensorrt_double", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cudart(tmp_path_factory):
    """Path of the stand-in for libcudart, compiled here."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to compile the stand-in for libcudart")
    source = pathlib.Path(__file__).with_name("cudart_double.c")
    library = tmp_path_factory.mktemp("cuda") / "libcudart.so.13"  # the first that is looked for
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def here_is(monkeypatch, double, cudart):
    """A function that makes this process a device with TensorRT of a release; gives the module."""
    from edgejoule_agent.engines.tensorrt_engine import cuda

    def install(release, **world):
        module = double.make(release, double.World(**world))
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(cuda, "LIBRARIES", [str(cudart)])
        return module

    return install
