"""A file that somebody asked for is there whole, or as it was."""

import os
import subprocess
import sys
import threading

import pytest

from edgejoule.runs import write_atomically

TOO_LARGE = """
import resource, signal, sys
from pathlib import Path
from edgejoule.runs import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), bytes(5000))
except OSError as error:
    print(error.filename)
"""


def test_file_that_cannot_be_written_stays_as_it_was_and_is_named(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    said = subprocess.run(
        [sys.executable, "-c", TOO_LARGE, path], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == f"{path}\n"
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["nowhere/report.html", "folder"])
def test_place_that_takes_no_file_is_named_and_nothing_is_left(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r".") as raised:
        write_atomically(tmp_path / name, b"new")
    assert raised.value.filename == str(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_atomically(tmp_path / "pipe", b"new")
    reader.join(timeout=10)
    assert got == [b"new"]
    assert (tmp_path / "pipe").is_fifo()
