"""The documentation names all that there is, and nothing it points at is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edgejoule import reference, schemas
from edgejoule.cli import make_app
from edgejoule.generated import stale
from edgejoule_analyst import audit_page
from edgejoule_trainer import detector_table

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

CALL = re.compile(r"(?:`|^ {4})edgejoule ((?:[a-z]+ ?)+)([^`\n#]*)", re.MULTILINE)
VARIABLE = re.compile(r"\bEDGEJOULE_[A-Z0-9_]*[A-Z0-9]\b")


def text_of(*names: str) -> str:
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it, ``edgejoule data coco``."""
    waiting: list[tuple[str, Any]] = [("edgejoule", typer.main.get_command(make_app(lambda name: True)))]
    while waiting:
        words, command = waiting.pop()
        yield words, command
        waiting.extend((f"{words} {name}", inner) for name, inner in getattr(command, "commands", {}).items())


COMMANDS = dict(commands())


def test_generated_pages_are_current() -> None:
    old = stale([*reference.files(), *schemas.files(), *detector_table.files(), *audit_page.files()])
    assert not old, "run make docs"


def test_environment_variables_are_documented() -> None:
    read = {
        name
        for pattern in ("services/*/src/**/*.py", "tests/**/*.py", "benchmarks/*.py", ".ci/run")
        for path in ROOT.glob(pattern)
        for name in VARIABLE.findall(path.read_text(encoding="utf-8"))
    }
    documented = set(VARIABLE.findall(text_of("docs/reference/settings.md")))
    assert read == documented


def test_make_targets_and_settings_are_documented() -> None:
    makefile = text_of("Makefile")
    targets = set(re.findall(r"^\.PHONY: ([\w-]+)$", makefile, re.MULTILINE))
    settings = set(re.findall(r"^([A-Z_0-9]+) \?=", makefile, re.MULTILINE))
    page = text_of("CONTRIBUTING.md")
    assert targets == set(re.findall(r"^\| `make ([\w-]+)`", page, re.MULTILINE))
    assert not [name for name in settings if f"`{name}`" not in page]


def test_make_help_lists_every_target() -> None:
    makefile = text_of("Makefile")
    targets = re.findall(r"^\.PHONY: ([\w-]+)$", makefile, re.MULTILINE)
    assert targets == re.findall(r"^([\w-]+):.* ## .+$", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if "://" not in link]
    assert not [link for link in local if link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_make_commands_in_the_text_exist(page: Path) -> None:
    targets = set(re.findall(r"^\.PHONY: ([\w-]+)$", text_of("Makefile"), re.MULTILINE))
    asked = re.findall(r"(?:`|^ {4})make ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(asked) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_edgejoule_commands_in_the_text_exist(page: Path) -> None:
    for words, rest in CALL.findall(page.read_text(encoding="utf-8")):
        known = [w for w in COMMANDS if f"edgejoule {words} ".startswith(f"{w} ")]
        command = COMMANDS[max(known, key=len)]
        assert command is not COMMANDS["edgejoule"], f"there is no command edgejoule {words}"
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert set(re.findall(r"(?<![\w-])--[a-z-]+", rest)) <= flags | {"--help"}


def test_decisions_are_listed() -> None:
    index = text_of("docs/README.md")
    assert not [page.name for page in (ROOT / "docs" / "adr").glob("*.md") if f"(adr/{page.name})" not in index]


def test_adrs_are_numbered_without_gaps() -> None:
    numbers = sorted(int(page.name[:4]) for page in (ROOT / "docs" / "adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
