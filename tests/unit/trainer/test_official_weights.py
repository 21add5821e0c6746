"""Fetching the official weights: resumed, checked, and under their name only when they are right."""

import hashlib
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner

from edgejoule.errors import DownloadError, SpecError
from edgejoule_trainer.detectors import names
from edgejoule_trainer.official_weights import OFFICIAL, OfficialFile, OfficialWeights, fetch_weights, official_weights
from edgejoule_trainer.weights import commands

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def silent(line):
    return lambda done, total, unit: None


def offered(server, content=CONTENT, sha256=SHA256):
    server.script.files["/w.pt"] = content
    return OfficialWeights((OfficialFile("w.pt", f"{server.url}/w.pt", sha256),), "MIT")


def fetched(weights, into, **options):
    return fetch_weights(weights, into, silent, pause=lambda seconds: None, **options)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_detector_has_official_weights_by_https():
    assert set(OFFICIAL) == set(names())
    for weights in OFFICIAL.values():
        for file in weights.files:
            assert urlsplit(file.url).scheme == "https"
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
            assert (weights.folder is None) == (len(weights.files) == 1)


@pytest.mark.parametrize("detector", ["ssdlite_mobilenet_v3", "efficientdet_d0"])
def test_pinned_hash_begins_as_the_authors_name_the_file(detector):
    (file,) = OFFICIAL[detector].files
    assert file.sha256.startswith(file.name.removesuffix(".pth").rpartition("-")[2])


def test_unknown_detector_is_refused():
    with pytest.raises(SpecError, match=r"no official weights of 'yolov9'.*nanodet_m"):
        official_weights("yolov9")


def test_fetch_gives_the_checked_file_and_leaves_nothing_else(server, tmp_path):
    (file,) = fetched(offered(server), tmp_path / "new" / "folder")
    assert file.path.read_bytes() == CONTENT
    assert (file.sha256, file.checked, file.was_there) == (SHA256, True, False)
    assert files(file.path.parent) == ["w.pt"]


def test_fetch_goes_on_where_the_connection_dropped(server, tmp_path):
    server.script.cut_after = [100_000, 50_000]
    fetched(offered(server), tmp_path)
    assert server.script.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_fetch_goes_on_in_another_process(server, tmp_path):
    server.script.cut_after = [100_000]
    server.script.status = [None, 403]
    with pytest.raises(DownloadError, match="the server says 403"):
        fetched(offered(server), tmp_path)
    assert not (tmp_path / "w.pt").exists()
    fetched(offered(server), tmp_path)
    assert server.script.asked[-1] == "bytes=100000-"


def test_fetch_starts_anew_when_the_server_knows_no_ranges(server, tmp_path):
    server.script.ranges = False
    server.script.cut_after = [100_000]
    fetched(offered(server), tmp_path)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_fetch_starts_anew_when_the_file_changed_and_then_tells_its_hash(server, tmp_path):
    server.script.cut_after = [100_000]
    server.script.change_after, server.script.changed = 1, CONTENT[::-1]
    with pytest.raises(DownloadError, match=f"{hashlib.sha256(CONTENT[::-1]).hexdigest()} and must be {SHA256}"):
        fetched(offered(server), tmp_path)


def test_file_with_another_hash_is_not_kept(server, tmp_path):
    with pytest.raises(DownloadError, match=r"SHA-256 is .* and must be 0000.*nothing was kept"):
        fetched(offered(server, sha256="0" * 64), tmp_path)
    assert files(tmp_path) == []


def test_file_without_a_known_hash_is_kept_and_its_hash_told(server, tmp_path):
    (file,) = fetched(offered(server, sha256=None), tmp_path)
    assert (file.sha256, file.checked) == (SHA256, False)


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_web_page_in_place_of_the_file_is_refused(server, tmp_path, sha256):
    with pytest.raises(DownloadError, match=r"a web page came in place of w\.pt"):
        fetched(offered(server, b"\n <!DOCTYPE html>", sha256), tmp_path)
    assert files(tmp_path) == []


def test_file_that_is_there_is_checked_and_not_fetched(server, tmp_path):
    fetched(offered(server), tmp_path)
    server.script.asked.clear()
    (file,) = fetched(offered(server), tmp_path)
    assert file.was_there
    (tmp_path / "w.pt").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"w\.pt is there and is another file"):
        fetched(offered(server), tmp_path)
    assert (tmp_path / "w.pt").read_bytes() == b"mine"
    assert server.script.asked == []


def test_files_that_belong_together_get_a_folder_and_go_on_with_what_is_missing(server, tmp_path):
    contents = {name: name.encode() * 1000 for name in ("model.json", "shard1", "shard2")}
    server.script.files |= {f"/mirror/{name}": content for name, content in contents.items()}
    server.script.files.pop("/mirror/shard2")
    weights = OfficialWeights(
        tuple(OfficialFile(n, "https://elsewhere/x", hashlib.sha256(c).hexdigest()) for n, c in contents.items()),
        "MIT",
        folder="model",
    )
    with pytest.raises(DownloadError, match=r"shard2: the server says 404"):
        fetched(weights, tmp_path, base_url=f"{server.url}/mirror/")
    server.script.files["/mirror/shard2"] = contents["shard2"]
    found = fetched(weights, tmp_path, base_url=f"{server.url}/mirror")
    assert [file.was_there for file in found] == [True, True, False]
    assert files(tmp_path / "model") == sorted(contents)


@pytest.mark.parametrize(
    ("base_url", "complaint"),
    [
        ("ftp://mirror", "must begin with http"),
        ("http://host:port", "check the address"),
        ("http://127.0.0.1:1", "8 tries in a row brought nothing new"),
    ],
)
def test_address_that_does_not_answer_is_told(tmp_path, base_url, complaint):
    with pytest.raises(DownloadError, match=complaint):
        fetched(OFFICIAL["nanodet_m"], tmp_path, base_url=base_url)


def test_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="choose a folder"):
        fetched(offered(server), tmp_path / "file")


def test_command_says_the_licence_the_hash_and_what_comes_next(server, tmp_path, monkeypatch):
    (file,) = OFFICIAL["yolov5n"].files
    server.script.files[f"/{file.name}"] = CONTENT
    pinned = replace(OFFICIAL["yolov5n"], files=(replace(file, sha256=SHA256),))
    monkeypatch.setitem(OFFICIAL, "yolov5n", pinned)
    arguments = ["fetch", "yolov5n", "--into", str(tmp_path), "--base-url", server.url]
    answer = CliRunner().invoke(commands.app, arguments)
    assert answer.exit_code == 0
    assert "AGPL-3.0" in answer.stderr
    path = tmp_path / "yolov5n.pt"
    assert answer.stdout.splitlines() == [
        f"{path}: fetched; SHA-256 {SHA256}, as it must be",
        f"Next: edgejoule weights import yolov5n {path}",
    ]
