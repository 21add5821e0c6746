"""Fetching the official COCO 2017 archives: resumed, checked, unpacked with care.

An archive lies beside its target as ``<name>.zip.partial`` until its SHA-1 is right. A broken connection
goes on where it stopped (``Range`` with ``If-Range``); where the server has another file by now, or knows no
ranges, it starts anew. Unpacking goes to a temporary folder that is renamed at the end, so a folder
that is there is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx

from edgejoule.errors import DataError
from edgejoule.job import Progress

BASE_URL = "http://images.cocodataset.org"
LICENCE = (
    "COCO's annotations are under CC BY 4.0; its images stay under the terms their authors gave them on Flickr."
    " See https://cocodataset.org/#termsofuse"
)

_ATTEMPTS = 8
"""Tries in a row that bring nothing new; any progress starts the count again."""

_LONGEST_PAUSE_S = 30.0
_TIMEOUT = httpx.Timeout(30.0)
_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 256 << 20
_LARGEST_RATIO = 50  # unpacked to packed; JPEG is about 1, the annotations 4

_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Archive:
    """One official archive.

    Attributes:
        path: below the base URL.
        sha1: as GluonCV and others have published it since 2018; COCO itself publishes no checksum.
        folder: what unpacking it creates.
        growth: about how many times its size the unpacked files take.
    """

    path: str
    sha1: str
    folder: str
    growth: float = 1.0

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.path).name


ARCHIVES = {
    "annotations": Archive(
        path="annotations/annotations_trainval2017.zip",
        sha1="8551ee4bb5860311e79dace7e79cb91e432e78b3",
        folder="annotations",
        growth=4.0,
    ),
    "val2017": Archive("zips/val2017.zip", "4950dc9d00dbe1c933ee0170f5797584351d2a41", "val2017"),
    "train2017": Archive("zips/train2017.zip", "10ad623668ab00c62c096f0ed636d6aff41faca5", "train2017"),
}


def fetch_coco(
    into: Path,
    names: Sequence[str],
    progress: Callable[[str], Progress],
    *,
    archives: Mapping[str, Archive] = ARCHIVES,
    base_url: str = BASE_URL,
    pause: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Download, check and unpack into ``into``; a folder that is there already is left alone.

    Args:
        names: of the archives.
        progress: begins a line such as "val2017: fetching" on the display.
        pause: waits between tries, in seconds.

    Returns:
        The names that were fetched now.

    Raises:
        DataError: an unknown name, too little space, no connection after several tries, or wrong bytes.
    """
    if unknown := [name for name in names if name not in archives]:
        raise DataError(f"archive {unknown[0]!r} is unknown; there are {', '.join(archives)}")
    if not base_url.startswith(("http://", "https://")):
        raise DataError(f"base URL {base_url!r} must begin with http:// or https://")
    wanted = [name for name in dict.fromkeys(names) if not (into / archives[name].folder).exists()]
    urls = {name: f"{base_url.rstrip('/')}/{archives[name].path}" for name in wanted}
    try:
        into.mkdir(parents=True, exist_ok=True)
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
            _require_space(into, {archives[name]: _size_on_server(client, urls[name]) for name in wanted})
            for name in wanted:
                archive = archives[name]
                packed = into / archive.file_name
                if not packed.exists():
                    download(client, urls[name], packed, progress(f"{name}: fetching"), pause)
                require_sha1(packed, archive.sha1, progress(f"{name}: checking"))
                unpack(packed, into, archive.folder, progress(f"{name}: unpacking"))
                packed.unlink()
    except OSError as error:
        where = error.filename or into
        raise DataError(f"{where}: {error.strerror}; choose a folder with room that you may write") from error
    except (httpx.InvalidURL, httpx.RequestError) as error:
        raise DataError(f"{base_url}: {error or type(error).__name__}; check the address and the network") from error
    return wanted


def require_sha1(packed: Path, sha1: str, progress: Progress) -> None:
    """Raise a DataError unless the file's SHA-1 is ``sha1``."""
    digest = hashlib.sha1(usedforsecurity=False)
    done, total = 0, _size(packed)
    with open(packed, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(done, total, "B")
    if digest.hexdigest() != sha1:
        raise DataError(
            f"{packed}: SHA-1 is {digest.hexdigest()} and must be {sha1}; delete the file and fetch it again,"
            " from another mirror (--base-url) if need be"
        )


# --- download ------------------------------------------------------------------------------------


def download(
    client: httpx.Client, url: str, target: Path, progress: Progress, pause: Callable[[float], None] = time.sleep
) -> None:
    """Fetch ``url`` to ``target``, going on with ``target.partial`` where there is one.

    Raises:
        DataError: refused, or no progress in several tries.
    """
    partial = target.with_name(target.name + ".partial")
    idle, furthest = 0, _size(partial)
    while True:
        try:
            _continue(client, url, partial, progress)
            break
        except httpx.UnsupportedProtocol:
            raise
        except (httpx.TransportError, _Retry) as error:
            have = _size(partial)
            idle = 0 if have > furthest else idle + 1  # against the furthest: a server without ranges starts anew
            furthest = max(furthest, have)
            if idle >= _ATTEMPTS:
                raise DataError(
                    f"{url}: {_ATTEMPTS} tries in a row brought nothing new ({error or type(error).__name__});"
                    f" {have} bytes are kept, and the same command goes on from there"
                ) from error
            pause(min(0.5 * 2**idle, _LONGEST_PAUSE_S))
    partial.replace(target)
    _tag_file(partial).unlink(missing_ok=True)


class _Retry(Exception):
    """The answer was not what was asked for, and may be next time."""


def _continue(client: httpx.Client, url: str, partial: Path, progress: Progress) -> None:
    """One request; appends to ``partial`` what it brings, and returns when the file is whole."""
    have = _size(partial)
    tag = _read_tag(partial)
    if have and not tag:  # without a validator two files could be spliced
        _forget(partial)
        have = 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code in _RETRIED_STATUS:
            raise _Retry(f"the server says {answer.status_code} {answer.reason_phrase}")
        if answer.status_code == 416:  # our part is no part of what is there now, or is the whole of it
            if _range_total(answer) == have:
                return
            _forget(partial)
            raise _Retry("the file on the server has changed")
        if answer.status_code not in (200, 206):
            raise DataError(f"{url}: the server says {answer.status_code} {answer.reason_phrase}; check the address")
        if answer.status_code == 206:
            start, total = _range_start(answer), _range_total(answer)
            if start != have:
                _forget(partial)
                raise _Retry("the server sent another part than asked for")
        else:  # the whole: no ranges here, or the file has changed
            _forget(partial)
            have, total = 0, _length(answer)
            _write_tag(partial, answer)
        with open(partial, "ab") as file:
            for chunk in answer.iter_raw():  # as it comes, so a broken connection loses nothing
                file.write(chunk)
                have += len(chunk)
                progress(have, total or have, "B")
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have != total:
        raise _Retry(f"the connection ended after {have} of {total} bytes")


def _tag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".tag")


def _write_tag(partial: Path, answer: httpx.Response) -> None:
    """Remember which file the part is of: a strong ETag, else the time of change."""
    etag = answer.headers.get("ETag", "")
    tag = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
    _tag_file(partial).write_text(tag, encoding="utf-8")


def _read_tag(partial: Path) -> str:
    try:
        return _tag_file(partial).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""  # then the part is of no use and the download starts anew


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _tag_file(partial).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _length(answer: httpx.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _range_start(answer: httpx.Response) -> int | None:
    """From ``Content-Range: bytes 5-9/10``: 5."""
    text = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(text) if text.isdigit() else None


def _range_total(answer: httpx.Response) -> int | None:
    text = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(text) if text.isdigit() else None


# --- space ---------------------------------------------------------------------------------------


def _size_on_server(client: httpx.Client, url: str) -> int:
    """Size of an archive; 0 where the server does not tell, and the download then finds out."""
    answer = client.head(url)
    return (_length(answer) or 0) if answer.status_code == 200 else 0


def _require_space(into: Path, sizes: Mapping[Archive, int]) -> None:
    """Archives are fetched one after the other, each lying beside what it unpacks to until it is deleted."""
    need, unpacked = 0.0, 0.0
    for archive, size in sizes.items():
        packed = into / archive.file_name
        there = max(_size(packed), _size(packed.with_name(packed.name + ".partial")))
        need = max(need, unpacked + max(size - there, 0) + archive.growth * size)
        unpacked += archive.growth * size
    free = shutil.disk_usage(into).free
    if need and need + _SPARE_BYTES > free:
        raise DataError(
            f"{into}: {(need + _SPARE_BYTES) / 1e9:.1f} GB of room are needed and {free / 1e9:.1f} GB are free;"
            " make room, choose another folder, or fetch less with --only"
        )


# --- unpack --------------------------------------------------------------------------------------


def unpack(packed: Path, into: Path, folder: str, progress: Progress) -> None:
    """Unpack the files below ``folder/`` of a zip to ``into/folder``, checking each file's CRC.

    Raises:
        DataError: not a sound zip, a name that leaves the folder, a link, or far more data than its size allows.
    """
    temporary = into / f".{folder}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(packed) as archive:
            entries = list(_files(archive, folder))
            total = sum(entry.file_size for entry, _ in entries)
            _require_sane(packed, into, total)
            done = 0
            for entry, below in entries:
                target = temporary / below
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)  # reading to the end checks the CRC
                done += entry.file_size
                progress(done, total, "B")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DataError(f"{packed}: not a sound zip archive ({error}); delete it and fetch it again") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    temporary.replace(into / folder)


def _files(archive: zipfile.ZipFile, folder: str) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The archive's files with their path below ``folder``."""
    found = False
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        name = PurePosixPath(entry.filename)
        unsafe = name.is_absolute() or ".." in name.parts or "\\" in entry.filename
        if unsafe or name.parts[0] != folder or len(name.parts) < 2 or stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(
                f"{archive.filename}: entry {entry.filename!r} is no file below {folder}/, so nothing was unpacked"
            )
        found = True
        yield entry, name.relative_to(folder)
    if not found:
        raise DataError(f"{archive.filename}: holds no files below {folder}/")


def _require_sane(packed: Path, into: Path, unpacked_bytes: int) -> None:
    if unpacked_bytes > _LARGEST_RATIO * packed.stat().st_size:
        size_gb = unpacked_bytes / 1e9
        raise DataError(f"{packed}: would unpack to {size_gb:.1f} GB, over {_LARGEST_RATIO} times its size")
    free = shutil.disk_usage(into).free
    if unpacked_bytes > free:
        raise DataError(
            f"{into}: unpacking {packed.name} needs {unpacked_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free;"
            " make room and give the same command again"
        )
