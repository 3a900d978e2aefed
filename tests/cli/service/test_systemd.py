"""Units of systemd, as systemd itself reads them."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from lipwire.cli.service.definition import Server, ServiceDefinition
from lipwire.cli.service.systemd import unit_of, unit_path
from lipwire.domain import InvalidInput

SERVERS: tuple[Server, ...] = get_args(Server)


def definition(server: Server = "serve", **changes: object) -> ServiceDefinition:
    plain = ServiceDefinition(server, Path("/bin/true"), Path("/etc/lipwire/a.yaml"), "lipwire")
    return replace(plain, **changes)  # type: ignore[arg-type]  # as the test says


def analyzed(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    return subprocess.run(
        [program, "--no-pager", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("run_as", ["lipwire", None])
def test_systemd_finds_nothing_wrong(
    server: Server, run_as: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    unit = tmp_path / "unit.service"
    unit.write_text(unit_of(definition(server, run_as=run_as)))
    said = analyzed("verify", *([] if run_as else ["--user"]), "--man=no", unit)
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("server", SERVERS)
def test_a_service_of_the_system_is_closed_off(server: Server, tmp_path: Path) -> None:
    unit = tmp_path / "unit.service"
    unit.write_text(unit_of(definition(server)))
    said = analyzed("security", "--offline=yes", "--threshold=20", unit)
    assert said.returncode == 0, said.stdout  # above 2.0 of 10


@pytest.mark.parametrize("name", ["with space", "100%", "$HOME", "a;b"])
def test_programs_come_to_systemd_as_they_are(name: str, tmp_path: Path) -> None:
    program = tmp_path / name / "lipwire"
    program.parent.mkdir()
    program.touch(0o755)
    unit = tmp_path / "unit.service"
    unit.write_text(unit_of(definition(program=program)))
    said = analyzed("verify", "--man=no", unit)
    assert (said.returncode, said.stderr) == (0, "")  # it looks whether the program is there


@pytest.mark.slow
@pytest.mark.parametrize("name", ['with "quotes"', "with'one", "back\\slash", "100% $HOME;"])
def test_systemd_takes_any_configuration(name: str, tmp_path: Path) -> None:
    unit = tmp_path / "unit.service"
    unit.write_text(unit_of(definition(config=Path("/etc") / name)))
    said = analyzed("verify", "--man=no", unit)
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("name", ['a"b', "a'b", "a\\b"])
def test_a_program_that_systemd_refuses_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="no quotes and no backslash"):
        unit_of(definition(program=Path("/opt") / name))


def test_a_path_that_a_unit_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidInput, match="control characters"):
        unit_of(definition(config=Path("/etc/a\nExecStartPre=/bin/evil")))


@pytest.mark.parametrize(("drain_timeout_s", "stop_s"), [(30.0, 60), (0.5, 31), (3600.0, 3630)])
def test_it_is_killed_after_it_could_drain(drain_timeout_s: float, stop_s: int) -> None:
    text = unit_of(definition(drain_timeout_s=drain_timeout_s))
    assert f"\nTimeoutStopSec={stop_s}\n" in text


def test_programs_in_a_home_folder_can_be_read() -> None:
    assert "\nProtectHome=yes\n" in unit_of(definition())
    text = unit_of(definition(program=Path("/home/anna/venv/bin/lipwire")))
    assert "\nProtectHome=read-only\n" in text


def test_gpus_are_for_those_who_run_networks() -> None:
    gpus = [server for server in SERVERS if "char-nvidia" in unit_of(definition(server))]
    assert gpus == ["inference", "serve"]


def test_a_users_unit_lies_in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/anna/conf")
    users = definition(run_as=None)
    assert unit_path(users) == Path("/home/anna/conf/systemd/user/lipwire.service")
    assert "\nUser=" not in unit_of(users)
    assert unit_path(definition("inference")) == Path(
        "/etc/systemd/system/inference-server.service"
    )


def test_the_watchdog_is_on() -> None:
    text = unit_of(definition())
    assert re.search(r"^Type=notify$", text, re.MULTILINE)
    assert re.search(r"^WatchdogSec=[1-9]\d*$", text, re.MULTILINE)
