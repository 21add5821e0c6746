"""Reading a COCO-format data set, and telling everything that is wrong with it.

All findings are collected, not only the first, and each names the file and the id. Boxes may leave the
frame by ``TOLERANCE_PX`` (rounding; they are clipped), never by more. Crowd regions stay: the scorer
ignores detections inside them, as COCO does, and training leaves them aside.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from edgejoule.errors import DataError
from edgejoule.job import Progress
from edgejoule_trainer.data import pictures

TOLERANCE_PX = 1.0
SHOWN = 20
"""How many findings an error lists before it says "and N more"."""

_LARGEST_ID = 2**53 - 1  # beyond it a JSON number is no exact integer in every reader
_LARGEST_SIDE_PX = 16384  # bounds what decoding a hostile file can cost in memory
_LARGEST_FILE_BYTES = 256 << 20

Subject = Literal["image", "annotation", "category"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: short stable name of the problem, e.g. ``truncated-image``.
        file: the annotation file, or the picture's.
        subject, id: the entry that is at fault; its place in the list where it has no usable id.
        problem: completes "image 17 ...".
        image_id: of an annotation, the image it belongs to, if that is known.
    """

    kind: str
    file: str
    subject: Subject
    id: int | str
    problem: str
    image_id: int | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.subject} {self.id} {self.problem}"

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "file": self.file, "subject": self.subject, "id": self.id, "problem": self.problem}


@dataclass(frozen=True)
class Picture:
    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Annotation:
    """``bbox``: x, y, width, height in pixels of the frame; ``area``: of the object's mask where there is one."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int


@dataclass(frozen=True)
class Truth:
    """What an annotation file says, less what ``findings`` holds against it."""

    file: Path
    pictures: dict[int, Picture]
    annotations: list[Annotation]
    categories: dict[int, str]
    findings: list[Finding]
    clipped: int  # boxes brought back into the frame, within the tolerance


def read(path: Path) -> Truth:
    """Read and check an annotation file; pictures are not opened (see ``check_pictures``).

    Raises:
        DataError: the file cannot be read as COCO at all, or its categories are wrong.
    """
    content = _load(path)
    categories = _read_categories(path, _section(path, content, "categories"))
    reader = _Reader(path.name)
    found = reader.pictures(_section(path, content, "images"))
    annotations = reader.annotations(_section(path, content, "annotations"), found, categories)
    return Truth(path, found, annotations, categories, reader.findings, reader.clipped)


def require_clean(findings: Sequence[Finding]) -> None:
    """Raise a DataError that lists the findings, if there are any."""
    if not findings:
        return
    listed = "\n".join(f"  {finding}" for finding in findings[:SHOWN])
    more = f"\n  and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
    noun = "problem" if len(findings) == 1 else "problems"
    raise DataError(
        f"{len(findings)} {noun} in the data set (correct them, or leave the entries out with data.skip_bad):"
        f"\n{listed}{more}"
    )


# --- the annotation file -------------------------------------------------------------------------


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such annotation file") from None
    except OSError as error:
        raise DataError(f"{path}: the annotation file cannot be read ({error.strerror})") from error
    except RecursionError:
        raise DataError(f"{path}: the JSON is nested too deeply to be a COCO file") from None
    except ValueError as error:  # not JSON, not UTF-8, a number of thousands of digits, NaN
        raise DataError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a COCO file is a JSON object, this one is {_kind(content)}")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _section(path: Path, content: dict[str, Any], name: str) -> list[Any]:
    if name not in content:
        raise DataError(f"{path}: no {name!r} in the file; a COCO file has 'images', 'annotations' and 'categories'")
    section = content[name]
    if not isinstance(section, list):
        raise DataError(f"{path}: {name!r} must be a list and is {_kind(section)}")
    if not section and name != "annotations":
        raise DataError(f"{path}: {name!r} is empty")
    return section


def _read_categories(path: Path, entries: list[Any]) -> dict[int, str]:
    """Categories by id. A fault here touches every box, so it is an error and never skipped."""
    findings: list[Finding] = []
    categories: dict[int, str] = {}
    for place, entry in enumerate(entries):
        try:
            id_ = _identity(entry)
            name = _field(entry, "name")
            if not isinstance(name, str) or not name.strip() or not name.isprintable():
                raise Fault("wrong-type", f"has the name {_show(name)}, which is no printable text")
            if id_ in categories:
                raise Fault("duplicate-id", "is there twice")
            if name in categories.values():
                raise Fault("duplicate-name", f"has the name {name!r} of another category")
            categories[id_] = name
        except Fault as fault:
            findings.append(Finding(fault.kind, path.name, "category", _name_of(entry, place), fault.problem))
    if findings:
        listed = "\n".join(f"  {finding}" for finding in findings[:SHOWN])
        raise DataError(f"{path}: the categories are wrong:\n{listed}")
    return categories


class Fault(Exception):
    """What is wrong with one entry; becomes a Finding."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem


class _Reader:
    """Collects the findings of one annotation file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.findings: list[Finding] = []
        self.clipped = 0
        self._bad_pictures: set[int] = set()

    def pictures(self, entries: list[Any]) -> dict[int, Picture]:
        found: dict[int, Picture] = {}
        owner: dict[str, int] = {}
        for place, entry in enumerate(entries):
            try:
                picture = _picture(entry)
                if picture.id in found or picture.id in self._bad_pictures:
                    raise Fault("duplicate-id", "is there twice")
                if (first := owner.setdefault(picture.file_name, picture.id)) != picture.id:
                    raise Fault("duplicate-file", f"has the file of image {first}, {picture.file_name!r}")
                found[picture.id] = picture
            except Fault as fault:
                self.findings.append(Finding(fault.kind, self.file, "image", _name_of(entry, place), fault.problem))
                if isinstance(name := _name_of(entry, place), int):
                    self._bad_pictures.add(name)
        # of two images with one id neither can be told to be the right one
        return {id_: picture for id_, picture in found.items() if id_ not in self._bad_pictures}

    def annotations(
        self, entries: list[Any], found: dict[int, Picture], categories: dict[int, str]
    ) -> list[Annotation]:
        annotations: list[Annotation] = []
        seen: set[int] = set()
        for place, entry in enumerate(entries):
            try:
                annotation = self._annotation(entry, found, categories)
                if annotation is None:
                    continue
                if annotation.id in seen:
                    raise Fault("duplicate-id", "is there twice")
                seen.add(annotation.id)
                annotations.append(annotation)
            except Fault as fault:
                name, image_id = _name_of(entry, place), entry.get("image_id") if isinstance(entry, dict) else None
                known = image_id if isinstance(image_id, int) and image_id in found else None
                self.findings.append(Finding(fault.kind, self.file, "annotation", name, fault.problem, known))
        return annotations

    def _annotation(self, entry: Any, found: dict[int, Picture], categories: dict[int, str]) -> Annotation | None:
        """The annotation; None when its image has been found bad already."""
        id_ = _identity(entry)
        image_id = _integer(entry, "image_id")
        if image_id in self._bad_pictures:
            return None
        if image_id not in found:
            raise Fault("unknown-image", f"belongs to image {image_id}, which is not in the file")
        category_id = _integer(entry, "category_id")
        if category_id not in categories:
            raise Fault("unknown-category", f"has category {category_id}, which is not in the file")
        iscrowd = _field(entry, "iscrowd")
        if iscrowd not in (0, 1):
            raise Fault("wrong-type", f"has iscrowd {_show(iscrowd)}; it must be 0 or 1")
        area = _number(entry, "area")
        if area <= 0:
            raise Fault("no-area", f"has area {area:g}; it must be more than 0")
        frame = found[image_id]
        return Annotation(id_, image_id, category_id, self._box(entry, frame), area, int(iscrowd))

    def _box(self, entry: Any, frame: Picture) -> tuple[float, float, float, float]:
        bbox = _field(entry, "bbox")
        if not isinstance(bbox, list) or len(bbox) != 4:
            raise Fault("wrong-type", f"has bbox {_show(bbox)}; it must be [x, y, width, height]")
        x, y, width, height = (_finite(value, "bbox") for value in bbox)
        if width <= 0 or height <= 0:
            raise Fault("no-area", f"has a box of {width:g} x {height:g} pixels")
        over = max(-x, -y, x + width - frame.width, y + height - frame.height)
        if over > TOLERANCE_PX:
            raise Fault(
                "box-outside",
                f"has bbox {_show(bbox)}, {over:.4g} pixels outside the {frame.width} x {frame.height} frame of"
                f" image {frame.id}",
            )
        if over <= 0:
            return x, y, width, height
        self.clipped += 1
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + width, float(frame.width)), min(y + height, float(frame.height))
        if right <= left or bottom <= top:
            raise Fault("box-outside", f"has bbox {_show(bbox)}, no part of which is inside image {frame.id}")
        return left, top, right - left, bottom - top


def _picture(entry: Any) -> Picture:
    id_ = _identity(entry)
    name = _field(entry, "file_name")
    if not isinstance(name, str) or not name:
        raise Fault("wrong-type", f"has file_name {_show(name)}, which is no text")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or not name.isprintable():
        raise Fault("unsafe-name", f"has file_name {_show(name)}; it must lie within the images folder")
    width, height = _integer(entry, "width"), _integer(entry, "height")
    for side, value in (("width", width), ("height", height)):
        if not 1 <= value <= _LARGEST_SIDE_PX:
            raise Fault("bad-size", f"has {side} {value}; it must be 1 to {_LARGEST_SIDE_PX} pixels")
    return Picture(id_, name, width, height)


def _field(entry: Any, name: str) -> Any:
    if not isinstance(entry, dict):
        raise Fault("wrong-type", f"is {_kind(entry)} and must be an object")
    if name not in entry:
        raise Fault("missing-key", f"has no {name!r}")
    return entry[name]


def _integer(entry: Any, name: str) -> int:
    value = _field(entry, name)
    if isinstance(value, float) and value.is_integer():  # 17.0, as some writers have it
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Fault("wrong-type", f"has {name} {_show(value)}; it must be a whole number")
    if abs(value) > _LARGEST_ID:
        raise Fault("wrong-type", f"has {name} {_show(value)}, more than 53 bits")
    return value


def _identity(entry: Any) -> int:
    value = _integer(entry, "id")
    if value < 0:
        raise Fault("wrong-type", f"has id {value}; it must not be negative")
    return value


def _number(entry: Any, name: str) -> float:
    return _finite(_field(entry, name), name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Fault("wrong-type", f"has {name} {_show(value)}; it must be a number")
    if abs(value) > _LARGEST_ID or not math.isfinite(value):
        raise Fault("wrong-type", f"has a {name} that is not a finite number of a sane size")
    return float(value)


def _name_of(entry: Any, place: int) -> int | str:
    """The id of an entry for a message, or its place in the list if it has none."""
    id_ = entry.get("id") if isinstance(entry, dict) else None
    return id_ if isinstance(id_, int) and not isinstance(id_, bool) and abs(id_) <= _LARGEST_ID else f"#{place + 1}"


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# --- the pictures --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """The outcome of decoding one picture: its content's hash, or what is wrong."""

    id: int
    sha256: str
    finding: Finding | None


def check_pictures(
    wanted: Iterable[Picture], folder: Path, progress: Progress | None = None
) -> tuple[dict[int, str], list[Finding]]:
    """Decode every picture and compare it with what the annotation file says of it.

    Returns:
        The sha256 of each good picture's file by image id, and the findings, in the order given.
    """
    todo = list(wanted)
    hashes: dict[int, str] = {}
    findings: list[Finding] = []
    for done, checked in enumerate(_in_threads(todo, folder), start=1):
        if checked.finding:
            findings.append(checked.finding)
        else:
            hashes[checked.id] = checked.sha256
        if progress:
            progress(done, len(todo), "images")
    return hashes, findings


def _in_threads(todo: Sequence[Picture], folder: Path) -> Iterator[Checked]:
    # decoding and hashing release the interpreter's lock; results come in order
    pool = ThreadPoolExecutor(max_workers=min(8, cpu_count() or 1))
    try:
        yield from pool.map(lambda picture: _check(picture, folder), todo)
    finally:
        pool.shutdown(cancel_futures=True)  # ^C does not wait for all that are queued


def _check(picture: Picture, folder: Path) -> Checked:
    try:
        data = read_picture(picture, folder)
        width, height = pictures.size(data)
        if (width, height) != (picture.width, picture.height):
            raise Fault(
                "size-mismatch",
                f"is {width} x {height} pixels, but the annotation file says {picture.width} x {picture.height}",
            )
        pictures.decode(data)
        return Checked(picture.id, hashlib.sha256(data).hexdigest(), None)
    except Fault as fault:
        kind, problem = fault.kind, fault.problem
    except pictures.BadPicture as error:
        kind, problem = "truncated-image" if "truncated" in str(error) else "bad-image", str(error)
    return Checked(picture.id, "", Finding(kind, picture.file_name, "image", picture.id, problem))


def read_picture(picture: Picture, folder: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        Fault: it is missing, too large, or cannot be read.
    """
    path = folder / picture.file_name
    if not path.is_file():  # a device or a pipe is not read either
        raise Fault("missing-image", f"is not in the folder {folder}")
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise Fault("bad-image", f"is larger than {_LARGEST_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise Fault("unreadable-image", f"cannot be read ({error.strerror})") from error
