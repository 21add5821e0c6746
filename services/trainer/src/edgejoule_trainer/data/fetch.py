"""Fetching the official COCO 2017 archives: resumed, checked, unpacked with care.

Unpacking goes to a temporary folder that is renamed at the end, so a folder that is there is whole.
"""

from __future__ import annotations

import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgejoule.errors import DataError
from edgejoule.job import Progress
from edgejoule_trainer.downloads import connected, digest_of, download, size_of, size_on_server

BASE_URL = "http://images.cocodataset.org"
LICENCE = (
    "COCO's annotations are under CC BY 4.0; its images stay under the terms their authors gave them on Flickr."
    " See https://cocodataset.org/#termsofuse"
)

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 256 << 20
_LARGEST_RATIO = 50  # unpacked to packed; JPEG is about 1, the annotations 4


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
        DataError: an unknown name, too little space, or wrong bytes.
        DownloadError: no connection after several tries, a refusal, or no place to write.
    """
    if unknown := [name for name in names if name not in archives]:
        raise DataError(f"archive {unknown[0]!r} is unknown; there are {', '.join(archives)}")
    wanted = [name for name in dict.fromkeys(names) if not (into / archives[name].folder).exists()]
    urls = {name: f"{base_url.rstrip('/')}/{archives[name].path}" for name in wanted}
    with connected(base_url, into) as client:
        _require_space(into, {archives[name]: size_on_server(client, urls[name]) for name in wanted})
        for name in wanted:
            archive = archives[name]
            packed = into / archive.file_name
            if not packed.exists():
                download(client, urls[name], packed, progress(f"{name}: fetching"), pause)
            require_sha1(packed, archive.sha1, progress(f"{name}: checking"))
            unpack(packed, into, archive.folder, progress(f"{name}: unpacking"))
            packed.unlink()
    return wanted


def require_sha1(packed: Path, sha1: str, progress: Progress) -> None:
    """Raise a DataError unless the file's SHA-1 is ``sha1``."""
    found = digest_of(packed, "sha1", progress)
    if found != sha1:
        raise DataError(
            f"{packed}: SHA-1 is {found} and must be {sha1}; delete the file and fetch it again,"
            " from another mirror (--base-url) if need be"
        )


# --- space ---------------------------------------------------------------------------------------


def _require_space(into: Path, sizes: Mapping[Archive, int]) -> None:
    """Archives are fetched one after the other, each lying beside what it unpacks to until it is deleted."""
    need, unpacked = 0.0, 0.0
    for archive, size in sizes.items():
        packed = into / archive.file_name
        there = max(size_of(packed), size_of(packed.with_name(packed.name + ".partial")))
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
