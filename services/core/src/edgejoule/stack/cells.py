"""The cells of the runs under way as metrics: how far each is, and what it came to as soon as its own steps ended."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Collection, Mapping
from typing import Any

from edgejoule.errors import EdgejouleError
from edgejoule.plan import Cell, Plan
from edgejoule.reconcile import StepOutcome
from edgejoule.stack.annotations import Annotations
from edgejoule.stack.metrics import Metrics
from edgejoule.store import Store

_log = logging.getLogger(__name__)
FIGURES = (
    *("edgejoule_cell_ap_ratio", "edgejoule_cell_ap50_ratio"),
    *("edgejoule_cell_latency_seconds", "edgejoule_cell_energy_joules"),
)
"""What a cell came to: shown of its latest run alone, so that no figure stands beside one of another run."""


class Cells:
    """The latest run of each cell counts, also when it has ended; what a restart forgets comes with the next run."""

    def __init__(self, metrics: Metrics, store: Store, annotations: Annotations | None = None) -> None:
        self._metrics = metrics
        self._store = store
        self._annotations = annotations
        self._states: dict[tuple[str, str, str], str] = {}
        self._keys: dict[tuple[str, str, str], frozenset[str]] = {}
        self._came_to: dict[tuple[str, str, str], tuple[dict[str, float], bool]] = {}

    def look(self, plan: Plan, outcomes: Mapping[str, StepOutcome], at_work: Collection[str]) -> None:
        """Take note of how far a run is.

        Args:
            at_work: ids of its steps that somebody carries out now.
        """
        for cell in plan.cells:
            if cell.seed is not None:  # no row, and called as its row is
                continue
            name = (cell.device, cell.row_model, cell.variant)
            ended = {step: outcomes[step] for step in cell.steps if step in outcomes}
            state = state_of_cell(cell, ended, at_work)
            keys = frozenset(outcome.key or "" for outcome in ended.values())
            if state == "ok" and (self._states.get(name), self._keys.get(name)) != (state, keys):
                self._read(cell, ended)
            elif state not in ("ok", "waiting", "running"):
                self._came_to.pop(name, None)
            if self._annotations and (before := self._states.get(name)) not in (None, state):
                self._annotations.cell_changed(cell.name, cell.device, str(before), state)
            self._states[name], self._keys[name] = state, keys
        self._show()

    def forget(self) -> None:
        """Show nothing any more: another conductor may act, and a cell may come to something else there."""
        self._states, self._keys, self._came_to = {}, {}, {}
        self._show()

    def _show(self) -> None:
        self._metrics.replace("edgejoule_cell_state", {(*name, state): 1 for name, state in self._states.items()})
        for metric in FIGURES:
            shown = {
                (*name, str(simulated).lower()): values[metric]
                for name, (values, simulated) in self._came_to.items()
                if metric in values
            }
            self._metrics.replace(metric, shown)
        self._metrics.replace("edgejoule_cell_on_front", self._front())

    def _front(self) -> dict[tuple[str, ...], float]:
        """Labels of each cell that has an AP and a latency to 1, or 0 where another of its device beats it."""
        objectives = {
            name: (-values["edgejoule_cell_ap_ratio"], values["edgejoule_cell_latency_seconds"])
            for name, (values, _) in self._came_to.items()
            if values.keys() >= {"edgejoule_cell_ap_ratio", "edgejoule_cell_latency_seconds"}
        }
        found: dict[tuple[str, ...], float] = {}
        for name, costs in objectives.items():
            others = [other for key, other in objectives.items() if key[0] == name[0] and other != costs]
            beaten = any(other[0] <= costs[0] and other[1] <= costs[1] for other in others)
            labels = (*name, str(self._came_to[name][1]).lower())
            found[labels] = float(not beaten)
        return found

    def _read(self, cell: Cell, ended: Mapping[str, StepOutcome]) -> None:
        name = (cell.device, cell.row_model, cell.variant)
        self._came_to.pop(name, None)
        try:
            self._came_to[name] = self._values(ended)
        except (EdgejouleError, LookupError, TypeError, ValueError) as error:  # a view must not stop what it looks at
            _log.warning("what %s came to is not shown: %s", cell.name, error)

    def _values(self, ended: Mapping[str, StepOutcome]) -> tuple[dict[str, float], bool]:
        """What a cell that is done came to, without what is null; and whether its device is simulated."""
        values: dict[str, float] = {}
        for record in self._records(ended, "score"):
            values["edgejoule_cell_ap_ratio"] = record["accuracy"]["ap"]
            values["edgejoule_cell_ap50_ratio"] = record["accuracy"]["ap50"]
        trials = self._records(ended, "benchmark")
        if trials:
            values["edgejoule_cell_latency_seconds"] = statistics.fmean(t["latency_ms"]["mean"] for t in trials) / 1e3
        energies_mj = [trial["energy_mj"] for trial in trials]
        if energies_mj and None not in energies_mj:
            values["edgejoule_cell_energy_joules"] = statistics.fmean(energies_mj) / 1e3
        return values, any(trial["simulated"] for trial in trials)

    def _records(self, ended: Mapping[str, StepOutcome], kind: str) -> list[Any]:
        made = [outcome.manifest for step, outcome in ended.items() if step.startswith(f"{kind}/")]
        return [json.loads(self._store.fetch(each.outputs["record"].sha256).read_bytes()) for each in made if each]


def state_of_cell(cell: Cell, ended: Mapping[str, StepOutcome], at_work: Collection[str]) -> str:
    """``waiting``, ``running``, ``ok``, or how it went wrong.

    >>> cell = Cell("m", "nanodet_m", "base", "fp32", "host", ("build/a", "score/a"))
    >>> state_of_cell(cell, {}, ()), state_of_cell(cell, {}, ("build/a",))
    ('waiting', 'running')
    """
    wrong = next((outcome.outcome for outcome in ended.values() if not outcome.ok), None)
    if wrong is not None:
        return wrong
    if len(ended) == len(cell.steps):
        return "ok"
    return "running" if any(step in at_work for step in cell.steps) else "waiting"
