"""Whether the bytes of a picture are whole, told before and by decoding it.

Some builds of OpenCV decode a JPEG that was cut short without a word and paint the rest grey, so the
end is looked for in the file's own structure.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PNG = b"\x89PNG\r\n\x1a\n"
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # any marker but a stuffed byte, fill or a restart
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # of C0-CF, which are the start-of-frame markers otherwise


class BadPicture(ValueError):
    """Why some bytes are not a whole picture; the message completes "the picture ..."."""


def size(data: bytes) -> tuple[int, int]:
    """Width and height that a whole JPEG or PNG says it has, as stored: EXIF orientation is left aside.

    Raises:
        BadPicture: neither JPEG nor PNG, or cut short.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data.startswith(_PNG):
        return _png_size(data)
    raise BadPicture("is neither a JPEG nor a PNG file" if data else "is an empty file")


def decode(data: bytes) -> NDArray[np.uint8]:
    """The picture, uint8[H, W, 3], BGR; EXIF orientation is ignored, as COCO's boxes do.

    Raises:
        BadPicture: not decodable, or not of the size its header says.
    """
    import cv2  # here and not above: a plan reads the step's module, and decodes nothing
    import numpy as np

    width, height = size(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BadPicture(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise BadPicture("cannot be decoded: its content is damaged")
    if image.shape != (height, width, 3):
        raise BadPicture(f"decodes to {image.shape[1]} x {image.shape[0]} though its header says {width} x {height}")
    return np.asarray(image, np.uint8)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the segments to the end-of-image marker, which a cut file lacks (its EXIF thumbnail may have one)."""
    found: tuple[int, int] | None = None
    at = 2
    while at + 4 <= len(data) or data[at : at + 2] == b"\xff\xd9":
        if data[at] != 0xFF:
            raise BadPicture(f"has a damaged JPEG structure at byte {at}")
        marker = data[at + 1]
        if marker == 0xD9:
            if found is None:
                raise BadPicture("is a JPEG without a frame")
            return found
        if marker == 0xFF:  # a fill byte before a marker
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            found = width, height
        at += 2 + length
        if marker == 0xDA:
            match = _AFTER_SCAN.search(data, at)
            if match is None:
                break
            at = match.start()
    raise BadPicture("is a truncated JPEG: the file ends before the picture does")


def _png_size(data: bytes) -> tuple[int, int]:
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IEND":
            if len(data) < 24:
                break
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        at += 12 + length
    raise BadPicture("is a truncated PNG: the file ends before the picture does")
