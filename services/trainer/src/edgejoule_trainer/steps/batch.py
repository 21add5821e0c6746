"""Step ``batch``: a graph for one image becomes one for several, whatever made it: ``export``, ``ptq`` or ``qat``.

Inputs: ``onnx``. Outputs: ``onnx``, ``record``. Parameters: ``batch``, the images that one inference shall take.
"""

from __future__ import annotations

from edgejoule.job import Job

VERSION = 1
QUEUE = "train"
EXCLUSIVE = False
OUTPUTS = ("onnx", "record")
SOURCES = (
    "edgejoule_trainer.rebatch",
    "edgejoule_trainer.quantize.lint",
    "edgejoule_agent.macs",
    "edgejoule_agent.optional",
)


def run(job: Job) -> None:
    """Rewrite; the graph is checked by our own rules before it is written."""
    import onnx

    from edgejoule_trainer.quantize.lint import check
    from edgejoule_trainer.rebatch import rebatch

    batch = int(job.parameters["batch"])
    model = rebatch(onnx.load(job.inputs["onnx"]), batch)
    onnx.checker.check_model(model)
    check(model)
    job.output("onnx").write_bytes(model.SerializeToString(deterministic=True))
    job.write_json("record", {"batch": batch, "nodes": len(model.graph.node)})
