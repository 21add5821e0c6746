"""Reading COCO: every kind of fault is found, named, and all of them at once."""

from __future__ import annotations

import copy
import json
import os
import struct
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgejoule.errors import DataError
from edgejoule_trainer.data import coco, pictures

REAL = Path(os.environ.get("EDGEJOULE_SHARED", Path(__file__).parents[4] / "shared")) / "data" / "coco"

GOOD = {
    "info": {"year": 2017},
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
    "annotations": [
        {"id": 5, "image_id": 1, "category_id": 3, "bbox": [10.5, 4, 8, 6], "area": 30.25, "iscrowd": 0},
        {"id": 6, "image_id": 1, "category_id": 3, "bbox": [0, 0, 40, 30], "area": 900, "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}],
}


def written(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def changed(where, value):
    """GOOD with one value replaced; ``...`` removes it."""
    content = copy.deepcopy(GOOD)
    *path, last = where
    entry = content
    for step in path:
        entry = entry[step]
    if value is ...:
        del entry[last]
    else:
        entry[last] = value
    return content


def jpeg(width=40, height=30, quality=90):
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def png(width=40, height=30):
    return cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def test_read_gives_what_the_file_says(tmp_path):
    truth = coco.read(written(tmp_path, GOOD))
    assert truth.pictures == {1: coco.Picture(1, "a.jpg", 40, 30)}
    assert truth.annotations[0] == coco.Annotation(5, 1, 3, (10.5, 4, 8, 6), 30.25, 0)
    assert truth.annotations[1].iscrowd == 1  # crowds stay, for the scorer
    assert truth.categories == {3: "cat"}
    assert not truth.findings
    assert truth.clipped == 0


ANNOTATION = ("annotations", 0)
IMAGE = ("images", 0)


@pytest.mark.parametrize(
    ("where", "value", "kind", "named"),
    [
        ((*ANNOTATION, "bbox"), [35, 4, 8, 6], "box-outside", "annotation 5 has bbox [35, 4, 8, 6], 3 pixels outside"),
        ((*ANNOTATION, "bbox"), [-1.5, 4, 8, 6], "box-outside", "annotation 5"),
        ((*ANNOTATION, "bbox"), [10, 4, 0, 6], "no-area", "annotation 5 has a box of 0 x 6 pixels"),
        ((*ANNOTATION, "bbox"), [10, 4, 8, -6], "no-area", "annotation 5 has a box of 8 x -6 pixels"),
        ((*ANNOTATION, "bbox"), [40.2, 4, 0.5, 6], "box-outside", "no part of which is inside image 1"),
        ((*ANNOTATION, "bbox"), [10, 4, 8], "wrong-type", "it must be [x, y, width, height]"),
        ((*ANNOTATION, "bbox"), "10 4 8 6", "wrong-type", "it must be [x, y, width, height]"),
        ((*ANNOTATION, "bbox"), [10, 4, "8", 6], "wrong-type", 'has bbox "8"'),
        ((*ANNOTATION, "bbox"), [10, 4, 10**400, 6], "wrong-type", "not a finite number"),
        ((*ANNOTATION, "area"), 0, "no-area", "annotation 5 has area 0"),
        ((*ANNOTATION, "area"), -3, "no-area", "annotation 5 has area -3"),
        ((*ANNOTATION, "area"), None, "wrong-type", "annotation 5 has area null"),
        ((*ANNOTATION, "area"), ..., "missing-key", "annotation 5 has no 'area'"),
        ((*ANNOTATION, "image_id"), 9, "unknown-image", "annotation 5 belongs to image 9"),
        ((*ANNOTATION, "category_id"), 4, "unknown-category", "annotation 5 has category 4"),
        ((*ANNOTATION, "category_id"), True, "wrong-type", "annotation 5 has category_id true"),
        ((*ANNOTATION, "iscrowd"), 2, "wrong-type", "annotation 5 has iscrowd 2"),
        ((*ANNOTATION, "iscrowd"), ..., "missing-key", "annotation 5 has no 'iscrowd'"),
        ((*ANNOTATION, "id"), 6, "duplicate-id", "annotation 6 is there twice"),
        ((*ANNOTATION, "id"), -6, "wrong-type", "annotation -6 has id -6"),
        ((*ANNOTATION, "id"), 10**30, "wrong-type", "annotation #1 has id 1000000000000000000000000000000, more"),
        ((*ANNOTATION, "id"), ..., "missing-key", "annotation #1 has no 'id'"),
        (ANNOTATION, [1, 2], "wrong-type", "annotation #1 is a list and must be an object"),
        ((*IMAGE, "file_name"), "../a.jpg", "unsafe-name", "image 1"),
        ((*IMAGE, "file_name"), "/etc/passwd", "unsafe-name", "image 1"),
        ((*IMAGE, "file_name"), "C:\\a.jpg", "unsafe-name", "image 1"),
        ((*IMAGE, "file_name"), "a\u0000.jpg", "unsafe-name", "image 1"),
        ((*IMAGE, "file_name"), "a\ud800.jpg", "unsafe-name", "image 1"),
        ((*IMAGE, "file_name"), 7, "wrong-type", "image 1 has file_name 7"),
        ((*IMAGE, "width"), 0, "bad-size", "image 1 has width 0"),
        ((*IMAGE, "height"), 10**6, "bad-size", "image 1 has height 1000000"),
        ((*IMAGE, "width"), 40.5, "wrong-type", "image 1 has width 40.5"),
        ((*IMAGE, "width"), ..., "missing-key", "image 1 has no 'width'"),
    ],
)
def test_read_names_the_fault_and_leaves_the_entry_out(tmp_path, where, value, kind, named):
    truth = coco.read(written(tmp_path, changed(where, value)))
    (finding,) = truth.findings
    assert finding.kind == kind
    assert named in str(finding)
    assert str(finding).startswith("instances.json: ")
    if where[0] == "images":  # its annotations go with it, unmentioned
        assert not truth.pictures
        assert not truth.annotations
    else:
        assert len(truth.annotations) == 1


def test_read_leaves_out_both_images_of_one_id(tmp_path):
    content = copy.deepcopy(GOOD)
    content["images"].append({"id": 1, "file_name": "b.jpg", "width": 40, "height": 30})
    truth = coco.read(written(tmp_path, content))
    assert [str(finding) for finding in truth.findings] == ["instances.json: image 1 is there twice"]
    assert not truth.pictures


def test_read_finds_two_images_with_one_file(tmp_path):
    content = copy.deepcopy(GOOD)
    content["images"].append({"id": 2, "file_name": "a.jpg", "width": 40, "height": 30})
    truth = coco.read(written(tmp_path, content))
    assert [finding.kind for finding in truth.findings] == ["duplicate-file"]
    assert list(truth.pictures) == [1]


def test_read_clips_a_box_that_leaves_the_frame_by_a_pixel(tmp_path):
    truth = coco.read(written(tmp_path, changed((*ANNOTATION, "bbox"), [-0.5, 4, 41, 26.75])))
    assert truth.annotations[0].bbox == (0, 4, 40, 26)
    assert truth.clipped == 1
    assert not truth.findings


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "is a list"),
        ("3", "is a number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": NaN}', "NaN is not a JSON number"),
        ('{"images": -Infinity}', "-Infinity is not a JSON number"),
        ('{"images": ' + "9" * 5000 + "}", "not valid JSON|must be a list"),  # 3.10 reads such numbers
        ({"images": [], "annotations": []}, "no 'categories'"),
        ({**GOOD, "images": {}}, "'images' must be a list and is an object"),
        ({**GOOD, "images": []}, "'images' is empty"),
        ({**GOOD, "categories": []}, "'categories' is empty"),
        ({**GOOD, "categories": [{"id": 3}]}, "category 3 has no 'name'"),
        ({**GOOD, "categories": [{"id": 3, "name": " "}]}, 'category 3 has the name " "'),
        ({**GOOD, "categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "category 3 is there twice"),
        ({**GOOD, "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "a"}]}, "category 4 has the name 'a'"),
    ],
)
def test_read_refuses_what_is_no_coco_file(tmp_path, content, complaint):
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=complaint) as error:
        coco.read(path)
    assert str(path) in str(error.value)


def test_read_refuses_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x81")
    for name, complaint in (("binary.json", "not valid JSON"), ("absent.json", "no such"), (".", "cannot be read")):
        with pytest.raises(DataError, match=complaint):
            coco.read(tmp_path / name)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(data=st.data())
def test_read_never_fails_in_another_way(tmp_path_factory, data):
    content = copy.deepcopy(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        section = data.draw(st.sampled_from(["images", "annotations", "categories"]))
        entry = content[section][0] if isinstance(content[section], list) and content[section] else None
        if isinstance(entry, dict) and data.draw(st.booleans()):
            entry[data.draw(st.sampled_from(sorted(map(str, entry)) or ["id"]))] = data.draw(json_values)
        else:
            content[section] = data.draw(json_values)
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(json.dumps(content))
    try:
        truth = coco.read(path)
    except DataError:
        return
    for annotation in truth.annotations:
        picture = truth.pictures[annotation.image_id]
        x, y, width, height = annotation.bbox
        assert annotation.category_id in truth.categories
        assert min(x, y) >= 0
        assert min(width, height, annotation.area) > 0
        assert x + width <= picture.width + 1e-9
        assert y + height <= picture.height + 1e-9


# --- pictures ------------------------------------------------------------------------------------


def checked(tmp_path, content, width=40, height=30):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    return coco.check_pictures([coco.Picture(1, "a.jpg", width, height)], tmp_path)


@pytest.mark.parametrize("content", [jpeg(), jpeg() + b"appended by a camera", png()], ids=["jpeg", "tail", "png"])
def test_check_pictures_accepts_a_whole_picture(tmp_path, content):
    hashes, findings = checked(tmp_path, content)
    assert not findings
    assert list(hashes) == [1]


@pytest.mark.parametrize(
    ("content", "kind", "problem"),
    [
        (None, "missing-image", "is not in the folder"),
        (b"", "bad-image", "is an empty file"),
        (b"GIF89a", "bad-image", "is neither a JPEG nor a PNG file"),
        (b"<html>404</html>", "bad-image", "is neither a JPEG nor a PNG file"),
        (jpeg()[:-1], "truncated-image", "is a truncated JPEG"),
        (jpeg()[: len(jpeg()) // 2], "truncated-image", "is a truncated JPEG"),
        (jpeg()[:3], "truncated-image", "is a truncated JPEG"),
        (png()[:-5], "truncated-image", "is a truncated PNG"),
        (jpeg(30, 40), "size-mismatch", "is 30 x 40 pixels, but the annotation file says 40 x 30"),
        (b"\xff\xd8\xff\xd9", "bad-image", "is a JPEG without a frame"),
        (b"\xff\xd8" + b"\0" * 50, "bad-image", "has a damaged JPEG structure at byte 2"),
    ],
)
def test_check_pictures_names_what_is_wrong(tmp_path, content, kind, problem):
    hashes, (finding,) = checked(tmp_path, content)
    assert not hashes
    assert finding.kind == kind
    assert str(finding).startswith(f"a.jpg: image 1 {problem}")


def test_check_pictures_finds_damage_inside_a_picture_that_ends_well(tmp_path):
    data = bytearray(png())
    at = data.index(b"IDAT") + 8
    data[at : at + 8] = bytes(8)
    _, (finding,) = checked(tmp_path, bytes(data))
    assert finding.kind == "bad-image"


def test_a_jpeg_cut_inside_its_scan_is_found_though_its_thumbnail_ends_well():
    thumbnail = jpeg(8, 8)
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = jpeg()[:2] + exif + jpeg()[2:]
    assert pictures.size(whole) == (40, 30)
    with pytest.raises(pictures.BadPicture, match="truncated"):
        pictures.size(whole[:-40])


@given(st.integers(0, len(jpeg()) - 1), st.sampled_from([jpeg(), png()]))
def test_a_picture_cut_anywhere_is_found(length, whole):
    if length < len(whole):
        with pytest.raises(pictures.BadPicture):
            pictures.size(whole[:length])


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\x89PNG\r\n\x1a\n"]))
def test_no_bytes_make_decoding_fail_in_another_way(tail, start):
    with suppress(pictures.BadPicture):
        pictures.decode(start + tail)


def test_orientation_is_ignored_as_coco_boxes_do(tmp_path):
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turn by 90 degrees
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    turned = jpeg()[:2] + exif + jpeg()[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (40, 30, 3)  # the oracle turns it
    assert pictures.decode(turned).shape == (30, 40, 3)
    assert not checked(tmp_path, turned)[1]


def test_check_pictures_tells_all_findings_in_order_and_says_how_far_it_is(tmp_path):
    (tmp_path / "2.jpg").write_bytes(jpeg())
    told = []
    wanted = [coco.Picture(id_, f"{id_}.jpg", 40, 30) for id_ in (1, 2, 3)]
    hashes, findings = coco.check_pictures(wanted, tmp_path, lambda *how_far: told.append(how_far))
    assert list(hashes) == [2]
    assert [finding.id for finding in findings] == [1, 3]
    assert told[-1] == (3, 3, "images")


def test_require_clean_lists_twenty_findings_and_counts_the_rest():
    findings = [coco.Finding("missing-image", f"{id_}.jpg", "image", id_, "is gone") for id_ in range(25)]
    with pytest.raises(DataError, match="25 problems in the data set") as error:
        coco.require_clean(findings)
    assert str(error.value).count("is gone") == 20
    assert "and 5 more" in str(error.value)
    coco.require_clean([])


@pytest.mark.skipif(not REAL.is_dir(), reason="the real COCO images are not here")
@pytest.mark.parametrize("name", ["val2017_official206", "train2017_official215", "train2017_all343"])
def test_real_coco_reads_without_findings(name):
    truth = coco.read(REAL / "annotations" / f"instances_{name}.json")
    some = list(truth.pictures.values())[:20]
    hashes, findings = coco.check_pictures(some, REAL / name.partition("_")[0])
    assert [*truth.findings, *findings] == []
    assert len(hashes) == 20
    assert any(annotation.iscrowd for annotation in truth.annotations)
