"""Weights files: ours, and those of the detectors' authors, read without running anything that is in them."""

from edgejoule_trainer.weights.importing import Report, import_weights, read_state_dict
from edgejoule_trainer.weights.loading import load_tensors
from edgejoule_trainer.weights.own_format import read_weights, write_weights

__all__ = ["Report", "import_weights", "load_tensors", "read_state_dict", "read_weights", "write_weights"]
