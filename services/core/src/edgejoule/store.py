"""The store: blobs by hash, and manifests that say which step made them.

    blobs/sha256/ab/<hash>     bytes, write-once, verified when read
    manifests/<key>.json       the commit point: a step is done if and only if its manifest is there
    attempts/<key>/<n>.json    every failure; <n>.log holds what that attempt printed
    runs/<id>/                 spec, plan and events of one run
    devices/  probes/          <name>.json: tokens of boards as hashes, and what the boards said of themselves
    quarantine/                manifests and blobs that turned out damaged

Every fault leaves either nothing or a blob that no manifest points at. Two kinds keep this layout:
:class:`~edgejoule.folder_store.FolderStore` in a folder, :class:`~edgejoule.s3_store.S3Store` in a bucket.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError

from edgejoule.errors import CorruptManifestError, StoreError
from edgejoule.locks import Pause, pause
from edgejoule.records import Record, Sha256, Status
from edgejoule.sources import HashCache

ATTEMPTS = 3
"""How often a step may fail in a way that trying again could mend."""

LOSSES = 10
"""How often the worker of a step may be lost; most often that says nothing of the step."""

PLAN_FILE = "plan.json"
"""The file of a run that makes it one."""

DURATIONS_FROM = 200
"""Manifests that estimates are made of."""

DeviceFolder = Literal["devices", "probes"]
"""What is kept of boards; see ``edgejoule.boards``."""

_URL = re.compile(r"(\w+)://")


class Blob(Record):
    """Bytes in the store."""

    sha256: Sha256
    size_bytes: int


class Made(Record):
    """When, where and how a manifest came to be; no part of any key."""

    at: str = Field(description="UTC, ISO 8601")
    host: str
    duration_s: float
    edgejoule: str = Field(description="version of edgejoule")


class Manifest(Record):
    """The durable result of a step. ``unsupported`` is a result too: asking again would change nothing."""

    format: Literal[1] = 1
    key: Sha256
    kind: str
    version: int
    step: str = Field(description="id of the step in the run that made this")
    parameters: dict[str, Any]
    inputs: dict[str, Sha256]
    outputs: dict[str, Blob]
    outcome: Literal["ok", "unsupported"]
    reason: str | None
    made: Made


class Attempt(Record):
    """One failure of a step, or of its worker."""

    step: str
    outcome: Status
    reason: str
    transient: bool
    lost: bool = Field(default=False, description="its worker was lost, and with it what became of the step")
    at: str
    host: str
    duration_s: float


def settled_failure(attempts: list[Attempt]) -> Attempt | None:
    """The failure that these attempts come to, None while one more may help.

    That is any permanent one, the last of three, or the last of ten whose worker was lost.

    It stands, in later runs too, until :meth:`Store.forget_attempts`.
    """
    permanent = [attempt for attempt in attempts if not attempt.transient]
    if permanent:
        return permanent[-1]
    losses = sum(attempt.lost for attempt in attempts)
    return attempts[-1] if len(attempts) - losses >= ATTEMPTS or losses >= LOSSES else None


def read_manifest(data: bytes, key: str, name: str) -> Manifest:
    """The manifest in these bytes, which lie under ``name``.

    Raises:
        CorruptManifestError: they are none, or that of another key.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise CorruptManifestError(f"{name} is not a manifest ({error.error_count()} faults)") from error
    if manifest.key != key:
        raise CorruptManifestError(f"{name} is the manifest of another key, {manifest.key}")
    return manifest


def median_durations_s(manifests: Iterable[bytes]) -> dict[str, float]:
    """Step kind to the median duration of these results; what is damaged is told when its step is due."""
    durations: defaultdict[str, list[float]] = defaultdict(list)
    for data in manifests:
        with suppress(ValidationError):
            manifest = Manifest.model_validate_json(data)
            durations[manifest.kind].append(manifest.made.duration_s)
    return {kind: statistics.median(values) for kind, values in durations.items()}


class Store(Protocol):
    """Where results live. Every method raises StoreError when the store cannot be read or written.

    Attributes:
        where: the store as a person names it: its folder, or ``s3://BUCKET/PREFIX``.
        hashes: remembers the content hashes of local files.
    """

    where: str
    hashes: HashCache

    def put(self, data: bytes) -> Blob:
        """Keep these bytes."""

    def take(self, file: Path) -> Blob:
        """Keep a file of :meth:`scratch`, which is the store's from then on."""

    def fetch(self, sha256: str) -> Path:
        """A local file with these bytes, verified, not to be written to.

        It stays until the lease ends under which this thread asked for it; without a lease, for a minute.

        Raises:
            CorruptBlobError: the bytes are gone or damaged.
        """

    def manifest(self, key: str, *, blobs: bool = True) -> Manifest | None:
        """The manifest of a step that is done.

        Args:
            blobs: make sure that its blobs are there; not needed of one that was committed a moment ago.

        Raises:
            CorruptManifestError: there is one, but it is unreadable or its blobs are gone.
        """

    def commit(self, manifest: Manifest) -> Manifest:
        """Make a step done; the manifest that counts is returned: of two writers, the first one's."""

    def quarantine(self, key: str) -> None:
        """Put a manifest, and those of its blobs that are damaged, out of the way: the step is not done."""

    def attempts(self, key: str) -> list[Attempt]:
        """The failures of a step so far, oldest first."""

    def add_attempt(self, key: str, attempt: Attempt) -> None:
        """Record one more failure."""

    def forget_attempts(self, key: str) -> None:
        """Give a failed step a new start."""

    def log(self, key: str, number: int) -> Path:
        """The local file that the attempt of this number, from 1, prints to."""

    def keep_log(self, key: str, number: int) -> None:
        """Have what that attempt printed outlive this host; nothing when it printed nothing."""

    def read_log(self, key: str, number: int) -> bytes | None:
        """What that attempt printed, as far as it was kept; None when it was not."""

    def lease(self, key: str, pause: Pause = pause) -> AbstractContextManager[int]:
        """Keep every other process of this host from doing this step; gives a descriptor that a child may inherit."""

    def scratch(self, key: str) -> Path:
        """A local folder for what a step keeps from one attempt to the next, made if absent."""

    def outputs(self, key: str) -> Path:
        """A local folder, empty, for what an attempt makes."""

    def clear_scratch(self, key: str) -> None:
        """Remove both."""

    def put_run_file(self, run: str, name: str, data: bytes) -> None:
        """Keep a file that belongs to a run, whole or not at all, in place of an earlier one."""

    def run_file(self, run: str, name: str) -> bytes | None:
        """That file; None when there is none."""

    def remove_run_file(self, run: str, name: str) -> None:
        """Remove it, if it is there."""

    def run_names(self) -> list[str]:
        """The runs whose plan is kept, the latest first."""

    def add_event(self, run: str, event: dict[str, Any]) -> None:
        """Append to the events of a run; from any thread."""

    def events(self, run: str) -> list[dict[str, Any]]:
        """The events of a run, oldest first."""

    def durations_s(self) -> dict[str, float]:
        """Step kind to the median duration of its latest results."""

    def put_device(self, folder: DeviceFolder, device: str, data: bytes) -> None:
        """Keep something of a board, whole or not at all, in place of an earlier one."""

    def device(self, folder: DeviceFolder, device: str) -> bytes | None:
        """It; None when there is none."""

    def device_names(self) -> list[str]:
        """The boards that were ever given a token."""

    def inbox(self) -> Path:
        """A local folder for what boards send, until it is checked."""


def open_store(where: str, environment: Mapping[str, str], *, writing: bool = True) -> Store:
    """The store at ``where``: a folder, made if absent, or ``s3://BUCKET[/PREFIX]``.

    Args:
        environment: says how an S3 server is reached; see docs/reference/settings.md.
        writing: whether results will be committed; makes sure that an S3 server can.

    Raises:
        StoreError: there can be no such store, it does not answer, or it lets us not in.
    """
    if url := _URL.match(where):
        if url[1] != "s3":
            raise StoreError(f"{where} is no store that edgejoule knows: name a folder or s3://BUCKET/PREFIX")
        from edgejoule.s3_store import open_s3_store

        return open_s3_store(where, environment, writing=writing)
    from edgejoule.folder_store import FolderStore

    return FolderStore(Path(where))
