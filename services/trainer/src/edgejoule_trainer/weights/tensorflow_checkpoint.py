"""TensorFlow checkpoints of version 2: ``PREFIX.index``, a sorted table, and ``PREFIX.data-00000-of-0000N``.

The index is a LevelDB table without compression. Its key is a variable's name, its value a BundleEntryProto: type,
shape, and where in which data file the numbers are (tensorflow/core/protobuf/tensor_bundle.proto). Every checksum is
checked, in the table and of the numbers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgejoule.errors import WeightsError

MAX_BYTES = 4 << 30
MAX_INDEX_BYTES = 64 << 20
_FOOTER = 48
_TRAILER = 5  # behind a block: compression, checksum
_MAGIC = 0xDB4775248B80FB57
_DTYPES = {  # enum DataType -> as stored
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "|u1",
    5: "<i2",
    6: "|i1",
    9: "<i8",
    10: "|b1",
    19: "<f2",
}
_STRING = 7


class _Damaged(Exception):
    """What is wrong, as a clause."""


class _Entry(NamedTuple):
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def read(path: Path) -> dict[str, Tensor]:
    """The variables of a checkpoint, by name, in TensorFlow's layouts (weights: height, width, in, out).

    Args:
        path: the prefix (``model.ckpt``), the ``.index`` file, or a folder with one checkpoint.

    Raises:
        WeightsError: a file is missing or damaged, or holds what no detector has: strings, pieces of variables.
    """
    index = _index_path(path)
    try:
        return _read(index)
    except _Damaged as error:
        raise WeightsError(f"The checkpoint {index} was not read: {error}.") from error
    except OSError as error:
        raise WeightsError(f"{error.filename or index} cannot be read: {error.strerror or error}.") from error


def _index_path(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            raise WeightsError(f"The folder {path} has {len(found)} .index files, not one; name the checkpoint.")
        return found[0]
    return path if path.suffix == ".index" else path.with_name(path.name + ".index")


def _read(index: Path) -> dict[str, Tensor]:
    size = index.stat().st_size
    if size > MAX_INDEX_BYTES:
        raise _Damaged(f"its index has {size} bytes, more than {MAX_INDEX_BYTES}")
    rows = _table(index.read_bytes())
    first, header = next(rows, (b"none", b""))
    if first:
        raise _Damaged("its index does not begin with a header")
    shards = _shards(header)
    entries: dict[str, _Entry] = {}
    for key, value in rows:
        try:
            name = key.decode()
        except UnicodeDecodeError as error:
            raise _Damaged(f"the name {key!r} is not UTF-8") from error
        if name in entries:
            raise _Damaged(f"the variable {name} is listed twice")
        entries[name] = _entry(name, value, shards)
    if not entries:
        raise _Damaged("it lists no variables")
    if (total := sum(entry.size for entry in entries.values())) > MAX_BYTES:
        raise _Damaged(f"it lists {total} bytes of variables, more than {MAX_BYTES}")
    tensors: dict[str, Tensor] = {}
    for shard in range(shards):
        of_shard = {name: entry for name, entry in entries.items() if entry.shard == shard}
        if not of_shard:
            continue
        with open(index.with_suffix(f".data-{shard:05d}-of-{shards:05d}"), "rb") as file:
            for name, entry in of_shard.items():
                file.seek(entry.offset)
                content = file.read(entry.size)
                if len(content) != entry.size:
                    raise _Damaged(f"{Path(file.name).name} ends before {name} does; get it again")
                if _masked(crc32c(content)) != entry.checksum:
                    raise _Damaged(f"the checksum of {name} is wrong; get the files again")
                try:
                    values: NDArray[Any] = np.ndarray(entry.shape, _DTYPES[entry.dtype], content)
                except ValueError as error:
                    raise _Damaged(f"the variable {name} has an impossible shape") from error
                tensors[name] = torch.from_numpy(values.copy())
    return tensors


# --- the table -----------------------------------------------------------------------------------


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, in its order."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise _Damaged("its index does not end like a table, so it is truncated or something else")
    footer = _Cursor(content[-_FOOTER:-8])
    footer.handle()  # of the metaindex, which is empty
    for _, handle in _block(content, footer.handle()):
        yield from _block(content, _Cursor(handle).handle())


def _block(content: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    start, size = handle
    end = start + size
    if end + _TRAILER > len(content) - _FOOTER or size < 4:
        raise _Damaged(f"a block of {size} bytes at {start} does not fit into its index")
    compression, checksum = struct.unpack("<BI", content[end : end + _TRAILER])
    if compression:
        kind = "snappy" if compression == 1 else f"method {compression}"
        raise _Damaged(f"its index is compressed ({kind}), which is not supported; TensorFlow writes it uncompressed")
    if _masked(crc32c(content[start : end + 1])) != checksum:
        raise _Damaged(f"the checksum of the block at {start} is wrong; get the files again")
    restarts = struct.unpack("<I", content[end - 4 : end])[0]
    if 4 * (restarts + 1) > size:
        raise _Damaged(f"the block at {start} has {restarts} restart points, more than fit")
    cursor = _Cursor(content[start : end - 4 * (restarts + 1)])
    key = b""
    while not cursor.at_end:
        shared, own, length = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise _Damaged("a key shares more than the key before it has")
        key = key[:shared] + cursor.take(own)
        yield key, cursor.take(length)


class _Cursor:
    """Varints and bytes, one after another."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    @property
    def at_end(self) -> bool:
        return self._position == len(self._content)

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._content):
            raise _Damaged("a record of its index is truncated")
        piece = self._content[self._position : end]
        self._position = end
        return piece

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value & 0xFFFFFFFFFFFFFFFF
        raise _Damaged("a number of its index has more than 64 bits")

    def handle(self) -> tuple[int, int]:
        """Offset and size of a block."""
        return self.varint(), self.varint()


# --- its records ---------------------------------------------------------------------------------


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer."""
    cursor = _Cursor(message)
    while not cursor.at_end:
        tag = cursor.varint()
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            yield number, cursor.varint()
        elif wire == 1:
            yield number, int.from_bytes(cursor.take(8), "little")
        elif wire == 2:
            yield number, cursor.take(cursor.varint())
        elif wire == 5:
            yield number, int.from_bytes(cursor.take(4), "little")
        else:
            raise _Damaged(f"a record of its index has a field of unknown kind {wire}")


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise _Damaged("a record of its index has text where a number should be")
    return value


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Damaged("a record of its index has a number where a message should be")
    return value


def _shards(header: bytes) -> int:
    """How many data files there are, from the BundleHeaderProto."""
    shards, big_endian = 0, False
    for number, value in _fields(header):
        if number == 1:
            shards = _number(value)
        elif number == 2:
            big_endian = bool(value)
    if big_endian:
        raise _Damaged("its numbers are big-endian, which is not supported")
    if not 1 <= shards <= 99999:
        raise _Damaged(f"its header says {shards} data files")
    return shards


def _entry(name: str, content: bytes, shards: int) -> _Entry:
    """A BundleEntryProto."""
    dtype = shard = offset = size = checksum = 0
    shape: tuple[int, ...] = ()
    for number, value in _fields(content):
        if number == 1:
            dtype = _number(value)
        elif number == 2:
            shape = _shape(_message(value))
        elif number == 3:
            shard = _number(value)
        elif number == 4:
            offset = _number(value)
        elif number == 5:
            size = _number(value)
        elif number == 6:
            checksum = _number(value)
        elif number == 7:
            raise _Damaged(f"the variable {name} is saved in pieces, which is not supported; save it whole")
    if dtype == _STRING:
        raise _Damaged(
            f"{name} is text, so this is a checkpoint of objects (TensorFlow 2); give one of named variables, "
            "as tf.compat.v1.train.Saver writes"
        )
    if dtype not in _DTYPES:
        raise _Damaged(f"the variable {name} has TensorFlow's type {dtype}, which is not supported")
    if shard >= shards:
        raise _Damaged(f"the variable {name} is in data file {shard} of {shards}")
    if size != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
        raise _Damaged(f"the variable {name} has {size} bytes, which does not fit its shape {shape}")
    if offset > MAX_BYTES:
        raise _Damaged(f"the variable {name} begins at byte {offset}")
    return _Entry(dtype, shape, shard, offset, size, checksum)


def _shape(message: bytes) -> tuple[int, ...]:
    """A TensorShapeProto."""
    sizes = []
    for number, value in _fields(message):
        if number == 2:
            inner = dict(_fields(_message(value)))
            sizes.append(_number(inner.get(1, 0)))
    return tuple(sizes)


# --- checksums -----------------------------------------------------------------------------------

_LANE = 512  # bytes


def _masked(checksum: int) -> int:
    """LevelDB's form of a checksum that is stored beside its data."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _byte_table() -> NDArray[np.uint32]:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(0x82F63B78), values >> 1).astype(np.uint32)
    return values


def _after_lane(states: NDArray[np.uint32], columns: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """States after lanes of bytes, many lanes at once: column i holds byte i of each."""
    table = _byte_table()
    for column in columns:
        states = table[(states ^ column) & 0xFF] ^ (states >> 8)
    return states


@cache
def _lane_of_zeros() -> list[list[int]]:
    """For each byte of a state, what it becomes when a lane of zeros follows; a state is linear in its bits."""
    bits = _after_lane(np.uint32(1) << np.arange(32, dtype=np.uint32), np.zeros((_LANE, 1), np.uint8)).tolist()
    tables = []
    for byte in range(4):
        row = [0] * 256
        for value in range(256):
            for bit in range(8):
                if value >> bit & 1:
                    row[value] ^= bits[8 * byte + bit]
        tables.append(row)
    return tables


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli), by lanes side by side that are then joined: byte by byte it would take seconds.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    lanes = len(content) // _LANE
    state = 0xFFFFFFFF
    if lanes:
        columns = np.frombuffer(content, np.uint8, lanes * _LANE).reshape(lanes, _LANE).T
        first, second, third, fourth = _lane_of_zeros()
        for own in _after_lane(np.zeros(lanes, np.uint32), columns).tolist():
            state = first[state & 255] ^ second[state >> 8 & 255] ^ third[state >> 16 & 255] ^ fourth[state >> 24] ^ own
    table = _byte_table().tolist()
    for byte in content[lanes * _LANE :]:
        state = table[(state ^ byte) & 255] ^ state >> 8
    return state ^ 0xFFFFFFFF
