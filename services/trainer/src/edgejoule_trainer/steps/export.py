"""Step ``export``: weights become an ONNX graph under the engine contract, in float.

Inputs: ``weights``. Outputs: ``onnx``, ``record``. No parameters.
"""

from __future__ import annotations

from edgejoule.job import Job

VERSION = 2
QUEUE = "train"
EXCLUSIVE = False
OUTPUTS = ("onnx", "record")
SOURCES = (
    "edgejoule_trainer.export",
    "edgejoule_trainer.counting",
    "edgejoule_trainer.detectors",
    "edgejoule_trainer.losses",
    "edgejoule_trainer.quantize.fold",
    "edgejoule_trainer.quantize.lint",
    "edgejoule_trainer.weights",
)


def run(job: Job) -> None:
    """Export; the graph is checked by our own rules before it is written."""
    import torch

    from edgejoule_trainer.detectors import create
    from edgejoule_trainer.export import export_onnx
    from edgejoule_trainer.quantize.lint import OPSET
    from edgejoule_trainer.weights import read_weights

    torch.set_num_threads(1)
    detector = read_weights(job.inputs["weights"])
    # weights with their batch norm folded have fewer parameters, of the same detector
    manifest = create(detector.name, detector.labels, detector.input_size).manifest()
    model = export_onnx(detector, job.output("onnx"), manifest)
    job.write_json("record", {"detector": detector.name, "opset": OPSET, "nodes": len(model.graph.node)})
