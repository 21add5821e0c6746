"""Cells as metrics: their state, what they came to, and what must not stop the conductor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgejoule.folder_store import FolderStore
from edgejoule.plan import Cell, Plan
from edgejoule.reconcile import StepOutcome
from edgejoule.stack.cells import Cells
from edgejoule.stack.metrics import Metrics
from edgejoule.store import Made, Manifest
from edgejoule_analyst.pareto import front

CELL = Cell("m", "nanodet_m", "base", "fp32", "nano", ("build/m", "benchmark/m/0", "benchmark/m/1", "score/m"))
PLAN = Plan({}, (CELL,))


def shown(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Metric, and the label that tells most, to value."""
    families = text_string_to_metric_families(metrics.page()[1].decode())
    return {
        (sample.name, sample.labels.get("state") or sample.labels.get("simulated", "")): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("edgejoule_cell")
    }


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def outcome(store: FolderStore, step: str, record: Any = None) -> StepOutcome:
    if record is None:
        return StepOutcome(step, "ok", None, step, key="0" * 64)
    blob = store.put(json.dumps(record).encode())
    made = Made.model_construct()
    manifest = Manifest.model_construct(outputs={"record": blob}, made=made)
    return StepOutcome(step, "ok", None, step, key="1" * 64, manifest=manifest)


def trial(latency_ms: float, energy_mj: float | None, *, simulated: bool = True) -> dict[str, Any]:
    return {"latency_ms": {"mean": latency_ms}, "energy_mj": energy_mj, "simulated": simulated}


def measured(store: FolderStore, one: dict[str, Any]) -> dict[str, StepOutcome]:
    """The cell's outcomes, with a key of their own for each record."""
    records = {
        "build/m": None,
        "benchmark/m/0": one,
        "benchmark/m/1": one,
        "score/m": {"accuracy": {"ap": 0.2, "ap50": 0.4}},
    }
    return {step: replace(outcome(store, step, record), key=f"{one}") for step, record in records.items()}


def test_cell_is_shown_from_waiting_to_what_it_came_to(store: FolderStore) -> None:
    metrics = Metrics("conductor")
    cells = Cells(metrics, store)
    cells.look(PLAN, {}, ())
    assert shown(metrics) == {("edgejoule_cell_state", "waiting"): 1}
    cells.look(PLAN, {"build/m": outcome(store, "build/m")}, ["benchmark/m/0"])
    assert shown(metrics) == {("edgejoule_cell_state", "running"): 1}
    records = {
        "build/m": None,
        "benchmark/m/0": trial(20.0, 100.0),
        "benchmark/m/1": trial(30.0, 140.0),
        "score/m": {"accuracy": {"ap": 0.2, "ap50": 0.4}},
    }
    cells.look(PLAN, {step: outcome(store, step, record) for step, record in records.items()}, ())
    assert shown(metrics) == {
        ("edgejoule_cell_state", "ok"): 1,
        ("edgejoule_cell_ap_ratio", "true"): 0.2,
        ("edgejoule_cell_ap50_ratio", "true"): 0.4,
        ("edgejoule_cell_latency_seconds", "true"): pytest.approx(0.025),
        ("edgejoule_cell_energy_joules", "true"): pytest.approx(0.12),
        ("edgejoule_cell_on_front", "true"): 1,
    }


def test_front_is_of_each_device_and_equal_cells_share_it(store: FolderStore) -> None:
    """Against the report's own way, so that both name the same cells."""
    figures = {  # device, model -> AP and latency
        ("nano", "small"): (0.2, 20.0),
        ("nano", "again"): (0.2, 20.0),
        ("nano", "slower"): (0.2, 21.0),
        ("nano", "better"): (0.3, 30.0),
        ("nano", "worst"): (0.1, 40.0),
        ("orin", "worst"): (0.1, 40.0),
    }
    cells, outcomes = [], {}
    for (device, model), (ap, latency_ms) in figures.items():
        steps = (f"benchmark/{model}/{device}/0", f"score/{model}/{device}")
        cells.append(Cell(model, model, "base", "fp32", device, steps))
        outcomes[steps[0]] = outcome(store, steps[0], trial(latency_ms, None))
        outcomes[steps[1]] = outcome(store, steps[1], {"accuracy": {"ap": ap, "ap50": 0.5}})
    metrics = Metrics("conductor")
    Cells(metrics, store).look(Plan({}, tuple(cells)), outcomes, ())
    found = {
        (sample.labels["device"], sample.labels["detector"]): bool(sample.value)
        for family in text_string_to_metric_families(metrics.page()[1].decode())
        for sample in family.samples
        if sample.name == "edgejoule_cell_on_front"
    }
    expected = {}
    for device in ("nano", "orin"):
        names = [name for name in figures if name[0] == device]
        ap, latency_ms = zip(*(figures[name] for name in names), strict=True)
        expected.update(zip(names, front(maximise=[ap], minimise=[latency_ms]), strict=True))
    assert found == expected
    assert sorted(model for (device, model), on in found.items() if on and device == "nano") == [
        *("again", "better", "small")
    ]


def test_conductor_that_stands_by_shows_nothing_and_all_again_when_it_acts(store: FolderStore) -> None:
    metrics = Metrics("conductor")
    cells = Cells(metrics, store)
    cells.look(PLAN, measured(store, trial(20.0, 100.0)), ())
    before = shown(metrics)
    cells.forget()
    assert shown(metrics) == {}
    cells.look(PLAN, measured(store, trial(20.0, 100.0)), ())
    assert shown(metrics) == before


def test_a_new_run_leaves_no_figure_of_the_one_before(store: FolderStore) -> None:
    metrics = Metrics("conductor")
    cells = Cells(metrics, store)
    cells.look(PLAN, measured(store, trial(20.0, 100.0)), ())
    assert ("edgejoule_cell_energy_joules", "true") in shown(metrics)
    cells.look(PLAN, measured(store, trial(30.0, None, simulated=False)), ())
    assert shown(metrics) == {
        ("edgejoule_cell_state", "ok"): 1,
        ("edgejoule_cell_ap_ratio", "false"): 0.2,
        ("edgejoule_cell_ap50_ratio", "false"): 0.4,
        ("edgejoule_cell_latency_seconds", "false"): pytest.approx(0.03),
        ("edgejoule_cell_on_front", "false"): 1,
    }
    cells.look(PLAN, {}, ["build/m"])  # under way again: what is known stays until it ends
    assert ("edgejoule_cell_latency_seconds", "false") in shown(metrics)
    cells.look(PLAN, {"build/m": StepOutcome("build/m", "failed", "no", "build/m")}, ())
    assert shown(metrics) == {("edgejoule_cell_state", "failed"): 1}


def test_energy_that_one_trial_lacks_is_not_shown(store: FolderStore) -> None:
    metrics = Metrics("conductor")
    records = {"build/m": None, "benchmark/m/0": trial(20.0, 100.0), "benchmark/m/1": trial(20.0, None)}
    ended = {step: outcome(store, step, record) for step, record in records.items()}
    ended["score/m"] = outcome(store, "score/m", {"accuracy": {"ap": 0.2, "ap50": 0.4}})
    Cells(metrics, store).look(PLAN, ended, ())
    assert ("edgejoule_cell_energy_joules", "true") not in shown(metrics)
    assert shown(metrics)["edgejoule_cell_latency_seconds", "true"] == pytest.approx(0.02)


def test_what_went_wrong_is_the_cells_state(store: FolderStore) -> None:
    metrics = Metrics("conductor")
    wrong = StepOutcome("build/m", "unsupported", "no INT8", "build/m")
    Cells(metrics, store).look(PLAN, {"build/m": wrong}, ["score/m"])
    assert shown(metrics) == {("edgejoule_cell_state", "unsupported"): 1}


def test_int8_made_anew_by_another_seed_is_no_cell_here(store: FolderStore) -> None:
    metrics = Metrics("conductor")
    again = replace(CELL, seed=43, steps=("ptq/m/seed-43",))
    Cells(metrics, store).look(Plan({}, (CELL, again)), {}, ["ptq/m/seed-43"])
    assert shown(metrics) == {("edgejoule_cell_state", "waiting"): 1}


def test_a_record_that_is_none_stops_nobody(store: FolderStore) -> None:
    metrics = Metrics("conductor")
    ended = {step: outcome(store, step, {"odd": step}) for step in CELL.steps}
    Cells(metrics, store).look(PLAN, ended, ())
    assert shown(metrics) == {("edgejoule_cell_state", "ok"): 1}


def test_gauges_that_are_replaced_leave_no_old_labels_and_unknown_names_are_faults() -> None:
    metrics = Metrics("conductor")
    metrics.replace("edgejoule_queue_length", {("train",): 1, ("evaluate",): 2})
    metrics.replace("edgejoule_queue_length", {("train",): 3})
    text = metrics.page()[1].decode()
    assert 'edgejoule_queue_length{queue="train"} 3.0' in text
    assert "evaluate" not in text
    with pytest.raises(KeyError):
        metrics.set("edgejoule_new", 1)
    with pytest.raises(ValueError, match="label"):
        metrics.set("edgejoule_queue_length", 1, run="x")
