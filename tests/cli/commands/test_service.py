"""`lipwire service`, as whoever calls it sees it."""

import plistlib
import stat
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Lipwire


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of units."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "systemd" / "user"


def test_a_unit_is_written_and_removed(lipwire: Lipwire, units: Path) -> None:
    unit = units / "compositing-server.service"
    dry = lipwire("service", "install", "compositing", "--user", "--dry-run")
    assert (dry.code, dry.out.splitlines()[0]) == (0, f"would write {unit}")
    assert not unit.exists()

    made = lipwire("service", "install", "compositing", "--user")
    assert made.out.splitlines() == [
        f"wrote {unit}",
        "next: systemctl --user daemon-reload",
        "next: systemctl --user enable --now compositing-server",
    ]
    assert unit.read_text() == lipwire("service", "print", "compositing", "--user").out
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644
    assert lipwire("service", "install", "compositing", "--user").code == 0  # again

    dry = lipwire("service", "uninstall", "compositing", "--user", "--dry-run")
    assert dry.out.startswith(f"would remove {unit}\nnext: systemctl --user stop")
    assert unit.exists()
    gone = lipwire("service", "uninstall", "compositing", "--user")
    assert gone.out.startswith(f"removed {unit}\n")
    assert not unit.exists()
    again = lipwire("service", "uninstall", "compositing", "--user")
    assert again.code == 2
    assert f"there is no {unit}" in again.err


def test_a_unit_of_somebody_else_is_kept(lipwire: Lipwire, units: Path) -> None:
    units.mkdir(parents=True)
    unit = units / "lipwire.service"
    unit.write_text("[Unit]\nDescription=My own\n")
    for act in ("install", "uninstall"):
        said = lipwire("service", act, "serve", "--user")
        assert said.code == 2
        assert "it is kept" in said.err
    assert unit.read_text() == "[Unit]\nDescription=My own\n"


def test_the_time_to_drain_is_the_configurations(
    lipwire: Lipwire, units: Path, tmp_path: Path
) -> None:
    config = tmp_path / "compositing.yaml"
    config.write_text("live: {drain_timeout: 600}\nserver: {drain_delay: 5}\n")
    said = lipwire("service", "print", "compositing", "--config", config)
    assert "\nTimeoutStopSec=635\n" in said.out
    assert f"--config {config}\n" in said.out


def test_a_property_list_is_printed_anywhere(lipwire: Lipwire) -> None:
    said = lipwire("service", "print", "serve", "--platform", "darwin")
    assert plistlib.loads(said.out.encode())["Label"] == "io.github.lipwire.lipwire"


def test_where_there_are_no_service_files_that_is_said(
    lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    said = lipwire("service", "print", "serve")
    assert said.code == 2
    assert "docs/deployment.md" in said.err
