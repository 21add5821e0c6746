"""Content hashes of files, remembered by what ``stat`` says of them, so that a repeat reads nothing."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from edgejoule.canonical import hash_file, hash_json
from edgejoule.errors import DataError, StoreError
from edgejoule.job import Progress
from edgejoule.plan import Source

_SETTLED_NS = 2_000_000_000  # a file changed more recently may change again within one tick of its clock
_Stat = tuple[int, int, int, int]


def _silent(done: float, total: float, unit: str) -> None:
    pass


class HashCache:
    """sha256 of files, in an SQLite file; safe for several threads and processes. Losing it costs only time.

    Raises (every method):
        StoreError: the cache file cannot be used.
        DataError: the file or folder to hash is not there or cannot be read.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(database, timeout=30, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS files (folder TEXT, name TEXT, size INTEGER, mtime_ns INTEGER,"
                " ctime_ns INTEGER, inode INTEGER, sha256 TEXT, PRIMARY KEY (folder, name)) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        self._connection.close()

    def source(self, path: Path, progress: Progress = _silent) -> Source:
        """The file or folder at ``path``, named by its content. ``progress`` counts bytes read."""
        path = path.absolute()
        return Source(path, self.folder(path, progress) if path.is_dir() else self.file(path, progress))

    def file(self, path: Path, progress: Progress = _silent) -> str:
        """The sha256 of one file's bytes."""
        if path.is_dir():
            raise DataError(f"{path} is a folder where a file is needed")
        return self._hashes([path], progress)[path]

    def folder(self, path: Path, progress: Progress = _silent) -> str:
        """The sha256 of a folder: of the sorted list of [relative name, sha256] of every file below it.

        Hidden files (``.DS_Store``, ``.git``) are no part of it; links are followed.
        """
        if not path.is_dir():
            raise DataError(f"{path} is {'a file where a folder is needed' if path.exists() else 'not there'}")
        hashes = self._hashes(list(_walk(path, ())), progress)
        return hash_json(sorted([file.relative_to(path).as_posix(), sha256] for file, sha256 in hashes.items()))

    def _hashes(self, files: list[Path], progress: Progress) -> dict[Path, str]:
        stats = {file: _stat(file) for file in files}
        known: dict[Path, tuple[_Stat, str]] = {}
        for folder in {file.parent for file in files}:
            names = None if len(files) > 1 else files[0].name
            known.update(self._remembered(folder, names))
        hashes = {file: known[file][1] for file in files if file in known and known[file][0] == stats[file]}
        total = sum(stats[file][0] for file in files if file not in hashes)
        done = 0
        fresh: list[tuple[str, str, int, int, int, int, str]] = []
        try:
            for file in files:
                if file in hashes:
                    continue
                hashes[file] = _read(file)
                done += stats[file][0]
                progress(done, total, "B")
                size, mtime_ns, ctime_ns, inode = stats[file]
                if _stat(file) == stats[file] and max(mtime_ns, ctime_ns) < time.time_ns() - _SETTLED_NS:
                    fresh.append((str(file.parent), file.name, size, mtime_ns, ctime_ns, inode, hashes[file]))
        finally:  # an interrupted hashing of a large folder goes on where it was
            self._remember(fresh)
        return hashes

    def _remembered(self, folder: Path, name: str | None) -> Iterator[tuple[Path, tuple[_Stat, str]]]:
        query = "SELECT name, size, mtime_ns, ctime_ns, inode, sha256 FROM files WHERE folder = ?"
        arguments = [str(folder)]
        if name is not None:
            query, arguments = query + " AND name = ?", [str(folder), name]
        try:
            with self._lock:
                rows = self._connection.execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        for found, size, mtime_ns, ctime_ns, inode, sha256 in rows:
            yield folder / found, ((size, mtime_ns, ctime_ns, inode), sha256)

    def _remember(self, rows: list[tuple[str, str, int, int, int, int, str]]) -> None:
        if not rows:
            return
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"the hash cache {self._database} cannot be used ({error}): make its folder writable with room to spare, "
            "or delete the file, which only costs reading the data once more"
        )


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Every file below ``folder`` that is not hidden."""
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise DataError(f"{folder} is a link to a folder above it: take the link out of the folder")
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), (*above, here))
            else:
                yield Path(entry.path)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _stat(path: Path) -> _Stat:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _read(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} is not there: check the path")
    return DataError(f"{path} cannot be read ({error.strerror}): check its permissions and the disk")
