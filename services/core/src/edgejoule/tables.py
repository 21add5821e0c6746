"""Rows, plans and runs as people read them on a terminal."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from edgejoule.plan import Cell, Plan
from edgejoule.reconcile import Ready, StepOutcome
from edgejoule.records import Difference, Results, Row
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


def results_table(results: Results) -> Table:
    """One line per row; accuracy in percent points would hide that these are fractions, so fractions they are."""
    table = Table(title=results.run, title_justify="left", caption_justify="left")
    for heading in ("row", "ran as", "status"):
        table.add_column(heading, overflow="fold")
    for heading in ("AP", "AP50", "ΔAP to FP32 [95 %]", "ms mean±std", "p99", "MB", "mJ"):
        table.add_column(heading, justify="right", no_wrap=True)
    differences = {difference.row: difference for difference in results.differences if difference.metric == "ap"}
    for row in results.rows:
        name = f"{row.model}/{row.variant}/{row.device}"
        table.add_row(*_row_cells(name, row, differences.get(name)))
    return table


def _row_cells(name: str, row: Row, difference: Difference | None) -> list[str | Text]:
    latency = row.latency_ms
    marks = [mark for mark, there in (("Pareto", row.pareto), ("contended", row.contended)) if there]
    status = Text(row.status, style=_STYLES.get(row.status, "red"))
    return [
        name + "".join(f" [{mark}]" for mark in marks).replace("[", "\\["),
        row.ran_as or "-",
        status,
        _number(row.ap, 3),
        _number(row.ap50, 3),
        f"{difference.difference:+.4f} \\[{difference.low:+.4f}, {difference.high:+.4f}]" if difference else "-",
        f"{latency.mean:.2f}±{latency.std:.2f}" if latency else "-",
        _number(latency.p99 if latency else None, 2),
        _number(row.size_mb, 2),
        _number(row.energy_mj, 1),
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def remarks(results: Results) -> list[str]:
    """What the table's figures need said beside them: rows without result, flags, notes."""
    lines = []
    for row in results.rows:
        name = f"{row.model}/{row.variant}/{row.device}"
        if row.status != "ok":
            lines.append(f"{name}: {row.status}: {row.reason}")
        lines += [f"{name}: {flag}" for flag in row.flags]
    return lines + results.notes


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
