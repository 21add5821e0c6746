"""``predict``: one engine over one shard of the evaluation set, where the engine can run.

Inputs: ``engine``, ``engine_record``, ``images-000``. Parameters: ``threads`` and ``operating``
(``confidence``, ``nms_iou``). Outputs: ``detections``, from which AP is computed; ``operating``, the same
frames as a deployed detector shows them; ``record``. One inference per image serves both.
"""

from typing import Any

VERSION = 2
QUEUE = "evaluate"  # for engines of the stack's own host
ON_BOARDS = True  # an engine of a board runs there alone
EXCLUSIVE = False
OUTPUTS = ("detections", "operating", "record")
SOURCES = (
    "edgejoule_agent.boards",
    "edgejoule_agent.contract",
    "edgejoule_agent.cpu",
    "edgejoule_agent.detections",
    "edgejoule_agent.engines",
    "edgejoule_agent.errors",
    "edgejoule_agent.host",
    "edgejoule_agent.isolate",
    "edgejoule_agent.jetson",
    "edgejoule_agent.l4t",
    "edgejoule_agent.npz",
    "edgejoule_agent.optional",
    "edgejoule_agent.postprocess",
    "edgejoule_agent.predict",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.shards",
)


def run(job: Any) -> None:
    """Predict every image of the shard."""
    from edgejoule_agent.predict import predict, read_engine_record

    outputs = {name: job.output(name) for name in ("detections", "operating")}
    record = read_engine_record(job.inputs["engine_record"])
    job.write_json(
        "record",
        predict(job.inputs["engine"], record, job.inputs["images-000"], job.parameters, outputs, job.progress),
    )
