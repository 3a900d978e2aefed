import os
from pathlib import Path

import pytest

from lipwire.config import usable_memory_bytes


@pytest.fixture
def physical_bytes(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(
        os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 20}.__getitem__, raising=False
    )
    return 1 << 32


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers_limit_counts(tmp_path: Path, name: str, physical_bytes: int) -> None:
    limit = tmp_path / name
    limit.parent.mkdir(exist_ok=True)
    for content, expected in (
        ("536870912\n", 1 << 29),
        ("max\n", physical_bytes),
        ("9223372036854771712\n", physical_bytes),
    ):
        limit.write_text(content)
        assert usable_memory_bytes(tmp_path) == expected


def test_without_limits_it_is_the_machines(tmp_path: Path, physical_bytes: int) -> None:
    assert usable_memory_bytes(tmp_path) == physical_bytes
