"""A file that is touched while a process does its work, for health checks: no port, no question, no library."""

from __future__ import annotations

import time
from pathlib import Path

STALE_S = 30.0
"""A process that did not touch its file for so long is not well."""


def touch(file: Path) -> None:
    """Say that we are alive."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def is_alive(file: Path) -> bool:
    """Whether someone said so lately."""
    try:
        return time.time() - file.stat().st_mtime < STALE_S
    except FileNotFoundError:
        return False
