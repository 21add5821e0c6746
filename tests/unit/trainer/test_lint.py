"""The lint: a sound graph passes, and each rule finds the one graph that breaks it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgejoule.errors import ModelError
from edgejoule_trainer.quantize.lint import METADATA_KEY, OPSET, check, violations

FLOAT = TensorProto.FLOAT


class Builder:
    """A graph written line by line: image -> 8-bit conv, conv, concat, max-pool, conv -> boxes and scores."""

    def __init__(self, branch_scale=0.1):
        self.nodes, self.initializers = [], []
        self.constant("zero", np.array(0, np.int8))
        self.conv("a", self.pair("image", 0.1))
        self.conv("b", "image_dq")
        self.node("Concat", [self.pair("a", 0.1), self.pair("b", branch_scale)], "cat", axis=1)
        self.node("MaxPool", ["cat"], "pool", kernel_shape=[2, 2])
        self.conv("boxes", self.pair("pool", 0.1))
        self.node("Sigmoid", ["boxes"], "scores")

    def constant(self, name, value):
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op_type, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def pair(self, name, scale, zero_point="zero", **attributes):
        scale = self.constant(f"{name}_scale", np.array(scale, np.float32))
        self.node("QuantizeLinear", [name, scale, zero_point], f"{name}_q", **attributes)
        return self.node("DequantizeLinear", [f"{name}_q", scale, zero_point], f"{name}_dq", **attributes)

    def conv(self, name, source):
        channels = 6 if name == "boxes" else 3
        self.constant(f"{name}_w", np.ones((3, channels, 1, 1), np.float32))
        self.constant(f"{name}_zeros", np.zeros(3, np.int8))
        self.constant(f"{name}_bias", np.zeros(3, np.float32))
        weight = self.pair(f"{name}_w", [0.1, 0.2, 0.3], f"{name}_zeros", axis=0)
        return self.node("Conv", [source, weight, f"{name}_bias"], name)

    def find(self, output):
        return next(node for node in self.nodes if node.output[0] == output)

    def replace_constant(self, name, value):
        self.initializers = [tensor for tensor in self.initializers if tensor.name != name]
        return self.constant(name, value)

    def model(self, opset=OPSET, inputs=("image",)):
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(name, FLOAT, [1, 3, 8, 8]) for name in inputs],
            [helper.make_tensor_value_info(name, FLOAT, [1, 3, 7, 7]) for name in ("boxes", "scores")],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.metadata_props.add(key=METADATA_KEY, value="{}")
        return model


def broken(change):
    """The violations of the sound graph after ``change`` was made to it."""
    builder = Builder()
    change(builder)
    return violations(builder.model())


def test_sound_graph_passes_and_is_valid_onnx():
    model = Builder().model()
    onnx.checker.check_model(model, full_check=True)
    check(model)


def test_check_names_every_violation_at_once():
    builder = Builder(branch_scale=0.2)
    with pytest.raises(ModelError, match=r"breaks 2 rule.*opset is 12.*node_cat has 2 scales"):
        check(builder.model(opset=12))


def test_other_inputs_are_found():
    assert "the graph's inputs are image, mask, not image" in violations(Builder().model(inputs=("image", "mask")))


def test_missing_manifest_is_found():
    model = Builder().model()
    del model.metadata_props[:]
    assert violations(model) == ["there is no 'edgejoule' entry in the metadata"]


def test_foreign_domain_is_found():
    model = Builder().model()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert violations(model) == ["the operator domain com.microsoft is not ONNX's own"]


def test_operator_unknown_to_tensorrt_8_2_is_found():
    def change(builder):
        builder.find("scores").op_type = "Mish"

    assert broken(change) == ["Mish node_scores is not an operator of TensorRT 8.2"]


def test_type_that_tensorrt_does_not_run_is_found():
    def change(builder):
        builder.constant("flags", np.ones(3, bool))
        builder.node("Neg", ["flags"], "flipped")

    assert broken(change) == ["Neg node_flipped has bool input, and TensorRT 8.2 takes FP32, FP16, INT32"]


def test_resize_mode_unknown_to_tensorrt_is_found():
    def change(builder):
        builder.constant("scales", np.array([1, 1, 2, 2], np.float32))
        builder.node("Resize", ["boxes", "", "scales"], "large", mode="cubic")

    assert broken(change) == ["Resize node_large has mode cubic, unknown to TensorRT 8.2"]


def test_indices_of_max_pool_are_found():
    def change(builder):
        builder.find("pool").output.append("indices")

    assert broken(change) == ["MaxPool node_pool gives indices, which TensorRT 8.2 does not"]


def test_computed_weight_is_found():
    def change(builder):
        builder.find("a_w_q").input[0] = "image"

    assert "Conv node_a has a weight that is not an initializer" in broken(change)


def test_quantized_bias_is_found():
    def change(builder):
        builder.find("a").input[2] = builder.pair("a_bias", 0.1)
        builder.nodes.insert(0, builder.nodes.pop())
        builder.nodes.insert(0, builder.nodes.pop())

    assert broken(change) == ["Conv node_a has a bias that is not a plain initializer; it must have no Q/DQ"]


@pytest.mark.parametrize("zero_point", [np.array(3, np.int8), np.array(128, np.uint8)])
def test_asymmetric_zero_point_is_found(zero_point):
    found = broken(lambda builder: builder.replace_constant("zero", zero_point))
    assert "QuantizeLinear node_image_q has a zero point that is not int8 0" in found


def test_scale_that_is_not_positive_is_found():
    found = broken(lambda builder: builder.replace_constant("image_scale", np.array(0, np.float32)))
    assert "QuantizeLinear node_image_q has a scale that is not a positive constant" in found


def test_scale_per_channel_on_an_activation_is_found():
    found = broken(lambda builder: builder.replace_constant("image_scale", np.full(3, 0.1, np.float32)))
    assert "QuantizeLinear node_image_q has a scale per channel on an activation" in found


def test_weight_scales_on_another_axis_are_found():
    def change(builder):
        for output in ("a_w_q", "a_w_dq"):
            builder.find(output).attribute[0].i = 1

    assert "QuantizeLinear node_a_w_q has its 3 scales on axis 1, not 0" in broken(change)


def test_convolution_with_only_its_weight_in_8_bits_is_found():
    def change(builder):
        builder.find("a").input[0] = "image"

    assert broken(change) == ["Conv node_a has only its weight in 8 bits"]


def test_quantizer_not_followed_by_its_dequantizer_is_found():
    def change(builder):
        builder.node("Identity", ["pool_q"], "stray")

    assert broken(change) == ["QuantizeLinear node_pool_q is read by Identity node_stray, not by a DequantizeLinear"]


def test_pair_with_two_scales_is_found():
    def change(builder):
        builder.find("pool_dq").input[1] = builder.constant("other", np.array(0.3, np.float32))

    assert broken(change) == [
        "DequantizeLinear node_pool_dq has another scale than QuantizeLinear node_pool_q before it"
    ]


def test_two_scales_around_a_concatenation_are_found_through_what_moves_values():
    assert violations(Builder(branch_scale=0.2).model()) == ["Concat node_cat has 2 scales around it: 0.1, 0.2"]


def test_concatenation_with_a_float_input_is_found():
    def change(builder):
        builder.find("cat").input[1] = "b"

    assert "Concat node_cat is quantized after, but its input b is not" in broken(change)


def test_quantized_decoding_is_found():
    def change(builder):
        builder.pair("scores", 0.1)

    assert broken(change) == ["QuantizeLinear node_scores_q quantizes decoding: no weighted layer comes after it"]
