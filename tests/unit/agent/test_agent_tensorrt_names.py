"""The double's table of names against the reference that it was made from, where that is."""

import json
import os

import pytest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
REFERENCE = os.path.join(os.environ.get("EDGEJOULE_SHARED", os.path.join(ROOT, "..", "shared")), "reference")


def reference(name):
    """A file of the reference folder, parsed."""
    path = os.path.join(REFERENCE, name)
    if not os.path.exists(path):
        pytest.skip("there is no {} here; EDGEJOULE_SHARED names its folder".format(name))
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def in_words(what):
    """A member as our table has it: its arguments in brackets, "property" or "value"."""
    return what if isinstance(what, str) else "({})".format(", ".join(what))


def test_table_has_every_name_and_argument_of_the_reference_and_no_other(double):
    table = double.TABLE
    there = reference("tensorrt_api.json")
    assert table["source"] == there["source"]
    assert table["releases"] == list(there["api"])
    for release, classes in there["api"].items():
        expected = {
            name: {member: in_words(what) for member, what in members.items()} for name, members in classes.items()
        }
        ours = {name: double.members(release, name) for name in table["api"]}
        assert {name: members for name, members in ours.items() if members} == expected, release


def test_table_has_the_operators_of_the_reference(double):
    table = double.TABLE["onnx"]
    there = reference("tensorrt_onnx_ops.json")
    assert table["source"] == there["source"]
    opsets = {release: int(told["opset"].split()[-1]) for release, told in there["releases"].items()}
    assert table["opset"] == opsets
    for release, told in there["releases"].items():
        ours = {name for name, where in table["operators"].items() if where == "all" or release in where.split()}
        assert ours == set(told["ops"]), release
