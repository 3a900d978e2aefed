"""Renders that are texts."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.renderparts import Maker, Opened, opened_renders

from lipwire.renders import RenderRules, Renders, renders, sharing, webhooks


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other processes have written down is looked for sooner than within seconds."""
    for module, name in (
        (renders, "_LOOK_EVERY_S"),
        (webhooks, "_LOOK_EVERY_S"),
        (sharing, "_EVERY_S"),
    ):
        monkeypatch.setattr(module, name, 0.1)


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
