"""The store in a folder: the embedded default."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgejoule.canonical import canonical_json, hash_file
from edgejoule.errors import CorruptBlobError, CorruptManifestError, StepError, StoreError
from edgejoule.store import (
    DURATIONS_FROM,
    PLAN_FILE,
    Attempt,
    Blob,
    DeviceFolder,
    Manifest,
    median_durations_s,
    read_manifest,
)
from edgejoule.workspace import Workspace


class FolderStore(Workspace):
    """A store in a folder of a local file system, shared by any number of processes; its own workspace."""

    called = "the store"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.where = str(self.path)
        self._blobs = self.path / "blobs" / "sha256"
        self._manifests = self.path / "manifests"
        self._attempts = self.path / "attempts"
        self._runs = self.path / "runs"
        with self._explained():
            for folder in (self._blobs, self._manifests, self._attempts, self._runs):
                folder.mkdir(parents=True, exist_ok=True)

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

    def manifest(self, key: str, *, blobs: bool = True) -> Manifest | None:
        path = self._manifest(key)
        with self._explained():
            try:
                manifest = read_manifest(path.read_bytes(), key, str(path))
            except FileNotFoundError:
                return None
            for name, blob in manifest.outputs.items() if blobs else ():
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
            return median_durations_s(Path(entry.path).read_bytes() for entry in by_age[-DURATIONS_FROM:])

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

    # --- attempts ---

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
            file = self._write(data)
            for number in count(len(self.attempts(key)) + 1):
                with suppress(FileExistsError):  # of another, who failed at the same time
                    os.link(file, folder / f"{number}.json")
                    break
            file.unlink()
            _sync(folder)

    def forget_attempts(self, key: str) -> None:
        with self._explained(), suppress(FileNotFoundError):
            shutil.rmtree(self._attempts / key)

    def log(self, key: str, number: int) -> Path:
        return self._folder("attempts", key) / f"{number}.log"

    def keep_log(self, key: str, number: int) -> None:
        pass  # it lies where it is kept

    def read_log(self, key: str, number: int) -> bytes | None:
        with self._explained():
            return _bytes_of(self._attempts / key / f"{number}.log")

    # --- runs ---

    def put_run_file(self, run: str, name: str, data: bytes) -> None:
        with self._explained():
            os.replace(self._write(data), self._folder("runs", run) / name)

    def run_file(self, run: str, name: str) -> bytes | None:
        with self._explained():
            return _bytes_of(self._runs / run / name)

    def remove_run_file(self, run: str, name: str) -> None:
        with self._explained():
            (self._runs / run / name).unlink(missing_ok=True)

    def run_names(self) -> list[str]:
        with self._explained():
            plans = sorted(self._runs.glob(f"*/{PLAN_FILE}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [path.parent.name for path in plans]

    def add_event(self, run: str, event: dict[str, Any]) -> None:
        path = self._folder("runs", run) / "events.jsonl"
        with self._explained(), open(path, "ab", buffering=0) as file:
            file.write(canonical_json(event).encode("utf-8") + b"\n")

    def events(self, run: str) -> list[dict[str, Any]]:
        lines = (self.run_file(run, "events.jsonl") or b"").split(b"\n")
        return [json.loads(line) for line in lines[:-1]]

    # --- boards ---

    def put_device(self, folder: DeviceFolder, device: str, data: bytes) -> None:
        with self._explained():
            os.replace(self._write(data), self._folder(folder) / f"{device}.json")

    def device(self, folder: DeviceFolder, device: str) -> bytes | None:
        with self._explained():
            return _bytes_of(self.path / folder / f"{device}.json")

    def device_names(self) -> list[str]:
        with self._explained():
            return sorted(path.stem for path in (self.path / "devices").glob("*.json"))


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sync(path: Path) -> None:
    """Have the disk keep a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
