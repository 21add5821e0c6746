"""Plans, and rows as they come, as people read them on a terminal. (The table of results is the analyst's.)"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from edgejoule.plan import Cell, Plan
from edgejoule.reconcile import Ready, StepOutcome
from edgejoule.store import Store

_STYLES = {"ok": "green", "done": "green", "unsupported": "yellow", "to do": "cyan", "follows": "dim"}


def row_line(cell: Cell, outcomes: Mapping[str, StepOutcome], store: Store) -> str:
    """What a cell came to, as soon as its own steps ended; the analysis may add flags later."""
    if ended := next((outcome for outcome in outcomes.values() if not outcome.ok), None):
        return f"row  {cell.name}: {ended.outcome}: {ended.reason}"

    def records(kind: str) -> list[Any]:
        found = [outcome.manifest for outcome in outcomes.values() if outcome.step.startswith(f"{kind}/")]
        return [json.loads(store.fetch(made.outputs["record"].sha256).read_bytes()) for made in found if made]

    accuracy = records("score")[0]["accuracy"]
    latency_ms = statistics.fmean(record["latency_ms"]["mean"] for record in records("benchmark"))
    ran_as = records("build")[0]["ran_as"]
    return (
        f"row  {cell.name}: AP {accuracy['ap']:.3f}, AP50 {accuracy['ap50']:.3f}, {latency_ms:.2f} ms, ran as {ran_as}"
    )


def state_of(found: StepOutcome | Ready | None) -> str:
    """A step's state in one word or two."""
    if found is None:
        return "follows"
    if isinstance(found, Ready):
        return "to do"
    return "done" if found.ok else found.outcome


def plan_table(title: str, plan: Plan, found: Mapping[str, StepOutcome | Ready | None]) -> Table:
    """One line per step."""
    table = Table(title=title, title_justify="left")
    for heading in ("step", "state", "why"):
        table.add_column(heading, overflow="fold")
    for step in plan.steps:
        outcome = found[step]
        state = state_of(outcome)
        reason = outcome.reason or "" if isinstance(outcome, StepOutcome) else ""
        table.add_row(step, Text(state, style=_STYLES.get(state, "red")), Text(reason))
    return table
