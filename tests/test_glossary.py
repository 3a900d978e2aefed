"""Names use the words of docs/glossary.md, and no figures of speech for them."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "lipwire"
GENERATED = SOURCE / "rpc" / "generated"

INSTEAD = {
    "shelf": "cache or registry",
    "shelves": "cache or registry",
    "holding": "item",
    "holdings": "items",
    "stir": "what it has others do",
    "heed": "observe",
    "heeder": "observer",
    "house": "the name of what it holds",
    "dawdle": "wait",
    "helper": "what it does",
    "helpers": "what they do",
    "util": "what it does",
    "utils": "what they do",
    "manager": "what it does",
}
"""Words that name nothing here, and what does."""


def words(name: str) -> set[str]:
    """The words of an identifier, in lower case: ``KernelCache`` and ``kernel_cache`` alike."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return set(apart.lower().split("_"))


def names_in(path: Path) -> Iterator[str]:
    """What a module defines: classes, functions, arguments, variables, attributes; and its own."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def modules() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if GENERATED not in path.parents]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KernelCache", {"kernel", "cache"}),
        ("_as_written", {"", "as", "written"}),
        ("GPUGate", {"gpu", "gate"}),
    ],
)
def test_words_of_a_name(name: str, expected: set[str]) -> None:
    assert words(name) == expected


@pytest.mark.slow
def test_names_are_the_glossarys() -> None:
    found = Counter(
        f"{path.relative_to(SOURCE)}: {name}; say {INSTEAD[word]}"
        for path in modules()
        for name in names_in(path)
        for word in words(name) & INSTEAD.keys()
    )
    assert not found, "\n".join(sorted(found))
