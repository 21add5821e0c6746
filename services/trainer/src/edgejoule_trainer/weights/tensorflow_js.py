"""TensorFlow.js models: ``model.json`` names the constants, binary shards beside it hold them one after another.

Only names, shapes and numbers are read; the graph itself is not run.
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgejoule.errors import WeightsError

MAX_BYTES = 4 << 30
MAX_JSON_BYTES = 256 << 20
_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "|b1", "uint8": "|u1", "uint16": "<u2", "float16": "<f2"}
_PLAIN = ("float32", "int32", "bool")


def read(path: Path) -> dict[str, Tensor]:
    """The constants of a model, by name, in TensorFlow's layouts (weights: height, width, in, out).

    Quantized ones (uint8 and uint16 with scale and minimum, or float16) are put back into their own type.

    Args:
        path: ``model.json``, or the folder that holds it.

    Raises:
        WeightsError: a file is missing, truncated, too long, or does not say what it should.
    """
    manifest_path = path / "model.json" if path.is_dir() else path
    groups = _groups(manifest_path)
    tensors: dict[str, Tensor] = {}
    for group in groups:
        try:
            entries, shards = group["weights"], [str(name) for name in group["paths"]]
            wanted = [(str(entry["name"]), *_layout(entry, manifest_path), entry) for entry in entries]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(
                f"A weights group of {manifest_path} does not list names, shapes, types and paths ({error!r})."
            ) from error
        content = _joined(manifest_path, shards, sum(size for _, _, _, size, _ in wanted))
        start = 0
        for name, shape, dtype, size, entry in wanted:
            if name in tensors:
                raise WeightsError(f"{manifest_path} lists the weight {name} twice.")
            try:
                values: NDArray[Any] = np.ndarray(shape, dtype, content[start : start + size])
            except ValueError as error:
                raise WeightsError(f"The weight {name} of {manifest_path} has an impossible shape.") from error
            tensors[name] = torch.from_numpy(_restored(values, entry, manifest_path))
            start += size
    if not tensors:
        raise WeightsError(f"{manifest_path} lists no weights.")
    return tensors


def _groups(manifest_path: Path) -> list[Any]:
    try:
        if manifest_path.stat().st_size > MAX_JSON_BYTES:
            raise WeightsError(f"{manifest_path} has more than {MAX_JSON_BYTES} bytes; it is no model's description.")
        content = json.loads(manifest_path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{manifest_path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{manifest_path} is not JSON ({type(error).__name__}).") from error
    groups = content.get("weightsManifest") if isinstance(content, dict) else None
    if not isinstance(groups, list):
        raise WeightsError(f"{manifest_path} has no weightsManifest, so it is not a TensorFlow.js model.")
    return groups


def _layout(entry: dict[str, Any], manifest_path: Path) -> tuple[tuple[int, ...], str, int]:
    """Shape, type as stored and bytes of a weight."""
    shape = tuple(entry["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"shape {entry['shape']}")
    quantization = entry.get("quantization")
    stored = str(quantization["dtype"] if quantization else entry["dtype"])
    if stored not in (_DTYPES if quantization else _PLAIN):
        raise WeightsError(
            f"The weight {entry['name']} of {manifest_path} is of type {stored}, which is not supported."
        )
    return shape, _DTYPES[stored], math.prod(shape) * np.dtype(_DTYPES[stored]).itemsize


def _joined(manifest_path: Path, shards: list[str], size: int) -> bytes:
    """The shards' bytes, which must be exactly ``size``."""
    if size > MAX_BYTES:
        raise WeightsError(f"{manifest_path} lists {size} bytes of weights; at most {MAX_BYTES} are read.")
    parts = []
    left = size
    for name in shards:
        if PurePosixPath(name).name != name or "\\" in name or name in ("", ".", ".."):
            raise WeightsError(f"{manifest_path} names the shard {name!r}, which is not a file beside it.")
        try:
            with open(manifest_path.parent / name, "rb") as file:
                part = file.read(left + 1)
        except (OSError, ValueError) as error:
            raise WeightsError(f"The shard {name} of {manifest_path} cannot be read ({error}).") from error
        if len(part) > left:
            raise WeightsError(f"The shards of {manifest_path} hold more than the {size} bytes that it lists.")
        parts.append(part)
        left -= len(part)
    if left:
        raise WeightsError(
            f"The shards of {manifest_path} hold {size - left} bytes, not the {size} that it lists; get them again."
        )
    return b"".join(parts)


def _restored(values: NDArray[Any], entry: dict[str, Any], manifest_path: Path) -> NDArray[Any]:
    """A weight in its own type, a copy."""
    quantization = entry.get("quantization")
    if not quantization:
        return values.copy()
    if quantization["dtype"] == "float16":
        return values.astype(np.float32)
    try:
        scale, minimum = float(quantization["scale"]), float(quantization["min"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"The weight {entry['name']} of {manifest_path} is quantized without a scale.") from error
    restored = values.astype(np.float32) * np.float32(scale) + np.float32(minimum)
    return np.rint(restored).astype(np.int32) if entry["dtype"] == "int32" else restored
