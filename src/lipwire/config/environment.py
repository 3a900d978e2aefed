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
from typing import Any, Final, Literal

from lipwire.config.document import Mapping, Problem, Scalar
from lipwire.config.wording import nearest, shown

Kind = Literal["inference", "compositing"]

OTHER: Final[dict[Kind, Kind]] = {"inference": "compositing", "compositing": "inference"}

PREFIX: Final = "LIPWIRE_"
SEPARATOR: Final = "__"
_OTHER_USES: Final = frozenset({"LIPWIRE_AVATARS", "LIPWIRE_DEBUG"})
_OF_ONE_PART: Final = ("LIPWIRE_MODELS_ROOT",)
_PATH_KEYS: Final = frozenset(
    {"models_root", "path", "model_path", "background_dir", "crop_rects_path"}
)


@dataclass(frozen=True, slots=True)
class Override:
    """A key that a variable sets."""

    variable: str
    key: str
    """With dots."""


def overlay(
    document: Mapping,
    environ: Environment[str, str],
    kind: Kind,
    known: dict[Kind, dict[str, Any]],
    problems: list[Problem],
) -> tuple[Mapping, tuple[Override, ...]]:
    """``document`` with the values of ``environ`` for the server ``kind``, and what they are.

    ``known`` holds the keys of each server: a key's name to the keys below it, or to None. Of
    ``models`` only what the document has can be set. An empty variable is one that is not there.
    """
    applied: dict[str, Override] = {}
    for variable, parts, special in _settings(environ, kind, known, problems):
        keys = _keys(parts, document)
        if not _has(known[kind], keys):
            if special or not _has(known[OTHER[kind]], keys):
                problems.append(Problem(variable, _unknown(keys, known[kind])))
            continue
        if keys[0] == "models" and keys[1] not in _model_names(document):
            problems.append(
                Problem(
                    variable, f"the file has no model {shown(keys[1])}; only its own can be set"
                )
            )
            continue
        text = environ[variable]
        if keys[-1] in _PATH_KEYS and not text.startswith("~"):
            text = str(Path.cwd() / text)  # a file's paths start at the file
        document = _with(document, keys, Scalar(text, variable))
        name = ".".join(keys)
        applied[name] = Override(variable, name)
    return document, tuple(applied.values())


def _settings(
    environ: Environment[str, str],
    kind: Kind,
    known: dict[Kind, dict[str, Any]],
    problems: list[Problem],
) -> Iterator[tuple[str, list[str], bool]]:
    """Variables that are meant as settings, with their parts, and whether they are for ``kind``
    alone; those come last."""
    special: list[tuple[str, list[str], bool]] = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or not environ[variable] or variable in _OTHER_USES:
            continue
        parts = variable.removeprefix(PREFIX).split(SEPARATOR)
        first = parts[0].lower()
        if len(parts) > 1 and first in known:
            if first == kind:
                special.append((variable, parts[1:], True))
        elif len(parts) > 1 or first in known[kind]:
            yield variable, parts, False
    yield from special


def doubts(environ: Environment[str, str], known: dict[Kind, dict[str, Any]]) -> list[str]:
    """Variables that look as if they were meant as settings and are none, one line each.

    They are no errors: Kubernetes makes variables of its own for a service named "lipwire-server",
    LIPWIRE_SERVER_PORT=tcp://10.0.0.1:50051 among them.
    """
    variables = {variable_of(name) for keys in known.values() for name in _flat(keys)}
    single = {variable.replace(SEPARATOR, "_"): variable for variable in variables}
    found = []
    for variable, value in sorted(environ.items()):
        if (
            not variable.startswith(PREFIX)
            or variable in _OTHER_USES | variables
            or SEPARATOR in variable
            or "://" in value
        ):
            continue
        meant = single.get(variable) or nearest(variable, _OF_ONE_PART, cutoff=0.9)
        if meant is not None:
            found.append(f"{variable} is no setting; did you mean {meant}?")
    return found


def variable_of(key: str) -> str:
    """ "server.port" as a variable."""
    return PREFIX + key.upper().replace(".", SEPARATOR)


def _keys(parts: list[str], document: Mapping) -> list[str]:
    keys = [part.lower() for part in parts]
    if len(keys) > 1 and keys[0] == "models":  # names keep their case
        names = {name.upper(): name for name in _model_names(document)}
        keys[1] = parts[1] if parts[1] in names.values() else names.get(parts[1].upper(), parts[1])
    return keys


def _model_names(document: Mapping) -> list[str]:
    models = document.items.get("models")
    return list(models.items) if isinstance(models, Mapping) else []


def _has(known: dict[str, Any] | None, keys: list[str]) -> bool:
    """Whether ``keys`` lead to a single value. "*" stands for any name."""
    for key in keys:
        if not known:
            return False
        if key not in known and "*" not in known:
            return False
        known = known[key] if key in known else known["*"]
    return known is None


def _unknown(keys: list[str], known: dict[str, Any]) -> str:
    flat = sorted(_flat(known))
    guess = nearest(".".join(keys), flat)
    hint = (
        f"the nearest is {variable_of(guess)}" if guess else "`lipwire config schema` has them all"
    )
    return f"no such setting; {hint}"


def _flat(known: dict[str, Any], before: str = "") -> list[str]:
    found = []
    for key, below in known.items():
        if below is None:
            found.append(before + key)
        elif "*" not in below:
            found += _flat(below, f"{before}{key}.")
    return found


def _with(node: Mapping, keys: list[str], value: Scalar) -> Mapping:
    """A copy of ``node`` with ``value`` at ``keys``; what stands in the way is replaced."""
    key, *below = keys
    if below:
        inner = node.items.get(key)
        if not isinstance(inner, Mapping):
            inner = Mapping({}, {}, value.place)
        new: Mapping | Scalar = _with(inner, below, value)
    else:
        new = value
    return Mapping(node.items | {key: new}, {key: value.place} | node.key_places, node.place)
