"""What is asked of any weights file before it is read, and how its tensors are named in a sentence."""

from __future__ import annotations

from pathlib import Path

from edgejoule.errors import WeightsError

MAX_BYTES = 4 << 30
_NAMED = 8  # how many tensors an error names before it counts the rest
_LONGEST_NAME = 120


def check_file(path: Path) -> None:
    """Raise a WeightsError unless ``path`` is a file that can be read, neither empty nor beyond MAX_BYTES."""
    try:
        size = path.stat().st_size
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsError(f"The weights file {path} cannot be read: {reason or error}.") from error
    if not 0 < size <= MAX_BYTES:
        raise WeightsError(f"The weights file {path} has {size} bytes; between 1 and {MAX_BYTES} are read.")


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more


def printable(text: str) -> str:
    """A name out of a file, fit for a terminal: short, and without control characters.

    >>> printable("conv.weight"), printable(chr(27) + "[2J")
    ('conv.weight', '?[2J')
    """
    cut = text[:_LONGEST_NAME] + ("..." if len(text) > _LONGEST_NAME else "")
    return "".join(character if character.isprintable() else "?" for character in cut)
