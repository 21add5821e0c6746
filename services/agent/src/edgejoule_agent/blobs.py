"""The inputs of jobs on this board's disk: by hash, bounded, least recently used go first.

<hash>         complete, and of that hash
<hash>.part    as much as has arrived
"""

import contextlib
import hashlib
import os
import shutil
from typing import Callable, Iterable, List, Tuple

from edgejoule_agent.errors import OutOfReachError

SHORT_BYTES = 1 << 30  # of free disk: with less, what could be had again makes room. Chosen, not measured

Fetch = Callable[[str, int, Callable[[bytes], None]], None]


class Blobs:
    """A folder of blobs, for one process.

    Args:
        limit_bytes: what they may take up together; exceeded only by those of one job.
    """

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        os.makedirs(folder, exist_ok=True)

    def get(self, sha256: str, fetch: Fetch) -> str:
        """A file with these bytes; ``fetch(hash, start, take)`` brings those that are not here.

        Raises:
            OutOfReachError: they did not come, or others came.
        """
        path = os.path.join(self._folder, sha256)
        if os.path.exists(path):
            with contextlib.suppress(OSError):  # bytes that the disk does not give any more can be had again
                if hash_of(path) == sha256:
                    os.utime(path)
                    return path
            os.unlink(path)
        part = path + ".part"
        with open(part, "ab") as file:

            def take(chunk: bytes) -> None:
                file.write(chunk)

            fetch(sha256, file.tell(), take)
            file.flush()
            os.fsync(file.fileno())
        found = hash_of(part)
        if found != sha256:
            os.unlink(part)
            raise OutOfReachError(f"the gateway sent bytes with the sha256 {found} for {sha256}")
        os.rename(part, path)
        return path

    def make_room(self, needed: Iterable[str]) -> None:
        """Remove what was used longest ago, but for what is needed, until the rest is within the limit."""
        self._keep_within(self._limit_bytes, needed)

    def give_way(self, needed: Iterable[str]) -> int:
        """Remove all but what is needed where the disk is short; bytes that this freed."""
        if shutil.disk_usage(self._folder).free >= SHORT_BYTES:
            return 0
        return self._keep_within(0, needed)

    def _keep_within(self, limit_bytes: int, needed: Iterable[str]) -> int:
        keep = set(needed)
        found: List[Tuple[float, int, str]] = []
        for entry in os.scandir(self._folder):
            status = entry.stat()
            found.append((status.st_mtime, status.st_size, entry.path))
        total = before = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit_bytes:
                break
            if os.path.basename(path).split(".")[0] not in keep:
                os.unlink(path)
                total -= size
        return before - total


def hash_of(path: str) -> str:
    """The sha256, in hex, of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            chunk = file.read(1 << 20)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)
