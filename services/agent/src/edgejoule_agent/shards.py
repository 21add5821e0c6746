"""Image shards: uncompressed tar archives read at random, by image id."""

import os
import re
import tarfile
from typing import Any, Dict, Iterator, List, Tuple

from edgejoule_agent.errors import ShardError


class ShardReader:
    """Random access to the images of one shard; a context manager.

    A member is a regular file at the archive's root named by its image id, such as ``000000000139.jpg``.

    Attributes:
        ids: the image ids, in the archive's order.

    Raises:
        ShardError: not an uncompressed tar, truncated, or a member that is not such a file.
    """

    def __init__(self, path: Any) -> None:
        self.path = str(path)
        self._places = _index(self.path)
        self.ids: List[int] = list(self._places)
        self._descriptor = os.open(self.path, os.O_RDONLY)

    def read(self, image_id: int) -> bytes:
        """The encoded bytes of one image."""
        if image_id not in self._places:
            raise ShardError(f"{self.path}: no image {image_id} among its {len(self.ids)}")
        offset, size = self._places[image_id]
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise ShardError(f"{self.path}: image {image_id} ends after {len(content)} of {size} bytes")
        return content

    def close(self) -> None:
        """Give the file back; the reader is of no use afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Tuple[int, bytes]]:
        return ((image_id, self.read(image_id)) for image_id in self.ids)

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _index(path: str) -> Dict[int, Tuple[int, int]]:
    """Image id to (offset, size) of its bytes."""
    places: Dict[int, Tuple[int, int]] = {}
    try:
        length = os.stat(path).st_size
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                image_id = _image_id(path, member)
                if image_id in places:
                    raise ShardError(f"{path}: image {image_id} is there twice")
                if member.offset_data + member.size > length:
                    raise ShardError(f"{path}: truncated inside member {member.name!r}")
                places[image_id] = (member.offset_data, member.size)
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    # tarfile lets ValueError and OverflowError through on crafted headers
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ShardError(f"{path}: not a sound uncompressed tar archive ({error}); make the shard again") from error
    return places


def _image_id(path: str, member: tarfile.TarInfo) -> int:
    stem = os.path.splitext(member.name)[0]
    if not member.isreg() or member.issparse() or not re.match(r"[0-9]{1,18}\Z", stem):
        raise ShardError(f"{path}: member {member.name!r} is not an image file named by its id; refused")
    return int(stem)
