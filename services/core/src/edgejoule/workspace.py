"""The local part of every store: what attempts work on, locks, and files being written.

scratch/<key>/    what an attempt works on; outlives a killed one, goes when the step is committed
inbox/            what boards send, until it is checked
locks/  tmp/  hashes.sqlite
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgejoule.errors import StoreError
from edgejoule.locks import Pause, file_lock, pause
from edgejoule.sources import HashCache

_DAY_S = 24 * 3600.0


class Workspace:
    """A folder of a local file system, shared by any number of processes."""

    called = "the workspace"  # by its sentences

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._tmp = self.path / "tmp"
        with self._explained():
            for folder in (self._tmp, self.path / "locks"):
                folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        self.hashes = HashCache(self.path / "hashes.sqlite")

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

    def inbox(self) -> Path:
        return self._folder("inbox")

    def _folder(self, *parts: str) -> Path:
        folder = self.path.joinpath(*parts)
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

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
            raise StoreError(_sentence(self.called, self.path, error)) from error


def _sentence(called: str, path: Path, error: OSError) -> str:
    where = error.filename or path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {called} {path} is full: make room and run again; all that is finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {where} in {called} {path} ({error.strerror}): change its owner or choose another"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        file = next((path for path in (Path(where), *Path(where).parents) if path.is_file()), where)
        return f"{called} {path} cannot be a folder, because {file} is a file: choose another path"
    return f"{called} {path} cannot be used: {where}: {error.strerror}"
