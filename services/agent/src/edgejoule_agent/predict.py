"""One engine over one shard: detections of every image, as columns of a file that the evaluator scores."""

import json
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np

from edgejoule_agent import engines, postprocess, preprocess
from edgejoule_agent.contract import check_manifest
from edgejoule_agent.detections import MAX_DETECTIONS, SCORE_FLOOR, as_columns
from edgejoule_agent.engines import recorded_batch
from edgejoule_agent.errors import EngineError, ImageError
from edgejoule_agent.npz import write_npz
from edgejoule_agent.shards import ShardReader


def predict(
    engine_path: Any,
    engine_record: Mapping[str, Any],
    shard_path: Any,
    parameters: Mapping[str, Any],
    outputs: Mapping[str, Any],
    progress: Callable[[float, float, str], None],
) -> Dict[str, Any]:
    """Write the two detections files, ``outputs`` by name, and return the PredictRecord.

    Images go in whole batches of the engine's size. The last one is filled up with its last image, and what the engine
    says of the filling is dropped.

    Raises:
        ImageError: an image cannot be decoded.
        AgentError: the engine or the shard cannot be opened, or the engine gives NaN.
    """
    manifest, threads, batch = engine_record["model"], parameters["threads"], recorded_batch(engine_record)
    settings = {
        "detections": ap_nms(manifest["nms"]["origin"]),
        "operating": operating_nms(manifest["nms"]["common"], **parameters["operating"]),
    }
    found: Dict[str, List[Any]] = {output: [] for output in settings}
    with ShardReader(shard_path) as shard, engines.load(engine_path, engine_record, threads) as engine:
        progress(0, len(shard), "images")
        for done in range(0, len(shard), batch):
            several = [_prepared(shard, image_id, manifest) for image_id in shard.ids[done : done + batch]]
            prepared, frames = [image for image, _ in several], [frame for _, frame in several]
            all_boxes, all_scores = engine.infer(preprocess.stack(prepared + prepared[-1:] * (batch - len(prepared))))
            for frame, boxes, scores in zip(frames, all_boxes, all_scores):  # the filling has no frame
                for output, nms in settings.items():
                    found[output].append(postprocess.detect(boxes, scores, frame, manifest, nms))
            progress(done + len(frames), len(shard), "images")
        images = np.array(shard.ids, np.int64)
    columns = {output: as_columns(images, per_image) for output, per_image in found.items()}
    for output, detections in columns.items():
        write_npz(outputs[output], detections)
    return {
        "images": len(images),
        "detections": len(columns["detections"]["score"]),
        "operating": len(columns["operating"]["score"]),
        "nms": settings,
        "threads": threads,
        "simulated": engine_record["simulated"],
    }


def _prepared(shard: ShardReader, image_id: int, manifest: Mapping[str, Any]) -> Tuple[Any, preprocess.Frame]:
    try:
        picture = preprocess.decode(shard.read(image_id))
    except ImageError as error:
        raise ImageError(f"Image {image_id}: {error}. Mend the file or import with skip_bad.") from error
    return preprocess.prepare(picture, manifest)


def ap_nms(origin: Mapping[str, Any]) -> Dict[str, Any]:
    """The authors' suppression with COCO's limit, from a floor so low that the whole curve is there."""
    return dict(origin, score_floor=SCORE_FLOOR, limit=MAX_DETECTIONS)


def operating_nms(common: Mapping[str, Any], confidence: float, nms_iou: float) -> Dict[str, Any]:
    """The common suppression at the protocol's operating point."""
    return dict(common, score_floor=confidence, iou=nms_iou)


def read_engine_record(path: Any) -> Dict[str, Any]:
    """What a ``build`` step said of its engine, as far as it is needed here.

    Raises:
        EngineError: it says something else.
        ModelError: its manifest is none.
    """
    try:
        with open(str(path), encoding="utf-8") as file:
            record = json.load(file)
    except ValueError as error:
        raise EngineError(f"the engine's record is not JSON ({error}); build it again") from error
    for name in ("hardware", "options", "model", "simulated"):
        if not isinstance(record, dict) or name not in record:
            raise EngineError(f"the engine's record is not valid: it has no {name}; build it again")
    check_manifest(record["model"], path)
    return dict(record)
