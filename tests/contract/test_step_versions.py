"""A step whose source changed must raise its VERSION, or a store would pass old results for new ones.

``step_versions.json`` holds, per kind, the version and the hash of the sources that made it: the step's own module
and those it names in SOURCES, where a package stands for all that is in it. ``make step-versions`` writes it, once
the version was raised. Work on a version that no one has used outside may be written with
``make step-versions ARGS=--unreleased``.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import pytest

from edgejoule.kinds import Kinds, StepKind

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("step_versions.json")

DECIDE_NOTHING = (
    "edgejoule",
    "edgejoule.canonical",
    "edgejoule.errors",
    "edgejoule.job",
    "edgejoule.records",
    "edgejoule_agent.errors",
)
"""Modules that many steps import and none needs to name: what they change shows in the outputs' form."""


class Entry(TypedDict):
    """What is written down of one kind."""

    version: int
    sources_sha256: str


def source_of(module: str) -> Path:
    """The file of one of our modules, found without importing it."""
    (package,) = ROOT.glob(f"services/*/src/{module.partition('.')[0]}")
    path = package.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def sources_of(step: StepKind) -> list[Path]:
    """The files that decide what a step of this kind makes."""
    found = set()
    for path in map(source_of, (step.module, *step.sources)):
        found.update(path.parent.rglob("*.py") if path.name == "__init__.py" else [path])
    return sorted(found)


def entry_of(kind: str) -> Entry:
    """The version that the kind claims, and the hash of the sources that stand behind it."""
    step = KINDS[kind]
    digest = hashlib.sha256()
    for path in sources_of(step):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return {"version": step.version, "sources_sha256": digest.hexdigest()}


def written() -> dict[str, Entry]:
    entries: dict[str, Entry] = json.loads(RECORD.read_text(encoding="utf-8"))
    return entries


def our_imports(module: str) -> Iterator[str]:
    """Our own modules that a module imports, lazily too."""
    path = source_of(module)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if source_of_exists(name) else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name.startswith("edgejoule"))


def source_of_exists(module: str) -> bool:
    return module.startswith("edgejoule") and source_of(module).is_file()


def needed_by(module: str) -> set[str]:
    """Our modules that a step module leans on, directly or through others."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for name in our_imports(waiting.pop()):
            if name not in found and name not in DECIDE_NOTHING:
                found.add(name)
                waiting.append(name)
    return found - {module}


KINDS = Kinds()


@pytest.mark.parametrize("kind", sorted(KINDS.modules))
def test_version_is_raised_when_the_sources_changed(kind: str) -> None:
    now, before = entry_of(kind), written()[kind]
    if now["sources_sha256"] != before["sources_sha256"]:
        assert now["version"] != before["version"], (
            f"the sources of {kind} changed and its VERSION did not; raise it in {KINDS[kind].module}"
        )
    assert now == before, f"{kind} has a new version; write it down with: make step-versions"


@pytest.mark.parametrize("kind", sorted(KINDS.modules))
def test_sources_name_all_that_a_step_leans_on(kind: str) -> None:
    step = KINDS[kind]
    named = sources_of(step)
    assert not [module for module in sorted(needed_by(step.module)) if source_of(module) not in named]


def test_written_versions_are_of_kinds_that_exist() -> None:
    assert written().keys() == KINDS.modules.keys()


# --- make step-versions --------------------------------------------------------------------------


def released() -> dict[str, Entry]:
    """What the last tag holds; nothing before the first."""
    tag = subprocess.run(["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True)
    if tag.returncode:
        return {}
    name = f"{tag.stdout.strip()}:{RECORD.relative_to(ROOT).as_posix()}"
    entries: dict[str, Entry] = json.loads(subprocess.check_output(["git", "show", name], cwd=ROOT))
    return entries


def main() -> int:
    parser = argparse.ArgumentParser(description="Write down the versions and sources of the step kinds.")
    parser.add_argument("--unreleased", action="store_true", help="accept changed sources of a version no tag holds")
    unreleased = parser.parse_args().unreleased
    before = written() if RECORD.exists() else {}
    kept = released() if unreleased else before
    now = {kind: entry_of(kind) for kind in sorted(KINDS.modules)}
    stale = [
        kind
        for kind in now.keys() & kept.keys()
        if now[kind]["version"] == kept[kind]["version"] and now[kind] != kept[kind]
    ]
    if stale:
        print(f"Nothing written: the sources of {', '.join(sorted(stale))} changed; raise VERSION in each first.")
        return 1
    RECORD.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    print(f"{len(now)} kinds written to {RECORD.relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
