"""From an official file, or one of ours, to a detector, with every tensor accounted for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from edgejoule.errors import WeightsError
from edgejoule_trainer.detectors import Detector, create, detector_class
from edgejoule_trainer.weights import own_format, pytorch_file, tensorflow_checkpoint, tensorflow_js
from edgejoule_trainer.weights.loading import load_tensors


@dataclass(frozen=True)
class Report:
    """Where every tensor of an imported file went; ``unused`` maps each one left out to the reason."""

    detector: str
    mapped: tuple[str, ...]
    unused: dict[str, str]


def import_weights(
    path: Path, detector_name: str, input_size: tuple[int, int] | None = None
) -> tuple[Detector, Report]:
    """A detector with the weights of an official file or folder, or of a file of ours.

    Raises:
        WeightsError: the weights do not fit, tensor by tensor, or are not safe to read.
    """
    kind = detector_class(detector_name)
    if path.is_file() and own_format.is_safetensors(path):
        detector = own_format.read_weights(path, input_size)
        if detector.name != detector_name:
            raise WeightsError(f"{path} holds weights of {detector.name}, not of {detector_name}.")
        return detector, Report(detector.name, tuple(sorted(detector.state_dict())), {})
    official = kind.from_official(read_state_dict(path))
    detector = create(detector_name, kind.official_labels(), input_size)
    load_tensors(detector, official.tensors, path)
    return detector.eval(), Report(detector_name, tuple(sorted(official.tensors)), official.unused)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file of others, in their own names and layouts.

    TensorFlow.js: ``model.json`` or its folder. TensorFlow: a checkpoint's prefix, its ``.index`` or its folder.
    ONNX: by its suffix. All else is read as PyTorch's.

    Raises:
        WeightsError: it cannot be read, is damaged, or needs code to be run.
    """
    if path.is_dir():
        if (path / "model.json").exists():
            return tensorflow_js.read(path)
        if any(path.glob("*.index")):
            return tensorflow_checkpoint.read(path)
        raise WeightsError(f"{path} is a folder without model.json (TensorFlow.js) or an .index file (TensorFlow).")
    if path.suffix == ".json":
        return tensorflow_js.read(path)
    if path.suffix == ".index" or (not path.exists() and path.with_name(path.name + ".index").exists()):
        return tensorflow_checkpoint.read(path)
    if path.suffix == ".onnx":
        from edgejoule_trainer.weights import onnx_initializers  # onnx takes a while to load

        return onnx_initializers.read(path)
    return pytorch_file.read(path)
