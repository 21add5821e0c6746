"""The copies of blobs on a host: how much they take up, and which of them go."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgejoule import blob_cache
from edgejoule.blob_cache import BlobCache
from edgejoule.sources import HashCache

SIZE = 1000


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_cache, "GRACE_S", -1.0)


def open_cache(folder: Path, limit_bytes: int) -> BlobCache:
    for name in ("tmp", "locks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return BlobCache(
        folder / "cache", folder / "tmp", folder / "locks", limit_bytes, HashCache(folder / "hashes.sqlite")
    )


def content(number: int) -> bytes:
    return f"{number:{SIZE}}".encode()


def hash_of(number: int) -> str:
    return hashlib.sha256(content(number)).hexdigest()


def get(cache: BlobCache, number: int) -> Path:
    def download(file: Path) -> None:
        file.write_bytes(content(number))

    return cache.get(hash_of(number), download)


def kept(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache").glob("??/*") if path.suffix != ".use"}


def test_blob_is_downloaded_once(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 10 * SIZE)
    path = get(cache, 1)

    assert path.read_bytes() == content(1)
    assert path.stat().st_mode & 0o222 == 0
    assert cache.get(hash_of(1), lambda file: pytest.fail("downloaded again")) == path
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((tmp_path / "locks").iterdir()) == []


def test_failed_download_leaves_nothing(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 10 * SIZE)

    def fail(file: Path) -> None:
        file.write_bytes(b"half")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.get(hash_of(1), fail)
    assert kept(tmp_path) == set()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert get(cache, 1).read_bytes() == content(1)


def test_blobs_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 5 * SIZE)
    for number in range(5):
        get(cache, number)
        time.sleep(0.01)
    get(cache, 0)
    get(cache, 5)

    assert kept(tmp_path) == {hash_of(number) for number in (0, 3, 4, 5)}
    assert len(list((tmp_path / "cache").glob("??/*.use"))) == 4


def test_blob_in_use_stays_until_its_user_lets_go(tmp_path: Path) -> None:
    cache, another = open_cache(tmp_path, 2 * SIZE), open_cache(tmp_path, 2 * SIZE)
    with cache.holding():
        first = get(cache, 0)
        for number in range(1, 8):
            get(another, number)
        assert first.read_bytes() == content(0)
    get(another, 8)

    assert not first.exists()


def test_blob_in_use_by_another_process_stays_until_that_is_killed(tmp_path: Path) -> None:
    open_cache(tmp_path, SIZE)
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_blob_cache import get, open_cache
cache = open_cache(Path({str(tmp_path)!r}), 1000)
with cache.holding():
    get(cache, 0)
    print("held", flush=True)
    sys.stdin.read()
"""
    user = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert user.stdout
    assert user.stdout.readline() == "held\n"
    cache = open_cache(tmp_path, SIZE)
    get(cache, 1)
    get(cache, 2)
    assert hash_of(0) in kept(tmp_path)
    user.kill()
    user.communicate()
    get(cache, 3)

    assert hash_of(0) not in kept(tmp_path)


def test_blob_used_a_moment_ago_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_cache, "GRACE_S", 60.0)
    cache = open_cache(tmp_path, SIZE)
    for number in range(4):
        get(cache, number)
    assert kept(tmp_path) == {hash_of(number) for number in range(4)}
    long_ago = time.time() - 61
    os.utime(tmp_path / "cache" / hash_of(2)[:2] / f"{hash_of(2)}.use", (long_ago, long_ago))
    get(cache, 4)

    assert kept(tmp_path) == {hash_of(number) for number in (0, 1, 3, 4)}


def test_one_of_many_who_want_a_blob_downloads_it(tmp_path: Path) -> None:
    caches = [open_cache(tmp_path, 10 * SIZE) for _ in range(4)]
    downloads: list[int] = []

    def download(file: Path) -> None:
        downloads.append(threading.get_ident())
        time.sleep(0.1)
        file.write_bytes(content(1))

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda number: caches[number % 4].get(hash_of(1), download), range(8)))
    assert len(downloads) == 1
    assert len(set(paths)) == 1


def test_users_under_pressure_always_find_what_they_hold(tmp_path: Path) -> None:
    caches = [open_cache(tmp_path, 3 * SIZE) for _ in range(4)]

    def use(seed: int) -> None:
        for turn in range(40):
            number = (seed * 7 + turn * 3) % 12
            cache = caches[seed % 4]
            with cache.holding():
                path = get(cache, number)
                time.sleep(0.001)
                assert path.read_bytes() == content(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    get(caches[0], 0)
    assert len(kept(tmp_path)) <= 3


def test_cleared_cache_fills_again(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 10 * SIZE)
    path = get(cache, 1)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()

    assert get(cache, 1).read_bytes() == content(1)
