import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lipwire.config import check_config
from lipwire.config.schema import CONFIGS, Kind, example_yaml, json_schema, keys, markdown

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"
GUIDE = Path(__file__).parent / "guide"


def flat(value: object, before: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {before.rstrip(".")}
    return {name for key, inner in value.items() for name in flat(inner, f"{before}{key}.")}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_key_says_what_it_does_and_what_it_can_be(kind: Kind) -> None:
    for key in keys(kind).values():
        assert key.meaning.endswith("."), key.name
        assert key.allowed, key.name


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_key_of_the_guide_is_there(kind: Kind) -> None:
    written = yaml.safe_load((GUIDE / f"{kind}.yaml").read_text())
    names = {name.replace("models.sanders.", "models.*.") for name in flat(written)}
    assert names <= {key.name for key in keys(kind).values() if not key.section}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_example_loads_and_says_what_the_defaults_are(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(example_yaml(kind))
    checked = check_config(path, {}, kind)
    assert not checked.problems
    assert checked.config == CONFIGS[kind]()


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_example_has_every_key(kind: Kind, tmp_path: Path) -> None:
    text = example_yaml(kind).replace("models: {}\n", "")
    text = re.sub(r"^#( *[a-z]+:| {2,}[a-z#])", r"\1", text, flags=re.MULTILINE)  # the model
    text = re.sub(r"^( *)# (\w+):$", r"\1\2: ~", text, flags=re.MULTILINE)  # without a default
    path = tmp_path / "example.yaml"
    path.write_text(text)
    checked = check_config(path, {}, kind)
    assert not checked.problems
    assert checked.config is not None
    assert checked.config.files["anna"].folder == tmp_path / "avatars" / "anna"
    names = {name.replace("models.anna.", "models.*.") for name in flat(yaml.safe_load(text))}
    assert names == {key.name for key in keys(kind).values() if not key.section}


def accepts(schema: Any, part: Any, value: Any) -> bool:
    """The little of JSON Schema that the schemas use."""
    if "$ref" in part:
        return accepts(schema, schema["$defs"][part["$ref"].rpartition("/")[2]], value)
    if "anyOf" in part:
        return any(accepts(schema, option, value) for option in part["anyOf"])
    if "enum" in part or "const" in part:
        return value in part.get("enum", [part.get("const")])
    kinds: Any = {
        "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
        "number": (int, float), "null": type(None),
    }  # fmt: skip
    if not isinstance(value, kinds[part["type"]]) or (
        isinstance(value, bool) and part["type"] != "boolean"
    ):
        return False

    if part["type"] in ("integer", "number"):
        return bool(
            value >= part.get("minimum", value)
            and value <= part.get("maximum", value)
            and ("exclusiveMinimum" not in part or value > part["exclusiveMinimum"])
        )
    if part["type"] == "string":
        return "pattern" not in part or re.search(part["pattern"], value) is not None
    if part["type"] == "array":
        return all(accepts(schema, part["items"], item) for item in value)
    if part["type"] == "object":
        patterns = part.get("patternProperties", {})
        for key, inner in value.items():
            below = part.get("properties", {}).get(key) or next(
                (found for pattern, found in patterns.items() if re.search(pattern, key)), None
            )
            if below is None or not accepts(schema, below, inner):
                return False
    return True


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_json_schema_takes_what_the_loader_takes(kind: Kind) -> None:
    schema = json_schema(kind)
    other: Kind = "compositing" if kind == "inference" else "inference"
    assert accepts(schema, schema, yaml.safe_load((GUIDE / f"{kind}.yaml").read_text()))
    assert accepts(schema, schema, yaml.safe_load(example_yaml(kind)))
    assert not accepts(schema, schema, yaml.safe_load((GUIDE / f"{other}.yaml").read_text()))
    for wrong in (
        {"server": {"port": 70000}},
        {"server": {"prot": 1}},
        {"models": {"a/b": {"path": "x"}}},
        {"capacity": {"eviction_policy": "fifo"}},
        {"server": 5},
    ):
        assert not accepts(schema, schema, wrong)
    assert accepts(schema, schema, {"server": None, "models": {"a": None}, "models_root": None})


def test_the_documentation_has_every_key() -> None:
    """The tables are `lipwire config schema --kind KIND --markdown`."""
    text = DOCUMENTATION.read_text()
    for kind in CONFIGS:
        begin, end = f"<!-- keys: {kind} -->\n", f"<!-- end: {kind} -->"
        assert text.partition(begin)[2].partition(end)[0].strip() == markdown(kind).strip()
