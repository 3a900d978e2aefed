"""Imports, as the command makes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.foreignavatars import demo_frames, no_checkpoints

from lipwire.avatars.importing.examining import examine
from lipwire.avatars.importing.opening import opened_sources
from lipwire.avatars.importing.report import Report
from lipwire.avatars.importing.writing import Target, write_package
from lipwire.domain import UInt8Array

Import = Callable[[Path], tuple[Path, Report]]


@pytest.fixture(scope="session")
def frames() -> list[UInt8Array]:
    """Those of the demo avatar; nobody writes to them."""
    return demo_frames()


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """``imported(source)`` makes the package of the only avatar in it, and gives it with what was
    told."""

    def run(path: Path) -> tuple[Path, Report]:
        report = Report()
        with opened_sources(path) as (source,):
            target = Target(tmp_path / "avatars", source.name)
            material = examine(source, no_checkpoints(), report)
            write_package(material, target, no_checkpoints(), report, progress=lambda *_: None)
        return target.path, report

    return run
