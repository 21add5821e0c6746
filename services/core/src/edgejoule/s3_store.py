"""The store in a bucket of an S3 server, shared by any number of hosts: that of the stack.

The bucket has the layout of a folder store, but for ``events/<run>/``: one object for each event, since
nothing can be appended to an object. The workspace is local:

    cache/ab/<hash>    blobs that this host read or made
    scratch/<key>/     what an attempt on this host works on and prints
    locks/  tmp/  hashes.sqlite
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgejoule.blob_cache import BlobCache
from edgejoule.bucket import Bucket
from edgejoule.canonical import canonical_json, hash_file
from edgejoule.errors import CorruptBlobError, CorruptManifestError, StepError, StoreError
from edgejoule.locks import Pause, pause
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

CACHE_GB = 20.0
"""Bound of the blob cache when EDGEJOULE_CACHE_GB is not set."""

PATIENCE_AT_START_S = 5.0
"""For how long an S3 server that does not answer is asked again when a store is opened."""

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
_PROBE = "probe"
_AT_ONCE = 8  # requests for many small objects
_WEEK_S = 7 * 24 * 3600.0


def open_s3_store(where: str, environment: Mapping[str, str], *, writing: bool = True) -> S3Store:
    """The store at ``s3://BUCKET[/PREFIX]``, reached as the environment says; see docs/reference/settings.md.

    Raises:
        StoreError: a setting is missing or wrong, or the server does not answer, refuses or cannot do what we need.
    """
    url = _URL.fullmatch(where)
    if url is None:
        raise StoreError(f"{where} names no bucket: write s3://BUCKET or s3://BUCKET/PREFIX")
    for name in ("EDGEJOULE_S3_ACCESS_KEY", "EDGEJOULE_S3_SECRET_KEY"):
        if not environment.get(name):
            raise StoreError(f"the store {where} needs a key, and {name} is not set: set it")
    bucket = Bucket(
        url[1],
        (url[2] or "").strip("/"),
        endpoint=environment.get("EDGEJOULE_S3_ENDPOINT") or None,
        access_key=environment["EDGEJOULE_S3_ACCESS_KEY"],
        secret_key=environment["EDGEJOULE_S3_SECRET_KEY"],
        region=environment.get("EDGEJOULE_S3_REGION") or "us-east-1",
    )
    given = environment.get("EDGEJOULE_WORKSPACE")
    workspace = Path(given) if given else Path.home() / ".cache" / "edgejoule"
    return S3Store(bucket, workspace, cache_bytes=_cache_bytes(environment), writing=writing)


def _cache_bytes(environment: Mapping[str, str]) -> int:
    given = environment.get("EDGEJOULE_CACHE_GB")
    try:
        size_gb = float(given) if given else CACHE_GB
    except ValueError:
        size_gb = -1.0
    if not 0 <= size_gb < 1e9:
        raise StoreError(f"EDGEJOULE_CACHE_GB is {given!r}, which is no size: give gigabytes, such as 20")
    return int(size_gb * 1e9)


class S3Store(Workspace):
    """A store in a bucket.

    Args:
        workspace: a local folder for what need not outlive this host; may be shared by stores and processes.
        cache_bytes: bound of the blob cache.
        writing: make sure that the server creates objects conditionally, without which two may commit the same step.
    """

    def __init__(self, bucket: Bucket, workspace: Path, *, cache_bytes: int, writing: bool = True) -> None:
        super().__init__(workspace)
        self.where = f"s3://{bucket.name}/{bucket.prefix}".rstrip("/")
        self._bucket = bucket
        with self._explained():
            self._sweep_scratch()
            self._cache = BlobCache(
                self._folder("cache"), self._tmp, self.path / "locks", limit_bytes=cache_bytes, hashes=self.hashes
            )
        patience_s, bucket.patience_s = bucket.patience_s, min(bucket.patience_s, PATIENCE_AT_START_S)
        if writing:
            self._probe()
        else:
            next(bucket.objects("", most=1), None)
        bucket.patience_s = patience_s

    def _probe(self) -> None:
        """Make sure that what is there cannot be made again. One request, two the first time."""
        if self._bucket.create(_PROBE, b"") and self._bucket.create(_PROBE, b""):
            raise StoreError(
                f"the S3 server {self._bucket.endpoint} lets an object be made that is there already (it ignores "
                "If-None-Match), so two could commit the same step: use a server that creates conditionally"
            )

    def _sweep_scratch(self) -> None:
        """Remove the scratch that nobody touched for a week: its step went on elsewhere."""
        for folder in (self.path / "scratch").glob("*"):
            newest = max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)
            if newest < time.time() - _WEEK_S:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lease(self, key: str, pause: Pause = pause) -> Iterator[int]:
        with super().lease(key, pause) as descriptor, self._cache.holding():
            yield descriptor

    # --- blobs ---

    def put(self, data: bytes) -> Blob:
        with self._explained():
            file = self._write(data)
            try:
                return self._take(file)
            except BaseException:
                file.unlink(missing_ok=True)
                raise

    def take(self, file: Path) -> Blob:
        with self._explained():
            if file.is_symlink() or not file.is_file():
                raise StepError(f"{file} is not a plain file, so it cannot be kept: write outputs as files")
            return self._take(file)

    def _take(self, file: Path) -> Blob:
        blob = Blob(sha256=hash_file(file), size_bytes=file.stat().st_size)
        file.chmod(0o444)
        self._bucket.upload(_blob(blob.sha256), file)
        self._cache.add(blob.sha256, file)
        return blob

    def fetch(self, sha256: str) -> Path:
        def download(file: Path) -> None:
            found = self._bucket.download(_blob(sha256), file)
            if found is None:
                raise CorruptBlobError(
                    f"blob {sha256} is gone from the store {self.where}: run the same command again, "
                    "which does the step that made it once more"
                )
            if found != sha256:
                raise CorruptBlobError(
                    f"blob {sha256} in the store {self.where} is damaged: check the server's disks, then run the same "
                    "command again, which does the step that made it once more"
                )

        with self._explained():
            return self._cache.get(sha256, download)

    # --- manifests ---

    def manifest(self, key: str, *, blobs: bool = True) -> Manifest | None:
        name = _manifest(key)
        data = self._bucket.read(name)
        if data is None:
            return None
        manifest = read_manifest(data, key, f"{self.where}/{name}")
        for output, blob in manifest.outputs.items() if blobs else ():
            if self._bucket.size_bytes(_blob(blob.sha256)) != blob.size_bytes:
                raise CorruptManifestError(
                    f"output {output!r} of step {manifest.step} is gone or cut short: blob {blob.sha256}"
                )
        return manifest

    def commit(self, manifest: Manifest) -> Manifest:
        data = _json(manifest.model_dump(mode="json"))
        while not self._bucket.create(_manifest(manifest.key), data):
            if winner := self.manifest(manifest.key):
                return winner
        return manifest

    def quarantine(self, key: str) -> None:
        name = _manifest(key)
        data = self._bucket.read(name)
        if data is None:  # another run was quicker
            return
        self._bucket.write(_set_aside(f"{key}.json"), data)
        self._bucket.delete(name)
        with suppress(ValidationError):
            for blob in Manifest.model_validate_json(data).outputs.values():
                self._quarantine_blob(blob.sha256)

    def _quarantine_blob(self, sha256: str) -> None:
        """Set a blob aside if it is damaged; the only way to know is to read it."""
        with self._explained():
            file = self._write(b"")
            file.chmod(0o644)
            try:
                found = self._bucket.download(_blob(sha256), file)
                if found not in (None, sha256):
                    self._bucket.upload(_set_aside(sha256), file)
                    self._bucket.delete(_blob(sha256))
            finally:
                file.unlink()

    def durations_s(self) -> dict[str, float]:
        """From the newest of the first thousand manifests: keys being hashes, a fair sample of a larger store."""
        sample = sorted(self._bucket.objects("manifests/", most=1000), key=lambda found: found.changed)
        return median_durations_s(self._read_all(found.key for found in sample[-DURATIONS_FROM:]))

    # --- attempts ---

    def attempts(self, key: str) -> list[Attempt]:
        attempts = []
        for number in count(1):
            name = _attempt(key, number)
            data = self._bucket.read(name)
            if data is None:
                break
            try:
                attempts.append(Attempt.model_validate_json(data))
            except ValidationError as error:
                raise StoreError(
                    f"{self.where}/{name} is damaged: delete what is below attempts/{key} and run again"
                ) from error
        return attempts

    def add_attempt(self, key: str, attempt: Attempt) -> None:
        data = _json(attempt.model_dump(mode="json"))
        for number in count(len(self.attempts(key)) + 1):
            name = _attempt(key, number)
            if self._bucket.create(name, data) or self._bucket.read(name) == data:  # ours, its answer lost
                return

    def forget_attempts(self, key: str) -> None:
        names = [found.key for found in self._bucket.objects(f"attempts/{key}/")]
        names.sort(key=lambda name: (len(name), name), reverse=True)  # cut short, it leaves none behind a gap
        for name in names:
            self._bucket.delete(name)

    def log(self, key: str, number: int) -> Path:
        return self._folder("scratch", key) / f"{number}.log"

    def keep_log(self, key: str, number: int) -> None:
        file = self.log(key, number)
        with self._explained():
            if file.exists() and file.stat().st_size:
                self._bucket.upload(f"attempts/{key}/{number}.log", file)

    def read_log(self, key: str, number: int) -> bytes | None:
        return self._bucket.read(f"attempts/{key}/{number}.log")

    # --- runs ---

    def put_run_file(self, run: str, name: str, data: bytes) -> None:
        self._bucket.write(f"runs/{run}/{name}", data)

    def run_file(self, run: str, name: str) -> bytes | None:
        return self._bucket.read(f"runs/{run}/{name}")

    def remove_run_file(self, run: str, name: str) -> None:
        self._bucket.delete(f"runs/{run}/{name}")

    def run_names(self) -> list[str]:
        plans = [found for found in self._bucket.objects("runs/") if found.key.endswith(f"/{PLAN_FILE}")]
        plans.sort(key=lambda found: found.changed, reverse=True)
        return [found.key.split("/")[1] for found in plans]

    def add_event(self, run: str, event: dict[str, Any]) -> None:
        self._bucket.write(f"events/{run}/{time.time_ns():020}-{secrets.token_hex(4)}.json", _json(event))

    def events(self, run: str) -> list[dict[str, Any]]:
        names = [found.key for found in self._bucket.objects(f"events/{run}/")]
        return [json.loads(data) for data in self._read_all(names)]

    # --- boards ---

    def put_device(self, folder: DeviceFolder, device: str, data: bytes) -> None:
        self._bucket.write(f"{folder}/{device}.json", data)

    def device(self, folder: DeviceFolder, device: str) -> bytes | None:
        return self._bucket.read(f"{folder}/{device}.json")

    def device_names(self) -> list[str]:
        found = self._bucket.objects("devices/")
        return sorted(object.key.removeprefix("devices/").removesuffix(".json") for object in found)

    def _read_all(self, names: Iterable[str]) -> list[bytes]:
        """The bytes of many small objects, in order, without those that are gone by now."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [data for data in pool.map(self._bucket.read, names) if data is not None]


def _json(value: Any) -> bytes:
    return canonical_json(value).encode("utf-8")


def _blob(sha256: str) -> str:
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def _manifest(key: str) -> str:
    return f"manifests/{key}.json"


def _attempt(key: str, number: int) -> str:
    return f"attempts/{key}/{number}.json"


def _set_aside(name: str) -> str:
    return f"quarantine/{time.time_ns()}-{name}"
