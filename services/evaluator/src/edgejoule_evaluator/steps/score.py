"""``score``: the detections of all shards against the annotations.

Inputs: ``dataset``, ``detections-*``, ``operating-*`` and, where a reference engine exists, ``reference-*``:
its detections, or in their place the outcome file of a step that ended without any. Parameters:
``operating`` (``confidence``, ``nms_iou``), ``scorer`` (``hotcoco`` or ``pycocotools``) and, with its inputs,
``reference`` (the reference's name). Outputs: ``record``, ``matches``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgejoule.job import Job
from edgejoule.records import Fidelity, ScoreRecord
from edgejoule_agent.detections import SCORE_FLOOR
from edgejoule_evaluator.detections import Detections, merge, read_detections, require_same_images
from edgejoule_evaluator.fidelity import CONFIDENCE, fidelity
from edgejoule_evaluator.ground_truth import GroundTruth, from_dataset, require_known_categories
from edgejoule_evaluator.matching import match, write_matches
from edgejoule_evaluator.operating_point import count_errors, operating_point
from edgejoule_evaluator.scoring import Scorer, accuracy, ap_by_category, curves

VERSION = 2
QUEUE = "evaluate"
EXCLUSIVE = False
OUTPUTS = ("record", "matches")
SOURCES = (
    "edgejoule_agent.detections",
    "edgejoule_agent.npz",
    "edgejoule_evaluator.detections",
    "edgejoule_evaluator.fidelity",
    "edgejoule_evaluator.ground_truth",
    "edgejoule_evaluator.matching",
    "edgejoule_evaluator.npz",
    "edgejoule_evaluator.operating_point",
    "edgejoule_evaluator.scoring",
)


def run(job: Job) -> None:
    """Score one cell.

    Raises:
        DataError: shards overlap or leave images out, labels and categories do not fit, or nothing is annotated.
    """
    scorer: Scorer = job.parameters["scorer"]
    truth = from_dataset(job.read_json("dataset"))
    detections = _read(job.inputs_named("detections"), truth)
    whole = curves(truth, detections, scorer)
    shown = _read(job.inputs_named("operating"), truth)
    errors = count_errors(truth, shown)
    closeness, absent = _fidelity(job, truth, detections, scorer)
    record = ScoreRecord(
        accuracy=accuracy(whole),
        operating_point=operating_point(truth, shown, errors, **job.parameters["operating"], scorer=scorer),
        fidelity=closeness,
        images=len(truth.images),
        detections=len(detections),
        scorer=scorer,
        score_floor=SCORE_FLOOR,
        ap_by_category=ap_by_category(whole, truth),
        absent=absent,
    )
    job.write_json("record", record.model_dump(mode="json"))
    write_matches(job.output("matches"), replace(match(truth, detections), operating=errors))


def _fidelity(
    job: Job, truth: GroundTruth, detections: Detections, scorer: Scorer
) -> tuple[Fidelity | None, dict[str, str]]:
    """Fidelity to the reference engine, or the reason why there is none."""
    paths = job.inputs_named("reference")
    if not paths:
        return None, {"fidelity": "no reference: this is the FP32 engine itself, or the plan has none"}
    name = job.parameters["reference"]
    if reason := next(filter(None, map(_reason_for_absence, paths)), None):
        return None, {"fidelity": f"the reference {name} has no detections: {reason}"}
    closeness = fidelity(truth, detections, _read(paths, truth), name, scorer)
    if closeness is None:
        return None, {"fidelity": f"the reference {name} has no detection of confidence {CONFIDENCE} or more"}
    return closeness, {}


def _read(paths: Iterable[Path], truth: GroundTruth) -> Detections:
    """All shards, held to be of this data set."""
    detections = merge([read_detections(path) for path in paths])
    require_same_images(detections, truth.images)
    require_known_categories(detections, truth)
    return detections


def _reason_for_absence(path: Path) -> str | None:
    """The reason in an outcome file; ``None`` if the file is no JSON, so holds detections."""
    content = path.read_bytes()
    return str(json.loads(content)["reason"]) if content.startswith(b"{") else None
