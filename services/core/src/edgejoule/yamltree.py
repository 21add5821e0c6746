"""YAML as plain values with the line of each, safe to read from anyone.

PyYAML's own loader forgets lines, keeps the last of two equal keys without a word, and follows
aliases until memory ends. This one does none of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgejoule.errors import SpecError

Location = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000


@dataclass
class Tree:
    """Plain values, and for each location where it was said: ``file:line`` or the command-line option."""

    value: Any
    origins: dict[Location, str]

    def where(self, location: Location) -> str:
        """Where ``location`` was said, or the nearest enclosing one that was."""
        while location not in self.origins:
            location = location[:-1]
        return self.origins[location]


def shown(value: Any) -> str:
    """A value for an error message: short, and in words where it is a container.

    >>> shown("x" * 50), shown([1, 2]), shown(None)
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'", 'a list of 2', 'nothing')
    """
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = str(value)
    text = text if len(text) <= 40 else text[:37] + "..."
    return repr(text) if isinstance(value, str) else text


def read_yaml(path: Path) -> Tree:
    """The YAML document in file ``path``.

    Raises:
        SpecError: the file cannot be read, is too large, or is not one well-formed YAML document.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise SpecError(f"{path}: is a folder; name the spec file in it") from None
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{path}: cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path}: is larger than {MAX_BYTES} bytes; a spec is a short text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text (byte {error.start + 1}); is it really a spec?") from None
    return parse_yaml(text, str(path), lines=True)


def parse_yaml(text: str, origin: str, *, lines: bool = False) -> Tree:
    """The YAML document in ``text``; ``origin`` names it in errors, with line numbers if ``lines``.

    Raises:
        SpecError: ``text`` is not one well-formed YAML document, repeats a key, or unfolds to too many values.
    """

    def where(mark: Any) -> str:
        return f"{origin}:{mark.line + 1}" if lines and mark is not None else origin

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = Tree(None, {(): origin})
        if root is not None:
            tree.value = _Builder(tree.origins, where).build(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(str(part) for part in (error.context, error.problem) if part)
        quote = "; inside { } or [ ], put ${NAME} in quotes" if mark and "${" in _line(text, mark.line) else ""
        raise SpecError(f"{where(mark)}: is not YAML: {said}{quote}") from None
    except yaml.reader.ReaderError as error:
        raise SpecError(f"{origin}: is not text: character #x{error.character:04x} at {error.position}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{origin}: is not YAML: {error}") from None
    except RecursionError:
        raise SpecError(f"{origin}: is nested too deeply to be a spec") from None
    return tree


def _line(text: str, index: int) -> str:
    return next(itertools.islice(text.splitlines(), index, None), "")


class _Builder:
    """Turns nodes into values, counting them as it goes."""

    def __init__(self, origins: dict[Location, str], where: Any) -> None:
        self._origins = origins
        self._where = where
        self._scalars = yaml.constructor.SafeConstructor()
        self._values = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, location: Location) -> Any:
        self._values += 1
        here = self._where(node.start_mark)
        if self._values > MAX_VALUES:
            raise SpecError(f"{here}: the aliases (*name) unfold to more than {MAX_VALUES} values")
        if id(node) in self._open:
            raise SpecError(f"{here}: an anchor (&name) contains itself")
        self._origins.setdefault(location, here)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return dict(self._entries(node, location))
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*location, index)) for index, item in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.remove(id(node))

    def _entries(self, node: yaml.MappingNode, location: Location) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            here = self._where(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError(f"{here}: a key must be a word, not a list or a mapping")
            key = key_node.value
            if key in seen:
                raise SpecError(f"{here}: the key {shown(key)} is there twice")
            seen.add(key)
            entry = (*location, key)
            self._origins[entry] = here
            yield key, self.build(value_node, entry)

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._scalars.construct_object(node)
        except (ValueError, OverflowError):
            raise SpecError(f"{self._where(node.start_mark)}: {shown(node.value)} is not a value") from None
