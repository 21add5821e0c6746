"""What the store keeps of a run that was submitted to the stack, beside its plan.

submitted.json    it is the stack's to carry out
cancelled.json    it is not wanted any more
ended.json        nothing more will happen, and why
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgejoule.canonical import canonical_json
from edgejoule.execution import now
from edgejoule.store import Store

_SUBMITTED, _CANCELLED, _ENDED = "submitted.json", "cancelled.json", "ended.json"
End = Literal["done", "cancelled", "refused"]


@dataclass(frozen=True)
class RunState:
    """Where a run of the stack stands.

    Attributes:
        end: how it ended; None while it goes on.
        reason: why, when it was refused.
    """

    submitted: bool
    cancelled: bool
    end: End | None
    reason: str | None = None

    @property
    def active(self) -> bool:
        return self.submitted and self.end is None


def state_of_run(run: str, store: Store) -> RunState:
    """Where the run stands, by the store alone."""
    if store.run_file(run, _SUBMITTED) is None:
        return RunState(submitted=False, cancelled=False, end=None)
    if (data := store.run_file(run, _ENDED)) is not None:
        ended = json.loads(data)
        return RunState(True, ended["outcome"] == "cancelled", ended["outcome"], ended.get("reason"))
    return RunState(True, store.run_file(run, _CANCELLED) is not None, None)


def mark_submitted(run: str, store: Store) -> None:
    """Make the run the stack's, also when it was before."""
    for name in (_CANCELLED, _ENDED):
        store.remove_run_file(run, name)
    _put(run, _SUBMITTED, {"at": now()}, store)


def mark_cancelled(run: str, store: Store) -> None:
    _put(run, _CANCELLED, {"at": now()}, store)


def mark_ended(run: str, store: Store, outcome: End, reason: str | None = None) -> None:
    _put(run, _ENDED, {"at": now(), "outcome": outcome, "reason": reason}, store)


def _put(run: str, name: str, value: Mapping[str, Any], store: Store) -> None:
    store.put_run_file(run, name, canonical_json(value).encode("utf-8"))
