"""L4T releases, what JetPack ships with each, and which containers run on which. Standard library only."""

import re
from typing import List, NamedTuple, Optional, Tuple

Numbers = Tuple[int, int, int]


class Release(NamedTuple):
    """One release of NVIDIA's Linux for Tegra and what JetPack installs with it."""

    l4t: str
    jetpack: str
    ubuntu: str
    python: str
    cuda: str
    tensorrt: str


class _Line(NamedTuple):
    """Releases that ship the same libraries: from ``first`` on, until the next line of the table."""

    first: str
    ubuntu: str
    python: str
    cuda: str
    tensorrt: str


# Ubuntu and its Python, CUDA, TensorRT: release notes of JetPack 4.6.1, 5.0.2, 5.1, 6.0 DP, 6.0, 6.1, 7.0 and
# meta-tegra's of L4T 39.2.0
_LINES = (
    _Line("32.7.1", "18.04", "3.6", "10.2", "8.2.1"),
    _Line("35.1.0", "20.04", "3.8", "11.4", "8.4.1"),
    _Line("35.2.1", "20.04", "3.8", "11.4", "8.5.2"),
    _Line("36.2.0", "22.04", "3.10", "12.2", "8.6.2"),
    _Line("36.4.0", "22.04", "3.10", "12.6", "10.3.0"),
    _Line("38.2.0", "24.04", "3.12", "13.0", "10.13.3"),
    _Line("39.2.0", "24.04", "3.12", "13.2", "10.16"),
)

# NVIDIA's JetPack archive; also in jetson-containers' l4t_version.py and jetson_stats' jetson_variables.py
_JETPACKS = (
    *(("32.7.1", "4.6.1"), ("32.7.2", "4.6.2"), ("32.7.3", "4.6.3"), ("32.7.4", "4.6.4"), ("32.7.5", "4.6.5")),
    *(("32.7.6", "4.6.6"), ("35.1.0", "5.0.2"), ("35.2.1", "5.1"), ("35.3.1", "5.1.1"), ("35.4.1", "5.1.2")),
    *(("35.5.0", "5.1.3"), ("35.6.0", "5.1.4"), ("35.6.1", "5.1.5"), ("35.6.2", "5.1.5"), ("35.6.4", "5.1.6")),
    *(("36.2.0", "6.0 DP"), ("36.3.0", "6.0"), ("36.4.0", "6.1"), ("36.4.2", "6.1.1"), ("36.4.3", "6.2")),
    *(("36.4.4", "6.2.1"), ("36.4.7", "6.2.1"), ("36.5.0", "6.2.2"), ("36.5.2", "6.2.3")),
    *(("38.2.0", "7.0"), ("38.2.1", "7.0"), ("38.2.2", "7.0"), ("38.4.0", "7.1")),
    *(("39.2.0", "7.2"), ("39.2.1", "7.2.1")),
)


def numbers(version: str) -> Numbers:
    """A version as three numbers; ``r`` before it and missing numbers are allowed.

    >>> numbers("r36.4"), numbers("32.7.1")
    ((36, 4, 0), (32, 7, 1))

    Raises:
        ValueError: it is no L4T version.
    """
    found = re.match(r"r?(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?$", version.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise ValueError(f"{version!r} is no L4T version; it looks like 36.4.3")
    first, second, third = (int(part or 0) for part in found.groups())
    return first, second, third


def parse_release(text: str) -> Optional[str]:
    """The version in the words of /etc/nv_tegra_release, or None where they are others.

    >>> parse_release("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ...")
    '36.4.3'
    """
    found = re.match(r"#\s*R(\d{1,4})\s*\(release\),\s*REVISION:\s*(\d{1,4}(?:\.\d{1,4})?)\s*(?:,|$)", text, re.ASCII)
    return None if found is None else ".".join(map(str, numbers(f"{found.group(1)}.{found.group(2)}")))


def _release(l4t: str, jetpack: str) -> Release:
    line = max((line for line in _LINES if numbers(line.first) <= numbers(l4t)), key=lambda line: numbers(line.first))
    return Release(l4t, jetpack, line.ubuntu, line.python, line.cuda, line.tensorrt)


RELEASES: List[Release] = [_release(l4t, jetpack) for l4t, jetpack in _JETPACKS]


def release_of(l4t: str) -> Optional[Release]:
    """The release with exactly this version, or None: what an unknown one ships is not guessed.

    >>> release_of("r35.4.1").tensorrt
    '8.5.2'
    """
    wanted = numbers(l4t)
    return next((release for release in RELEASES if numbers(release.l4t) == wanted), None)


def _island(version: Numbers) -> Optional[str]:
    """Releases whose containers and hosts go together; the rule is jetson-containers' ``l4t_version_compatible``.

    From 36.4 on the user libraries do not fit the drivers of 36.3 and before, nor the reverse. From 38 on the
    images are those of Arm servers, and any of them runs.
    """
    if version[0] == 32:
        return "32.7" if version >= (32, 7, 0) else None
    if version[0] == 36:
        return "36.4" if version >= (36, 4, 0) else "36.0"
    return "38" if version[0] >= 38 else str(version[0])


def compatible(image: str, host: str) -> bool:
    """Whether a host with L4T ``host`` runs containers whose image was made for L4T ``image``.

    >>> compatible("r32.7.1", "32.7.6"), compatible("36.2.0", "36.3.0"), compatible("36.3.0", "36.4.3")
    (True, True, False)
    """
    wanted, there = numbers(image), numbers(host)
    island = _island(wanted)
    return wanted == there or (island is not None and island == _island(there))
