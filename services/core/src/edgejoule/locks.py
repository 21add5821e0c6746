"""Locks between processes: advisory ``flock``, which the kernel lets go of when the last holder dies.

The descriptor of a held lock may be inherited by a child process; the lock then lasts until both have
let go, so that a killed parent does not free what its dying child still uses.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgejoule.errors import StoreError

Pause = Callable[[], None]


def pause() -> None:
    """Wait a moment between two tries; another pause may raise to give up."""
    time.sleep(0.1)


@contextmanager
def file_lock(path: Path, *, shared: bool = False, pause: Pause = pause) -> Iterator[int]:
    """Hold the lock named by ``path``; gives its descriptor. The file is removed by an exclusive holder.

    Raises:
        StoreError: there can be no such file.
    """
    while True:
        descriptor = _open(path)
        try:
            _acquire(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, pause)
            if _is_at(descriptor, path):
                try:
                    yield descriptor
                finally:
                    if not shared:
                        path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


@contextmanager
def host_lock(*, exclusive: bool, pause: Pause = pause, folder: Path | None = None) -> Iterator[int]:
    """Share this host with other steps, or have it alone to measure; gives the lock's descriptor.

    The one who waits for the host holds the turnstile, so newcomers queue behind a waiting
    measurement instead of keeping it out for ever.

    Args:
        folder: where the lock files lie; runs that share it share the host. By default what EDGEJOULE_LOCKS names
            (containers of one host share it), else the temp folder.
    """
    folder = folder or Path(os.environ.get("EDGEJOULE_LOCKS") or tempfile.gettempdir())
    turnstile = _open(folder / "edgejoule-turnstile.lock")
    try:
        host = _open(folder / "edgejoule-host.lock")
        try:
            _acquire(turnstile, fcntl.LOCK_EX, pause)
            _acquire(host, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, pause)
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield host
        finally:
            os.close(host)
    finally:
        os.close(turnstile)


def _open(path: Path) -> int:
    """A descriptor to lock. Another user's file is opened for reading: a sticky folder forbids O_CREAT on it."""
    try:
        with suppress(FileNotFoundError):
            try:
                return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            except PermissionError:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever the umask: other users share the host
        return descriptor
    except OSError as error:
        raise StoreError(f"the lock {path} cannot be opened ({error.strerror}): check its folder") from error


def _acquire(descriptor: int, mode: int, pause: Pause) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            pause()


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one at ``path``, not one that its last holder removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
