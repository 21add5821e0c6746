"""TensorFlow's checkpoint format, written here by a small writer of its own."""

import struct

import numpy as np
import pytest

from edgejoule.errors import WeightsError
from edgejoule_trainer.weights.tensorflow_checkpoint import crc32c, read

MAGIC = 0xDB4775248B80FB57
CODES = {"float32": 1, "int32": 3, "int64": 9, "float16": 19}


def bytewise_crc32c(content):
    state = 0xFFFFFFFF
    for byte in content:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(content):
    crc = bytewise_crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field, value):
    return varint(field << 3) + varint(value) if value else b""


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(array, shard, offset, code=None):
    content = array.tobytes()
    shape = b"".join(message(2, number(1, size)) for size in array.shape)
    return (
        number(1, code or CODES[array.dtype.name])
        + message(2, shape)
        + number(3, shard)
        + number(4, offset)
        + number(5, len(content))
        + varint(6 << 3 | 5)
        + struct.pack("<I", masked(content))
    )


def block(rows, compression=0):
    body, previous = b"", b""
    for key, value in rows:
        shared = next((i for i, (a, b) in enumerate(zip(key, previous, strict=False)) if a != b), None)
        shared = min(len(key), len(previous)) if shared is None else shared
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    body += struct.pack("<II", 0, 1) + bytes([compression])
    return body + struct.pack("<I", masked(body))


def table(rows, compression=0):
    half = (len(rows) + 1) // 2
    content, index = b"", []
    for part in (rows[:half], rows[half:]):
        if part:
            data = block(part, compression)
            index.append((part[-1][0], varint(len(content)) + varint(len(data) - 5)))
            content += data
    handles = []
    for data in (block([]), block(index)):
        handles.append(varint(len(content)) + varint(len(data) - 5))
        content += data
    return content + b"".join(handles).ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def write(folder, arrays, *, shards=1, compression=0, extra=(), header=None):
    """``model.ckpt`` in ``folder``; array i goes to data file i % shards."""
    files = [b""] * shards
    rows = [(b"", number(1, shards) if header is None else header)]
    for i, (name, array) in enumerate(sorted(arrays.items())):
        shard = i % shards
        rows.append((name.encode(), entry(array, shard, len(files[shard]))))
        files[shard] += array.tobytes()
    (folder / "model.ckpt.index").write_bytes(table(sorted([*rows, *extra]), compression))
    for shard, content in enumerate(files):
        (folder / f"model.ckpt.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    return folder / "model.ckpt"


MASKED_OF_NOTHING = varint(6 << 3 | 5) + struct.pack("<I", masked(b""))
ARRAYS = {
    "Conv/weights": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4),
    "Conv/BatchNorm/gamma": np.array([0.5, -2.0], np.float32),
    "Conv/BatchNorm/beta": np.linspace(-1, 1, 5000, dtype=np.float32),
    "global_step": np.array(200000, np.int64),
    "half": np.array([[1.5]], np.float16),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("shards", [1, 3])
def test_read_gives_every_variable(tmp_path, shards):
    found = read(write(tmp_path, ARRAYS, shards=shards))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name].numpy(), array)
        assert found[name].numpy().dtype == array.dtype


def test_read_takes_the_prefix_the_index_and_the_folder(tmp_path):
    prefix = write(tmp_path, ARRAYS)
    for path in (prefix, tmp_path / "model.ckpt.index", tmp_path):
        assert read(path).keys() == ARRAYS.keys()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 5000])
def test_crc32c_equals_the_bytewise_one(size):
    content = np.random.default_rng(size).bytes(size)
    assert crc32c(content) == bytewise_crc32c(content)


def test_compressed_index_is_refused_in_words(tmp_path):
    with pytest.raises(WeightsError, match="compressed \\(snappy\\)"):
        read(write(tmp_path, ARRAYS, compression=1))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nothing\.index cannot be read: No such file"):
        read(tmp_path / "nothing")
    write(tmp_path, ARRAYS)
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(WeightsError, match=r"data-00000-of-00001 cannot be read"):
        read(tmp_path)


def test_folder_with_two_checkpoints_is_refused(tmp_path):
    write(tmp_path, ARRAYS)
    (tmp_path / "other.index").touch()
    with pytest.raises(WeightsError, match=r"has 2 \.index files"):
        read(tmp_path)


def test_changed_number_is_found_by_its_checksum(tmp_path):
    write(tmp_path, ARRAYS)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(WeightsError, match="checksum of half is wrong"):
        read(tmp_path)


def test_truncated_data_is_refused(tmp_path):
    write(tmp_path, ARRAYS)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="ends before half does"):
        read(tmp_path)


def test_index_cut_or_changed_anywhere_is_refused(tmp_path):
    write(tmp_path, {"a": np.ones(3, np.float32), "ab": np.zeros(2, np.float32)})
    index = tmp_path / "model.ckpt.index"
    whole = index.read_bytes()
    for end in range(len(whole)):
        index.write_bytes(whole[:end])
        with pytest.raises(WeightsError):
            read(tmp_path)
    metaindex = whole.index(block([]))
    unread = {*range(metaindex, metaindex + len(block([]))), *range(len(whole) - 48, len(whole) - 8)}
    for position in sorted(set(range(len(whole))) - unread):
        changed = bytearray(whole)
        changed[position] ^= 0x41
        index.write_bytes(changed)
        with pytest.raises(WeightsError):
            read(tmp_path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (entry(np.ones(2, np.float32), 0, 0, code=7), "checkpoint of objects"),
        (entry(np.ones(2, np.float32), 0, 0, code=20), "TensorFlow's type 20"),
        (entry(np.ones(2, np.float32), 5, 0), "data file 5 of 1"),
        (entry(np.ones(2, np.float32), 0, 1 << 60), "begins at byte"),
        (entry(np.ones(2, np.float32), 0, 0) + number(5, 1 << 40), "does not fit its shape"),
        (entry(np.ones(2, np.float32), 0, 0) + message(7, b""), "saved in pieces"),
        (number(1, 1) + message(2, message(2, number(1, 1 << 62))) + number(5, 4 << 62), "has .* bytes"),
        (number(1, 1) + message(2, message(2, b"") + message(2, number(1, 1 << 62))), "checksum"),
        (number(1, 1) + message(2, message(2, b"") * 70) + MASKED_OF_NOTHING, "shape"),
        (message(1, b"x"), "text where a number should be"),
        (number(2, 5), "number where a message should be"),
        (b"\x0f", "unknown kind 7"),
        (b"\x08", "truncated"),
        (b"\x08" + b"\xff" * 11, "more than 64 bits"),
    ],
)
def test_hostile_entry_is_refused(tmp_path, row, words):
    with pytest.raises(WeightsError, match=words):
        read(write(tmp_path, ARRAYS, extra=[(b"stranger", row)]))


@pytest.mark.parametrize(
    ("header", "words"),
    [(number(1, 1) + number(2, 1), "big-endian"), (b"", "says 0 data files"), (number(1, 1 << 40), "data files")],
)
def test_header_of_another_machine_or_of_none_is_refused(tmp_path, header, words):
    with pytest.raises(WeightsError, match=words):
        read(write(tmp_path, ARRAYS, header=header))


def test_variable_listed_twice_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="half is listed twice"):
        read(write(tmp_path, ARRAYS, extra=[(b"half", entry(ARRAYS["half"], 0, 0))]))


def test_something_else_is_refused(tmp_path):
    (tmp_path / "x.index").write_bytes(b"hello" * 20)
    with pytest.raises(WeightsError, match="does not end like a table"):
        read(tmp_path / "x")
