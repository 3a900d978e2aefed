"""The configurations described: for messages, editors, the example file and the documentation.

Everything comes from the classes; nothing is said twice.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, get_args, get_origin

from lipwire.config.compositing import CompositingConfig
from lipwire.config.inference import InferenceConfig
from lipwire.config.section import Section
from lipwire.config.settings import ServerConfig
from lipwire.config.wording import listed

Kind = Literal["inference", "compositing"]

CONFIGS: Final[dict[Kind, type[ServerConfig]]] = {
    "inference": InferenceConfig,
    "compositing": CompositingConfig,
}
OTHER: Final[dict[Kind, Kind]] = {"inference": "compositing", "compositing": "inference"}
ANY_NAME: Final = "*"
"""Stands for a model's name in a key: ``models.*.path``."""

_WIDTH: Final = 96
_MODEL_EXAMPLE: Final = {
    "path": "avatars/anna",
    "model_path": "avatars/anna/checkpoint/model_best.onnx",
    "background_dir": "avatars/anna/frames",
    "crop_rects_path": "avatars/anna/crop_rects.json",
    "audio_encoder_path": "avatars/anna/checkpoint/audio_encoder.onnx",
    "num_frames": "523",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a configuration, described for documentation and messages.

    ``name`` is the whole name ("server.port"). ``allowed`` says in words which values it can have,
    ``meaning`` in sentences, on one line, what it means. ``default`` is the default as it is
    written in YAML; None where there is none. ``section`` says whether it holds other keys,
    ``secret`` whether its value is never shown.
    """

    name: str  # with dots: ``server.port``
    allowed: str  # the values it can have, in words
    default: str | None  # as it is written in YAML; None where there is none
    meaning: str  # in sentences, on one line
    section: bool  # whether it holds other keys
    secret: bool = False  # whether its value is shown to nobody


@cache
def json_schema(kind: Kind) -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12) of the configuration file of the server ``kind``, as a
    dictionary for ``json.dumps``; it refers to no other schema. Each call returns the same object,
    which must not be changed."""
    schema: dict[str, Any] = json.loads(
        json.dumps(CONFIGS[kind].model_json_schema()), object_hook=_as_the_loader_has_it
    )
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return schema | {"$schema": dialect, "title": f"Lipwire {kind} server"}


def _as_the_loader_has_it(node: dict[str, Any]) -> dict[str, Any]:
    """``node`` of a JSON Schema with descriptions on one line and null wherever a key may be left
    without a value."""
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].split())
    for where in node.keys() & {"properties", "patternProperties"}:
        node[where] = {name: _or_null(part) for name, part in node[where].items()}
    return node


def _or_null(part: dict[str, Any]) -> dict[str, Any]:
    about = ("title", "description", "default", "allowed")
    outside = {key: part[key] for key in about if part.get(key) is not None}
    inside = {key: value for key, value in part.items() if key not in about}
    options = [option for option in inside.pop("anyOf", [inside]) if option != {"type": "null"}]
    return {"anyOf": [*options, {"type": "null"}], **outside}


@cache
def keys(kind: Kind) -> dict[str, Key]:
    """Return all keys of the file of the server ``kind``, sections too, by name (``server.port``,
    ``models.*.path``), in the order in which they are explained: those of sections that only this
    server has, then those that both have. Each call returns the same object, which must not be
    changed."""
    found = {key.name: key for key in _walk(CONFIGS[kind], json_schema(kind), "")}
    shared = ServerConfig.model_fields
    return dict(sorted(found.items(), key=lambda item: item[0].partition(".")[0] in shared))


def generic(path: Sequence[str]) -> str:
    """Return the name that ``keys`` has for the key at ``path`` in a file, the parts of the key's
    name. A model's name becomes ``*``: ("models", "anna", "path") gives "models.*.path"."""
    if len(path) > 1 and path[0] == "models":
        path = ["models", ANY_NAME, *path[2:]]
    return ".".join(path)


def is_setting(kind: Kind, path: Sequence[str]) -> bool:
    """Return whether the file of the server ``kind`` can have a key at ``path``, the parts of the
    key's name (``("server", "port")``), that has a value and is no section."""
    key = keys(kind).get(generic(path))
    return key is not None and not key.section


@cache
def settings(kind: Kind) -> tuple[str, ...]:
    """Return the names ("server.port") of all keys of the file of the server ``kind`` that have a
    value, without sections and without the keys of models."""
    return tuple(n for n, key in keys(kind).items() if not key.section and ANY_NAME not in n)


def _walk(model: type[Section], schema: dict[str, Any], before: str) -> Iterator[Key]:
    properties = schema["$defs"].get(model.__name__, schema)["properties"]
    for name, field in model.model_fields.items():
        below: Any = field.annotation
        prefix = f"{before}{name}."
        if get_origin(below) is dict:
            below, prefix = get_args(below)[1], f"{prefix}{ANY_NAME}."
        section = isinstance(below, type) and issubclass(below, Section)
        yield Key(
            name=before + name,
            allowed="a mapping of keys to values" if section else _allowed(properties[name]),
            default=None
            if section or field.default is None
            else _yaml(before + name, field.default),
            meaning=" ".join(str(field.description).split()),
            section=section,
            secret=any(option.get("writeOnly") for option in properties[name]["anyOf"]),
        )
        if section:
            yield from _walk(below, schema, prefix)


def _allowed(part: dict[str, Any]) -> str:
    said = [str(each["allowed"]) for each in (part, *part["anyOf"]) if "allowed" in each]
    return said[0] if said else listed(w for option in part["anyOf"] for w in _values(option))


def _values(option: dict[str, Any]) -> list[str]:
    """In words, what a value of this type can be."""
    match option:
        case {"enum": values}:
            return [str(value) for value in values]
        case {"const": value}:
            return [str(value)]
        case {"type": "boolean"}:
            return ["true", "false"]
        case {"exclusiveMinimum": lowest, "maximum": highest}:
            return [f"more than {lowest}, up to {highest}"]
        case {"minimum": lowest, "maximum": highest}:
            return [f"{lowest} to {highest}"]
        case {"type": "string"}:
            return ["a text"]
    return []


def _yaml(name: str, value: Any) -> str:
    if name == "server.port":
        return f'":{value}"'
    if isinstance(value, tuple):
        return f'"{", ".join(value)}"'
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def example_yaml(kind: Kind) -> str:
    """Return the text of a YAML file with every key of the server ``kind``, its default and its
    meaning, which can be loaded without changes.

    Keys without a default, and the example of a model, are commented out.
    """
    lines = [
        f"# Lipwire, {kind} server: every key with its default. Leave out what is to stay so.",
        f"# Check a file: lipwire config check FILE --kind {kind}",
        "# A key can be set by a variable too: LIPWIRE_SERVER__PORT=50060",
    ]
    for key in keys(kind).values():
        *above, name = key.name.split(".")
        indent = "  " * len(above)
        allowed = _comment(f"Allowed: {key.allowed}.", indent)
        if not above:
            lines.append("")
        if ANY_NAME in above:
            text = _comment(f"{key.meaning} Allowed: {key.allowed}.", indent)
            text.append(f"{indent}{name}: {key.default or _MODEL_EXAMPLE[name]}")
            lines += [f"#{line}" for line in text]
            continue
        lines += _comment(key.meaning, indent)
        if key.name == "models":
            lines += ["models: {}", "#models:", "#  anna:"]
        elif key.section:
            lines.append(f"{indent}{name}:")
        else:
            written = f"# {name}:" if key.default is None else f"{name}: {key.default}"
            lines += [*allowed, indent + written]
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent) - 2)]


def markdown(kind: Kind) -> str:
    """Return the keys of the file of the server ``kind``, without sections, as a table for the
    documentation, in Markdown."""
    rows = ["| key | default | allowed | what it does |", "|---|---|---|---|"]
    for key in keys(kind).values():
        if not key.section:
            default = "" if key.default is None else f"`{key.default}`"
            name = key.name.replace(ANY_NAME, "NAME")
            rows.append(f"| `{name}` | {default} | {key.allowed} | {key.meaning} |")
    return "\n".join(rows) + "\n"
