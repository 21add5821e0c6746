"""TensorFlow.js weights: manifest and shards."""

import itertools
import json

import numpy as np
import pytest

from edgejoule.errors import WeightsError
from edgejoule_trainer.weights.tensorflow_js import read

ARRAYS = {
    "Conv/weights": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4),
    "scalar": np.array(0.5, np.float32),
    "stack/shape": np.array([-1, 4], np.int32),
    "flag": np.array([True, False, True]),
    "none": np.zeros((2, 0), np.float32),
}


def entries_of(arrays):
    return [{"name": n, "shape": list(a.shape), "dtype": a.dtype.name} for n, a in arrays.items()]


def write(folder, entries, content, cuts=(7, 50)):
    """A model whose shards end at ``cuts``, also inside of numbers."""
    edges = [0, *cuts, len(content)]
    paths = []
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        paths.append(f"group1-shard{i + 1}of{len(edges) - 1}")
        (folder / paths[-1]).write_bytes(content[start:end])
    group = {"paths": paths, "weights": entries}
    (folder / "model.json").write_text(json.dumps({"weightsManifest": [group]}))
    return folder / "model.json"


def content_of(arrays):
    return b"".join(array.tobytes() for array in arrays.values())


@pytest.fixture
def model(tmp_path):
    return write(tmp_path, entries_of(ARRAYS), content_of(ARRAYS))


def change(model, group):
    content = json.loads(model.read_text())
    content["weightsManifest"][0].update(group)
    model.write_text(json.dumps(content))


def test_read_gives_every_constant(model):
    for path in (model, model.parent):
        found = read(path)
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name].numpy(), array)
            assert found[name].numpy().dtype == array.dtype


def test_read_joins_groups(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).write_bytes(np.float32(value).tobytes())
    groups = [{"paths": [n], "weights": [{"name": n, "shape": [], "dtype": "float32"}]} for n in ("a", "b")]
    (tmp_path / "model.json").write_text(json.dumps({"weightsManifest": groups}))
    assert {name: value.item() for name, value in read(tmp_path).items()} == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("stored", ["uint8", "uint16"])
def test_quantized_weights_are_restored_by_scale_and_minimum(tmp_path, stored):
    steps = np.array([0, 3, 255], stored)
    quantization = {"dtype": stored, "scale": 0.25, "min": -2.0}
    entry = {"name": "w", "shape": [3], "dtype": "float32", "quantization": quantization}
    found = read(write(tmp_path, [entry], steps.tobytes(), cuts=(1,)))
    assert found["w"].tolist() == [-2.0, -1.25, 61.75]


def test_half_precision_weights_are_widened(tmp_path):
    entry = {"name": "w", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}}
    found = read(write(tmp_path, [entry], np.array([1.5, -2], np.float16).tobytes(), cuts=(1,)))
    assert found["w"].numpy().dtype == np.float32
    assert found["w"].tolist() == [1.5, -2.0]


def test_truncated_shard_is_refused_with_both_sizes(model):
    shard = model.parent / "group1-shard2of3"
    shard.write_bytes(shard.read_bytes()[:-1])
    size = len(content_of(ARRAYS))
    with pytest.raises(WeightsError, match=f"hold {size - 1} bytes, not the {size}"):
        read(model)


def test_oversized_shard_is_refused(model):
    shard = model.parent / "group1-shard3of3"
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="hold more than"):
        read(model)


def test_missing_shard_is_named(model):
    (model.parent / "group1-shard2of3").unlink()
    with pytest.raises(WeightsError, match=r"shard group1-shard2of3 .* cannot be read"):
        read(model)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "a\\b", "..", "", "a\0b"])
def test_shard_that_is_not_beside_the_model_is_refused(model, name):
    change(model, {"paths": [name]})
    with pytest.raises(WeightsError, match=r"not a file beside it|cannot be read"):
        read(model)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "w", "shape": [2], "dtype": "string"}, "type string, which is not supported"),
        ({"name": "w", "shape": [2], "dtype": "complex64"}, "type complex64"),
        ({"name": "w", "shape": [-2], "dtype": "float32"}, "does not list"),
        ({"name": "w", "shape": [2.5], "dtype": "float32"}, "does not list"),
        ({"name": "w", "shape": "2", "dtype": "float32"}, "does not list"),
        ({"name": "w", "dtype": "float32"}, "does not list"),
        ({"name": "w", "shape": [1 << 40], "dtype": "float32"}, "at most"),
        ({"name": "w", "shape": [2], "dtype": "float32", "quantization": {"dtype": "int4"}}, "type int4"),
        ({"name": "w", "shape": [2], "dtype": "float32", "quantization": "x"}, "does not list"),
    ],
)
def test_entry_that_makes_no_sense_is_refused(model, entry, words):
    change(model, {"weights": [entry]})
    with pytest.raises(WeightsError, match=words):
        read(model)


def test_quantized_weight_without_scale_is_refused(tmp_path):
    entry = {"name": "w", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint8"}}
    with pytest.raises(WeightsError, match="quantized without a scale"):
        read(write(tmp_path, [entry], b"ab", cuts=(1,)))


def test_weight_listed_twice_is_refused(tmp_path):
    entry = {"name": "w", "shape": [2], "dtype": "bool"}
    with pytest.raises(WeightsError, match="lists the weight w twice"):
        read(write(tmp_path, [entry, entry], b"\1\0\1\0", cuts=(1,)))


@pytest.mark.parametrize("shape", [[0, 1 << 70], [0, 1 << 62, 1 << 62], [0] * 70])
def test_impossible_shape_is_refused(tmp_path, shape):
    (tmp_path / "empty").touch()
    group = {"paths": ["empty"], "weights": [{"name": "w", "shape": shape, "dtype": "float32"}]}
    (tmp_path / "model.json").write_text(json.dumps({"weightsManifest": [group]}))
    with pytest.raises(WeightsError, match="impossible shape"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ("[]", "no weightsManifest"),
        ('{"weightsManifest": {}}', "no weightsManifest"),
        ('{"weightsManifest": [3]}', "does not list"),
        ('{"weightsManifest": []}', "lists no weights"),
    ],
)
def test_file_that_is_no_model_is_refused(tmp_path, text, words):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(WeightsError, match=words):
        read(tmp_path)


def test_missing_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"model\.json cannot be read: No such file"):
        read(tmp_path)
