"""The check of a running stack's dashboards itself: what is not asked is not taken for well."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stack"))  # before grafana/, which has a dashboards.py too
from dashboards import EMPTY_AFTERWARDS, Walk, may_be_empty
from queries import Prometheus


class Empty(Prometheus):
    """A Prometheus that was never told anything."""

    def get(self, path: str, **parameters: str | float) -> object:
        return [] if path == "series" else {"result": []}


class Filling(Prometheus):
    """One that has a device, and the data of its first round alone."""

    rounds = 0

    def get(self, path: str, **parameters: str | float) -> object:
        if path == "series":
            return [{"device": "nano", "detector": "toy", "precision": "fp32"}]
        return {"result": [{"metric": {}, "value": [0, "1"], "values": [[0, "1"]]}] if self.rounds == 0 else []}


def test_a_variable_without_a_value_is_no_data() -> None:
    walk = Walk(Empty("http://127.0.0.1:1"), minutes=30.0)
    walk.look()
    assert walk.asked == len(walk.empty)
    of_variables = [line.partition(" (")[0] for line in walk.empty if "/ variable " in line]
    assert of_variables == ["Compare / variable detector", "Device / variable device"]
    for line in walk.empty:
        assert not ("/ variable " in line and may_be_empty(line, host=False, besides=EMPTY_AFTERWARDS))


def test_what_had_data_in_any_round_is_not_empty() -> None:
    server = Filling("http://127.0.0.1:1")
    walk = Walk(server, minutes=30.0)
    walk.look()
    server.rounds = 1
    walk.look()
    assert walk.rounds == 2
    assert walk.asked > 100
    assert walk.empty == []
