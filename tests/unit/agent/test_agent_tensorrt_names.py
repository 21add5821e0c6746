"""The double's table of names against the reference that it was made from, where that is."""

import ast
import glob
import json
import os
import re

import pytest

from edgejoule_agent.engines import tensorrt_engine
from edgejoule_agent.engines.tensorrt_engine import releases

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


def test_every_name_that_is_touched_has_its_documentation_named(double):
    """Arguments and returns: the table of docs/reference/tensorrt.md has each, and no other."""
    path = os.path.join(ROOT, "docs", "reference", "tensorrt.md")
    if not os.path.exists(path):
        pytest.skip("the documentation is not here")
    with open(path, encoding="utf-8") as file:
        rows = [line.strip("|\n ").split(" | ") for line in file if line.startswith("| `")]
    rows = [row for row in rows if len(row) == 3 and not row[0].startswith("`fp") and not row[0].startswith("`int8")]
    named = {member for row in rows for member in re.findall(r"`(\w+\.\w+)`", row[0])}
    assert all(how and where for _, how, where in rows)
    assert [row for row in rows if not re.search(r"infer/|parsers/|python/", row[2])] == []

    members = {  # of classes that have more than values
        "{}.{}".format(name, member)
        for name, each in double.TABLE["api"].items()
        for member, told in each.items()
        if "value" not in told
    }
    assert named - members == set()
    known = {name.split(".")[1] for name in members}
    touched = set()
    for source in glob.glob(os.path.join(os.path.dirname(tensorrt_engine.__file__), "*.py")):
        if os.path.basename(source) in ("cuda.py", "graph.py", "inspector.py"):  # these ask CUDA, a graph, a JSON
            continue
        with open(source, encoding="utf-8") as file:
            touched |= {node.attr for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Attribute)}
    touched |= {row.context_memory for row in releases.TABLE}
    shown = {name.split(".")[1] for name in named}
    assert (touched & known) - shown == {"read", "shape", "size"}  # of files and of our own buffers
    assert shown - touched == {"log"}  # which is overridden
