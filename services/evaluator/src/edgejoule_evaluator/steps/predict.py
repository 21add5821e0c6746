"""``predict``: one engine over one shard of the evaluation set.

Inputs: ``engine``, ``engine_record``, ``images-000``. Parameters: ``threads`` and ``operating``
(``confidence``, ``nms_iou``). Outputs: ``detections``, from which AP is computed; ``operating``, the same
frames as a deployed detector shows them; ``record``. One inference per image serves both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from edgejoule.errors import DataError
from edgejoule.job import Job
from edgejoule.records import EngineRecord, Nms, PredictRecord
from edgejoule_evaluator.detections import MAX_DETECTIONS, SCORE_FLOOR, Detections, write_detections

Output = Literal["detections", "operating"]

VERSION = 2
QUEUE = "evaluate"
EXCLUSIVE = False
OUTPUTS = ("detections", "operating", "record")
SOURCES = (
    "edgejoule_agent.boards",
    "edgejoule_agent.cpu",
    "edgejoule_agent.engines",
    "edgejoule_agent.engines.onnxruntime_engine",
    "edgejoule_agent.engines.openvino_engine",
    "edgejoule_agent.errors",
    "edgejoule_agent.host",
    "edgejoule_agent.isolate",
    "edgejoule_agent.jetson",
    "edgejoule_agent.l4t",
    "edgejoule_agent.optional",
    "edgejoule_agent.postprocess",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.shards",
    "edgejoule_evaluator.detections",
    "edgejoule_evaluator.npz",
)


def run(job: Job) -> None:
    """Predict every image of the shard.

    Raises:
        DataError: the engine's record is none, or an image cannot be decoded.
        AgentError: the engine or the shard cannot be opened, or the engine gives NaN.
    """
    from edgejoule_agent import engines, postprocess, preprocess
    from edgejoule_agent.errors import ImageError
    from edgejoule_agent.shards import ShardReader

    built = _engine_record(job.inputs["engine_record"])
    manifest = built.model.model_dump(mode="json")
    settings: dict[Output, Nms] = {
        "detections": ap_nms(built.model.nms["origin"]),
        "operating": operating_nms(built.model.nms["common"], **job.parameters["operating"]),
    }
    found: dict[Output, list[Any]] = {output: [] for output in settings}
    threads = job.parameters["threads"]
    with (
        ShardReader(job.inputs["images-000"]) as shard,
        engines.load(job.inputs["engine"], built.model_dump(mode="json"), threads) as engine,
    ):
        job.progress(0, len(shard), "images")
        for done, (image_id, content) in enumerate(shard, start=1):
            try:
                picture = preprocess.decode(content)
            except ImageError as error:
                raise DataError(f"Image {image_id}: {error}. Mend the file or import with skip_bad.") from error
            image, frame = preprocess.prepare(picture, manifest)
            boxes, scores = engine.infer(image)
            for output, nms in settings.items():
                found[output].append(postprocess.detect(boxes, scores, frame, manifest, nms.model_dump()))
            job.progress(done, len(shard), "images")
        images = np.array(shard.ids, np.int64)

    columns = {output: as_columns(images, per_image) for output, per_image in found.items()}
    for output, detections in columns.items():
        write_detections(job.output(output), detections)
    record = PredictRecord(
        images=len(images),
        detections=len(columns["detections"]),
        operating=len(columns["operating"]),
        nms=settings,
        threads=threads,
        simulated=built.simulated,
    )
    job.write_json("record", record.model_dump(mode="json"))


def ap_nms(origin: Nms) -> Nms:
    """The authors' suppression with COCO's limit, from a floor so low that the whole curve is there."""
    return origin.model_copy(update={"score_floor": SCORE_FLOOR, "limit": MAX_DETECTIONS})


def operating_nms(common: Nms, confidence: float, nms_iou: float) -> Nms:
    """The common suppression at the protocol's operating point."""
    return common.model_copy(update={"score_floor": confidence, "iou": nms_iou})


def as_columns(images: np.ndarray[Any, np.dtype[np.int64]], per_image: list[Any]) -> Detections:
    """The detections of each of ``images``, in that order, as columns."""
    counts = [len(one.score) for one in per_image]
    return Detections(
        images=images,
        image_id=np.repeat(images, counts),
        category_id=np.concatenate([one.category_id for one in per_image] or [np.zeros(0, np.int64)]),
        score=np.concatenate([one.score for one in per_image] or [np.zeros(0, np.float32)]),
        bbox=np.concatenate([one.bbox for one in per_image] or [np.zeros((0, 4), np.float32)]),
    )


def _engine_record(path: Path) -> EngineRecord:
    try:
        return EngineRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"The engine's record is not valid at {where}: {first['msg']}; build it again.") from error
