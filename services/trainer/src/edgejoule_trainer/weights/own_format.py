"""Weights files of ours: safetensors whose header carries, under ``edgejoule``, the detector, labels and input size.

Quantization-aware training leaves weights into which batch norm is folded; the header says so (``folded``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import fx

from edgejoule.canonical import canonical_json
from edgejoule.errors import WeightsError
from edgejoule.records import Label
from edgejoule_trainer.detectors import Detector, create, with_network
from edgejoule_trainer.quantize.fold import fold_batch_norm
from edgejoule_trainer.weights.files import check_file
from edgejoule_trainer.weights.loading import load_tensors

_HEADER = "edgejoule"


def write_weights(path: Path, detector: Detector, dtype: torch.dtype = torch.float32) -> None:
    """Write a detector's tensors with what is needed to make it again; the file is there whole or not at all.

    Raises:
        WeightsError: it cannot be written.
    """
    header = {
        "detector": detector.name,
        "labels": [label.model_dump() for label in detector.labels],
        "input": {"height": detector.input_size[0], "width": detector.input_size[1]},
        "folded": isinstance(detector.network, fx.GraphModule),
    }
    tensors = {
        name: tensor.detach().to(dtype if tensor.dtype.is_floating_point else tensor.dtype).contiguous()
        for name, tensor in detector.state_dict().items()
    }
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata={_HEADER: canonical_json(header)})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        why = str(error).partition(" at path")[0]  # of a temporary file
        raise WeightsError(
            f"{path} cannot be written ({why}); choose a folder with room that you may write."
        ) from error


def read_weights(path: Path, input_size: tuple[int, int] | None = None) -> Detector:
    """The detector that ``write_weights`` wrote, in evaluation mode, at its own input size unless another is given.

    Raises:
        WeightsError: the file is damaged, not of ours, or does not fit.
    """
    check_file(path)
    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file ({error}).") from error
    if header is None:
        raise WeightsError(f"{path} has no {_HEADER!r} entry in its header, so it was not written by Edgejoule.")
    name, labels, own_size, folded = _parse_header(header, path)
    detector = create(name, labels, input_size or own_size)
    if folded:
        detector = with_network(detector, fold_batch_norm(detector.network))
    load_tensors(detector, tensors, path)
    return detector.eval()


def is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then JSON."""
    check_file(path)
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:9] == b"{"


def _parse_header(header: str, path: Path) -> tuple[str, list[Label], tuple[int, int], bool]:
    try:
        content: dict[str, Any] = json.loads(header)
        size = content["input"]
        labels = [Label(**label) for label in content["labels"]]
        own_size = int(size["height"]), int(size["width"])
        return str(content["detector"]), labels, own_size, bool(content.get("folded", False))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"The header of {path} does not say detector, labels and input ({error}).") from error
