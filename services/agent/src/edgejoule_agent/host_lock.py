"""The lock by which a measurement has a host alone: the same files, locked the same way, as on hosts of the stack.

The one who waits for the host holds the turnstile, so newcomers queue behind a waiting measurement.
"""

import contextlib
import fcntl
import os
import tempfile
from typing import Callable, Iterator

from edgejoule_agent.errors import HostError


@contextlib.contextmanager
def host_lock(exclusive: bool, pause: Callable[[], None]) -> Iterator[int]:
    """Share this host with other steps, or have it alone; gives the lock's descriptor.

    The lock files lie where EDGEJOULE_LOCKS says, else in the temp folder.

    Args:
        pause: waits a moment between two tries; may raise to give up.

    Raises:
        HostError: there can be no such file.
    """
    folder = os.environ.get("EDGEJOULE_LOCKS") or tempfile.gettempdir()
    turnstile = _open(os.path.join(folder, "edgejoule-turnstile.lock"))
    try:
        host = _open(os.path.join(folder, "edgejoule-host.lock"))
        try:
            _acquire(turnstile, fcntl.LOCK_EX, pause)
            _acquire(host, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, pause)
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield host
        finally:
            os.close(host)
    finally:
        os.close(turnstile)


def _open(path: str) -> int:
    """A descriptor to lock. Another user's file is opened for reading: a sticky folder forbids O_CREAT on it."""
    try:
        with contextlib.suppress(FileNotFoundError):
            try:
                return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            except PermissionError:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever the umask: other users share the host
        return descriptor
    except OSError as error:
        raise HostError(f"the lock {path} cannot be opened ({error.strerror}): check its folder") from error


def _acquire(descriptor: int, mode: int, pause: Callable[[], None]) -> None:
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pause()
