"""docs/guide-coverage.md names files, settings and tests that are there."""

import ast
import re
from pathlib import Path

import pytest

from lipwire.config.schema import CONFIGS, keys

PROJECT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split("|")]
    for line in (PROJECT / "docs" / "guide-coverage.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and "`" in line
]
SETTINGS = {name for kind in CONFIGS for name in keys(kind)}
SECTIONS = {name.rpartition(".")[0] for name in SETTINGS}


def test_there_are_rows() -> None:
    assert len(ROWS) >= 15
    assert {len(row) for row in ROWS} == {3}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_a_row_names_is_there(row: list[str]) -> None:
    _, where, test = row
    for name in re.findall(r"`([^`]+)`", where):
        assert (PROJECT / name).is_file() or name in SETTINGS | SECTIONS, name
    (named,) = re.findall(r"`([^`]+)`", test)
    file, _, function = named.partition("::")
    tree = ast.parse((PROJECT / file).read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
