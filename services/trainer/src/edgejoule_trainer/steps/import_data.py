"""Step ``import-data``: from COCO folders to checked, disjoint, packed sets.

Parameters: ``sets`` {role: {source, count}}, ``shards`` {role: n}, ``seed``, ``skip_bad``.
Inputs: ``annotations.<source>`` (file), ``images.<source>`` (folder). To draw a set anew beside those of another
import, also that one's ``apart`` (record) and ``apart-<role>``, the sets to keep apart from.
Outputs: ``record``; for each role asked for ``<role>`` (JSON) and ``<role>-images-000`` ... (tar).
Only the images that a set draws are decoded and packed, and a bad box matters only if its image is drawn: the
official train2017 holds two boxes without area, which need not keep anyone from drawing 64 other images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgejoule.canonical import hash_file
from edgejoule.errors import DataError
from edgejoule.job import Job
from edgejoule_trainer.data import coco, sets, shards

VERSION = 1
QUEUE = "evaluate"
EXCLUSIVE = False
OUTPUTS = ("record",)
SOURCES = (
    "edgejoule_trainer.data.coco",
    "edgejoule_trainer.data.pictures",
    "edgejoule_trainer.data.sets",
    "edgejoule_trainer.data.shards",
)


@dataclass
class _Source:
    """A COCO folder, and what is known of its pictures so far."""

    truth: coco.Truth
    folder: Path
    annotations_sha256: str
    sha256: dict[int, str] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)
    findings: list[coco.Finding] = field(default_factory=list)

    def usable(self) -> list[int]:
        return [id_ for id_ in self.truth.pictures if id_ not in self.bad]

    def findings_on(self, ids: Set[int]) -> list[coco.Finding]:
        """What is wrong with the source, less what concerns boxes of other images only."""
        return [finding for finding in self.findings if finding.image_id is None or finding.image_id in ids]


def run(job: Job) -> None:
    """Check, draw and pack.

    Raises:
        DataError: something is wrong with the data, all of it listed; or sets overlap or ask for too much.
    """
    wishes = {role: sets.Wish(**wish) for role, wish in job.parameters["sets"].items()}
    sources = {name: _open(job, name) for name in sorted({wish.source for wish in wishes.values()})}
    _require_same_categories(sources)
    apart = _apart(job)
    drawn = _draw_good(job, wishes, sources, apart)
    members = {
        role: [
            sets.Member(source.annotations_sha256, id_, source.sha256[id_])
            for source in [sources[wishes[role].source]]
            for id_ in ids
        ]
        for role, ids in drawn.items()
    }
    sets.require_disjoint({**apart, **members})
    record: dict[str, Any] = {"seed": job.parameters["seed"], "skip_bad": job.parameters["skip_bad"], "sets": {}}
    packed, total = 0, sum(map(len, drawn.values()))
    for role, ids in drawn.items():
        source = sources[wishes[role].source]
        dataset = _dataset(source, ids)
        job.write_json(role, dataset)
        record["sets"][role] = {"source": wishes[role].source, **_counts(dataset)}
        for number, part in enumerate(shards.split(ids, job.parameters["shards"][role])):
            shards.write(job.output(f"{role}-images-{number:03d}"), _members(source, part))
            packed += len(part)
            job.progress(packed, total, "images packed")
    ids_of = _by_source(drawn, wishes)
    record["sources"] = {name: _account(source, ids_of[name]) for name, source in sources.items()}
    job.write_json("record", record)


def _open(job: Job, name: str) -> _Source:
    annotations, folder = job.inputs[f"annotations.{name}"], job.inputs[f"images.{name}"]
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such images folder (source {name!r})")
    truth = coco.read(annotations)
    return _Source(truth, folder, hash_file(annotations), findings=list(truth.findings))


def _require_same_categories(sources: Mapping[str, _Source]) -> None:
    """A detector is trained, calibrated and judged on one list of categories."""
    (first_name, first), *others = sources.items()
    for name, source in others:
        if different := sorted(source.truth.categories.items() ^ first.truth.categories.items()):
            id_, label = different[0]
            raise DataError(
                f"sources {first_name!r} and {name!r} must have the same categories, and differ in"
                f" {len({id_ for id_, _ in different})}, for one in {id_} ({label!r})"
            )


def _apart(job: Job) -> dict[str, list[sets.Member]]:
    """The sets of another import that have taken their images already, by role; none at a first import."""
    if "apart" not in job.inputs:
        return {}
    record = job.read_json("apart")
    found = {}
    for role, told in record["sets"].items():
        if (name := f"apart-{role}") in job.inputs:
            annotations_sha256 = record["sources"][told["source"]]["annotations_sha256"]
            images = job.read_json(name)["images"]
            found[role] = [sets.Member(annotations_sha256, image["id"], image["sha256"]) for image in images]
    return found


def _draw_good(
    job: Job,
    wishes: Mapping[str, sets.Wish],
    sources: Mapping[str, _Source],
    apart: Mapping[str, Sequence[sets.Member]],
) -> dict[str, list[int]]:
    """Draw, decode what was drawn, and, where bad images may be left out, draw again without them.

    Args:
        apart: sets whose images are taken.
    """
    skip_bad = job.parameters["skip_bad"]
    taken = {(member.annotations_sha256, member.id) for members in apart.values() for member in members}
    while True:
        usable = {
            name: [id_ for id_ in source.usable() if (source.annotations_sha256, id_) not in taken]
            for name, source in sources.items()
        }
        if apart:
            sets.require_choice(wishes, usable)
        drawn = sets.draw(wishes, usable, job.parameters["seed"])
        ids_of = _by_source(drawn, wishes)
        if not skip_bad:
            coco.require_clean([f for name, source in sources.items() for f in source.findings_on(ids_of[name])])
        found: list[coco.Finding] = []
        for name, source in sources.items():
            todo = [source.truth.pictures[id_] for id_ in sorted(ids_of[name] - source.sha256.keys())]
            hashes, findings = coco.check_pictures(todo, source.folder, job.progress)
            source.sha256.update(hashes)
            source.bad.update(picture.id for picture in todo if picture.id not in hashes)
            source.findings.extend(findings)
            found.extend(findings)
        if not found:
            return drawn
        if not skip_bad:
            coco.require_clean(found)


def _by_source(drawn: Mapping[str, list[int]], wishes: Mapping[str, sets.Wish]) -> dict[str, set[int]]:
    """All ids drawn from each source, by whichever set."""
    ids_of: dict[str, set[int]] = {wish.source: set() for wish in wishes.values()}
    for role, ids in drawn.items():
        ids_of[wishes[role].source].update(ids)
    return ids_of


def _dataset(source: _Source, ids: list[int]) -> dict[str, Any]:
    wanted = set(ids)
    annotations = sorted((a for a in source.truth.annotations if a.image_id in wanted), key=lambda a: a.id)
    return {
        "images": [_image(source, id_) for id_ in ids],
        "annotations": [
            {
                "id": a.id + _shift(source),
                "image_id": a.image_id,
                "category_id": a.category_id,
                "bbox": list(a.bbox),
                "area": a.area,
                "iscrowd": a.iscrowd,
            }
            for a in annotations
        ],
        "categories": [{"id": id_, "name": name} for id_, name in sorted(source.truth.categories.items())],
    }


def _image(source: _Source, id_: int) -> dict[str, Any]:
    picture = source.truth.pictures[id_]
    return {
        "id": id_,
        "file_name": picture.file_name,
        "width": picture.width,
        "height": picture.height,
        "sha256": source.sha256[id_],
    }


def _shift(source: _Source) -> int:
    """1 where annotations are numbered from 0: COCO's scorer takes annotation 0 for "no match"."""
    return int(any(annotation.id == 0 for annotation in source.truth.annotations))


def _counts(dataset: Mapping[str, Any]) -> dict[str, int]:
    crowd = sum(annotation["iscrowd"] for annotation in dataset["annotations"])
    return {
        "images": len(dataset["images"]),
        "boxes": len(dataset["annotations"]) - crowd,
        "crowd_boxes": crowd,
        "categories": len(dataset["categories"]),
    }


def _members(source: _Source, ids: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    for id_ in ids:
        picture = source.truth.pictures[id_]
        content = (source.folder / picture.file_name).read_bytes()
        if hashlib.sha256(content).hexdigest() != source.sha256[id_]:
            raise DataError(f"{source.folder / picture.file_name} changed while it was imported; run again")
        yield shards.member_name(id_, picture.file_name), content


def _account(source: _Source, ids: Set[int]) -> dict[str, Any]:
    """What was found in a source, what was left out, and what was altered."""
    return {
        "annotations_sha256": source.annotations_sha256,
        "images": len(source.truth.pictures),
        "left_out": [finding.as_json() for finding in source.findings_on(ids)],
        "boxes_clipped_to_the_frame": source.truth.clipped,
        "annotation_ids_raised_by": _shift(source),
    }
