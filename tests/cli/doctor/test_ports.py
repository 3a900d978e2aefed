from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.waiting import until

from lipwire.cli.doctor.checks import Outcome
from lipwire.cli.doctor.ports import port, ports
from lipwire.config import CompositingConfig, InferenceConfig
from lipwire.config.compositing import CompositingServerSettings, WebSettings
from lipwire.config.inference import InferenceServerSettings


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of the loopback on which somebody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield listening.getsockname()[1]


def write_process(
    system: Path, number: int, *words: str, state: str = "0A", inode: int = 4711
) -> Path:
    """The folder ``system`` with the files of proc for a process of those ``words`` that has
    ``number`` open."""
    (system / "proc" / "net").mkdir(parents=True)
    (system / "proc" / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout\n"
        f"   0: 0100007F:{number:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000"
        f"  0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
    files = system / "proc" / "42" / "fd"
    files.mkdir(parents=True)
    (files / "3").symlink_to("socket:[4711]")
    (files.parent / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    return system


def test_a_free_port_is_ok() -> None:
    def is_free() -> bool:
        """Somebody else may have been given the port meanwhile."""
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:
            number = listening.getsockname()[1]
        return port("server.port", "127.0.0.1", number).outcome is Outcome.OK

    until(is_free)


@pytest.mark.parametrize(
    ("words", "outcome", "seen"),
    [
        (("nginx: worker",), Outcome.FAULT, "process 42 (nginx: worker)"),
        (
            ("/usr/bin/python3", "/opt/bin/lipwire", "serve"),
            Outcome.OK,
            "process 42 (python3 lipwire serve)",
        ),
        (
            ("python3", "-m", "lipwire", "serve"),
            Outcome.OK,
            "process 42 (python3 lipwire serve)",
        ),
    ],
)
def test_who_has_a_port_is_named(
    taken: int, tmp_path: Path, words: tuple[str, ...], outcome: Outcome, seen: str
) -> None:
    system = write_process(tmp_path, taken, *words)
    check = port("server.port", "127.0.0.1", taken, system)
    assert check.outcome is outcome
    assert check.seen.endswith(seen)


@pytest.mark.parametrize("other", [{"state": "01"}, {"inode": 5}])
def test_a_port_of_an_unseen_process_is_a_warning(
    taken: int, tmp_path: Path, other: dict[str, str]
) -> None:
    system = write_process(tmp_path, taken, "nginx", **other)  # type: ignore[arg-type]
    assert port("server.port", "127.0.0.1", taken, system).outcome is Outcome.WARNING


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system has no such files")
def test_this_systems_own_files_are_read(taken: int) -> None:
    check = port("server.port", "127.0.0.1", taken)
    assert f"process {os.getpid()} " in check.seen


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no such name"])
def test_an_address_of_another_machine_is_a_fault(host: str) -> None:
    assert port("server.port", host, 50_052).outcome is Outcome.FAULT


def test_each_address_of_a_configuration_is_looked_at() -> None:
    both = CompositingConfig(server=CompositingServerSettings(port=0), web=WebSettings(port=0))
    assert [check.name for check in ports(both)] == ["server.port", "web.port"]
    assert {check.outcome for check in ports(both)} == {Outcome.NOT_APPLICABLE}
    (check,) = ports(InferenceConfig())
    assert check.name == "server.port"


def test_the_port_of_metrics_is_looked_at_where_it_is_chosen() -> None:
    def names(**metrics: object) -> list[str]:
        config = InferenceConfig.model_validate({"server": {"port": 0}, "metrics": metrics})
        return [check.name for check in ports(config)]

    assert names() == ["server.port"]
    assert names(port=0) == ["server.port", "metrics.port"]
    assert names(port=0, enabled=False) == ["server.port"]


def test_each_process_has_a_port_for_profiles() -> None:
    server = InferenceServerSettings(port=0, workers=2, profile_port=6060)
    assert [
        (check.name, check.seen.partition(" ")[0])
        for check in ports(InferenceConfig(server=server))
    ][1:] == [
        ("server.profile_port", "127.0.0.1:6060"),
        ("server.profile_port", "127.0.0.1:6061"),
    ]
