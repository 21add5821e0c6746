import pytest

from edgejoule_agent.contract import check_manifest, read_model
from edgejoule_agent.errors import ModelError

onnx = pytest.importorskip("onnx")


def test_read_model_returns_graph_and_manifest(tmp_path, toy, manifest):
    onnx.save(toy(), str(tmp_path / "m.onnx"))
    model, found = read_model(tmp_path / "m.onnx")
    assert found == manifest
    assert len(model.graph.output) == 2


@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage", b"\x08\x08" * 10])
def test_read_model_refuses_what_is_no_onnx(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        read_model(tmp_path / "m.onnx")


def test_read_model_says_why_when_the_file_cannot_be_read(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        read_model(tmp_path / "none.onnx")


def test_read_model_takes_any_batch_that_is_fixed(tmp_path, toy):
    model = toy()
    for value in (model.graph.input[0], *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, str(tmp_path / "m.onnx"))
    assert read_model(tmp_path / "m.onnx")[0].graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def drop_metadata(model):
    del model.metadata_props[:]


def break_metadata(model):
    model.metadata_props[0].value = "{"


def rename_output(model):
    model.graph.output[0].name = "rows"


def widen_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 64


def batch_image_alone(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def leave_batch_open(model):
    for value in (model.graph.input[0], *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def add_class(model):
    model.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 3


def move_weight_out(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (drop_metadata, "no metadata 'edgejoule'"),
        (break_metadata, "is not JSON"),
        (rename_output, "the engine contract has image -> boxes, scores"),
        (widen_input, r"image has shape \[1, 3, 32, 64\]"),
        (add_class, r"scores has shape \[1, 96, 3\], the engine contract float32\[B, N, 2\]"),
        (batch_image_alone, r"have batches of \[2, 1, 1\]"),
        (leave_batch_open, "with B fixed"),
        (move_weight_out, "outside|not a valid ONNX"),
    ],
)
def test_read_model_names_what_breaks_the_contract(tmp_path, toy, harm, match):
    model = toy()
    harm(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=match):
        read_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("keys", "value", "match"),
    [
        (("clip",), "never", "manifest.clip cannot be 'never'"),
        (("input", "width"), 0, "manifest.input.width cannot be 0"),
        (("input", "width"), True, "manifest.input.width cannot be True"),
        (("resize", "fill_rgb"), [1, 2, 256], "manifest.resize.fill_rgb cannot be"),
        (("nms", "origin", "iou"), 1.5, "manifest.nms.origin.iou cannot be 1.5"),
        (("nms",), {}, r"manifest.nms has \[\], needs exactly \['common', 'origin'\]"),
        (("labels",), [], "manifest.labels cannot be"),
        (("labels",), [{"id": 1}], "manifest.labels.0 has"),
        (("extra",), 1, "needs exactly"),
    ],
)
def test_check_manifest_names_the_field(manifest, keys, value, match):
    inner = manifest
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    with pytest.raises(ModelError, match=match):
        check_manifest(manifest, "m.onnx")
