import numpy as np
import pytest

from edgejoule_agent.build import signal_to_error_db
from edgejoule_agent.engines import onnxruntime_engine, open_engine
from edgejoule_agent.engines.tensorrt_engine.graph import decode_nodes, name_nodes, typed_float16
from edgejoule_agent.errors import ModelError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def infer(model, seed=5):
    image = np.random.RandomState(seed).randint(0, 256, (1, 3, 32, 48)).astype(np.float32)
    with open_engine("onnxruntime", model.SerializeToString(), onnxruntime_engine.UNOPTIMIZED, 1) as engine:
        return [part.copy() for part in engine.infer(image)]


def types_of(model):
    """Element type of every tensor that a node makes."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}


def test_name_nodes_gives_every_node_a_name_of_its_own_that_holds_no_joint(toy):
    model = toy()
    for node, name in zip(model.graph.node, ["a + b", "PWN(x, y)", "", "same", "same"]):
        node.name = name
    named = name_nodes(model)
    names = [node.name for node in named.graph.node]
    assert names[:5] == ["a___b", "PWN_x__y_", "node_of_active", "same", "same_1"]
    assert len(set(names)) == len(names)
    assert model.graph.node[0].name == "a + b"
    assert np.array_equal(infer(toy())[0], infer(named)[0])


def test_decode_nodes_are_the_arithmetic_behind_the_last_convolutions(toy):
    # Reshape and Transpose in front of the sigmoid only move what the convolution gave
    assert decode_nodes(toy()) == ["Sigmoid/fractions", "Slice/boxes", "Slice/scores"]
    assert decode_nodes(toy(quantized=True)) == ["Sigmoid/fractions", "Slice/boxes", "Slice/scores"]


def test_typed_float16_leaves_inputs_outputs_normalization_and_decoding_in_float32(toy):
    model = toy()
    typed = typed_float16(model)
    kinds = types_of(typed)
    assert [value.type.tensor_type.elem_type for value in [*typed.graph.input, *typed.graph.output]] == [FLOAT] * 3
    assert {name: kinds[name] for name in ("first", "active", "depthwise", "head", "rows", "columns")} == dict.fromkeys(
        ("first", "active", "depthwise", "head", "rows", "columns"), HALF
    )
    assert {kinds[name] for name in ("normal", "fractions", "boxes", "scores")} == {FLOAT}
    assert sum(node.op_type == "Cast" for node in typed.graph.node) == 2
    weights = {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    for node in typed.graph.node:
        if node.op_type == "Conv":
            assert [weights[name] for name in node.input[1:]] == [HALF, HALF]
    assert {entry.key for entry in typed.metadata_props} == {"edgejoule"}


def test_typed_float16_computes_the_same_but_for_the_rounding_of_half_precision(toy):
    model = toy()
    typed = typed_float16(model)
    for seed in (5, 6):
        for wanted, found in zip(infer(model, seed), infer(typed, seed)):
            assert found.dtype == np.float32
            ratio = signal_to_error_db(wanted, found)
            assert 45 < ratio < 120  # rounded, and no more than rounded


def test_typed_float16_decodes_boxes_from_the_half_head_in_float32(toy):
    """The sigmoid of the head's own half values, taken here in float64, is met to float32's last places."""
    typed = typed_float16(toy())
    del typed.graph.output[:]
    typed.graph.output.extend(
        [
            onnx.helper.make_tensor_value_info("columns", HALF, [1, 96, 6]),
            onnx.helper.make_tensor_value_info("boxes", FLOAT, [1, 96, 4]),
        ]
    )
    session = onnxruntime_engine.session(typed.SerializeToString(), onnxruntime_engine.UNOPTIMIZED, 1)
    image = np.random.RandomState(5).randint(0, 256, (1, 3, 32, 48)).astype(np.float32)
    columns, boxes = session.run(("columns", "boxes"), {"image": image})
    assert columns.dtype == np.float16
    wanted = 1 / (1 + np.exp(-columns[..., :4].astype(np.float64)))
    assert np.abs(wanted - boxes).max() < 1e-6  # half precision would be off by up to 2.4e-4


def test_typed_float16_keeps_a_resizes_scales_and_casts_an_output_that_a_convolution_makes(toy):
    model = toy()
    graph = model.graph
    resized = onnx.helper.make_node("Resize", ["active", "", "twice"], ["large"], name="resize", mode="nearest")
    pooled = onnx.helper.make_node("MaxPool", ["large"], ["small"], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    place = next(index for index, node in enumerate(graph.node) if node.output[0] == "active") + 1
    graph.node.insert(place, resized)
    graph.node.insert(place + 1, pooled)
    next(node for node in graph.node if node.output[0] == "depthwise").input[0] = "small"
    graph.output.append(onnx.helper.make_tensor_value_info("head", FLOAT, [1, 6, 8, 12]))
    typed = typed_float16(model)
    kinds = types_of(typed)
    assert (kinds["large"], kinds["head"]) == (HALF, FLOAT)
    assert {tensor.name: tensor.data_type for tensor in typed.graph.initializer}["twice"] == FLOAT
    for wanted, found in zip(infer(model), infer(typed)):
        assert signal_to_error_db(wanted, found) > 45


def test_typed_float16_refuses_weights_that_half_cannot_hold_and_quantized_graphs(toy):
    model = toy()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((6, 8, 1, 1), 70000.0, np.float32), weight.name))
    with pytest.raises(ModelError, match=r"'head\.weight' holds 70000, more than float16 can"):
        typed_float16(model)
    with pytest.raises(ModelError, match="a quantized graph cannot be typed float16"):
        typed_float16(toy(quantized=True))
