"""Packages that nobody has compiled yet."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def avatar_package(package_template: Path, tmp_path: Path) -> Path:
    """As everywhere, and not compiled yet."""
    return shutil.copytree(package_template, tmp_path / "anna")
