"""docs/guide-coverage.md names files, settings and tests that are there, and leaves out no line of
the guide's chapters that it is about."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lipwire.config.schema import CONFIGS, keys

PROJECT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in (PROJECT / "docs" / "guide-coverage.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and "`" in line
]
SETTINGS = {name for kind in CONFIGS for name in keys(kind)}
SECTIONS = {name.rpartition(".")[0] for name in SETTINGS} | {"models", "metrics"}
GUIDE = os.environ.get("LIPWIRE_GUIDE", "")
"""The deployment guide's file, which is not the project's to give away."""
CHAPTERS = (
    "### Configuration Tuning Guide",
    "## Production Deployment",
    "## Monitoring & Troubleshooting",
    "## Scaling & Optimization",
)
NOT_YET = ("Redis for distributed caching",)
"""Steps of the guide that the page says are not there."""


def test_there_are_rows() -> None:
    assert len(ROWS) >= 90
    assert {len(row) for row in ROWS} == {3}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_what_a_row_names_is_there(row: list[str]) -> None:
    _, where, test = row
    for name in re.findall(r"`([^`]+)`", where):
        assert (PROJECT / name).is_file() or name in SETTINGS | SECTIONS, name
    (named,) = re.findall(r"`([^`]+)`", test)
    file, _, function = named.partition("::")
    tree = ast.parse((PROJECT / file).read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def lines(guide: str) -> Iterator[str]:
    """What the chapters say: issues, points, rows of tables and lines of examples, without their
    marks. Other headings, lines that only lead to others (``Causes:``, ``spec:``) and diagrams are
    left out."""
    depth, fenced = 0, False
    for line in guide.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            continue
        heading = None if fenced else re.match("(#+) ", line)
        if heading is not None:
            if line in CHAPTERS:
                depth = len(heading[1])
            elif len(heading[1]) <= depth or line == "### Security":
                depth = 0  # which has rows of its own
            if "Issue:" not in line:
                continue
        text = re.sub(r"[*`]|^\s*(?:#|- \[ \]|- |\|)[#\s]*", "", line).strip()
        if fenced:
            text = text.partition("  #")[0].strip()
        if depth and re.search(r"\w", text) and not re.search(r"[─►│┼▼]|^[\w /]+:$", text):
            yield text


@pytest.mark.skipif(not GUIDE, reason="the guide is no part of this: LIPWIRE_GUIDE=FILE names it")
def test_no_line_of_the_guides_chapters_is_left_out() -> None:
    guide = Path(GUIDE).read_text("utf-8")
    told = [piece for row in ROWS for piece in row[0].split(" · ")]
    assert [line for line in lines(guide) if not any(piece in line for piece in told)] == []
    _, _, steps = guide.partition("## Next Steps")
    numbered = re.findall(r"^\d\. (.+)$", steps, re.MULTILINE)
    assert len(numbered) == 11
    assert [
        step
        for step in numbered
        if not any(piece in step for piece in told) and not any(word in step for word in NOT_YET)
    ] == []
