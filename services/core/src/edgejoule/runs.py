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
from edgejoule.store import PLAN_FILE, Store


@dataclass(frozen=True)
class Run:
    """A plan with the name it runs under and the spec it came from, as its author wrote it."""

    name: str
    spec: Mapping[str, Any]
    plan: Plan


def save(run: Run, store: Store) -> None:
    """Keep spec and plan in the store, so that ``edgejoule status`` can tell of the run."""
    value = {
        "name": run.name,
        "spec": dict(run.spec),
        "steps": [_step_to_json(step) for step in run.plan.steps.values()],
        "cells": [dataclasses.asdict(cell) for cell in run.plan.cells],
    }
    store.put_run_file(run.name, PLAN_FILE, canonical_json(value).encode("utf-8"))


def load(name: str, store: Store) -> Run:
    """The run called ``name``.

    Raises:
        StoreError: there is none, or its plan is damaged.
    """
    kept = store.run_file(name, PLAN_FILE)
    if kept is None:
        known = ", ".join(store.run_names()) or "none yet"
        raise StoreError(f"there is no run {name!r} in the store {store.where}; its runs are: {known}")
    try:
        value = json.loads(kept)
        steps = {step["id"]: _step_from_json(step) for step in value["steps"]}
        cells = tuple(Cell(**{**cell, "steps": tuple(cell["steps"])}) for cell in value["cells"])
        return Run(value["name"], value["spec"], Plan(steps, cells))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"runs/{name}/{PLAN_FILE} in the store {store.where} is not a plan ({error}); "
            "run the spec again, which writes it anew"
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all.

    A link is followed. What is no file, such as a pipe, cannot be replaced and is written as it is.

    Raises:
        OSError: it cannot be written; ``filename`` is its own, not that of the part.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _replace(path: Path, data: bytes) -> None:
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


def find_store(out: Path | None, store: str | None, environment: Mapping[str, str]) -> str:
    """Where the store is: as said, else ``EDGEJOULE_STORE``, else ``.store`` beside the output folder.

    >>> find_store(Path("runs/demo"), None, {})
    'runs/.store'
    """
    if store is not None:
        return store
    if environment.get("EDGEJOULE_STORE"):
        return environment["EDGEJOULE_STORE"]
    return os.path.normpath(out / ".." / ".store") if out is not None else "runs/.store"


def count_states(states: Sequence[str]) -> str:
    """Equal states counted, in the order they first come.

    >>> count_states(["done", "done", "to do"])
    '2 done, 1 to do'
    """
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
