"""Putting named tensors into a detector: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edgejoule.errors import WeightsError
from edgejoule_trainer.detectors import Detector
from edgejoule_trainer.weights.files import listed


def load_tensors(detector: Detector, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load every tensor, in the detector's own type.

    Raises:
        WeightsError: one is missing, left over, of another shape, or not finite; all of them are named.
    """
    wanted = detector.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - tensors.keys()):
        problems.append(f"missing {listed(missing)}")
    if left_over := sorted(tensors.keys() - wanted.keys()):
        problems.append(f"left over {listed(left_over)}")
    shared = wanted.keys() & tensors.keys()
    if wrong := sorted(
        f"{name} ({_shape(tensors[name])}, not {_shape(wanted[name])})"
        for name in shared
        if tensors[name].shape != wanted[name].shape
    ):
        problems.append(f"of another shape {listed(wrong)}")
    if unreal := sorted(name for name in shared if not torch.isfinite(tensors[name].float()).all()):
        problems.append(f"with NaN or infinite values {listed(unreal)}")
    if problems:
        raise WeightsError(f"{path} does not fit {detector.name}: {'; '.join(problems)}.")
    detector.load_state_dict({name: tensors[name].to(wanted[name].dtype) for name in wanted})


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
