"""Fetching archives from a server that misbehaves, on a real socket."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from dataclasses import replace

import httpx
import numpy as np
import pytest

from edgejoule.errors import DataError, DownloadError, EdgejouleError
from edgejoule_trainer import downloads
from edgejoule_trainer.data.fetch import Archive, fetch_coco

NOBODY = "http://127.0.0.1:1"  # no one listens there
CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server(server):
    server.script.files["/file"] = CONTENT
    return server


def silent(line):
    return lambda done, total, unit: None


def download(server, target, pauses=None):
    with httpx.Client() as client:
        pause = (pauses if pauses is not None else []).append
        downloads.download(client, f"{server.url}/file", target, silent(""), pause)
    return target.read_bytes()


def test_download_gives_the_file_and_leaves_nothing_else(server, tmp_path):
    assert download(server, tmp_path / "f") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert server.script.asked == [None]


def test_download_goes_on_where_the_connection_dropped(server, tmp_path):
    server.script.cut_after = [100_000, 50_000, 0]
    assert download(server, tmp_path / "f") == CONTENT
    assert server.script.asked == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]


def test_download_goes_on_in_another_process(server, tmp_path):
    server.script.cut_after = [100_000]
    server.script.status = [None, 404]
    with pytest.raises(DownloadError, match="the server says 404"):
        download(server, tmp_path / "f")
    assert download(server, tmp_path / "f") == CONTENT
    assert server.script.asked[-1] == "bytes=100000-"


def test_download_starts_anew_when_the_server_knows_no_ranges(server, tmp_path):
    server.script.ranges = False
    server.script.cut_after = [100_000]
    assert download(server, tmp_path / "f") == CONTENT


def test_download_starts_anew_when_the_part_has_no_validator(server, tmp_path):
    server.script.etag = False
    server.script.cut_after = [100_000]
    assert download(server, tmp_path / "f") == CONTENT
    assert server.script.asked == [None, None]


@pytest.mark.parametrize("changed", [CONTENT[::-1], b"short"])
def test_download_starts_anew_when_the_file_changed_between_tries(server, tmp_path, changed):
    server.script.cut_after = [100_000]
    server.script.change_after, server.script.changed = 1, changed
    assert download(server, tmp_path / "f") == changed  # never the first part of one and the rest of the other


def test_download_takes_a_part_that_is_the_whole_already(server, tmp_path):
    server.script.cut_after = [100_000]
    server.script.status = [None, 404]
    with pytest.raises(DownloadError):
        download(server, tmp_path / "f")
    (tmp_path / "f.partial").write_bytes(CONTENT)
    assert download(server, tmp_path / "f") == CONTENT


def test_download_waits_longer_each_time_and_gives_up_when_nothing_comes(server, tmp_path):
    server.script.status = [503] * 100
    pauses = []
    with pytest.raises(DownloadError, match=r"8 tries in a row brought nothing new .*503"):
        download(server, tmp_path / "f", pauses)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_download_gives_up_on_a_server_without_ranges_that_always_drops(server, tmp_path):
    server.script.ranges, server.script.always_cut = False, True
    with pytest.raises(DownloadError, match="100000 bytes are kept"):
        download(server, tmp_path / "f")
    assert len(server.script.asked) == 9  # the first brought something


def test_download_survives_a_server_that_is_away_for_a_while(server, tmp_path):
    server.script.status = [503, 429, 500]
    server.script.cut_after = [0]
    assert download(server, tmp_path / "f") == CONTENT


# --- the archives --------------------------------------------------------------------------------


def zipped(files, **attributes):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = attributes.get("mode", 0o100644) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def offered(server, name, content, **changes):
    server.script.files[f"/{name}.zip"] = content
    return {name: replace(Archive(f"{name}.zip", hashlib.sha1(content).hexdigest(), name), **changes)}


def fetched(server, into, archives, names=None):
    return fetch_coco(
        into, names or list(archives), silent, archives=archives, base_url=server.url, pause=lambda seconds: None
    )


FILES = {"val2017/": b"", "val2017/1.jpg": b"one", "val2017/deep/2.jpg": CONTENT}


def test_fetch_unpacks_a_checked_archive_and_deletes_it(server, tmp_path):
    archives = offered(server, "val2017", zipped(FILES))
    server.script.cut_after = [1000, 100_000]
    assert fetched(server, tmp_path, archives) == ["val2017"]
    assert (tmp_path / "val2017" / "deep" / "2.jpg").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["val2017"]


def test_fetch_leaves_what_is_there_alone(server, tmp_path):
    archives = offered(server, "val2017", zipped(FILES))
    fetched(server, tmp_path, archives)
    server.script.asked.clear()
    assert fetched(server, tmp_path, archives) == []
    assert server.script.asked == []


def test_fetch_refuses_an_archive_with_another_checksum(server, tmp_path):
    archives = offered(server, "val2017", zipped(FILES), sha1="0" * 40)
    with pytest.raises(DataError, match=r"SHA-1 is .* and must be 0000"):
        fetched(server, tmp_path, archives)
    assert not (tmp_path / "val2017").exists()


def test_fetch_goes_on_with_unpacking_after_an_interruption(server, tmp_path):
    archives = offered(server, "val2017", zipped(FILES))

    def interrupt_unpacking(line):
        def report(done, total, unit):
            if "unpacking" in line:
                raise KeyboardInterrupt

        return report

    with pytest.raises(KeyboardInterrupt):
        fetch_coco(tmp_path, ["val2017"], interrupt_unpacking, archives=archives, base_url=server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["val2017.zip"]
    server.script.asked.clear()
    fetched(server, tmp_path, archives)
    assert server.script.asked == []
    assert (tmp_path / "val2017" / "1.jpg").read_bytes() == b"one"


def test_fetch_needs_room_before_it_begins(server, tmp_path):
    archives = offered(server, "val2017", zipped(FILES), growth=1e12)
    with pytest.raises(DataError, match=r"GB of room are needed and .* GB are free"):
        fetched(server, tmp_path, archives)
    assert server.script.asked == []


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/etc/evil", "val2017/../../evil", "val2017\\..\\evil", "other/1.jpg", "val2017"]
)
def test_fetch_refuses_an_archive_whose_names_leave_the_folder(server, tmp_path, name):
    archives = offered(server, "val2017", zipped({"val2017/1.jpg": b"one", name: b"evil"}))
    with pytest.raises(DataError, match="nothing was unpacked"):
        fetched(server, tmp_path / "into", archives)
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["val2017.zip"]
    assert not list(tmp_path.rglob("*evil*"))


def test_fetch_refuses_links_bombs_and_damage(server, tmp_path):
    link = zipped({"val2017/1.jpg": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    bomb = zipped({"val2017/1.jpg": bytes(50_000_000)})
    damaged = bytearray(zipped({"val2017/1.jpg": CONTENT}))
    damaged[200:300] = bytes(100)
    for number, (content, complaint) in enumerate(
        [
            (link, "nothing was unpacked"),
            (bomb, "times its size"),
            (bytes(damaged), "not a sound zip archive"),
            (b"<html>503</html>", "not a sound zip archive"),
            (zipped({"val2017/": b""}), "holds no files"),
        ]
    ):
        archives = offered(server, "val2017", content)
        with pytest.raises(DataError, match=complaint):
            fetched(server, tmp_path / str(number), archives)
        assert not (tmp_path / str(number) / "val2017").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"names": ["test2017"]}, "archive 'test2017' is unknown; there are annotations, val2017, train2017"),
        ({"base_url": "ftp://mirror"}, "must begin with http"),
        ({"base_url": "http://host:port"}, "check the address"),
        ({}, "Connection refused; check the address and the network"),
        ({"into": "file"}, "choose a folder"),
    ],
)
def test_fetch_tells_what_is_wrong_with_its_options(tmp_path, options, complaint):
    (tmp_path / "file").write_text("")
    into = tmp_path / options.get("into", "new")
    with pytest.raises(EdgejouleError, match=complaint):
        fetch_coco(into, options.get("names", ["val2017"]), silent, base_url=options.get("base_url", NOBODY))
