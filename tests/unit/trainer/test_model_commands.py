"""``edgejoule model``: list, export, sensitivity; and the table behind the list."""

import json
import re

import cv2
import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from edgejoule.errors import DataError, ModelError
from edgejoule.records import Label
from edgejoule_trainer import detector_table
from edgejoule_trainer.detectors import create, names
from edgejoule_trainer.model_commands import app
from edgejoule_trainer.weights import write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    detector = create("nanodet_m", [Label(id=1, name="cup")], (64, 64)).train()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of what it sees, or the signal dies on its way
    detector.network(torch.randn(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "nanodet.safetensors"
    write_weights(path, detector)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), random.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    (folder / "notes.txt").write_text("not a picture")
    return folder


def call(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_names_every_detector_with_counts_that_its_json_repeats():
    entries = {entry["detector"]: entry for entry in json.loads(call("list", "--json"))}
    assert sorted(entries) == names()
    told = call("list")
    for name, entry in entries.items():
        assert name in told
        assert entry["gflops"] == 2 * entry["gmacs"]
        for count in ("params", "gmacs"):
            figure = count if count == "gmacs" else "params_m"
            compared = (1 + entry[f"{count}_difference"]) * entry["published"][figure]
            assert entry["like_published"][figure] == pytest.approx(compared)
            assert (entry["like_published"][figure] == entry[figure]) == (name != "ssd_mobilenet_v2")
        size = entry["input"]["height"] * entry["input"]["width"]
        assert entry["kmacs_per_pixel"] * size * 1e3 == pytest.approx(entry["gmacs"] * 1e9)


def test_counts_of_a_detector_without_memory_are_those_of_its_manifest():
    entry = detector_table.entry_of("nanodet_m")
    manifest = create("nanodet_m", [Label(id=n, name=str(n)) for n in range(80)]).manifest()
    assert (entry.params_m, entry.gmacs) == (manifest.params_m, manifest.gmacs)


def test_export_writes_a_graph_for_that_many_images(weights, tmp_path):
    told = call("export", weights, "--out", tmp_path / "m.onnx", "--batch", 3)
    assert "float32[3,3,64,64]" in told
    shape = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape
    assert [dimension.dim_value for dimension in shape.dim] == [3, 3, 64, 64]


def test_export_says_why_it_cannot_write(weights, tmp_path):
    with pytest.raises(ModelError, match="No such file or directory"):
        call("export", weights, "--out", tmp_path / "none" / "m.onnx")


def test_sensitivity_draws_every_layer_and_names_the_worst_first(weights, images, tmp_path):
    arguments = ("sensitivity", weights, "--images", images, "--count", 2)
    answer = json.loads(call(*arguments, "--json", "--out", tmp_path / "layers.svg"))
    assert answer["images"] == 2
    assert len(answer["outputs"]) == 3
    worst = {layer["name"]: min(output["sqnr_db"] for output in layer["outputs"]) for layer in answer["layers"]}
    svg = (tmp_path / "layers.svg").read_text(encoding="utf-8")
    told = re.findall(r"<title>([\w.]+): ([\d.e-]+) %", svg)
    assert [name for name, _ in told] == list(worst)  # a bar each, in the order of the network
    named = re.findall(r">([\w.]+): [\d.e-]+ %, [\d.]+ dB</text>", svg)
    assert named == sorted(worst, key=worst.get)[: len(named)]
    for name, percent in told:
        assert float(percent) == pytest.approx(100 * 10 ** (-worst[name] / 20), rel=0.06)

    table = call(*arguments[:4], "--count", 1, "--out", tmp_path / "layers.html")
    assert "All 73 layers in 8 bits" in table
    assert (tmp_path / "layers.html").read_text(encoding="utf-8").count("<tr>") == len(worst) + 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--out", "layers.png"), "neither .svg nor .html"),
        (("--calibrator", "median"), "no calibrator named 'median'; choose one of: minmax"),
    ],
)
def test_sensitivity_refuses_what_it_does_not_know(weights, images, options, match):
    with pytest.raises(ModelError, match=match):
        call("sensitivity", weights, "--images", images, *options)


def test_sensitivity_refuses_a_folder_without_pictures(weights, tmp_path):
    with pytest.raises(DataError, match="no JPEG or PNG picture"):
        call("sensitivity", weights, "--images", tmp_path)
