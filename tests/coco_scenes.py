"""Small random COCO data sets with detections, pycocotools' word on them, and their matches."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgejoule_analyst.average_precision import Matches

CATEGORIES = (3, 7, 11)


def random_scene(seed: int, images: int) -> tuple[dict, list[dict]]:
    """Ground truths (some crowds, some images empty) and detections: jittered finds, misses and false alarms."""
    random = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(random.integers(0, 6)):
            box = np.concatenate([random.uniform(0, 300, 2), random.uniform(10, 120, 2)])
            category = int(random.choice(CATEGORIES))
            crowd = int(random.random() < 0.15)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": crowd,
                }
            )
            for _ in range(random.integers(0, 3)):
                found = box + random.normal(0, 6, 4)
                detections.append(detection(image, category, found, random))
        for _ in range(random.integers(0, 5)):
            box = np.concatenate([random.uniform(0, 300, 2), random.uniform(10, 120, 2)])
            detections.append(detection(image, int(random.choice(CATEGORIES)), box, random))
    categories = [{"id": category, "name": str(category)} for category in CATEGORIES]
    return {
        "info": {},
        "images": [{"id": image, "width": 420, "height": 420} for image in range(1, images + 1)],
        "annotations": annotations,
        "categories": categories,
    }, detections


def detection(image: int, category: int, box: np.ndarray, random: np.random.Generator) -> dict:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": np.maximum(box, 1).tolist(),
        "score": float(np.float32(random.random())),
    }


def copied(dataset: dict, detections: list[dict], weights: np.ndarray) -> tuple[dict, list[dict]]:
    """The data set in which each image stands as often as its weight says, copies side by side, under new ids."""
    images, annotations, found = [], [], []
    for image, weight in zip(dataset["images"], weights, strict=True):
        for _ in range(weight):
            new = len(images) + 1
            images.append({**image, "id": new})
            for annotation in dataset["annotations"]:
                if annotation["image_id"] == image["id"]:
                    annotations.append({**annotation, "id": len(annotations) + 1, "image_id": new})
            found += [{**item, "image_id": new} for item in detections if item["image_id"] == image["id"]]
    return {**dataset, "images": images, "annotations": annotations}, found


def evaluated(dataset: dict, detections: list[dict]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def oracle(dataset: dict, detections: list[dict]) -> np.ndarray:
    """AP per IoU threshold, [T], by pycocotools."""
    precision = evaluated(dataset, detections).eval["precision"][:, :, :, 0, 2]
    return np.array([of_iou[of_iou > -1].mean() for of_iou in precision])


def oracle_figures(dataset: dict, detections: list[dict]) -> dict[str, float]:
    """What a row tells of an engine, by pycocotools."""
    result = evaluated(dataset, detections).eval
    precision, recall = result["precision"][..., 2], result["recall"][..., 2]

    def mean(values: np.ndarray) -> float:
        there = values[values > -1]
        return float(there.mean()) if there.size else np.nan

    return {
        "ap": mean(precision[..., 0]),
        "ap50": mean(precision[0, ..., 0]),
        "ap75": mean(precision[5, ..., 0]),
        "ap_small": mean(precision[..., 1]),
        "ap_medium": mean(precision[..., 2]),
        "ap_large": mean(precision[..., 3]),
        "ar100": mean(recall[..., 0]),
    }


def matches_of(dataset: dict, detections: list[dict]) -> Matches:
    """Matches as the evaluator writes them, from pycocotools' own per-image results."""
    evaluation = evaluated(dataset, detections)
    image_ids = [image["id"] for image in dataset["images"]]
    per_image = [item for item in evaluation.evalImgs if item and item["aRng"] == [0, 1e10]]
    gt_count = np.zeros((len(image_ids), len(CATEGORIES)), np.int32)
    columns: dict[str, list] = {"image": [], "category": [], "score": [], "tp": [], "ignored": []}
    for item in per_image:
        image, category = image_ids.index(item["image_id"]), CATEGORIES.index(item["category_id"])
        gt_count[image, category] = np.count_nonzero(~np.asarray(item["gtIgnore"], bool))
        columns["image"] += [image] * len(item["dtScores"])
        columns["category"] += [category] * len(item["dtScores"])
        columns["score"] += item["dtScores"]
        columns["tp"].append(item["dtMatches"] > 0)
        columns["ignored"].append(item["dtIgnore"].astype(bool))
    objects = [annotation for annotation in dataset["annotations"] if not annotation["iscrowd"]]
    areas, told = evaluation.params.areaRng[1:], [item for item in evaluation.evalImgs if item]
    of_sizes = [[item for item in told if item["aRng"] == area] for area in areas]
    counted = [
        {i for item in of_size for i, out in zip(item["gtIds"], item["gtIgnore"], strict=True) if not out}
        for of_size in of_sizes
    ]
    return Matches(
        image_ids=np.array(image_ids, np.int64),
        category_ids=np.array(CATEGORIES, np.int64),
        ious=np.linspace(0.5, 0.95, 10),
        det_image=np.array(columns["image"], np.int32),
        det_category=np.array(columns["category"], np.int32),
        det_score=np.array(columns["score"], np.float32),
        tp=np.concatenate(columns["tp"], axis=1),
        ignored=np.concatenate(columns["ignored"], axis=1),
        gt_count=gt_count,
        size_tp=_packed([item["dtMatches"] > 0 for item in of_size] for of_size in of_sizes),
        size_ignored=_packed([item["dtIgnore"] for item in of_size] for of_size in of_sizes),
        size_gt=np.array([[item["id"] in ids for item in objects] for ids in counted], bool).reshape(3, -1),
        gt_image=np.array([image_ids.index(item["image_id"]) for item in objects], np.int32),
        gt_category=np.array([CATEGORIES.index(item["category_id"]) for item in objects], np.int32),
    )


def _packed(of_sizes: Iterable[list[np.ndarray]]) -> np.ndarray:
    """[T, D] of each size in parts of D, as bits."""
    return np.stack([np.packbits(np.concatenate(parts, axis=1).astype(bool), axis=1) for parts in of_sizes])
