"""Settings from the environment, laid over those of the file.

``LIPWIRE_SERVER__PORT`` is ``server.port``: the key in capitals, two underscores for each dot.
Where both servers read one environment, ``LIPWIRE_INFERENCE__SERVER__PORT`` and
``LIPWIRE_COMPOSITING__SERVER__PORT`` are for one of them and go before the general form. What is a
key of the other server alone is passed over; what is a key of neither is a problem, as in a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Environment
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.config.document import Mapping, Node, Problem, Scalar
from lipwire.config.schema import CONFIGS, OTHER, Kind, is_setting, keys, settings
from lipwire.config.values import FILE_KEYS
from lipwire.config.wording import nearest, shown

PREFIX: Final = "LIPWIRE_"
SEPARATOR: Final = "__"
_OTHER_USES: Final = frozenset({"LIPWIRE_AVATARS", "LIPWIRE_DEBUG"})
_OF_ONE_PART: Final = ("LIPWIRE_MODELS_ROOT", "LIPWIRE_ALLOW_LINKS_OUTSIDE")


@dataclass(frozen=True, slots=True)
class Override:
    """One setting that comes from the environment: ``variable`` is the name of the environment
    variable, ``key`` the key that it sets ("server.port")."""

    variable: str
    key: str
    """With dots."""


def overlay(
    document: Mapping, environ: Environment[str, str], kind: Kind, problems: list[Problem]
) -> tuple[Mapping, tuple[Override, ...]]:
    """Return (copy, overrides): a copy of ``document`` in which values of environment variables
    replace those of the file, and the variables that did so with the keys that they set.
    LIPWIRE_SERVER__PORT sets ``server.port``, and so on.

    ``environ`` has the variables' values by name, such as ``os.environ``; ``kind`` is the server
    whose configuration it is. Keys of ``models`` can be set only for models that ``document`` has.
    An empty variable counts as not set. A relative path in a variable begins at the current folder.
    What is wrong, such as a variable for a key that no server has, is added to ``problems``; a
    variable for a key that only other kinds of servers have is ignored.
    """
    models = document.items.get("models")
    names = list(models.items) if isinstance(models, Mapping) else []
    by_capitals = {name.upper(): name for name in names} | {name: name for name in names}
    applied: dict[str, Override] = {}
    for variable, alone, parts in _variables(environ, kind):
        path = [part.lower() for part in parts]
        if path[0] == "models" and len(path) > 1:  # names keep their case
            path[1] = by_capitals.get(parts[1]) or by_capitals.get(parts[1].upper(), parts[1])
        if not is_setting(kind, path):
            if alone or not is_setting(OTHER[kind], path):
                problems.append(Problem(variable, _unknown(".".join(path), kind)))
        elif path[0] == "models" and path[1] not in names:
            message = f"the file has no model {shown(path[1])}; only its own can be set"
            problems.append(Problem(variable, message))
        else:
            text = environ[variable]
            is_url = path[-1] == "models_root" and "://" in text
            named = path[-1] in ("models_root", *FILE_KEYS) and not is_url
            if named and not text.startswith("~"):
                text = str(Path.cwd() / text)  # a file's paths start at the file
            document = _with(document, path, text, variable)
            applied[".".join(path)] = Override(variable, ".".join(path))
    return document, tuple(applied.values())


def _variables(environ: Environment[str, str], kind: Kind) -> Iterator[tuple[str, bool, list[str]]]:
    """The variables that are meant as settings, whether for ``kind`` alone, and their parts; those
    for it alone come last."""
    alone = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or not text or variable in _OTHER_USES:
            continue
        first, *parts = variable.removeprefix(PREFIX).split(SEPARATOR)
        if parts and first.lower() in CONFIGS:
            if first.lower() == kind:
                alone.append((variable, True, parts))
        elif parts or first.lower() in keys(kind):
            yield variable, False, [first, *parts]
    yield from alone


def doubts(environ: Environment[str, str]) -> list[str]:
    """Return a warning, one line, for each variable of ``environ`` (values by name, such as
    ``os.environ``) that is probably a misspelt setting, such as LIPWIRE_SERVER_PORT with one
    underscore too few; an empty list where there is none.

    They are no errors, because Kubernetes sets variables of its own for a service named
    "lipwire-server", such as LIPWIRE_SERVER_PORT=tcp://10.0.0.1:50051. Variables whose values
    contain "://" are ignored.
    """
    variables = {_variable_of(name) for kind in CONFIGS for name in settings(kind)}
    meant = {variable.replace(SEPARATOR, "_"): variable for variable in variables}
    found = []
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or SEPARATOR in variable or "://" in value:
            continue
        if variable in _OTHER_USES | variables:
            continue
        guess = meant.get(variable) or nearest(variable, _OF_ONE_PART, cutoff=0.9)
        if guess is not None:
            found.append(f"{variable} is no setting; did you mean {guess}?")
    return found


def _variable_of(key: str) -> str:
    """ "server.port" as a variable."""
    return PREFIX + key.upper().replace(".", SEPARATOR)


def _unknown(key: str, kind: Kind) -> str:
    guess = nearest(key, sorted(settings(kind)))
    hint = (
        f"the nearest is {_variable_of(guess)}" if guess else "`lipwire config schema` has them all"
    )
    return f"no such setting; {hint}"


def _with(node: Node | None, path: list[str], text: str, variable: str) -> Mapping:
    """A copy of ``node`` with ``text`` at ``path``; what stands in the way is replaced."""
    items, places = (node.items, node.key_places) if isinstance(node, Mapping) else ({}, {})
    key, *below = path
    if not below or not isinstance(items.get(key), Mapping):
        places = places | {key: variable}
    new = _with(items.get(key), below, text, variable) if below else Scalar(text)
    return Mapping(items | {key: new}, places)
