"""Copies of blobs on the host that reads them: bounded, shared by its processes, least recently used go first.

    ab/<hash>         the blob, verified, read-only
    ab/<hash>.use     locked by who uses it; its time is that of the last use

Whoever uses a blob holds a shared lock on its ``.use`` file, and who removes it must have that lock alone;
the kernel lets go of a dead process's locks, so a killed one keeps nothing.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgejoule.locks import file_lock
from edgejoule.sources import HashCache

GRACE_S = 60.0
"""A blob used so recently stays, held or not."""

_USE = ".use"
_LOW = 0.9  # share of the limit that is left when room is made
_LOOK_AFTER = 0.01  # share of the limit that this process may add before it adds up again what all have


class BlobCache:
    """Blobs in a folder.

    Args:
        folder: made if absent; ``temporary`` and ``locks`` are folders of the same file system.
        limit_bytes: what blobs may take up together; exceeded only by blobs in use.
    """

    def __init__(self, folder: Path, temporary: Path, locks: Path, limit_bytes: int, hashes: HashCache) -> None:
        self._folder = folder
        self._temporary = temporary
        self._locks = locks
        self._limit_bytes = limit_bytes
        self._hashes = hashes
        self._thread = threading.local()
        self._unseen_bytes = limit_bytes  # so that the first blob makes this process look
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, sha256: str, download: Callable[[Path], None]) -> Path:
        """The blob; where it is not here yet, ``download`` writes it, verified, to the path it gets."""
        path = self._path(sha256)
        held = self._hold(path)
        try:
            if not self._good(path, sha256):
                with file_lock(self._locks / f"blob-{sha256}"):  # one process downloads, the others wait for it
                    if not self._good(path, sha256):
                        self._download(path, download)
        except BaseException:
            os.close(held)
            raise
        self._keep(held)
        return path

    def add(self, sha256: str, file: Path) -> None:
        """Take over a file with these bytes, which lies on the same file system and is read-only."""
        path = self._path(sha256)
        held = self._hold(path)
        try:
            size_bytes = file.stat().st_size
            os.replace(file, path)
            self._make_room_for(size_bytes)
        except BaseException:
            os.close(held)
            raise
        self._keep(held)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Until this ends, nothing is removed that this thread gets or adds within."""
        outer = getattr(self._thread, "held", None)
        held: list[int] = []
        self._thread.held = held
        try:
            yield
        finally:
            self._thread.held = outer
            for descriptor in held:
                os.close(descriptor)

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _good(self, path: Path, sha256: str) -> bool:
        return path.exists() and self._hashes.file(path) == sha256

    def _download(self, path: Path, download: Callable[[Path], None]) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._temporary)
        os.close(descriptor)
        file = Path(name)
        try:
            download(file)
            file.chmod(0o444)
            size_bytes = file.stat().st_size
            os.replace(file, path)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        self._make_room_for(size_bytes)

    # --- holding ---

    def _hold(self, path: Path) -> int:
        """A descriptor that keeps the blob from being removed for as long as it is open."""
        use = path.with_name(path.name + _USE)
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)  # a person may clear the cache at any time
            descriptor = os.open(use, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for as long as another takes to remove one file
                if _is_at(descriptor, use):
                    os.utime(descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was removed in between

    def _keep(self, descriptor: int) -> None:
        held: list[int] | None = getattr(self._thread, "held", None)
        if held is None:
            os.close(descriptor)
        else:
            held.append(descriptor)

    # --- making room ---

    def _make_room_for(self, added_bytes: int) -> None:
        self._unseen_bytes += added_bytes
        if self._unseen_bytes > self._limit_bytes * _LOOK_AFTER:
            self._make_room()
            self._unseen_bytes = 0

    def _make_room(self) -> None:
        """Remove blobs, the one first whose last use is longest ago, when there are more than the limit allows."""
        total_bytes = 0
        found: list[tuple[float, int, Path]] = []
        for folder in os.scandir(self._folder):
            sizes_bytes: dict[str, int] = {}
            used: dict[str, float] = {}
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):  # another process makes room too
                    if entry.name.endswith(_USE):
                        used[entry.name.removesuffix(_USE)] = entry.stat().st_mtime
                    else:
                        sizes_bytes[entry.name] = entry.stat().st_size
            total_bytes += sum(sizes_bytes.values())
            for name in used.keys() | sizes_bytes.keys():
                found.append((used.get(name, 0.0), sizes_bytes.get(name, 0), Path(folder.path, name)))
        if total_bytes <= self._limit_bytes:
            return
        for last_use, size_bytes, path in sorted(found):
            if total_bytes <= self._limit_bytes * _LOW or last_use > time.time() - GRACE_S:
                return
            if _remove(path):
                total_bytes -= size_bytes


def _remove(path: Path) -> bool:
    """Remove a blob, unless it is in use."""
    use = path.with_name(path.name + _USE)
    descriptor = os.open(use, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, use):
            return False
        path.unlink(missing_ok=True)
        use.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
