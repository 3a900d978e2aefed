import os
from pathlib import Path

import pytest

from lipwire.config import describe_machine, machine, usable_cores


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("1 0", None)],
)
def test_the_quota_of_a_container_is_read(
    tmp_path: Path, content: str, cores: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert machine._quota_cores(tmp_path / "cpu.max") == cores
    assert machine._quota_cores(tmp_path / "nowhere") is None


def test_a_quota_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "_quota_cores", lambda path: 1.5)
    assert usable_cores() == 2
    monkeypatch.setattr(machine, "_quota_cores", lambda path: None)
    assert usable_cores() == 64


def test_the_machine_is_one_line_with_versions() -> None:
    described = describe_machine()
    assert "\n" not in described.line()
    assert f"Python {described.python}" in described.line()
    assert "unknown" not in described.packages.values()
    assert described.as_json()["cores"] == described.cores >= 1
