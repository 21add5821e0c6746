"""pycocotools is the oracle, on the images as they are and on physically resampled data sets."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgejoule.errors import DataError
from edgejoule_analyst.average_precision import RECALL_POINTS, ApCurves, Matches, recall_points_reached

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
    )


@pytest.mark.parametrize("seed", range(4))
def test_ap_equals_pycocotools_when_every_image_weighs_one(seed: int) -> None:
    scene = random_scene(seed, images=25)
    ap = ApCurves(matches_of(*scene)).at(np.ones((1, 25), np.int64))
    np.testing.assert_allclose(ap[0], oracle(*scene), rtol=0, atol=1e-9)


def test_ap_equals_pycocotools_on_physically_resampled_images() -> None:
    images, count = 15, 20
    scene = random_scene(11, images)
    random = np.random.default_rng(0)
    weights = random.multinomial(images, np.full(images, 1 / images), size=count)
    ap = ApCurves(matches_of(*scene)).at(weights)
    expected = [oracle(*copied(*scene, row)) for row in weights]
    np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-9)


def test_ap_is_the_same_for_a_resample_whatever_stands_beside_it() -> None:
    curves = ApCurves(matches_of(*random_scene(2, images=12)))
    weights = np.random.default_rng(1).integers(0, 4, (300, 12))
    together = curves.at(weights)
    np.testing.assert_array_equal(together[200], curves.at(weights[200:201])[0])


def test_ap_is_nan_when_no_drawn_image_has_a_ground_truth() -> None:
    scene = random_scene(3, images=10)
    with_objects = {annotation["image_id"] for annotation in scene[0]["annotations"] if not annotation["iscrowd"]}
    weights = np.array([[int(image not in with_objects) for image in range(1, 11)]])
    assert np.isnan(ApCurves(matches_of(*scene)).at(weights)).all()


def test_ap_is_zero_when_nothing_is_detected() -> None:
    matches = matches_of(*random_scene(4, images=6))
    none = np.zeros(0, np.int32)
    empty = replace(
        matches,
        det_image=none,
        det_category=none,
        det_score=none.astype(np.float32),
        tp=np.zeros((10, 0), bool),
        ignored=np.zeros((10, 0), bool),
    )
    assert (ApCurves(empty).at(np.ones((2, 6), np.int64)) == 0).all()


@given(st.integers(1, 5000), st.data())
def test_recall_points_equal_a_search_among_cocos_thresholds(ground_truths: int, data: st.DataObject) -> None:
    true = data.draw(st.integers(1, ground_truths))
    recall = np.array([true / ground_truths])
    expected = np.searchsorted(np.linspace(0, 1, RECALL_POINTS), recall, side="right")
    assert recall_points_reached(recall) == expected


def test_load_gives_back_what_was_written(tmp_path) -> None:
    matches = matches_of(*random_scene(5, images=4))
    np.savez(tmp_path / "matches", **vars(matches))
    loaded = Matches.load(tmp_path / "matches.npz")
    assert loaded.same_images(matches)
    np.testing.assert_array_equal(loaded.tp, matches.tp)


def test_load_names_the_array_when_shapes_disagree(tmp_path) -> None:
    matches = matches_of(*random_scene(5, images=4))
    np.savez(tmp_path / "matches", **{**vars(matches), "tp": matches.tp[:, 1:]})
    with pytest.raises(DataError, match="array tp has shape"):
        Matches.load(tmp_path / "matches.npz")


def test_load_tells_what_to_do_when_the_file_is_no_npz(tmp_path) -> None:
    path = tmp_path / "matches"
    path.write_text("no")
    with pytest.raises(DataError, match="run the score step again"):
        Matches.load(path)


def test_same_images_is_false_when_ground_truths_differ() -> None:
    matches = matches_of(*random_scene(5, images=4))
    assert not matches.same_images(replace(matches, gt_count=matches.gt_count + 1))
