"""One attempt at one step, from known inputs to a manifest or to a record of what went wrong.

Every executor carries out its attempts by this; they differ in who decides what is tried when, and where.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from edgejoule import __version__
from edgejoule.job import Progress
from edgejoule.kinds import StepKind
from edgejoule.plan import Step
from edgejoule.reconcile import Ready
from edgejoule.store import Attempt, Blob, Made, Manifest, Store
from edgejoule.worker import Report, Request, run_worker

DURABLE = ("ok", "unsupported")
"""Outcomes that are results: asking again would change nothing."""


def attempt(
    step: Step,
    ready: Ready,
    kind: StepKind,
    store: Store,
    inputs: Mapping[str, Path],
    *,
    on_progress: Progress,
    stopping: Callable[[], bool],
    inherit: Sequence[int] = (),
) -> Manifest | Attempt:
    """Try once. The caller holds the step's lease; what comes of it is in the store when this returns.

    Args:
        inputs: input name to a local file whose hash has been verified.
        inherit: descriptors of locks that must last for as long as the step's process lives.

    Raises:
        Stopped: ``stopping`` turned true; nothing of the attempt counts.
        StoreError: the store cannot be used, or a disk is full: the host's fault, not the step's.
    """
    number = len(store.attempts(ready.key)) + 1
    outputs = store.outputs(ready.key)
    files = {name: str(path) for name, path in inputs.items()}
    began = time.monotonic()
    report = run_worker(
        Request(kind.module, dict(step.parameters), files, str(outputs), str(store.scratch(ready.key))),
        log=store.log(ready.key, number),
        time_limit_s=kind.time_limit_s,
        silence_limit_s=kind.silence_limit_s,
        on_progress=on_progress,
        stopping=stopping,
        inherit=inherit,
    )
    duration_s = time.monotonic() - began
    store.keep_log(ready.key, number)
    return conclude(step, ready, kind, store, outputs, report, duration_s, socket.gethostname())


def conclude(
    step: Step,
    ready: Ready,
    kind: StepKind,
    store: Store,
    outputs: Path,
    report: Report,
    duration_s: float,
    host: str,
) -> Manifest | Attempt:
    """Make the store say how an attempt ended, wherever it was carried out.

    Args:
        outputs: the step's folder of the store with what the attempt made.

    Raises:
        StoreError: the store cannot be used.
    """
    if report.outcome == "ok" and (fault := _fault(outputs, kind)):
        report = Report("failed", fault)
    if report.outcome in DURABLE:
        blobs = {file.name: store.take(file) for file in sorted(outputs.iterdir())} if not report.reason else {}
        manifest = store.commit(_manifest(step, ready, kind, blobs, report, duration_s, host))
        store.clear_scratch(ready.key)
        return manifest
    failure = Attempt(
        step=step.id,
        outcome=report.outcome,
        reason=report.reason or "",
        transient=report.transient,
        at=now(),
        host=host,
        duration_s=duration_s,
    )
    store.add_attempt(ready.key, failure)
    return failure


def now() -> str:
    """The time as records write it: UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _fault(outputs: Path, kind: StepKind) -> str | None:
    """What is wrong with the outputs of a step that says it succeeded."""
    files = list(outputs.iterdir())
    if odd := [file.name for file in files if file.is_symlink() or not file.is_file()]:
        return f"output {odd[0]!r} is not a plain file"
    missing = {name for name in kind.outputs if "*" not in name} - {file.name for file in files}
    return f"ended without writing its output {min(missing)!r}" if missing else None


def _manifest(
    step: Step, ready: Ready, kind: StepKind, outputs: dict[str, Blob], report: Report, duration_s: float, host: str
) -> Manifest:
    return Manifest(
        key=ready.key,
        kind=step.kind,
        version=kind.version,
        step=step.id,
        parameters=dict(step.parameters),
        inputs=dict(ready.inputs),
        outputs=outputs,
        outcome="ok" if report.outcome == "ok" else "unsupported",
        reason=report.reason,
        made=Made(at=now(), host=host, duration_s=duration_s, edgejoule=__version__),
    )
