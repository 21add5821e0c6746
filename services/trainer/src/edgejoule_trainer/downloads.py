"""Downloads that go on where they stopped, with a bar, and hashes of what came.

A file lies beside its target as ``<name>.partial`` until it is whole. A broken connection goes on where it stopped
(``Range`` with ``If-Range``); where the server has another file by now, or knows no ranges, it starts anew.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from edgejoule.errors import DownloadError
from edgejoule.job import Progress

_ATTEMPTS = 8
"""Tries in a row that bring nothing new; any progress starts the count again."""

_LONGEST_PAUSE_S = 30.0
_TIMEOUT = httpx.Timeout(30.0)
_CHUNK_BYTES = 1 << 20
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


@contextmanager
def connected(base_url: str, into: Path) -> Iterator[httpx.Client]:
    """A client for addresses below ``base_url``, and a folder ``into`` to write to; it is made.

    Raises:
        DownloadError: also for what goes wrong inside the block with the connection or with writing.
    """
    if not base_url.startswith(("http://", "https://")):
        raise DownloadError(f"base URL {base_url!r} must begin with http:// or https://")
    try:
        into.mkdir(parents=True, exist_ok=True)
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
            yield client
    except OSError as error:
        where = error.filename or into
        raise DownloadError(f"{where}: {error.strerror}; choose a folder with room that you may write") from error
    except (httpx.InvalidURL, httpx.RequestError) as error:
        raise DownloadError(
            f"{base_url}: {error or type(error).__name__}; check the address and the network"
        ) from error


def download(
    client: httpx.Client, url: str, target: Path, progress: Progress, pause: Callable[[float], None] = time.sleep
) -> None:
    """Fetch ``url`` to ``target``, going on with ``target.partial`` where there is one.

    Raises:
        DownloadError: refused, or no progress in several tries.
    """
    partial = target.with_name(target.name + ".partial")
    idle, furthest = 0, size_of(partial)
    while True:
        try:
            _continue(client, url, partial, progress)
            break
        except httpx.UnsupportedProtocol:
            raise
        except (httpx.TransportError, _Retry) as error:
            have = size_of(partial)
            idle = 0 if have > furthest else idle + 1  # against the furthest: a server without ranges starts anew
            furthest = max(furthest, have)
            if idle >= _ATTEMPTS:
                raise DownloadError(
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
    have = size_of(partial)
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
            raise DownloadError(
                f"{url}: the server says {answer.status_code} {answer.reason_phrase}; check the address"
            )
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


def size_on_server(client: httpx.Client, url: str) -> int:
    """Bytes of a file; 0 where the server does not tell, and the download then finds out."""
    answer = client.head(url)
    return (_length(answer) or 0) if answer.status_code == 200 else 0


def size_of(path: Path) -> int:
    """Bytes of a local file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def digest_of(path: Path, algorithm: str, progress: Progress) -> str:
    """The hash of a file in hexadecimal, by the algorithm's name in ``hashlib``."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    done, total = 0, size_of(path)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(done, total, "B")
    return digest.hexdigest()


@contextmanager
def bars() -> Iterator[Callable[[str], Progress]]:
    """Begins a bar per line, on standard error, with size, speed and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as shown:

        def begin(line: str) -> Progress:
            task = shown.add_task(line, total=None)
            return lambda done, total, unit: shown.update(task, completed=done, total=total or None)

        yield begin
