"""Step ``benchmark``: one trial of one engine on this device."""

import json
from typing import Any

VERSION = 2
QUEUE = "device"
EXCLUSIVE = True
OUTPUTS = ("record", "samples")
SOURCES = (
    "edgejoule_agent.benchmark",
    "edgejoule_agent.boards",
    "edgejoule_agent.conditions",
    "edgejoule_agent.contention",
    "edgejoule_agent.cpu",
    "edgejoule_agent.energy",
    "edgejoule_agent.engines",
    "edgejoule_agent.host",
    "edgejoule_agent.isolate",
    "edgejoule_agent.jetson",
    "edgejoule_agent.l4t",
    "edgejoule_agent.limits",
    "edgejoule_agent.live",
    "edgejoule_agent.macs",
    "edgejoule_agent.measure",
    "edgejoule_agent.metrics",
    "edgejoule_agent.optional",
    "edgejoule_agent.postprocess",
    "edgejoule_agent.power_mode",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.sampler",
    "edgejoule_agent.sensors",
    "edgejoule_agent.shards",
    "edgejoule_agent.simulation",
    "edgejoule_agent.watch",
)


def run(job: Any) -> None:
    """Inputs engine, engine_record, images-000; parameters as in ``benchmark.benchmark``; outputs record, samples."""
    from edgejoule_agent import live
    from edgejoule_agent.benchmark import benchmark

    with open(str(job.inputs["engine_record"]), encoding="utf-8") as file:
        engine_record = json.load(file)
    record = benchmark(
        job.inputs["engine"],
        engine_record,
        job.inputs["images-000"],
        job.output("samples"),
        job.parameters,
        job.progress,
    )
    job.write_json("record", record)
    live.keep(record)
