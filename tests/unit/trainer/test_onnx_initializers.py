"""Constants of an ONNX file: read as they are, refused when anything is wrong with the file."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgejoule.errors import WeightsError
from edgejoule_trainer.weights.onnx_initializers import read

WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def model(*initializers):
    """A convolution with ``initializers``, and a Constant node beside it."""
    value = numpy_helper.from_array(np.array([[1.0, 2.0]], dtype=np.float16))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "model.0.conv.weight"], ["out"]),
            helper.make_node("Constant", [], ["grid"], value=value),
            helper.make_node("Constant", [], ["number"], value_float=2.0),
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 3, 3])],
        initializer=list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def saved(path, *initializers):
    onnx.save(model(*initializers), path)
    return path


def test_initializers_and_constants_keep_name_type_and_value(tmp_path):
    path = saved(
        tmp_path / "a.onnx",
        numpy_helper.from_array(WEIGHT, "model.0.conv.weight"),
        numpy_helper.from_array(np.array(7), "count"),
        numpy_helper.from_array(np.zeros(0, np.float32), "roi"),
    )
    tensors = read(path)
    assert tensors.keys() == {"model.0.conv.weight", "count", "roi", "grid"}
    np.testing.assert_array_equal(tensors["model.0.conv.weight"].numpy(), WEIGHT)
    assert (tensors["count"].dtype, tensors["count"].shape, tensors["count"].item()) == (torch.int64, (), 7)
    assert tensors["roi"].shape == (0,)
    assert (tensors["grid"].dtype, tensors["grid"].tolist()) == (torch.float16, [[1.0, 2.0]])
    tensors["model.0.conv.weight"].zero_()  # memory of its own, not the file's


def test_external_data_is_refused_and_not_opened(tmp_path):
    tensor = numpy_helper.from_array(WEIGHT, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    with pytest.raises(WeightsError, match="keeps tensor w in another file"):
        read(saved(tmp_path / "a.onnx", tensor))


@pytest.mark.parametrize("dims", [[1 << 40, 1 << 40], [-1, 3], [25]], ids=["huge", "negative", "too many"])
def test_tensor_that_is_not_what_its_shape_says_is_refused(tmp_path, dims):
    tensor = numpy_helper.from_array(WEIGHT[:, 0].copy(), "w")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    with pytest.raises(WeightsError, match=r"damaged: tensor w does not hold what its shape .* needs"):
        read(saved(tmp_path / "a.onnx", tensor))


@pytest.mark.parametrize(("kind", "named"), [(TensorProto.STRING, "string"), (999, "unknown type 999")])
def test_tensor_of_no_numbers_is_refused(tmp_path, kind, named):
    tensor = TensorProto(name="w", dims=[1], data_type=kind, string_data=[b"text"])
    with pytest.raises(WeightsError, match=f"tensor w of {named}"):
        read(saved(tmp_path / "a.onnx", tensor))


def test_two_tensors_of_one_name_are_refused(tmp_path):
    twice = [numpy_helper.from_array(WEIGHT, "w")] * 2
    with pytest.raises(WeightsError, match="two tensors named w"):
        read(saved(tmp_path / "a.onnx", *twice))


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_file_is_refused(tmp_path, keep):
    path = saved(tmp_path / "a.onnx", numpy_helper.from_array(WEIGHT, "w"))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(WeightsError, match="damaged or not an ONNX"):
        read(path)


@pytest.mark.parametrize(("content", "said"), [(b"", "has 0 bytes"), (b"PK\x03\x04 a zip", "not an ONNX")])
def test_other_content_is_refused(tmp_path, content, said):
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        read(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read(tmp_path / "none.onnx")
    with pytest.raises(WeightsError, match="cannot be read"):
        read(tmp_path)
