"""The configurations described: for messages, editors, the example file and the documentation.

Everything comes from the classes; nothing is said twice.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from lipwire.config.compositing import CompositingConfig
from lipwire.config.environment import Kind, variable_of
from lipwire.config.inference import InferenceConfig
from lipwire.config.settings import ServerConfig
from lipwire.config.wording import listed

CONFIGS: Final[dict[Kind, type[ServerConfig]]] = {
    "inference": InferenceConfig,
    "compositing": CompositingConfig,
}
ANY_NAME: Final = "*"
"""Stands for a model's name in a key: ``models.*.path``."""

_WIDTH: Final = 96


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a configuration."""

    name: str
    """With dots: ``server.port``."""
    allowed: str
    """The values it can have, in words."""
    default: str | None
    """As it is written in YAML; None where there is none."""
    meaning: str
    """In sentences, on one line."""
    section: bool
    """Whether it holds other keys."""


@cache
def json_schema(kind: Kind) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of one server's file, self-contained. Not to be changed."""
    schema = CONFIGS[kind].model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"Lipwire {kind} server"
    _tidy(schema)
    return schema


def _tidy(node: Any) -> None:
    """Descriptions on one line, and null wherever a key may say nothing, as the loader has it."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].split())
    for item in node.values():
        _tidy(item)
    for where in ("properties", "patternProperties"):
        for name, part in node.get(where, {}).items():
            if "default" in part and part["default"] is None:
                del part["default"]
            if {"type": "null"} not in part.get("anyOf", []):
                node[where][name] = _or_null(part)


def _or_null(part: dict[str, Any]) -> dict[str, Any]:
    outside: dict[str, Any] = {
        key: part[key] for key in ("title", "description", "default", "allowed") if key in part
    }
    inside = {key: value for key, value in part.items() if key not in outside}
    options = inside.pop("anyOf", None) or [inside]
    return {"anyOf": [*options, {"type": "null"}], **outside}


@cache
def keys(kind: Kind) -> dict[str, Key]:
    """All keys of one server's file by name, in the order in which they are explained."""
    schema = json_schema(kind)
    order = [
        name for name in schema["properties"] if name not in ("models", "models_root", "logging")
    ]
    order += ["models_root", "models", "logging"]
    return {key.name: key for key in _walk(schema, schema, "", order)}


def tree(kind: Kind) -> dict[str, Any]:
    """The keys as nested dictionaries; a single value is None, any model's name ``*``."""
    found: dict[str, Any] = {}
    for key in keys(kind).values():
        *above, last = key.name.split(".")
        place = found
        for part in above:
            place = place.setdefault(part, {})
        if not key.section:
            place[last] = None
    return found


def _walk(
    schema: dict[str, Any], section: dict[str, Any], before: str, order: list[str] | None = None
) -> Iterator[Key]:
    for name in order or section["properties"]:
        part = section["properties"][name]
        options = [_resolved(option, schema) for option in part["anyOf"]]
        below = next((option for option in options if option.get("properties")), None)
        entries = next(
            (_entries(option, schema) for option in options if _holds_names(option)), None
        )
        section_key = below is not None or entries is not None
        yield Key(
            name=before + name,
            allowed=_allowed(part, options),
            default=None if section_key or "default" not in part else _yaml(name, part["default"]),
            meaning=part.get("description") or (below or {}).get("description", ""),
            section=section_key,
        )
        if below is not None:
            yield from _walk(schema, below, f"{before}{name}.")
        elif entries is not None:
            yield from _walk(schema, entries, f"{before}{name}.{ANY_NAME}.")


def _holds_names(option: dict[str, Any]) -> bool:
    """Whether this is a mapping whose keys are names, and not those of a section."""
    return "patternProperties" in option


def _entries(option: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    (values,) = option["patternProperties"].values()
    return next(
        found for each in values["anyOf"] if "properties" in (found := _resolved(each, schema))
    )


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        found: dict[str, Any] = schema["$defs"][part["$ref"].rpartition("/")[2]]
        return found
    return part


def _allowed(part: dict[str, Any], options: list[dict[str, Any]]) -> str:
    for described in (part, *options):
        if "allowed" in described:
            return str(described["allowed"])
    return listed([word for option in options for word in _values(option)])


def _values(option: dict[str, Any]) -> list[str]:
    """In words, what a value of this type can be."""
    if "enum" in option:
        return [str(value) for value in option["enum"]]
    if "const" in option:
        return [str(option["const"])]
    match option.get("type"):
        case "boolean":
            return ["true", "false"]
        case "integer":
            return [f"{option['minimum']} to {option['maximum']}"]
        case "number" if "exclusiveMinimum" in option:
            return [f"more than {option['exclusiveMinimum']}, up to {option['maximum']}"]
        case "number":
            return [f"{option['minimum']} to {option['maximum']}"]
        case "string":
            return ["a text"]
        case "object":
            return ["a mapping of keys to values"]
    return []


def _yaml(name: str, value: Any) -> str:
    if name == "port":
        return f'":{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f'"{", ".join(value)}"'
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def example_yaml(kind: Kind) -> str:
    """A file with every key, its default and its meaning, which loads as it stands.

    Keys without a default and the model are behind a ``#``.
    """
    lines = [
        f"# Lipwire, {kind} server: every key with its default. Leave out what is to stay so.",
        f"# Check a file: lipwire config check FILE --kind {kind}",
        f"# A key can be set by a variable too: {variable_of('server.port')}=50060",
    ]
    for key in keys(kind).values():
        parts = key.name.split(".")
        indent = "  " * (len(parts) - 1)
        if len(parts) == 1:
            lines.append("")
        if parts[0] == "models" and len(parts) == 3:
            lines += _model_key(key, parts[2])
            continue
        lines += _comment(key.meaning, indent)
        if key.name == "models":
            lines += ["models: {}", "#models:", "#  anna:"]
        elif key.section:
            lines.append(f"{indent}{parts[-1]}:")
        else:
            lines += _comment(f"Allowed: {key.allowed}.", indent)
            written = f"{parts[-1]}: {key.default}" if key.default is not None else None
            lines.append(indent + (written or f"# {parts[-1]}:"))
    return "\n".join(lines) + "\n"


_MODEL_EXAMPLE: Final = {
    "path": "avatars/anna",
    "model_path": "avatars/anna/checkpoint/model_best.onnx",
    "background_dir": "avatars/anna/frames",
    "crop_rects_path": "avatars/anna/crop_rects.json",
    "num_frames": "523",
}


def _model_key(key: Key, name: str) -> list[str]:
    value = key.default if key.default is not None else _MODEL_EXAMPLE[name]
    comments = _comment(f"{key.meaning} Allowed: {key.allowed}.", "    ")
    return [f"#{line}" for line in (*comments, f"    {name}: {value}")]


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent) - 2)]


def markdown(kind: Kind) -> str:
    """The keys as a table of the documentation."""
    rows = ["| key | default | allowed | what it does |", "|---|---|---|---|"]
    for key in keys(kind).values():
        if key.section:
            continue
        default = "" if key.default is None else f"`{key.default}`"
        name = key.name.replace(f".{ANY_NAME}.", ".NAME.")
        rows.append(f"| `{name}` | {default} | {key.allowed} | {key.meaning} |")
    return "\n".join(rows) + "\n"
