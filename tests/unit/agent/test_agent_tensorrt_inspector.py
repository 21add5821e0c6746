import json

import pytest

from edgejoule_agent.engines.tensorrt_engine.inspector import data_type, inspect, read_layers
from edgejoule_agent.errors import EngineError

NODES = ["conv1", "/head/Conv", "relu", "sigmoid", "mul", "q", "dq"]
MACS = {"conv1": 300, "/head/Conv": 100}


def layer(name, source, result, kind="CaskConvolution", **other):
    tensors = {"Inputs": [{"Format/Datatype": source}], "Outputs": [{"Format/Datatype": result}]}
    return dict(tensors, Name=name, LayerType=kind, **other)


def inspection(*layers, **other):
    text = json.dumps({"Layers": list(layers), "Bindings": ["image"]})
    return inspect(read_layers(text, NODES), MACS, other.get("decode", ["sigmoid", "mul"]))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Two wide channel vectorized row major FP16 format", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("UInt8", "uint8"),
        ("Row major Int32 format", "int32"),
        ("N/A due to dynamic shapes", None),
    ],
)
def test_data_type_reads_the_sentences_and_words_of_all_releases(text, kind):
    assert data_type({"Name": "x", "Format/Datatype": text}) == kind


def test_data_type_stands_apart_from_the_format_since_11():
    assert data_type({"Format": "Row major linear FP32 format (kLINEAR)", "DataType": "Int8"}) == "int8"


def test_layers_map_to_nodes_by_their_names_and_macs_are_shared_by_precision():
    int8, half, full = "Row major Int8 format", "Row major linear FP16 format", "Row major linear FP32"
    found = inspection(
        layer("Reformatting CopyNode for Input Tensor 0 to conv1.weight + q + conv1 + relu", full, int8, "Reformat"),
        layer("conv1.weight + q + conv1 + relu", int8, half),
        layer("/head/Conv", half, half),
        layer("Reformatting CopyNode for Input Tensor 0 to PWN(sigmoid, mul)", half, full, "Reformat"),
        layer("PWN(sigmoid, mul)", full, full, "PointWiseV2"),
    )
    assert found.shares == {"int8": 0.75, "fp16": 0.25, "fp32": 0.0}
    assert found.precisions == ("int8", "fp16")
    assert found.reformat_layers == 2
    assert (found.decode_wrong, found.decode_unknown) == ((), ())


def test_nodes_come_from_the_metadata_where_there_is_any():
    names = "[ONNX Layer: conv1]\x1e[ONNX Layer: /head/Conv]\x1f[ONNX Layer: relu]"
    found = inspection(layer("__myl_ConvConv_0", "Half", "Half", "kgen", Metadata=names), decode=[])
    assert found.shares == {"int8": 0.0, "fp16": 1.0, "fp32": 0.0}


def test_two_convolutions_joined_side_by_side_are_both_counted():
    assert inspection(layer("conv1 || /head/Conv", "Half", "Half"), decode=[]).shares["fp16"] == 1.0


def test_decoding_in_half_precision_is_named():
    found = inspection(layer("conv1 || /head/Conv", "Half", "Half"), layer("PWN(PWN(sigmoid), mul)", "Half", "Half"))
    assert found.decode_wrong == ("PWN(PWN(sigmoid), mul)",)


def test_decoding_may_read_half_precision_when_its_results_are_float32():
    found = inspection(layer("conv1 || /head/Conv", "Half", "Half"), layer("PWN(PWN(sigmoid), mul)", "Half", "Float"))
    assert found.decode_wrong == ()


def test_a_foreign_node_that_hides_a_convolution_makes_the_share_unknown_with_a_reason():
    found = inspection(layer("conv1", "Int8", "Int8"), layer("{ForeignNode[relu...mul]}", "Half", "Float", "Myelin"))
    assert found.shares is None
    assert "25%" in found.shares_absent
    assert "/head/Conv" in found.shares_absent
    assert found.decode_unknown == ("sigmoid",)


def test_names_alone_tell_no_precision_but_reformats_are_counted():
    found = inspection("conv1 + relu", "Reformatting CopyNode for Output Tensor 0 to conv1 + relu", "/head/Conv", "mul")
    assert found.shares is None
    assert "100%" in found.shares_absent
    assert found.reformat_layers == 1
    assert found.decode_unknown == ("mul", "sigmoid")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": [1]}', '{"Layers": [{}]}', "layer 1\nlayer 2"])
def test_what_is_no_layer_list_is_an_error(text):
    with pytest.raises(EngineError, match="engine inspector gave no layer list"):
        read_layers(text, NODES)
