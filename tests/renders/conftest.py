"""Renders that are texts."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.renderparts import Maker, Opened, opened_renders

from lipwire.renders import RenderRules, Renders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "renders"


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def opened(folder: Path, maker: Maker) -> Iterator[Opened]:
    """``opened(RenderRules(...))``: renders in the test's folder, closed at its end."""
    with ExitStack() as stack:

        def opens(rules: RenderRules | None = None, **more: object) -> Renders:
            return stack.enter_context(opened_renders(folder, maker, rules, **more))  # type: ignore[arg-type]

        yield opens
