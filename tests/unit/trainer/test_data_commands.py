"""``edgejoule data`` as people call it."""

from __future__ import annotations

import json

import cv2
import pytest
from typer.testing import CliRunner

from edgejoule.errors import DataError
from edgejoule_trainer.data.commands import app


def call(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def made(tmp_path):
    answer = call("generate", "--into", tmp_path / "set", "--train", 1, "--val", 3)
    assert answer.exit_code == 0, answer.output
    assert "1 + 3 images" in answer.output
    return tmp_path / "set"


def test_check_says_that_nothing_is_wrong(made):
    answer = call("check", made / "annotations" / "val.json", made / "val")
    assert answer.exit_code == 0
    assert "3 images" in answer.output
    assert "Nothing wrong was found." in answer.output


def test_check_prints_findings_as_they_are_and_exits_with_one(made):
    (made / "val" / "000001000002.jpg").write_bytes(b"GIF89a")
    path = made / "annotations" / "val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [-50, 0, 9, 9]
    path.write_text(json.dumps(content))
    answer = call("check", path, made / "val")
    assert answer.exit_code == 1
    assert "2 findings" in answer.output
    assert "[-50, 0, 9, 9]" in answer.output  # brackets are not markup
    assert "1 box-outside, 1 bad-image" in answer.output
    findings = json.loads(call("check", path, made / "val", "--json").stdout)["findings"]
    assert [(finding["kind"], finding["subject"]) for finding in findings] == [
        ("box-outside", "annotation"),
        ("bad-image", "image"),
    ]


def test_check_names_a_folder_that_is_not_there(made):
    answer = call("check", made / "annotations" / "val.json", made / "nowhere")
    assert isinstance(answer.exception, DataError)


def test_show_draws_a_sheet(made, tmp_path):
    answer = call(
        "show", made / "annotations" / "val.json", made / "val", "--out", tmp_path / "sheet.png", "--count", 2
    )
    assert answer.exit_code == 0
    assert "2 images" in answer.output
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (320, 640, 3)
    assert sheet.std() > 10


def test_show_names_the_image_that_it_cannot_draw(made, tmp_path):
    for path in (made / "val").iterdir():
        path.write_bytes(b"")
    answer = call("show", made / "annotations" / "val.json", made / "val", "--out", tmp_path / "sheet.png")
    assert isinstance(answer.exception, DataError)
    assert "is an empty file" in str(answer.exception)


def test_coco_names_an_unknown_archive_and_tells_the_licence(tmp_path):
    answer = call("coco", "--into", tmp_path, "--only", "val2014")
    assert isinstance(answer.exception, DataError)
    assert "val2014" in str(answer.exception)
    assert "CC BY 4.0" in answer.output
