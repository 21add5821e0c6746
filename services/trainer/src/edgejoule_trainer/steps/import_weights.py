"""Step ``import-weights``: an official file, or one of ours, becomes weights under our names.

Parameters: ``detector``; ``input`` ({height, width}) or null for the authors' own size.
"""

from __future__ import annotations

from edgejoule.job import Job

VERSION = 2
QUEUE = "train"
EXCLUSIVE = False
OUTPUTS = ("weights", "record")
SOURCES = (
    "edgejoule_trainer.quantize.fold",
    "edgejoule_trainer.weights",
    "edgejoule_trainer.detectors",
    "edgejoule_trainer.counting",
    "edgejoule_trainer.losses",
)


def run(job: Job) -> None:
    """Read input ``file``, refuse on any tensor that does not fit, write ``weights``."""
    from edgejoule_trainer.weights import import_weights, write_weights

    size = job.parameters.get("input")
    detector, report = import_weights(
        job.inputs["file"], job.parameters["detector"], (size["height"], size["width"]) if size else None
    )
    write_weights(job.output("weights"), detector)
    job.write_json(
        "record", {"detector": report.detector, "mapped": len(report.mapped), "missing": [], "unused": report.unused}
    )
