"""From a file and the environment to a configuration, or to everything that is wrong with it.

Of two values for one key, the environment's goes before the file's, and the file's before the
default.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from collections.abc import Mapping as Environment
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lipwire.config.accepted import translate
from lipwire.config.compositing import CompositingConfig
from lipwire.config.document import (
    Mapping,
    Node,
    Place,
    Problem,
    Scalar,
    Sequence,
    parse,
    read_file,
)
from lipwire.config.environment import Override, doubts, overlay
from lipwire.config.inference import InferenceConfig
from lipwire.config.schema import ANY_NAME, CONFIGS, OTHER, Kind, generic, keys
from lipwire.config.settings import ServerConfig
from lipwire.config.values import Origin, resolve
from lipwire.config.wording import nearest, shown
from lipwire.domain import InvalidInput
from lipwire.domain.names import NAME_RULE

_logger = logging.getLogger("lipwire.config")


@dataclass(frozen=True, slots=True)
class Checked:
    """What ``check_config`` found: a configuration, or what is wrong with it.

    ``config`` is None exactly where there are ``problems``: those of the file in its order, then
    those of the environment. ``overrides`` are the keys that environment variables set. ``doubts``
    are warnings, one line each, about environment variables that look like settings and are none.
    """

    config: ServerConfig | None
    """None exactly when there are problems."""
    problems: tuple[Problem, ...]
    """In the order of the file, then the environment."""
    overrides: tuple[Override, ...] = ()
    """What the environment sets."""
    doubts: tuple[str, ...] = ()
    """Variables that look like settings and are none, one line each."""


def load_inference_config(path: Path | None, environ: Environment[str, str]) -> InferenceConfig:
    """Return the inference server's configuration: that of the YAML file ``path``, or the defaults
    where it is None, in which variables of ``environ`` (``os.environ``), such as
    LIPWIRE_SERVER__PORT, replace values. Variables that are probably misspelt are named in the log.

    Raises NotFound for a file that is not there, and InvalidInput where it cannot be read or
    something in it or in a variable is wrong: the message is the first problem, with its line.
    """
    return cast(InferenceConfig, _load(path, environ, "inference"))


def load_compositing_config(path: Path | None, environ: Environment[str, str]) -> CompositingConfig:
    """Return the compositing server's configuration: that of the YAML file ``path``, or the
    defaults where it is None, in which variables of ``environ`` (``os.environ``), such as
    LIPWIRE_SERVER__PORT, replace values. Variables that are probably misspelt are named in the log.

    Raises NotFound for a file that is not there, and InvalidInput where it cannot be read or
    something in it or in a variable is wrong: the message is the first problem, with its line.
    """
    return cast(CompositingConfig, _load(path, environ, "compositing"))


def _load(path: Path | None, environ: Environment[str, str], kind: Kind) -> ServerConfig:
    checked = check_config(path, environ, kind)
    for doubt in checked.doubts:
        _logger.warning("%s", doubt)
    if checked.config is not None:
        return checked.config
    first, *more = checked.problems
    where = f"{path} " if path is not None and not isinstance(first.place, str) else ""
    rest = f" (and {len(more)} more; see lipwire config check)" if more else ""
    raise InvalidInput(f"{where}{first}{rest}")


def check_config(path: Path | None, environ: Environment[str, str], kind: Kind) -> Checked:
    """Return a ``Checked``: its ``config`` is the configuration of the server ``kind``
    ("inference" or "compositing"), or None where something is wrong with it, and then its
    ``problems`` say all that is.

    The configuration is that of the YAML file ``path`` (None: the defaults), in which variables of
    ``environ`` (``os.environ``), such as LIPWIRE_SERVER__PORT, replace values. Raises NotFound
    where the file is not there and InvalidInput where it cannot be read.
    """
    problems: list[Problem] = []
    notes: dict[str, None] = {}
    written = Mapping({}, {}) if path is None else parse(read_file(path), problems)
    if written is None:
        return Checked(None, tuple(problems))
    written = translate(written, problems, notes)
    document, overrides = overlay(written, environ, kind, problems)
    folder = Path.cwd() if path is None else path.absolute().parent
    origin = Origin(folder, _root(document, folder), _text(written, "models_root"), tuple(notes))
    config = None
    try:
        config = CONFIGS[kind].model_validate(_values(document), context=origin)
    except ValidationError as error:
        found: dict[tuple[str, Place | None], Problem] = {}
        for detail in error.errors(include_url=False):
            name, problem = _problem(document, detail, kind)
            found.setdefault((name, problem.place), problem)  # each type of a union has its own
        problems += found.values()
    problems.sort(key=lambda p: (isinstance(p.place, str), p.place if p.place is not None else 0))
    return Checked(None if problems else config, tuple(problems), overrides, tuple(doubts(environ)))


def detect_kind(path: Path) -> Kind | None:
    """Return which server the configuration file ``path`` is for, "inference" or "compositing": the
    one that has more of the file's keys, or, where both have as many, the one whose word appears in
    the absolute path. Returns None where neither decides it, or the file is not YAML.

    Raises NotFound where the file is not there and InvalidInput where it cannot be read.
    """
    document = parse(read_file(path), [])
    if document is None:
        return None
    used = set(_names(translate(document, [], {})))
    inference, compositing = (len(used & keys(kind).keys()) for kind in CONFIGS)
    if inference != compositing:
        return "inference" if inference > compositing else "compositing"
    named = [kind for kind in CONFIGS if kind in path.absolute().as_posix().lower()]
    return named[0] if len(named) == 1 else None


def _names(node: Node, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all keys in ``node``, as ``keys`` has them."""
    if isinstance(node, Mapping):
        for key, value in node.items.items():
            yield generic(path := (*above, key))
            yield from _names(value, path)


def _values(node: Node) -> Any:
    """What pydantic is given: a key that says nothing is one left out."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [_values(item) for item in node.items]
    values = {key: _values(item) for key, item in node.items.items()}
    return {key: value for key, value in values.items() if value is not None}


def _root(document: Mapping, folder: Path) -> Path | None:
    try:
        return resolve(_text(document, "models_root") or "", folder)
    except ValueError:
        return None  # its own check says what is wrong


def _text(document: Mapping, key: str) -> str | None:
    node = document.items.get(key)
    return node.text if isinstance(node, Scalar) else None


def _problem(document: Mapping, detail: ErrorDetails, kind: Kind) -> tuple[str, Problem]:
    """The name of the key that pydantic finds wrong, and what people are told."""
    node: Node = document
    path: list[str] = []
    place: Place | None = None
    for part in detail["loc"]:  # which may go on with parts that are no keys: branches of a union
        if not (isinstance(node, Mapping) and isinstance(part, str) and part in node.items):
            break
        place, node = node.key_places[part], node.items[part]
        path.append(part)
    left = detail["loc"][len(path) :]
    if isinstance(node, Sequence) and left and isinstance(left[0], int):
        node = node.items[left[0]]  # the wrong one of a list
    name, key = ".".join(path), keys(kind).get(generic(path))
    if detail["type"] == "extra_forbidden":
        message = _unknown(path, kind)
    elif left == ("[key]",):
        message = f"the name {shown(path[-1])} is not allowed; a name has {NAME_RULE}"
    elif key is not None and not key.section:
        seen = "not as it has to be" if key.secret else _seen(node)
        message = f"{name} is {seen}; allowed is {key.allowed}"
    elif detail["type"] == "value_error":
        message = f"{name}: {detail['ctx']['error']}"
    else:
        message = f"{name} is {_seen(node)}; it has to be a mapping of keys to values"
    return name, Problem(place, message)


def _unknown(path: list[str], kind: Kind) -> str:
    """What is said of a key that this file has no use for."""
    *above, key = path
    if generic(path) in keys(OTHER[kind]) and "." not in key:  # "server.port: 1" is one key
        name = ".".join(path)
        return f"{name} is a key of the {OTHER[kind]} server; this file is the {kind} server's"
    names = {name: name.rpartition(".") for name in keys(kind)}
    siblings = [last for before, _, last in names.values() if before == generic(above)]
    if guess := nearest(key, siblings):
        hint = f"did you mean {guess}?"
    elif same := [name for name, (_, _, last) in names.items() if last == key]:
        hint = f"did you mean {same[0].replace(ANY_NAME, 'NAME')}?"
    else:
        hint = f"known are {', '.join(siblings)}"
    inside = f" in {'.'.join(above)}" if above else ""
    return f"unknown key {shown(key)}{inside}; {hint}"


def _seen(node: Node) -> str:
    if isinstance(node, Scalar):
        return "empty" if node.text is None else shown(node.text)
    return f"a {node.kind}"
