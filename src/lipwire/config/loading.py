"""From a file and the environment to a configuration, or to everything that is wrong with it.

Of two values for one key, the environment's goes before the file's, and the file's before the
default.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping as Environment
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError

from lipwire.config.compositing import CompositingConfig
from lipwire.config.document import (
    Mapping,
    Node,
    Place,
    Problem,
    Scalar,
    Sequence,
    empty_document,
    parse,
    read_file,
)
from lipwire.config.environment import OTHER, Kind, Override, doubts, overlay
from lipwire.config.inference import InferenceConfig
from lipwire.config.paths import EXPLAINED
from lipwire.config.schema import ANY_NAME, CONFIGS, keys, tree
from lipwire.config.settings import ServerConfig
from lipwire.config.wording import nearest, shown
from lipwire.domain import InvalidInput

_logger = logging.getLogger("lipwire.config")

C = TypeVar("C", bound=ServerConfig)


@dataclass(frozen=True, slots=True)
class Checked(Generic[C]):
    """A configuration, or what is wrong with it."""

    config: C | None
    """None exactly when there are problems."""
    problems: tuple[Problem, ...]
    """In the order of the file, then the environment."""
    overrides: tuple[Override, ...]
    """What the environment sets."""
    doubts: tuple[str, ...]
    """Variables that look like settings and are none, one line each."""


def load_inference_config(path: Path | None, environ: Environment[str, str]) -> InferenceConfig:
    """The inference server's configuration: file ``path``, or the defaults without one, under the
    overrides in ``environ`` (``os.environ``).

    Raises NotFound for a file that is not there, and InvalidInput with the first problem, which
    names the line.
    """
    return cast(InferenceConfig, _load(path, environ, "inference"))


def load_compositing_config(path: Path | None, environ: Environment[str, str]) -> CompositingConfig:
    """As ``load_inference_config``, for the compositing server."""
    return cast(CompositingConfig, _load(path, environ, "compositing"))


def check_config(
    path: Path | None, environ: Environment[str, str], kind: Kind
) -> Checked[ServerConfig]:
    """Everything that is wrong with a configuration at once.

    Raises NotFound or InvalidInput only where there is no file to read.
    """
    problems: list[Problem] = []
    document: Mapping | None = empty_document()
    base = Path.cwd()
    if path is not None:
        document = parse(read_file(path), problems)
        base = path.absolute().parent
    if document is None:
        return Checked(None, tuple(problems), (), ())
    known = {each: tree(each) for each in CONFIGS}
    document, overrides = overlay(document, environ, kind, known, problems)
    config: ServerConfig | None = None
    try:
        config = CONFIGS[kind].model_validate(_values(document), context={"base": base})
    except ValidationError as error:
        seen: set[tuple[str, Place | None]] = set()
        for detail in error.errors(include_url=False):
            found = _locate(document, detail["loc"])
            problem = _problem(found, detail, kind)
            if (found.name, problem.place) not in seen:
                seen.add((found.name, problem.place))
                problems.append(problem)
    problems.sort(key=lambda p: (isinstance(p.place, str), p.place if p.place is not None else 0))
    unclear = tuple(doubts(environ, known))
    return Checked(None if problems else config, tuple(problems), overrides, unclear)


def detect_kind(path: Path) -> Kind | None:
    """Which server the file ``path`` is for, by the keys that only one of them has; None where they
    do not tell. Raises NotFound or InvalidInput where there is no file to read."""
    document = parse(read_file(path), [])
    if document is None:
        return None
    used = _names(document, tree("inference")) | _names(document, tree("compositing"))
    mine = {kind: sum(name in keys(kind) for name in used) for kind in CONFIGS}
    if mine["inference"] != mine["compositing"]:
        return max(CONFIGS, key=lambda kind: mine[kind])
    named = [kind for kind in CONFIGS if kind in path.absolute().as_posix().lower()]
    return named[0] if len(named) == 1 else None


def _load(path: Path | None, environ: Environment[str, str], kind: Kind) -> ServerConfig:
    checked = check_config(path, environ, kind)
    for doubt in checked.doubts:
        _logger.warning("%s", doubt)
    if checked.config is not None:
        return checked.config
    first, more = checked.problems[0], len(checked.problems) - 1
    where = f"{path} " if path is not None and not isinstance(first.place, str) else ""
    rest = f" (and {more} more; see lipwire config check)" if more else ""
    raise InvalidInput(f"{where}{first}{rest}")


def _values(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [_values(item) for item in node.items]
    return {key: _values(value) for key, value in node.items.items()}


def _names(node: Node, known: dict[str, Any] | None) -> set[str]:
    """The names, with dots, of the keys in ``node``; a model's name is ``*``."""
    if not isinstance(node, Mapping):
        return set()
    found = set()
    for key, value in node.items.items():
        below = (known or {}).get(key)
        name = key
        if known and ANY_NAME in known:
            below, name = known[ANY_NAME], ANY_NAME
        found.add(name)
        found |= {f"{name}.{inner}" for inner in _names(value, below)}
    return found


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    """The key with dots, as far as the document has it."""
    schema_name: str
    """The same with ``*`` for a model's name."""
    place: Place | None
    node: Node


def _locate(document: Mapping, loc: tuple[int | str, ...]) -> _Found:
    """Where a problem is. Its path may go on with parts that are no keys: branches of a union."""
    node: Node = document
    parts: list[str] = []
    place: Place | None = None
    for part in loc:
        if isinstance(node, Mapping) and isinstance(part, str) and part in node.items:
            place = node.key_places[part]
            node = node.items[part]
            parts.append(part)
        else:
            break
    if parts:
        place = node.place if isinstance(node.place, str) else place
    generic = [ANY_NAME if n == 1 and parts[0] == "models" else p for n, p in enumerate(parts)]
    return _Found(".".join(parts), ".".join(generic), place, node)


def _problem(found: _Found, detail: Any, kind: Kind) -> Problem:
    key = keys(kind).get(found.schema_name)
    if detail["type"] == EXPLAINED:
        message = f"{found.name}: {detail['msg']}"
    elif detail["type"] == "extra_forbidden":
        message = _unknown(found, kind)
    elif detail["loc"][-1] == "[key]":
        message = (
            f"the name {shown(found.name.partition('.')[2])} is not allowed; a name has 1 to 128 of"
            " A-Z a-z 0-9 . _ - and begins with a letter or digit"
        )
    elif key is None or key.section:
        name = found.name or "the file"
        message = f"{name} is {_seen(found.node)}; it has to be a mapping of keys to values"
    else:
        message = f"{found.name} is {_seen(found.node)}; allowed is {key.allowed}"
    return Problem(found.place, message)


def _unknown(found: _Found, kind: Kind) -> str:
    """What is said of a key that this file has no use for."""
    above, _, key = found.schema_name.rpartition(".")
    elsewhere = keys(OTHER[kind])
    if found.schema_name in elsewhere:
        return (
            f"{found.name} is a key of the {OTHER[kind]} server; this file is the {kind} server's"
        )
    names = list(keys(kind))
    siblings = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == above]
    if guess := nearest(key, siblings):
        hint = f"did you mean {guess}?"
    elif same := [name for name in names if name.rpartition(".")[2] == key]:
        hint = f"did you mean {same[0].replace(ANY_NAME, 'NAME')}?"
    else:
        hint = f"known are {', '.join(siblings)}"
    inside = f" in {found.name.rpartition('.')[0]}" if above else ""
    return f"unknown key {shown(key)}{inside}; {hint}"


def _seen(node: Node) -> str:
    if isinstance(node, Scalar):
        return "empty" if node.text is None else shown(node.text)
    return "a list" if isinstance(node, Sequence) else "a mapping"
