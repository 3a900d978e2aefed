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
from typing import Any, ClassVar, Final

import yaml

from lipwire.config.wording import shown
from lipwire.domain import InvalidInput, NotFound
from lipwire.domain.texts import decode_text

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 8
MAX_NODES: Final = 1_000_000

Place = int | str
"""Where a value was given: a line of the file, counted from 1, or the name of a variable."""

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster
_TEXT_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:str"})
"""Tags that leave a value the text that it is anyway."""
_NOT_IN_YAML: Final = yaml.reader.Reader.NON_PRINTABLE
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_HINTS: Final = {
    ("escape", "hex"): "; in double quotes a backslash has to be written twice, or as / in a path",
    ("mapping values are not allowed", "cannot start any token"): (
        "; a value with ': ' in it, or that begins with a sign, has to be in quotes"
    ),
}
"""What helps, by words in the reasons that PyYAML and libyaml give."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value of a YAML document, as the text that was written; ``text`` is None for YAML's
    null, and where a key has no value."""

    kind: ClassVar = "single value"
    text: str | None
    """None is YAML's null: the key is there and says nothing."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of a YAML document; ``items`` are its entries, in their order."""

    kind: ClassVar = "list"
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping of a YAML document. ``items`` are the values by key; ``key_places`` says where each
    key was given: a line of the file, counted from 1, or the name of an environment variable."""

    kind: ClassVar = "mapping"
    items: dict[str, Node]
    key_places: dict[str, Place]


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    ``place`` is where it was given: a line of the file, counted from 1, or the name of an
    environment variable; None where it is about the whole. ``message`` is one line with the value
    seen and the value allowed. As str the place comes first: "line 3: ...".
    """

    place: Place | None
    """None where it is about the whole."""
    message: str
    """One line with the value seen and the value allowed."""

    def __str__(self) -> str:
        if self.place is None:
            return self.message
        where = f"line {self.place}" if isinstance(self.place, int) else self.place
        return f"{where}: {self.message}"


def read_file(path: Path) -> bytes:
    """Return the bytes of the configuration file ``path``. Raises NotFound where it is not there,
    and InvalidInput where it is no file, cannot be read, or has more than 16 MiB (MAX_BYTES)."""
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
    """Return the mapping that ``data``, the bytes of a YAML file, contains, with its values as
    texts; an empty one where the file is empty. Returns None where the bytes are not YAML, contain
    something other than a mapping, or are nested too deep. A ``Problem`` is added to ``problems``
    for everything that is wrong; nothing is raised.

    A key that is given twice counts once, with its first value, and is a problem.
    """
    try:
        return _Reader(decode_text(data), problems).document()
    except UnicodeDecodeError as error:
        message = (
            f"byte {error.start} is not {error.encoding.upper()}; the file has to be UTF-8, or"
            " UTF-16 with a byte-order mark"
        )
        problems.append(Problem(data.count(b"\n", 0, error.start) + 1, message))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join((error.problem or error.context or "").split())[:200]
        if not isinstance(error, _Refused):
            hint = next((h for words, h in _HINTS.items() if any(w in reason for w in words)), "")
            reason = f"not YAML: {reason}{hint}"
        problems.append(Problem(mark.line + 1 if mark else None, reason))
    except yaml.reader.ReaderError as error:  # of a character, which YAML does not have
        line = decode_text(data).count("\n", 0, error.position) + 1
        problems.append(Problem(line if error.position >= 0 else None, f"not YAML: {error.reason}"))
    except yaml.YAMLError as error:
        problems.append(Problem(None, f"not YAML: {' '.join(str(error).split())[:120]}"))
    return None


def keys_begun(data: bytes) -> frozenset[str]:
    """Return the keys of the mapping that ``data``, the bytes of a YAML file, begins with, up to
    where it stops being YAML, without those whose value is null; an empty set where it begins with
    no mapping. Raises nothing: bytes that are no text, and characters that YAML does not have,
    count as letters."""
    try:
        text = decode_text(data)
    except UnicodeDecodeError as error:
        text = data.decode(error.encoding, "replace")
    found: set[str] = set()
    depth, key = 0, None
    key_next = True
    try:
        for event in yaml.parse(_NOT_IN_YAML.sub("?", text), Loader=_LOADER):
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif depth == 1 and isinstance(event, yaml.NodeEvent):
                scalar = event if isinstance(event, yaml.ScalarEvent) else None
                if key_next:
                    key = scalar.value if scalar else None
                    found |= {key} if key else set()
                elif key and scalar and _is_null(scalar):
                    found.discard(key)
                key_next = not key_next
            if isinstance(event, yaml.CollectionStartEvent):
                if not depth and not isinstance(event, yaml.MappingStartEvent):
                    break
                depth += 1
    except yaml.YAMLError:
        pass  # parse() says what is wrong
    return frozenset(found)


class _Refused(yaml.MarkedYAMLError):
    """It is YAML, and not taken here."""

    def __init__(self, event: Any, message: str) -> None:
        super().__init__(problem=message, problem_mark=event.start_mark)


class _Reader:
    def __init__(self, text: str, problems: list[Problem]) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._problems = problems
        self._anchors: dict[str, tuple[Node, int]] = {}  # a finished node, and its nodes in all
        self._nodes = 0

    def document(self) -> Mapping:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                begin, root = event, self._node(event, 1)
            elif isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise _Refused(event, "a second document begins; a file holds one")
        if root is None or root == Scalar(None):
            return Mapping({}, {})
        if isinstance(root, Mapping):
            return root
        message = f"the file holds a {root.kind}; it has to be a mapping of keys to values"
        raise _Refused(begin, message)

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            name = event.anchor or ""
            if event.anchor not in self._anchors:
                message = f"*{shown(name)} stands for nothing that is finished above it"
                raise _Refused(event, message)
            known, nodes = self._anchors[event.anchor]
            self._count(nodes, event)
            return known
        if depth > MAX_DEPTH:
            raise _Refused(event, f"values are nested {depth} deep; at most {MAX_DEPTH} are read")
        if event.tag not in _TEXT_TAGS:
            raise _Refused(event, f"the tag {shown(event.tag)} is not allowed; values are plain")
        before = self._nodes
        self._count(1, event)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(None if _is_null(event) else str(event.value))
        elif isinstance(event, yaml.SequenceStartEvent):
            items = self._until(yaml.SequenceEndEvent)
            node = Sequence(tuple(self._node(item, depth + 1) for item in items))
        else:
            node = self._mapping(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node, self._nodes - before
        return node

    def _mapping(self, depth: int) -> Mapping:
        items: dict[str, Node] = {}
        places: dict[str, Place] = {}
        merged: list[Mapping] = []
        for event in self._until(yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            problem = None
            if not isinstance(key, Scalar):
                problem = f"a key is a {key.kind}; keys are single words"
            elif key.text == "<<":
                sources = value.items if isinstance(value, Sequence) else (value,)
                merged += [source for source in sources if isinstance(source, Mapping)]
                if not all(isinstance(source, Mapping) for source in sources):
                    problem = "<< merges a mapping or a list of mappings, and this is neither"
            elif (name := "null" if key.text is None else key.text) in items:
                first = places[name]
                problem = f"{shown(name)} is given twice; it was first given in line {first}"
            else:
                items[name], places[name] = value, _line(event)
            if problem is not None:
                self._problems.append(Problem(_line(event), problem))
        for source in merged:
            for name, value in source.items.items():
                if name not in items:  # what is written here goes before what is merged
                    items[name], places[name] = value, source.key_places[name]
        return Mapping(items, places)

    def _until(self, end: type[yaml.Event]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _count(self, nodes: int, event: Any) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            message = f"more than {MAX_NODES} values with aliases written out; that is the most"
            raise _Refused(event, message)


def _is_null(event: Any) -> bool:
    return bool(event.implicit[0] and not event.style and event.value in _NULLS)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
