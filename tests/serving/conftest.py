"""A small avatar, opened with what frames are composed from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lipwire.avatars import Avatar


@pytest.fixture
def anna(avatar_package: Path) -> Iterator[Avatar]:
    with Avatar.open(avatar_package, parts=frozenset({"jpeg", "pixels", "planes"})) as avatar:
        yield avatar
