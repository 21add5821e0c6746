"""The generated data set: exact boxes, the same pictures for the same seed, folders that are whole."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgejoule.errors import DataError
from edgejoule_trainer.data import coco, generate
from edgejoule_trainer.data.generate import CATEGORIES, draw


def test_draw_gives_the_same_picture_whenever_asked():
    first, again, other = draw(3, 17), draw(3, 17), draw(4, 17)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), index=st.integers(1, 10**9))
def test_draw_keeps_boxes_in_the_frame_and_areas_in_the_boxes(seed, index):
    image, boxes, labels, areas = draw(seed, index)
    height, width = image.shape[:2]
    assert 2 <= len(boxes) == len(labels) == len(areas) <= 6
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= width).all()
    assert (boxes[:, 1] + boxes[:, 3] <= height).all()
    assert ((areas > 0) & (areas <= boxes[:, 2] * boxes[:, 3])).all()
    assert ((labels >= 0) & (labels < len(CATEGORIES))).all()


def test_boxes_are_the_extents_of_what_the_picture_shows(monkeypatch):
    """Painted flat in red (ground), green and blue, the picture itself tells whose each pixel is."""
    paints: list[np.ndarray] = []

    def flat(rng, height, width, colour, contrast):
        paint = np.full((3, height, width), 20.0, np.float32)
        paint[len(paints)] = 220.0
        paints.append(paint)
        return paint

    monkeypatch.setattr(generate, "_painted", flat)
    monkeypatch.setattr(generate, "_OBJECTS", (2, 2))
    overlapping = 0
    for index in range(1, 41):
        paints.clear()
        image, boxes, _, areas = draw(0, index)
        shown = image.argmax(axis=2)
        overlapping += boxes_meet(*boxes)
        for number, (box, area) in enumerate(zip(boxes, areas, strict=True), start=1):
            rows, columns = np.nonzero(shown == number)
            seen = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            np.testing.assert_allclose(box, seen, atol=1)  # a pixel half covered may be read either way
            assert area == pytest.approx(len(rows), rel=0.03)
    assert overlapping >= 5


def boxes_meet(one, two):
    return bool((np.minimum(one[:2] + one[2:], two[:2] + two[2:]) > np.maximum(one[:2], two[:2])).all())


def test_scales_are_mixed_as_promised():
    areas = np.concatenate([draw(0, index)[3] for index in range(1, 151)])
    small, large = np.mean(areas < 32**2), np.mean(areas > 96**2)
    assert 0.12 < small < 0.32
    assert 0.10 < large < 0.35


def test_every_category_occurs():
    labels = np.concatenate([draw(0, index)[2] for index in range(1, 41)])
    assert set(labels.tolist()) == set(range(len(CATEGORIES)))
    assert len(CATEGORIES) >= 6


def test_generate_writes_a_coco_folder_without_findings(tmp_path):
    generate.generate(tmp_path / "set", {"train": 3, "val": 2}, seed=0)
    ids = []
    for split in ("train", "val"):
        truth = coco.read(tmp_path / "set" / "annotations" / f"{split}.json")
        hashes, findings = coco.check_pictures(truth.pictures.values(), tmp_path / "set" / split)
        assert not truth.findings
        assert not findings
        assert len(hashes) == len(truth.pictures)
        ids += truth.pictures
    assert len(ids) == len(set(ids)) == 5


def test_generate_writes_what_draw_draws(tmp_path):
    generate.generate(tmp_path, {"val": 1}, seed=5)
    (path,) = (tmp_path / "val").glob("*.jpg")
    image, boxes, _, _ = draw(5, int(path.stem))
    stored = cv2.imread(str(path))[:, :, ::-1]
    assert np.abs(stored.astype(int) - image).mean() < 6  # JPEG
    annotations = json.loads((tmp_path / "annotations" / "val.json").read_text())["annotations"]
    assert [annotation["bbox"] for annotation in annotations] == boxes.tolist()


def test_generate_makes_the_same_image_however_many_are_asked_for(tmp_path):
    generate.generate(tmp_path / "few", {"train": 1}, seed=1)
    generate.generate(tmp_path / "more", {"train": 3}, seed=1)
    name = "train/000000000001.jpg"
    assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "more" / name).read_bytes()


def test_generate_leaves_a_complete_folder_alone(tmp_path):
    generate.generate(tmp_path, {"val": 2}, seed=1)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    generate.generate(tmp_path, {"val": 2}, seed=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_generate_finishes_what_was_cut_short(tmp_path):
    generate.generate(tmp_path / "whole", {"val": 3}, seed=1)

    def interrupt(done, total, unit):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate.generate(tmp_path / "cut", {"val": 3}, seed=1, progress=interrupt)
    generate.generate(tmp_path / "cut", {"val": 3}, seed=1)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("images", "seed", "complaint"),
    [
        ({"test": 1}, 0, "split 'test' is unknown"),
        ({"val": 0}, 0, "0 images asked for"),
        ({"val": 1}, -1, "seed -1 is negative"),
    ],
)
def test_generate_refuses_what_cannot_be_made(tmp_path, images, seed, complaint):
    with pytest.raises(DataError, match=complaint):
        generate.generate(tmp_path, images, seed)


def test_generate_refuses_a_folder_that_holds_something_else(tmp_path):
    generate.generate(tmp_path / "set", {"val": 1}, seed=1)
    with pytest.raises(DataError, match="another generated data set"):
        generate.generate(tmp_path / "set", {"val": 1}, seed=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(DataError, match="is not empty"):
        generate.generate(tmp_path / "mine", {"val": 1}, seed=1)
    (tmp_path / "set" / generate.MARKER).write_text("{")
    with pytest.raises(DataError, match="another generated data set"):
        generate.generate(tmp_path / "set", {"val": 1}, seed=1)
    with pytest.raises(DataError, match="cannot be written"):
        generate.generate(tmp_path / "mine" / "thesis.txt", {"val": 1}, seed=1)
