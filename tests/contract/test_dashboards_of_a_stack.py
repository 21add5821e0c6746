"""The check of a running stack's dashboards itself: what is not asked is not taken for well."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stack"))  # before grafana/, which has a dashboards.py too
from dashboards import empty_queries, may_be_empty
from queries import Prometheus


class Empty(Prometheus):
    """A Prometheus that was never told anything."""

    def get(self, path: str, **parameters: str | float) -> object:
        return [] if path == "series" else {"result": []}


def test_a_variable_without_a_value_is_no_data() -> None:
    asked, empty = empty_queries(Empty("http://127.0.0.1:1"), 30.0)
    assert asked == len(empty)
    of_variables = [line.partition(" (")[0] for line in empty if "/ variable " in line]
    assert of_variables == ["Compare / variable detector", "Device / variable device"]
    assert not any(may_be_empty(line, host=False) for line in empty if "/ variable " in line)
