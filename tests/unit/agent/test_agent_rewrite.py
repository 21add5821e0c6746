import numpy as np
import pytest

from edgejoule_agent import host
from edgejoule_agent.engines import onnxruntime_engine, open_engine
from edgejoule_agent.errors import ModelError
from edgejoule_agent.macs import macs_by_node
from edgejoule_agent.rewrites import (
    drop_repeats,
    drop_upper_clips,
    halve_weights,
    narrow_weights,
    quantize_biases,
    rewrite_u8,
    spell_out_hard_sigmoid,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def outputs(model):
    """Boxes and scores of two seeded images, node by node in float32."""
    images = np.random.RandomState(5).randint(0, 256, (2, 1, 3, 32, 48)).astype(np.float32)
    with open_engine("onnxruntime", model.SerializeToString(), onnxruntime_engine.UNOPTIMIZED, 1) as engine:
        return np.concatenate([np.concatenate([part.copy() for part in engine.infer(image)], 2) for image in images])


def count(model, kind):
    return sum(node.op_type == kind for node in model.graph.node)


def test_rewrite_u8_changes_no_bit_of_the_outputs(toy):
    model = toy(quantized=True, largest_weight=127)
    rewritten = rewrite_u8(model)
    onnx.checker.check_model(rewritten)
    assert np.array_equal(outputs(model), outputs(rewritten))
    assert (count(model, "QuantizeLinear"), count(rewritten, "QuantizeLinear")) == (6, 3)  # weights' are computed
    kinds = {tensor.name: tensor.data_type for tensor in rewritten.graph.initializer}
    for node in rewritten.graph.node:
        if node.op_type == "QuantizeLinear":
            assert kinds[node.input[2]] == onnx.TensorProto.UINT8
    assert rewritten.metadata_props[0].key == "edgejoule"


def test_quantize_biases_rounds_to_the_step_of_the_sums_where_a_quantizer_follows(toy):
    model = toy(quantized=True)
    quantized = quantize_biases(rewrite_u8(model))
    onnx.checker.check_model(quantized)
    given = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    biases = {name: value for name, value in stored.items() if value.dtype == np.int32}
    assert list(biases) == ["depthwise/bias/int32"]  # behind the first is a ReLU, behind the head no quantizer
    step = 1 / 40 / 400  # of the image times that of the weights
    off = biases["depthwise/bias/int32"] * step - given["depthwise.bias"]
    assert 0 < np.abs(off).max() <= step / 2 * 1.001
    assert stored["depthwise/bias/step"] == pytest.approx(np.full(8, step))
    # what is left of such an error in outputs between 0 and 1, in whose way lie roundings to 8 bits
    assert np.abs(outputs(model) - outputs(quantized)).max() < 0.02


def test_onnxruntime_runs_in_int8_what_has_int32_biases_and_later_releases_make_the_same_themselves(toy):
    model = rewrite_u8(toy(quantized=True))
    found = {}
    for name, each in (("as it is", model), ("biases", quantize_biases(model))):
        content = each.SerializeToString()
        with open_engine("onnxruntime", content, {}, 1) as engine:
            image = np.random.RandomState(5).randint(0, 256, (1, 3, 32, 48)).astype(np.float32)
            answer = np.concatenate([part.copy() for part in engine.infer(image)], 2)
        found[name] = onnxruntime_engine.int8_macs(content, {}, macs_by_node(each)), answer
    depthwise = 8 * 9 * 8 * 12
    assert found["biases"][0] == depthwise
    release = tuple(int(part) for part in host.installed_version("onnxruntime").split(".")[:2])
    if release >= (1, 21):
        assert found["as it is"][0] == depthwise
        assert np.array_equal(found["as it is"][1], found["biases"][1])
    else:
        assert found["as it is"][0] == 0


def test_rewrite_u8_leaves_the_model_it_is_given(toy):
    model = toy(quantized=True)
    before = model.SerializeToString()
    halve_weights(rewrite_u8(model))
    quantize_biases(rewrite_u8(model))
    assert model.SerializeToString() == before


def test_halve_weights_keeps_the_sums_and_bounds_the_weights(toy):
    model = toy(quantized=True, largest_weight=127)
    halved = halve_weights(rewrite_u8(model))
    onnx.checker.check_model(halved)
    assert np.abs(outputs(model) - outputs(halved)).max() < 1e-5
    assert count(halved, "Conv") == 5  # the depthwise one stays whole
    for tensor in halved.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.int8 and value.ndim == 4 and value.shape[1] > 1:
            assert np.abs(value.astype(int)).max() <= 64
    assert sum(macs_by_node(halved).values()) > 1.5 * sum(macs_by_node(model).values())


def test_narrow_weights_rounds_the_float_weights_to_seven_bits(toy):
    model = toy(quantized=True, largest_weight=127)
    narrowed = narrow_weights(model)
    onnx.checker.check_model(narrowed)
    given = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in rewrite_u8(narrowed).graph.initializer}
    weights = {name: value for name, value in stored.items() if value.dtype == np.int8 and value.ndim == 4}
    assert sorted(value.shape[1] for value in weights.values()) == [1, 3, 8]
    for name, value in weights.items():
        original = given[name.replace(".q", "")]
        if value.shape[1] == 1:  # depthwise: not summed over neighbours, so all 8 bits
            assert np.array_equal(value, np.rint(original * 400))
        else:
            step = 127 / 63 / 400
            assert np.array_equal(value, np.clip(np.rint(original / np.float32(step)), -64, 63))
    assert np.abs(outputs(model) - outputs(narrowed)).max() < 0.1


def test_rewrite_u8_refuses_a_zero_point_that_is_not_zero(toy):
    model = toy(quantized=True)
    for tensor in model.graph.initializer:
        if tensor.name == "normal.zero":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.int8(3), tensor.name))
    with pytest.raises(ModelError, match="zero point 3 is not 0"):
        rewrite_u8(model)


def test_rewrite_u8_refuses_int8_that_feeds_arithmetic(toy):
    model = toy(quantized=True)
    model.graph.node.append(onnx.helper.make_node("MaxPool", ["normal.q"], ["pooled"], kernel_shape=[2, 2]))
    with pytest.raises(ModelError, match="its int8 output feeds MaxPool"):
        rewrite_u8(model)


def test_macs_by_node_counts_each_convolution(toy):
    found = macs_by_node(toy())
    assert found == {
        "Conv/first": 8 * 3 * 9 * 16 * 24,
        "Conv/depthwise": 8 * 9 * 8 * 12,
        "Conv/head": 6 * 8 * 8 * 12,
    }


def concatenation(scales):
    """Two quantized halves, concatenated, reshaped, and quantized again; ``scales`` of the halves and of the whole."""
    helper, make = onnx.helper, onnx.numpy_helper.from_array
    nodes, constants = [], [make(np.array(0, np.int8), "zero"), make(np.array([1, 4, 8], np.int64), "shape")]
    for name, scale in zip(("boxes", "scores", "whole"), scales):
        constants.append(make(np.array(scale, np.float32), name + "_scale"))
        pair = [name + "_scale", "zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *pair], [name + "_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [name + "_q", *pair], [name + "_dq"]))
    nodes.insert(4, helper.make_node("Concat", ["boxes_dq", "scores_dq"], ["whole"], axis=1))
    nodes.append(helper.make_node("Reshape", ["whole_dq", "shape"], ["out"]))
    values = [helper.make_tensor_value_info(name, 1, [1, 2, 8]) for name in ("boxes", "scores")]
    out = [helper.make_tensor_value_info("out", 1, [1, 4, 8])]
    graph = helper.make_graph(nodes, "concatenation", values, out, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def test_drop_repeats_leaves_out_the_pair_that_changes_nothing():
    import onnxruntime

    model = concatenation([0.1, 0.1, 0.1])
    reduced = drop_repeats(model)
    onnx.checker.check_model(reduced)
    assert (count(model, "QuantizeLinear"), count(reduced, "QuantizeLinear")) == (3, 2)
    random = np.random.RandomState(0)
    images = {name: random.standard_normal((1, 2, 8)).astype(np.float32) * 9 for name in ("boxes", "scores")}
    found = [
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, images)[0]
        for each in (model, reduced)
    ]
    assert np.array_equal(*found)


@pytest.mark.parametrize("scales", [[0.1, 0.2, 0.1], [0.1, 0.1, 0.2]])
def test_drop_repeats_keeps_a_pair_that_rounds(scales):
    model = concatenation(scales)
    assert count(drop_repeats(model), "QuantizeLinear") == count(model, "QuantizeLinear")


def graph_of(nodes, constants, shape=(1, 2, 3, 4)):
    """A model from ``x`` to ``y`` of those nodes and constants, by name."""
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model, x):
    session = onnxruntime_engine.session(model.SerializeToString(), onnxruntime_engine.UNOPTIMIZED, 1)
    return session.run(["y"], {"x": x})[0]


def clip_and_quantize(scale, high=6.0):
    constants = {"low": np.float32(0), "high": np.float32(high), "scale": np.float32(scale), "zero": np.int8(0)}
    node = onnx.helper.make_node
    nodes = [
        node("Clip", ["x", "low", "high"], ["c"]),
        node("QuantizeLinear", ["c", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return graph_of(nodes, {name: np.array(value) for name, value in constants.items()})


@pytest.mark.parametrize("largest", [0.5, 5.9, 6.0])
def test_drop_upper_clips_changes_no_bit_where_the_quantizer_stops_there(largest):
    model = clip_and_quantize(largest / 127)
    reduced = drop_upper_clips(model)
    assert [node.op_type for node in reduced.graph.node] == ["Relu", "QuantizeLinear", "DequantizeLinear"]
    x = np.linspace(-9, 9, 24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert np.array_equal(run(model, x), run(reduced, x))


@pytest.mark.parametrize("scale", [6.1 / 127, 6.0 / 126.4])
def test_drop_upper_clips_keeps_one_that_the_quantizer_does_not_make_up_for(scale):
    assert count(drop_upper_clips(clip_and_quantize(scale)), "Clip") == 1


def test_drop_upper_clips_keeps_one_that_is_read_in_float_too():
    model = clip_and_quantize(6 / 127)
    model.graph.node[2].output[0] = "d"
    model.graph.node.append(onnx.helper.make_node("Add", ["d", "c"], ["y"]))
    assert count(drop_upper_clips(model), "Clip") == 1


def test_spell_out_hard_sigmoid_gives_the_same_values():
    node = onnx.helper.make_node("HardSigmoid", ["x"], ["y"], alpha=1 / 6, beta=0.5)
    model = graph_of([node], {})
    spelled = spell_out_hard_sigmoid(model)
    onnx.checker.check_model(spelled)
    assert count(spelled, "HardSigmoid") == 0
    x = np.linspace(-9, 9, 24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert np.abs(run(model, x) - run(spelled, x)).max() < 1e-6


def test_spell_out_hard_sigmoid_leaves_other_slopes():
    model = graph_of([onnx.helper.make_node("HardSigmoid", ["x"], ["y"])], {})
    assert count(spell_out_hard_sigmoid(model), "HardSigmoid") == 1
