"""Reading weights without running anything that is in the file, and saying where every tensor went.

Files of ours are safetensors whose header carries, under ``edgejoule``, the detector, its labels and
its input size. Files of the origins are ``.pth`` state dicts, read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgejoule.canonical import canonical_json
from edgejoule.errors import WeightsError
from edgejoule.records import Label
from edgejoule_trainer.detectors import Detector, create, detector_class

MAX_BYTES = 4 << 30
_HEADER = "edgejoule"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_NAMED = 8  # how many tensors an error names before it counts the rest


@dataclass(frozen=True)
class Report:
    """Where every tensor of an imported file went; ``unused`` maps each one left out to the reason."""

    detector: str
    mapped: tuple[str, ...]
    unused: dict[str, str]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth``/``.pt`` state dict.

    Raises:
        WeightsError: it is missing, truncated, compressed, holds objects that are not tensors, or is no state dict.
    """
    _check_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > 2 * path.stat().st_size + (1 << 20):
            raise WeightsError(
                f"{path} unpacks to {unpacked / 1e6:.0f} MB from {path.stat().st_size / 1e6:.1f} MB; weights files are "
                "not compressed, so this one is not read. Get it again from its authors."
            )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files; each means the same to a person
        unsafe = "weights_only" in str(error).lower() or "unsupported" in str(error).lower()
        why = (
            "it holds Python objects other than tensors, which could run code"
            if unsafe
            else f"it is damaged or not a PyTorch file ({type(error).__name__})"
        )
        raise WeightsError(f"{path} was not read: {why}. Give a state dict saved with torch.save.") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds {type(content).__name__}, not a state dict of named tensors.")
    if strangers := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
        raise WeightsError(f"{path} is not a state dict: {_listed(strangers)} are not tensors.")
    return {str(name): tensor for name, tensor in content.items()}


def load_tensors(detector: Detector, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load every tensor, in the detector's own type.

    Raises:
        WeightsError: one is missing, left over, of another shape, or not finite; all of them are named.
    """
    wanted = detector.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - tensors.keys()):
        problems.append(f"missing {_listed(missing)}")
    if left_over := sorted(tensors.keys() - wanted.keys()):
        problems.append(f"left over {_listed(left_over)}")
    shared = wanted.keys() & tensors.keys()
    if wrong := sorted(
        f"{name} ({_shape(tensors[name])}, not {_shape(wanted[name])})"
        for name in shared
        if tensors[name].shape != wanted[name].shape
    ):
        problems.append(f"of another shape {_listed(wrong)}")
    if unreal := sorted(name for name in shared if not torch.isfinite(tensors[name].float()).all()):
        problems.append(f"with NaN or infinite values {_listed(unreal)}")
    if problems:
        raise WeightsError(f"{path} does not fit {detector.name}: {'; '.join(problems)}.")
    detector.load_state_dict({name: tensors[name].to(wanted[name].dtype) for name in wanted})


def import_weights(
    path: Path, detector_name: str, input_size: tuple[int, int] | None = None
) -> tuple[Detector, Report]:
    """A detector with the weights of an official file or of one of ours.

    Raises:
        WeightsError: the file does not fit, tensor by tensor, or is not safe to read.
    """
    if _is_safetensors(path):
        detector = read_weights(path, input_size)
        if detector.name != detector_name:
            raise WeightsError(f"{path} holds weights of {detector.name}, not of {detector_name}.")
        return detector, Report(detector.name, tuple(sorted(detector.state_dict())), {})
    kind = detector_class(detector_name)
    official = kind.from_official(read_state_dict(path))
    detector = create(detector_name, kind.official_labels(), input_size)
    load_tensors(detector, official.tensors, path)
    return detector.eval(), Report(detector_name, tuple(sorted(official.tensors)), official.unused)


def write_weights(path: Path, detector: Detector, dtype: torch.dtype = torch.float32) -> None:
    """Write a detector's tensors with what is needed to make it again."""
    header = {
        "detector": detector.name,
        "labels": [label.model_dump() for label in detector.labels],
        "input": {"height": detector.input_size[0], "width": detector.input_size[1]},
    }
    tensors = {
        name: tensor.detach().to(dtype if tensor.dtype.is_floating_point else tensor.dtype).contiguous()
        for name, tensor in detector.state_dict().items()
    }
    save_file(tensors, path, metadata={_HEADER: canonical_json(header)})


def read_weights(path: Path, input_size: tuple[int, int] | None = None) -> Detector:
    """The detector that ``write_weights`` wrote, in evaluation mode, at its own input size unless another is given.

    Raises:
        WeightsError: the file is damaged, not of ours, or does not fit.
    """
    _check_file(path)
    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file ({error}).") from error
    if header is None:
        raise WeightsError(f"{path} has no {_HEADER!r} entry in its header, so it was not written by Edgejoule.")
    name, labels, own_size = _parse_header(header, path)
    detector = create(name, labels, input_size or own_size)
    load_tensors(detector, tensors, path)
    return detector.eval()


def _parse_header(header: str, path: Path) -> tuple[str, list[Label], tuple[int, int]]:
    try:
        content: dict[str, Any] = json.loads(header)
        size = content["input"]
        labels = [Label(**label) for label in content["labels"]]
        return str(content["detector"]), labels, (int(size["height"]), int(size["width"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"The header of {path} does not say detector, labels and input ({error}).") from error


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then JSON."""
    _check_file(path)
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:9] == b"{"


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
        with open(path, "rb"):
            pass
    except OSError as error:
        raise WeightsError(f"The weights file {path} cannot be read: {error.strerror or error}.") from error
    if not 0 < size <= MAX_BYTES:
        raise WeightsError(f"The weights file {path} has {size} bytes; between 1 and {MAX_BYTES} are read.")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
