"""Reading ``.pt`` and ``.pth`` files, whatever ``torch.save`` pickled into them, without running any of it.

A state dict is taken as it is. Of a whole model (every official YOLOv5 file pickles one) the parameters and buffers
are collected from the inert records of its modules, under the names that ``state_dict()`` would give them.
Both forms of file are read: the zip archive of PyTorch 1.6 and later, and the stream of pickles before it.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from edgejoule.errors import WeightsError
from edgejoule_trainer.weights.files import check_file, listed, printable
from edgejoule_trainer.weights.inert_pickle import Record, Storage, StoredTensor, read_pickle

_ZIP_START = b"PK\x03\x04"
_PICKLE_START = b"\x80"
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MODELS = ("ema", "model")  # yolov5 takes the averaged one where there is one
_MAX_MODULES = 100_000
_LONGEST_NAME = 1000
_MOST_DIMENSIONS = 16
_LARGEST = 1 << 40  # size, stride or offset
_HALVES = (torch.float16, torch.bfloat16)

ReadStorage = Callable[[Storage], bytes]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by the names of its state dict; half precision becomes float32.

    Raises:
        WeightsError: it is missing, truncated, compressed, ambiguous, or needs more than tensors.
    """
    check_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_ZIP_START))
            file.seek(0)
            return _read_zip(file) if start == _ZIP_START else _read_stream(file)
    except WeightsError as error:
        raise WeightsError(f"{path} was not read: {error}. Get it again from a source that you trust.") from error
    except Exception as error:  # zipfile raises many kinds for damage; each means the same to a person
        raise WeightsError(
            f"{path} was not read: it is damaged or not a PyTorch file ({type(error).__name__}). "
            "Get it again from a source that you trust."
        ) from error


# --- the two forms of file -----------------------------------------------------------------------


def _read_zip(file: BinaryIO) -> dict[str, Tensor]:
    """``<folder>/data.pkl``, and each storage as ``<folder>/data/<key>``; nothing is unpacked to disk."""
    with zipfile.ZipFile(file) as archive:
        _check_archive(archive.infolist(), _size(file))
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise WeightsError("it is a zip archive, but not one of torch.save")
        folder = pickles[0].partition("/")[0]
        if f"{folder}/constants.pkl" in names:
            raise WeightsError("it is a TorchScript program, and weights saved with torch.save are needed")
        order = f"{folder}/byteorder"
        swapped = order in names and archive.read(order) == b"big"

        def read_storage(storage: Storage) -> bytes:
            data = archive.read(f"{folder}/data/{storage.key}")
            return _swap_bytes(data, storage.dtype.itemsize) if swapped else data

        content, _ = read_pickle(archive.read(pickles[0]))
        return _build(_state_dict(content), read_storage, _size(file))


def _check_archive(entries: list[zipfile.ZipInfo], packed_bytes: int) -> None:
    if len({entry.filename for entry in entries}) < len(entries):
        raise WeightsError("its archive has two entries of one name, so programs would disagree on what it holds")
    if any(entry.flag_bits & 1 for entry in entries):
        raise WeightsError("its archive is encrypted")
    unpacked_bytes = sum(entry.file_size for entry in entries)
    if unpacked_bytes > 2 * packed_bytes + (1 << 20):
        raise WeightsError(
            f"it unpacks to {unpacked_bytes / 1e6:.0f} MB from {packed_bytes / 1e6:.1f} MB, "
            "and weights files are not compressed"
        )


def _swap_bytes(data: bytes, width: int) -> bytes:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, width).flip(1).numpy().tobytes()


def _read_stream(file: BinaryIO) -> dict[str, Tensor]:
    """Pickles of a magic number, a version, the writer's word sizes, the content and the storages' keys; then these."""
    if file.peek(1)[:1] != _PICKLE_START:  # type: ignore[attr-defined]  # a buffered reader has it
        raise WeightsError("it is damaged or not a PyTorch file")
    magic, _ = read_pickle(file)
    if magic != _STREAM_MAGIC:
        raise WeightsError(_made_by(magic) or "it is a pickle, but not one of torch.save")
    version, _ = read_pickle(file)
    if version != _STREAM_VERSION:
        raise WeightsError("it is of an unknown version")
    words, _ = read_pickle(file)
    if words.get("little_endian") is not True:
        raise WeightsError("it was written on a big-endian machine")
    content, storages = read_pickle(file)
    keys, _ = read_pickle(file)
    data = {}
    for key in keys:
        storage = storages[key]
        elements, size_bytes = int.from_bytes(file.read(8), "little"), storage.elements * storage.dtype.itemsize
        if elements != storage.elements or size_bytes > _size(file):
            raise WeightsError("it is damaged: the sizes of its storages contradict each other")
        data[key] = file.read(size_bytes)
    return _build(_state_dict(content), lambda storage: data[storage.key], _size(file))


# --- which tensors -------------------------------------------------------------------------------


def _state_dict(content: Any) -> dict[str, StoredTensor]:
    """The named tensors of a checkpoint, a model or a state dict."""
    if isinstance(content, dict):
        for key in _MODELS:
            if _is_module(content.get(key)):
                content = content[key]
                break
    if _is_module(content):
        content = dict(_module_state(content))
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        what = f"a {type(content).__name__}" if content else f"an empty {type(content).__name__}"
        raise WeightsError(_made_by(content) or f"it holds {what}, not a state dict of named tensors")
    strangers = {str(name): value for name, value in content.items() if not isinstance(value, StoredTensor)}
    made = (_made_by(value, f"its {printable(name)!r}") for name, value in strangers.items())
    if why := next(filter(None, made), None):
        raise WeightsError(why)
    if strangers:
        raise WeightsError(f"it is not a state dict: {listed(list(strangers))} are not tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _made_by(value: Any, what: str = "its content") -> str:
    """Why a record cannot be taken; empty for other values."""
    if not isinstance(value, Record):
        return ""
    return f"{what} would be made by {printable(str(value.maker))}, which could run code and was not called"


def _is_module(value: Any) -> bool:
    return isinstance(value, Record) and all(
        isinstance(value.attributes.get(group), dict) for group in ("_parameters", "_buffers", "_modules")
    )


def _module_state(model: Record) -> Iterator[tuple[str, Any]]:
    """Names and tensors of a module and those in it, as ``nn.Module.state_dict`` walks them."""
    waiting = [("", model)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            return
        prefix, module = waiting.pop()
        if len(prefix) > _LONGEST_NAME:
            break
        attributes = module.attributes
        passing = attributes.get("_non_persistent_buffers_set", set())
        for group, left_out in (("_parameters", set()), ("_buffers", passing)):
            for name, value in attributes[group].items():
                if value is not None and name not in left_out:
                    yield f"{prefix}{name}", value
        children = [(name, child) for name, child in attributes["_modules"].items() if child is not None]
        if strangers := [str(name) for name, child in children if not _is_module(child)]:
            raise WeightsError(f"it is no sound model: {listed(strangers)} in {printable(prefix)!r} are not modules")
        waiting += [(f"{prefix}{name}.", child) for name, child in reversed(children)]
    raise WeightsError("it is no sound model: its modules contain each other without end")


# --- from bytes to tensors -----------------------------------------------------------------------


def _build(described: dict[str, StoredTensor], read_storage: ReadStorage, file_bytes: int) -> dict[str, Tensor]:
    """The tensors themselves, each within its storage, and all together not much more than the file has."""
    for name, tensor in described.items():
        _check_bounds(name, tensor)
    elements = sum(math.prod(tensor.size) for tensor in described.values())
    if elements > 4 * file_bytes:
        raise WeightsError(f"it would grow to {elements} numbers from {file_bytes} bytes")
    flat: dict[str, Tensor] = {}
    tensors = {}
    for name, tensor in described.items():
        storage = tensor.storage
        if storage.key not in flat:
            flat[storage.key] = _numbers(storage, read_storage(storage))
        view = flat[storage.key].as_strided(tensor.size, tensor.stride, tensor.offset)
        tensors[name] = view.float() if view.dtype in _HALVES else view.contiguous()
    return tensors


def _check_bounds(name: str, tensor: StoredTensor) -> None:
    size, stride, elements = tensor.size, tensor.stride, tensor.storage.elements
    sound = len(size) == len(stride) <= _MOST_DIMENSIONS
    sound = sound and all(0 <= number < _LARGEST for number in (*size, *stride, tensor.offset))
    last = tensor.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if sound else 0
    if not sound or math.prod(size) > elements or (0 not in size and last >= elements):
        raise WeightsError(f"{printable(name)} is no view of its {elements} stored numbers")


def _numbers(storage: Storage, data: bytes) -> Tensor:
    wanted_bytes = storage.elements * storage.dtype.itemsize
    if len(data) != wanted_bytes:
        raise WeightsError(f"it is damaged: {len(data)} bytes are where {storage.elements} numbers should be")
    return torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
