"""Step ``build``: an ONNX file becomes an engine of this hardware class."""

from typing import Any

VERSION = 2
QUEUE = "device"
EXCLUSIVE = True  # the candidates are timed
OUTPUTS = ("engine", "record")
SOURCES = (
    "edgejoule_agent.benchmark",
    "edgejoule_agent.boards",
    "edgejoule_agent.build",
    "edgejoule_agent.build_tensorrt",
    "edgejoule_agent.candidates",
    "edgejoule_agent.contract",
    "edgejoule_agent.cpu",
    "edgejoule_agent.engines",
    "edgejoule_agent.host",
    "edgejoule_agent.isolate",
    "edgejoule_agent.jetson",
    "edgejoule_agent.l4t",
    "edgejoule_agent.limits",
    "edgejoule_agent.macs",
    "edgejoule_agent.optional",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.rewrites",
    "edgejoule_agent.shards",
)


def run(job: Any) -> None:
    """Inputs ``onnx``, ``images-*`` (optional); parameters precision, threads, hardware; outputs engine, record."""
    from edgejoule_agent import host
    from edgejoule_agent.benchmark import check_same
    from edgejoule_agent.build import build

    parameters = job.parameters
    if "hardware" in parameters:
        check_same(parameters["hardware"], host.hardware(), "since the plan was made")
    record = build(
        job.inputs["onnx"],
        parameters["precision"],
        parameters["threads"],
        job.inputs_named("images"),
        job.output("engine"),
        job.progress,
    )
    job.write_json("record", record)
