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
    """How many images of which source; ``count`` None is all that the other sets leave."""

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
        DataError: an unknown role or source, a count below 1 or beyond what the source has left, or two sets
            that both want the rest of one source.
    """
    for role, wish in wishes.items():
        if role not in ROLES:
            raise DataError(f"set {role!r} is unknown; the sets are {', '.join(sorted(ROLES))}")
        if wish.source not in available:
            raise DataError(f"{role} draws from source {wish.source!r}, which is not given")
        if wish.count is not None and wish.count < 1:
            raise DataError(f"{role} asks for {wish.count} images; give 1 or more, or no count for all that is left")
    rest = {source: stable_order(ids, seed) for source, ids in available.items()}
    drawn: dict[str, list[int]] = {}
    counted_first = sorted(wishes, key=lambda role: (wishes[role].count is None, ROLES.index(role)))
    for role in counted_first:
        source, count = wishes[role].source, wishes[role].count
        left = rest[source]
        if not left or (count is not None and count > len(left)):
            before = {other: len(ids) for other, ids in drawn.items() if wishes[other].source == source}
            raise DataError(_too_many(role, source, count, len(left), before))
        wanted = len(left) if count is None else count
        drawn[role], rest[source] = sorted(left[:wanted]), left[wanted:]
    return {role: drawn[role] for role in ROLES if role in drawn}


def require_choice(wishes: Mapping[str, Wish], available: Mapping[str, Sequence[int]]) -> None:
    """Raise a DataError where a set drawn anew would be all but the one drawn before.

    From twice as many images as are drawn two draws can be altogether different, and have half in common on average;
    from hardly more than are drawn they would be nearly one set, and what follows from them would seem certain.
    """
    for role, wish in wishes.items():
        left = len(available[wish.source])
        if wish.count is not None and left < 2 * wish.count:
            raise DataError(
                f"{role} draws {wish.count} images anew from source {wish.source!r}, where the other sets leave {left};"
                f" {2 * wish.count} are needed for draws that differ. Lower the count of a set, or draw {role} from a"
                " larger source"
            )


def _too_many(role: str, source: str, count: int | None, left: int, before: Mapping[str, int]) -> str:
    asked = f"{role} asks for {'the rest' if count is None else count} of source {source!r}, which has"
    if not before:
        return f"{asked} {left} usable images; lower the count"
    taken = " and ".join(f"{number} to {other}" for other, number in before.items())
    return (
        f"{asked} {left + sum(before.values())} usable images and gives {taken}; {left} are left, and an image may be"
        f" in one set only. Draw {role} from another source, or lower a count"
    )


def require_disjoint(sets: Mapping[str, Sequence[Member]]) -> None:
    """Raise a DataError that lists every image that is in two sets, by id or by content."""
    overlaps = [*_shared(sets, "id"), *_shared(sets, "content")]
    if not overlaps:
        return
    listed = "\n".join(f"  {line}" for line in overlaps[:_LISTED])
    more = f"\n  and {len(overlaps) - _LISTED} more" if len(overlaps) > _LISTED else ""
    are = "1 image is" if len(overlaps) == 1 else f"{len(overlaps)} images are"
    raise DataError(
        f"the sets must be disjoint, and {are} in two (draw them from different sources, or leave the copies out):"
        f"\n{listed}{more}"
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
