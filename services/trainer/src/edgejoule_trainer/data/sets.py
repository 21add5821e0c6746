"""The four disjoint sets: what is chosen on may never be what is judged on.

Two sets overlap when they share an image, and an image is the same when

- it has the same id in the same annotation file, or
- its file has the same content (sha256), whatever its id, name or source.

The same id in two different annotation files says nothing by itself: every data set counts from 1.
For COCO, whose ids are global, one picture listed in two files is caught by its content.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgejoule.errors import DataError

ROLES = ("evaluation", "tuning", "calibration", "train")
"""In the order in which they draw from a source they share."""

_LISTED = 20


@dataclass(frozen=True)
class Wish:
    """How many images of which source; ``count`` None is the whole source, and for ``train`` what the others leave."""

    source: str
    count: int | None


@dataclass(frozen=True)
class Member:
    """An image of a set: where it is listed, its id there, and its content's hash."""

    annotations_sha256: str
    id: int
    sha256: str


def stable_order(ids: Iterable[int], seed: int) -> list[int]:
    """The ids in an order that depends on the seed and on each id alone.

    So an image that joins or leaves the source moves no other.

    >>> order = stable_order(range(6), seed=0)
    >>> [id for id in order if id != 3] == stable_order([0, 1, 2, 4, 5], seed=0)
    True
    """
    return sorted(ids, key=lambda id_: (hashlib.sha256(f"{seed}:{id_}".encode()).digest(), id_))


def draw(wishes: Mapping[str, Wish], available: Mapping[str, Iterable[int]], seed: int) -> dict[str, list[int]]:
    """Image ids by role, each sorted, disjoint within a source.

    Args:
        wishes: by role.
        available: usable image ids by source.

    Raises:
        DataError: an unknown role, a count below 1 or beyond the source, or a whole source that others draw from.
    """
    drawn: dict[str, list[int]] = {}
    rest = {source: stable_order(ids, seed) for source, ids in available.items()}
    whole = {source: len(order) for source, order in rest.items()}
    if unknown := sorted(set(wishes) - set(ROLES)):
        raise DataError(f"set {unknown[0]!r} is unknown; the sets are {', '.join(sorted(ROLES))}")
    for role in ROLES:
        if role not in wishes:
            continue
        source, count = wishes[role].source, wishes[role].count
        if source not in rest:
            raise DataError(f"set {role!r} draws from source {source!r}, which is not given")
        if count is not None and count < 1:
            raise DataError(f"set {role!r} asks for {count} images; give 1 or more, or null for all of {source!r}")
        sharing = [other for other in drawn if wishes[other].source == source]
        if count is None and role != "train" and sharing:
            taken = sorted(id_ for other in sharing for id_ in drawn[other])
            raise DataError(
                f"{role} takes the whole of source {source!r}, so it overlaps with {' and '.join(sharing)} in"
                f" {len(taken)} images ({_listing(taken)}); draw them from different sources, or give {role} a count"
                f" of at most {len(rest[source])}"
            )
        wanted = len(rest[source]) if count is None else count
        if wanted > len(rest[source]) or wanted == 0:
            raise DataError(_too_many(role, source, count, whole[source], sharing, drawn))
        drawn[role] = sorted(rest[source][:wanted])
        rest[source] = rest[source][wanted:]
    return drawn


def _too_many(
    role: str, source: str, count: int | None, size: int, sharing: Sequence[str], drawn: Mapping[str, Sequence[int]]
) -> str:
    asked = (
        f"{role} asks for {'the rest' if count is None else count} of source {source!r}, which has {size} usable images"
    )
    if not sharing:
        return f"{asked}; lower the count"
    before = " and ".join(f"{other} takes {len(drawn[other])}" for other in sharing)
    left = size - sum(len(drawn[other]) for other in sharing)
    whole = " (the whole: an image in both would be an overlap)" if left == 0 else ""
    return f"{asked} of which {before}{whole}; {left} are left. Draw {role} from another source, or lower a count"


def require_disjoint(sets: Mapping[str, Sequence[Member]]) -> None:
    """Raise a DataError that lists every image that is in two sets, by id or by content."""
    overlaps = [*_shared(sets, "id"), *_shared(sets, "content")]
    if not overlaps:
        return
    listed = "\n".join(f"  {line}" for line in overlaps[:_LISTED])
    more = f"\n  and {len(overlaps) - _LISTED} more" if len(overlaps) > _LISTED else ""
    raise DataError(
        f"the sets must be disjoint, and {len(overlaps)} images are in two (draw them from different sources, or"
        f" leave the copies out):\n{listed}{more}"
    )


def _shared(sets: Mapping[str, Sequence[Member]], by: str) -> list[str]:
    places: dict[object, list[tuple[str, Member]]] = defaultdict(list)
    for role, members in sets.items():
        for member in members:
            places[(member.annotations_sha256, member.id) if by == "id" else member.sha256].append((role, member))
    lines = []
    for found in places.values():
        if len({role for role, _ in found}) < 2:
            continue
        same_entry = len({(member.annotations_sha256, member.id) for _, member in found}) == 1
        if by == "content" and same_entry:
            continue  # told already, by id
        what = " and ".join(f"{role} (image {member.id})" for role, member in found)
        lines.append(f"{what}: same {'id in the same annotation file' if by == 'id' else 'content'}")
    return lines


def _listing(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_LISTED]))
    return f"ids {shown}" + (f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else "")
