"""What a board may hand in for a step: which files, how large, and records that say what they should."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgejoule.boards import DeviceResult
from edgejoule.canonical import hash_file
from edgejoule.kinds import StepKind
from edgejoule.records import BenchmarkRecord, EngineRecord, PredictRecord
from edgejoule_gateway.inbox import LOG, Entry, files_of
from edgejoule_gateway.limits import Limits

RECORD = "record"
RECORDS: Mapping[str, type[BaseModel]] = {
    "build": EngineRecord,
    "benchmark": BenchmarkRecord,
    "predict": PredictRecord,
}
"""Step kind to what its output ``record`` is."""

_REPEATED = ("device", "trial", "threads", "precision")
"""Parameters of a step that its record repeats."""


def fault_in_announcement(result: DeviceResult, kind: StepKind, limits: Limits) -> str | None:
    """Why a result is none, before a byte of it has arrived; None when it may come.

    >>> from edgejoule.kinds import Kinds
    >>> result = DeviceResult(outcome="failed", reason=None, transient=False, duration_s=1, outputs={}, log=None)
    >>> fault_in_announcement(result, Kinds()["build"], Limits())
    'its board says it ended as failed, and not why'
    """
    if result.outcome == "ok":
        if result.reason is not None:
            return "its board says that it is well, and why it is not"
    elif not result.reason:
        return f"its board says it ended as {result.outcome}, and not why"
    elif result.outputs:
        return f"its board says it ended as {result.outcome}, and sends outputs"
    if len(result.outputs) > limits.outputs:
        return f"its board sends {len(result.outputs)} files, and {limits.outputs} are the limit"
    for name, blob in files_of(result).items():
        if name != LOG and not any(fnmatch.fnmatchcase(name, pattern) for pattern in kind.outputs):
            return f"its board sends a file {name!r}, which no step {kind.name} makes"
        limit = limits.log_bytes if name == LOG else limits.record_bytes if name == RECORD else limits.output_bytes
        if not 0 <= blob.size_bytes <= limit:
            return f"its board sends {blob.size_bytes} bytes of {name}, and {limit} are the limit"
    return None


def fault_in_files(entry: Entry, result: DeviceResult) -> str | None:
    """Why what arrived is not what was announced; it is thrown away then."""
    for name, blob in files_of(result).items():
        if blob.size_bytes == 0:
            entry.path(name).touch()
        found = hash_file(entry.path(name))
        if found != blob.sha256:
            entry.drop(name)
            return f"of {name}, bytes with the sha256 {found} arrived, and {blob.sha256} was announced"
    return None


def fault_in_record(entry: Entry, result: DeviceResult) -> str | None:
    """Why the record of a step is none, or that of another step."""
    model = RECORDS.get(entry.message.kind)
    if model is None or RECORD not in result.outputs:
        return None
    try:
        record = model.model_validate_json(entry.path(RECORD).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"its record is none: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    said: dict[str, Any] = {name: getattr(record, name) for name in _REPEATED if hasattr(record, name)}
    for name, value in said.items():
        if name in entry.message.parameters and value != entry.message.parameters[name]:
            return f"its record says {name} {value!r}, and {entry.message.parameters[name]!r} was asked for"
    if isinstance(record, EngineRecord) and "engine" in result.outputs:
        size_bytes = result.outputs["engine"].size_bytes
        if record.size_bytes != size_bytes:
            return f"its record says the engine has {record.size_bytes} bytes, and it has {size_bytes}"
    return None


def link_into(folder: Path, entry: Entry, result: DeviceResult) -> None:
    """Have a step's outputs in a folder too; here they stay until all of it is in the store."""
    for name in result.outputs:
        (folder / name).hardlink_to(entry.path(name))
