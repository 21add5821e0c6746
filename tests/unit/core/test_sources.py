"""Content hashes and the memory of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgejoule.canonical import hash_json
from edgejoule.errors import DataError, StoreError
from edgejoule.sources import HashCache


@pytest.fixture
def cache(tmp_path: Path) -> HashCache:
    return HashCache(tmp_path / "hashes.sqlite")


class Reads:
    """A progress callback that keeps how many bytes were read."""

    def __init__(self) -> None:
        self.done = 0.0
        self.total = 0.0

    def __call__(self, done: float, total: float, unit: str) -> None:
        assert unit == "B"
        assert done <= total
        self.done, self.total = done, total


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes, age_s: float = 3600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed just now may be remembered: a test cannot wait, nor set a file's change time."""
    monkeypatch.setattr("edgejoule.sources._SETTLED_NS", -1_000_000_000)


def test_file_is_hashed_by_its_bytes(cache: HashCache, tmp_path: Path) -> None:
    assert cache.file(write(tmp_path / "a", b"data")) == sha(b"data")


def test_folder_is_hashed_by_names_and_bytes_below_it(cache: HashCache, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write(folder / "b.jpg", b"b")
    write(folder / "sub" / "a.jpg", b"a")
    write(folder / ".DS_Store", b"x")

    assert cache.folder(folder) == hash_json([["b.jpg", sha(b"b")], ["sub/a.jpg", sha(b"a")]])
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert cache.folder(moved) == cache.folder(folder)


def test_source_is_a_file_or_a_folder(cache: HashCache, tmp_path: Path) -> None:
    file = write(tmp_path / "images" / "a.jpg", b"a")

    assert cache.source(file).sha256 == sha(b"a")
    assert cache.source(file.parent).sha256 == hash_json([["a.jpg", sha(b"a")]])


@pytest.mark.usefixtures("settled")
def test_repeat_reads_nothing_and_a_change_reads_only_that_file(cache: HashCache, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number in range(5):
        write(folder / f"{number}.jpg", b"x" * 100)
    first, repeat, changed = Reads(), Reads(), Reads()
    before = cache.folder(folder, first)

    assert first.done == first.total == 500
    assert HashCache(tmp_path / "hashes.sqlite").folder(folder, repeat) == before
    assert repeat.total == 0
    write(folder / "3.jpg", b"y" * 100)
    assert cache.folder(folder, changed) != before
    assert changed.total == 100


@pytest.mark.usefixtures("settled")
def test_file_with_other_bytes_but_the_same_size_and_time_is_read_again(cache: HashCache, tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"one")
    cache.file(file)
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert cache.file(file) == sha(b"two")


def test_file_changed_just_now_is_not_remembered(cache: HashCache, tmp_path: Path) -> None:
    file = tmp_path / "a"
    for number in range(50):  # faster than the file system's clock ticks
        file.write_bytes(b"%02d" % number)
        assert cache.file(file) == sha(b"%02d" % number)


@given(names=st.sets(st.text("abcÄ.é -", min_size=1, max_size=8).filter(lambda n: not n.startswith(".")), max_size=5))
@settings(max_examples=20)
def test_folder_hash_depends_on_names(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    folder = tmp_path_factory.mktemp("folder")
    cache = HashCache(tmp_path_factory.mktemp("cache") / "hashes.sqlite")
    for name in names:
        write(folder / name, name.encode())

    assert cache.folder(folder) == hash_json(sorted([name, sha(name.encode())] for name in names))


def test_links_are_followed(cache: HashCache, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.jpg", b"a")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "b.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")

    assert cache.folder(folder) == hash_json([["b.jpg", sha(b"a")], ["linked/a.jpg", sha(b"a")]])


def test_folder_that_contains_itself_is_told(cache: HashCache, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "loop").symlink_to(folder)

    with pytest.raises(DataError, match="loop is a link to a folder above it"):
        cache.folder(folder)


def test_broken_link_is_told(cache: HashCache, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").symlink_to(tmp_path / "nowhere")

    with pytest.raises(DataError, match=r"a\.jpg is not there"):
        cache.folder(folder)


def test_wrong_sort_of_path_is_told(cache: HashCache, tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"")

    with pytest.raises(DataError, match="a is a file where a folder is needed"):
        cache.folder(file)
    with pytest.raises(DataError, match="is a folder where a file is needed"):
        cache.file(tmp_path)
    with pytest.raises(DataError, match="none is not there: check the path"):
        cache.source(tmp_path / "none")


def test_damaged_cache_is_told(tmp_path: Path) -> None:
    write(tmp_path / "hashes.sqlite", b"no database" * 1000)

    with pytest.raises(StoreError, match=r"hashes\.sqlite cannot be used .*delete the file"):
        HashCache(tmp_path / "hashes.sqlite")


@pytest.mark.usefixtures("settled")
def test_five_thousand_known_images_are_told_within_a_second(cache: HashCache, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number:012d}.jpg").touch()
    before = cache.folder(folder)

    began = time.perf_counter()
    assert cache.folder(folder) == before
    assert time.perf_counter() - began < 1.0
