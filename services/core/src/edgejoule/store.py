"""The store: blobs by hash, and manifests that say which step made them.

    blobs/sha256/ab/<hash>     bytes, write-once, verified when read
    manifests/<key>.json       the commit point: a step is done if and only if its manifest is there
    attempts/<key>/<n>.json    every failure; <n>.log holds what that attempt printed
    runs/<id>/                 spec, plan and events of one run
    scratch/<key>/             what an attempt works on; outlives a killed one, goes when the step is committed
    quarantine/                manifests and blobs that turned out damaged
    locks/  tmp/  hashes.sqlite

Every fault leaves either nothing or a blob that no manifest points at.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError

from edgejoule.canonical import canonical_json, hash_file
from edgejoule.errors import CorruptBlobError, CorruptManifestError, StepError, StoreError
from edgejoule.locks import Pause, file_lock, pause
from edgejoule.records import Record, Sha256, Status
from edgejoule.sources import HashCache

ATTEMPTS = 3
"""How often a step may fail in a way that trying again could mend."""

_DAY_S = 24 * 3600.0
_DURATIONS_FROM = 200  # newest manifests that estimates are made of


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
    """One failure of a step."""

    step: str
    outcome: Status
    reason: str
    transient: bool
    at: str
    host: str
    duration_s: float


def settled_failure(attempts: list[Attempt]) -> Attempt | None:
    """The failure that these attempts come to: any permanent one, or the last of three; None while one more may help.

    It stands, in later runs too, until :meth:`Store.forget_attempts`.
    """
    permanent = [attempt for attempt in attempts if not attempt.transient]
    if permanent:
        return permanent[-1]
    return attempts[-1] if len(attempts) >= ATTEMPTS else None


class Store(Protocol):
    """Where results live. Every method raises StoreError when the store cannot be read or written.

    Attributes:
        hashes: remembers the content hashes of local files.
    """

    hashes: HashCache

    def put(self, data: bytes) -> Blob:
        """Keep these bytes."""

    def take(self, file: Path) -> Blob:
        """Keep a file of :meth:`scratch`, which is the store's from then on."""

    def fetch(self, sha256: str) -> Path:
        """A local file with these bytes, verified, not to be written to.

        Raises:
            CorruptBlobError: the bytes are gone or damaged.
        """

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of a step that is done.

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

    def lease(self, key: str, pause: Pause = pause) -> AbstractContextManager[int]:
        """Keep every other process from doing this step; gives a descriptor that a child may inherit."""

    def scratch(self, key: str) -> Path:
        """A local folder for what a step keeps from one attempt to the next, made if absent."""

    def outputs(self, key: str) -> Path:
        """A local folder, empty, for what an attempt makes."""

    def clear_scratch(self, key: str) -> None:
        """Remove both."""

    def run_folder(self, run: str) -> Path:
        """A local folder for what belongs to one run, made if absent."""

    def add_event(self, run: str, event: dict[str, Any]) -> None:
        """Append to the events of a run; from any thread."""

    def events(self, run: str) -> list[dict[str, Any]]:
        """The events of a run, oldest first."""

    def durations_s(self) -> dict[str, float]:
        """Step kind to the median duration of its latest results."""


class FolderStore:
    """A store in a folder of a local file system, shared by any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._blobs = self.path / "blobs" / "sha256"
        self._manifests = self.path / "manifests"
        self._attempts = self.path / "attempts"
        self._tmp = self.path / "tmp"
        with self._explained():
            for folder in (self._blobs, self._manifests, self._attempts, self._tmp, self.path / "locks"):
                folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        self.hashes = HashCache(self.path / "hashes.sqlite")

    # --- blobs ---

    def put(self, data: bytes) -> Blob:
        with self._explained():
            return self.take(self._write(data))

    def take(self, file: Path) -> Blob:
        with self._explained():
            if file.is_symlink() or not file.is_file():
                raise StepError(f"{file} is not a plain file, so it cannot be kept: write outputs as files")
            blob = Blob(sha256=hash_file(file), size_bytes=file.stat().st_size)
            path = self._blob(blob.sha256)
            path.parent.mkdir(exist_ok=True)
            file.chmod(0o444)
            _sync(file)
            try:
                os.link(file, path)
            except FileExistsError:
                if self._holds(path, blob.sha256):
                    file.unlink()
                else:
                    os.replace(file, path)
            else:
                file.unlink()
            _sync(path.parent)
            return blob

    def fetch(self, sha256: str) -> Path:
        path = self._blob(sha256)
        with self._explained():
            if not path.exists():
                raise CorruptBlobError(
                    f"blob {sha256} is gone from the store {self.path}: run the same command again, "
                    "which does the step that made it once more"
                )
            if not self._holds(path, sha256):
                raise CorruptBlobError(
                    f"blob {sha256} in the store {self.path} is damaged: check the disk, then run the same command "
                    "again, which does the step that made it once more"
                )
        return path

    def _blob(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    def _holds(self, path: Path, sha256: str) -> bool:
        return self.hashes.file(path) == sha256

    # --- manifests ---

    def manifest(self, key: str) -> Manifest | None:
        path = self._manifest(key)
        with self._explained():
            try:
                manifest = Manifest.model_validate_json(path.read_bytes())
            except FileNotFoundError:
                return None
            except ValidationError as error:
                raise CorruptManifestError(f"{path} is not a manifest ({error.error_count()} faults)") from error
            if manifest.key != key:
                raise CorruptManifestError(f"{path} is the manifest of another key, {manifest.key}")
            for name, blob in manifest.outputs.items():
                if not self._has_size(blob):
                    raise CorruptManifestError(
                        f"output {name!r} of step {manifest.step} is gone or cut short: blob {blob.sha256}"
                    )
        return manifest

    def commit(self, manifest: Manifest) -> Manifest:
        data = canonical_json(manifest.model_dump(mode="json")).encode("utf-8")
        with self._explained():
            file = self._write(data)
            try:
                while True:
                    try:
                        os.link(file, self._manifest(manifest.key))
                    except FileExistsError:
                        if winner := self.manifest(manifest.key):
                            return winner
                    else:
                        _sync(self._manifests)
                        return manifest
            finally:
                file.unlink()

    def quarantine(self, key: str) -> None:
        path = self._manifest(key)
        with self._explained():
            try:
                manifest = Manifest.model_validate_json(path.read_bytes())
            except FileNotFoundError:  # another run was quicker
                return
            except ValidationError:
                manifest = None
            self._set_aside(path)
            for blob in manifest.outputs.values() if manifest else ():
                damaged = self._blob(blob.sha256)
                if damaged.exists() and not self._holds(damaged, blob.sha256):
                    self._set_aside(damaged)

    def durations_s(self) -> dict[str, float]:
        with self._explained():
            by_age = sorted(os.scandir(self._manifests), key=lambda entry: entry.stat().st_mtime_ns)
            durations: defaultdict[str, list[float]] = defaultdict(list)
            for entry in by_age[-_DURATIONS_FROM:]:
                try:
                    manifest = Manifest.model_validate_json(Path(entry.path).read_bytes())
                except ValidationError:  # told to the user when its step is due
                    continue
                durations[manifest.kind].append(manifest.made.duration_s)
        return {kind: statistics.median(values) for kind, values in durations.items()}

    def _manifest(self, key: str) -> Path:
        return self._manifests / f"{key}.json"

    def _has_size(self, blob: Blob) -> bool:
        try:
            return self._blob(blob.sha256).stat().st_size == blob.size_bytes
        except FileNotFoundError:
            return False

    def _set_aside(self, path: Path) -> None:
        folder = self.path / "quarantine"
        folder.mkdir(exist_ok=True)
        os.replace(path, folder / f"{time.time_ns()}-{path.name}")

    # --- attempts, scratch, runs ---

    def attempts(self, key: str) -> list[Attempt]:
        with self._explained():
            attempts = []
            for number in count(1):
                path = self._attempts / key / f"{number}.json"
                try:
                    attempts.append(Attempt.model_validate_json(path.read_bytes()))
                except FileNotFoundError:
                    return attempts
                except ValidationError as error:
                    raise StoreError(f"{path} is damaged: delete the folder {path.parent} and run again") from error
        raise AssertionError("count() has no end")

    def add_attempt(self, key: str, attempt: Attempt) -> None:
        data = canonical_json(attempt.model_dump(mode="json")).encode("utf-8")
        with self._explained():
            folder = self._attempts / key
            folder.mkdir(exist_ok=True)
            os.replace(self._write(data), folder / f"{len(self.attempts(key)) + 1}.json")
            _sync(folder)

    def forget_attempts(self, key: str) -> None:
        with self._explained(), suppress(FileNotFoundError):
            shutil.rmtree(self._attempts / key)

    def log(self, key: str, number: int) -> Path:
        return self._folder("attempts", key) / f"{number}.log"

    @contextmanager
    def lease(self, key: str, pause: Pause = pause) -> Iterator[int]:
        with file_lock(self.path / "locks" / key, pause=pause) as descriptor:
            yield descriptor

    def scratch(self, key: str) -> Path:
        return self._folder("scratch", key, "work")

    def outputs(self, key: str) -> Path:
        with self._explained(), suppress(FileNotFoundError):
            shutil.rmtree(self.path / "scratch" / key / "outputs")
        return self._folder("scratch", key, "outputs")

    def clear_scratch(self, key: str) -> None:
        with self._explained(), suppress(FileNotFoundError):
            shutil.rmtree(self.path / "scratch" / key)

    def run_folder(self, run: str) -> Path:
        return self._folder("runs", run)

    def add_event(self, run: str, event: dict[str, Any]) -> None:
        path = self.run_folder(run) / "events.jsonl"
        with self._explained(), open(path, "ab", buffering=0) as file:
            file.write(canonical_json(event).encode("utf-8") + b"\n")

    def events(self, run: str) -> list[dict[str, Any]]:
        with self._explained():
            try:
                lines = (self.run_folder(run) / "events.jsonl").read_bytes().split(b"\n")
            except FileNotFoundError:
                return []
        return [json.loads(line) for line in lines[:-1]]

    def _folder(self, *parts: str) -> Path:
        folder = self.path.joinpath(*parts)
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # --- files ---

    def _write(self, data: bytes) -> Path:
        """A new file in ``tmp``, complete and on the disk."""
        descriptor, name = tempfile.mkstemp(dir=self._tmp)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def _sweep(self) -> None:
        """Remove what crashed writers left in ``tmp`` a day ago or earlier."""
        for entry in os.scandir(self._tmp):
            try:
                if entry.stat().st_mtime < time.time() - _DAY_S:
                    os.unlink(entry.path)
            except FileNotFoundError:  # another process sweeps too
                continue

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the operating system refuses into one sentence."""
        try:
            yield
        except OSError as error:
            raise StoreError(_sentence(self.path, error)) from error


def _sentence(store: Path, error: OSError) -> str:
    where = error.filename or store
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of the store {store} is full: make room and run again; all that is finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {where} in the store {store} ({error.strerror}): change its owner or choose another"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        file = next((path for path in (Path(where), *Path(where).parents) if path.is_file()), where)
        return f"the store {store} cannot be a folder, because {file} is a file: choose another path"
    return f"the store {store} cannot be used: {where}: {error.strerror}"


def _sync(path: Path) -> None:
    """Have the disk keep a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
