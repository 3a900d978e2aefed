"""A YAML file as a tree of texts: what was written, and in which line.

The file is somebody else's, so nothing is constructed from it. It is read event by event into
scalars that stay texts, mappings and lists: which type a text has to be is for the schema to say,
and so `no`, `1:30` and `2024-01-01` mean what they look like. What is bounded: bytes, depth, and
nodes with every alias counted as if it were written out. Tags, a second document, a key given
twice and an alias of what it stands in are errors; merging (``<<: *defaults``) works.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from lipwire.config.wording import shown
from lipwire.domain import InvalidInput, NotFound

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 8
MAX_NODES: Final = 1_000_000

Place = int | str
"""Where a value was given: a line of the file, counted from 1, or the name of a variable."""

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str | None
    """None is YAML's null: the key is there and says nothing."""
    place: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Mapping:
    items: dict[str, Node]
    key_places: dict[str, Place]
    place: Place


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration."""

    place: Place | None
    """None where it is about the whole."""
    message: str
    """One line with the value seen and the value allowed."""

    def __str__(self) -> str:
        if self.place is None:
            return self.message
        where = f"line {self.place}" if isinstance(self.place, int) else self.place
        return f"{where}: {self.message}"


def empty_document() -> Mapping:
    """What a file without a key holds."""
    return Mapping({}, {}, 1)


def read_file(path: Path) -> bytes:
    """The bytes of ``path``. Raises NotFound, or InvalidInput for what is no file or too large."""
    try:
        # Without waiting for whoever would write into a pipe of this name.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"{path} is not a file; a configuration is a YAML file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"no configuration at {path}; there is no such file") from None
    except IsADirectoryError:
        raise InvalidInput(f"{path} is a folder; a configuration is a YAML file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"{path} cannot be read; {reason.lower()}") from None
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{path} has more than {MAX_BYTES} bytes; that is the most that is read")
    return data


def parse(data: bytes, problems: list[Problem]) -> Mapping | None:
    """The mapping that a YAML document holds; None where it cannot be read at all.

    A key that is given twice counts once, with its first value, and is a problem.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.append(Problem(line, f"byte {error.start} is not UTF-8; the file has to be"))
        return None
    try:
        node = _Reader(text, problems).document()
    except _Refused as refused:
        problems.append(refused.problem)
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join((error.problem or error.context or "").split())
        problems.append(Problem(mark.line + 1 if mark else None, f"not YAML: {reason}"))
        return None
    except yaml.reader.ReaderError as error:
        place = text.count("\n", 0, error.position) + 1 if error.position >= 0 else None
        problems.append(Problem(place, f"not YAML: {error.reason}"))
        return None
    except yaml.YAMLError as error:
        problems.append(Problem(None, f"not YAML: {' '.join(str(error).split())[:120]}"))
        return None
    if node is None or (isinstance(node, Scalar) and node.text is None):
        return empty_document()
    if not isinstance(node, Mapping):
        kind = "list" if isinstance(node, Sequence) else "single value"
        problems.append(
            Problem(
                node.place, f"the file holds a {kind}; it has to be a mapping of keys to values"
            )
        )
        return None
    return node


class _Refused(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(line, message)


class _Reader:
    def __init__(self, text: str, problems: list[Problem]) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._problems = problems
        self._anchors: dict[str, tuple[Node, int]] = {}  # a finished node, and its nodes in all
        self._nodes = 0

    def document(self) -> Node | None:
        node = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(_line(event), "a second document begins; a file holds one")
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event, 1)
        return node

    def _node(self, event: Any, depth: int) -> Node:
        line = _line(event)
        node: Node
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _Refused(
                    line, f"*{event.anchor} stands for nothing that is finished above it"
                )
            known, nodes = self._anchors[event.anchor]
            self._count(nodes, line)
            return known
        if depth > MAX_DEPTH:
            raise _Refused(line, f"values are nested {depth} deep; at most {MAX_DEPTH} are read")
        if event.tag is not None and event.tag != "!":
            raise _Refused(
                line, f"the tag {shown(str(event.tag))} is not allowed; values are plain"
            )
        before = self._nodes
        self._count(1, line)
        if isinstance(event, yaml.ScalarEvent):
            null = event.implicit[0] and not event.style and event.value in _NULLS
            node = Scalar(None if null else str(event.value), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Sequence(tuple(self._sequence(depth)), line)
        else:
            node = self._mapping(line, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node, self._nodes - before
        return node

    def _sequence(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _mapping(self, line: int, depth: int) -> Mapping:
        found = Mapping({}, {}, line)
        merged: list[tuple[str, Node, Place]] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key_line = _line(event)
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar):
                kind = "list" if isinstance(key, Sequence) else "mapping"
                self._problems.append(
                    Problem(key_line, f"a key is a {kind}; keys are single words")
                )
            elif key.text == "<<":
                merged += self._merged(value, key_line)
            elif (name := "null" if key.text is None else key.text) in found.items:
                first = found.key_places[name]
                self._problems.append(
                    Problem(
                        key_line,
                        f"{shown(name)} is given twice; it was first given in line {first}",
                    )
                )
            else:
                found.items[name] = value
                found.key_places[name] = key_line
        for name, value, place in merged:  # what is written here goes before what is merged
            if name not in found.items:
                found.items[name] = value
                found.key_places[name] = place
        return found

    def _merged(self, value: Node, line: int) -> Iterator[tuple[str, Node, Place]]:
        for node in value.items if isinstance(value, Sequence) else (value,):
            if isinstance(node, Mapping):
                for name, item in node.items.items():
                    yield name, item, node.key_places[name]
            else:
                self._problems.append(
                    Problem(line, "<< merges a mapping or a list of mappings, and this is neither")
                )

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _Refused(
                line, f"more than {MAX_NODES} values with aliases written out; that is the most"
            )


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
