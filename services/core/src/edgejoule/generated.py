"""Files of the repository that are made from code: write them, or check that they are current."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[4]


def stale(files: Iterable[tuple[Path, str]], repository: Path = REPOSITORY) -> list[Path]:
    """Those of ``files`` (path in the repository, text) that are absent or say something else."""
    return [
        path
        for path, text in files
        if not (repository / path).is_file() or (repository / path).read_text(encoding="utf-8") != text
    ]


def bring_up_to_date(files: Iterable[tuple[Path, str]], arguments: Sequence[str]) -> str | int:
    """Write ``files``; with ``--check``, only say which are not current. Returns what to exit with."""
    if unknown := set(arguments) - {"--check"}:
        return f"unknown option {min(unknown)}; the only one is --check"
    texts = dict(files)
    old = stale(texts.items())
    if "--check" in arguments:
        return f"not current, run this command without --check: {', '.join(map(str, old))}" if old else 0
    for path in old:
        (REPOSITORY / path).parent.mkdir(parents=True, exist_ok=True)
        (REPOSITORY / path).write_text(texts[path], encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0
