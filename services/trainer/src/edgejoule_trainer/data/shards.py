"""Writing images as tar shards: uncompressed, so a reader can seek, and with equal bytes for equal images.

``edgejoule_agent.shards`` reads them.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from edgejoule.errors import DataError

T = TypeVar("T")


def member_name(image_id: int, file_name: str) -> str:
    """Name of an image within its shard.

    >>> member_name(139, "val2017/000000000139.JPG")
    '000000000139.jpg'
    """
    return f"{image_id:012d}{PurePosixPath(file_name).suffix.lower()}"


def split(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Contiguous parts whose lengths differ by one at most.

    >>> split([1, 2, 3, 4, 5], 2)
    [[1, 2, 3], [4, 5]]

    Raises:
        DataError: fewer items than parts, or no part.
    """
    if not 1 <= parts <= len(items):
        raise DataError(
            f"{len(items)} images cannot be packed into {parts} shards; set data.shards to at most {len(items)}"
        )
    base, longer = divmod(len(items), parts)
    ends = [base * (part + 1) + min(part + 1, longer) for part in range(parts)]
    return [items[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar of (name, content) in the order given: no times, no owners, plain USTAR."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
