"""What one run is: its spec and plan, kept in the store under ``runs/<name>/`` beside its events."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgejoule.canonical import canonical_json
from edgejoule.errors import StoreError
from edgejoule.plan import Cell, Plan, Ref, Source, Step
from edgejoule.store import FolderStore

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Run:
    """A plan with the name it runs under and the spec it came from, as its author wrote it."""

    name: str
    spec: Mapping[str, Any]
    plan: Plan


def save(run: Run, store: FolderStore) -> None:
    """Keep spec and plan in the store, so that ``edgejoule status`` can tell of the run."""
    value = {
        "name": run.name,
        "spec": dict(run.spec),
        "steps": [_step_to_json(step) for step in run.plan.steps.values()],
        "cells": [dataclasses.asdict(cell) for cell in run.plan.cells],
    }
    write_atomically(store.run_folder(run.name) / PLAN_FILE, canonical_json(value).encode("utf-8"))


def load(name: str, store: FolderStore) -> Run:
    """The run called ``name``.

    Raises:
        StoreError: there is none, or its plan is damaged.
    """
    path = store.path / "runs" / name / PLAN_FILE
    try:
        value = json.loads(path.read_bytes())
        steps = {step["id"]: _step_from_json(step) for step in value["steps"]}
        cells = tuple(Cell(**{**cell, "steps": tuple(cell["steps"])}) for cell in value["cells"])
        return Run(value["name"], value["spec"], Plan(steps, cells))
    except (FileNotFoundError, NotADirectoryError):
        known = ", ".join(names(store)) or "none yet"
        raise StoreError(f"there is no run {name!r} in the store {store.path}; its runs are: {known}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a plan ({error}); run the spec again, which writes it anew") from error


def names(store: FolderStore) -> list[str]:
    """The runs that the store knows, the latest first."""
    plans = (store.path / "runs").glob(f"*/{PLAN_FILE}")
    return [path.parent.name for path in sorted(plans, key=lambda path: path.stat().st_mtime_ns, reverse=True)]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _step_to_json(step: Step) -> dict[str, Any]:
    inputs = {
        name: {"path": str(source.path), "sha256": source.sha256}
        if isinstance(source, Source)
        else dataclasses.asdict(source)
        for name, source in step.inputs.items()
    }
    return {"id": step.id, "kind": step.kind, "parameters": dict(step.parameters), "inputs": inputs}


def _step_from_json(value: Mapping[str, Any]) -> Step:
    inputs: dict[str, Ref | Source] = {
        name: Source(Path(source["path"]), source["sha256"]) if "path" in source else Ref(**source)
        for name, source in value["inputs"].items()
    }
    return Step(value["id"], value["kind"], value["parameters"], inputs)


def find_store(out: Path | None, store: Path | None, environment: Mapping[str, str]) -> Path:
    """Where the store is: as said, else ``EDGEJOULE_STORE``, else ``.store`` beside the output folder.

    >>> str(find_store(Path("runs/demo"), None, {}))
    'runs/.store'
    """
    if store is not None:
        return store
    if environment.get("EDGEJOULE_STORE"):
        return Path(environment["EDGEJOULE_STORE"])
    return Path(os.path.normpath(out / ".." / ".store")) if out is not None else Path("runs/.store")


def count_states(states: Sequence[str]) -> str:
    """Equal states counted, in the order they first come.

    >>> count_states(["done", "done", "to do"])
    '2 done, 1 to do'
    """
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
