"""The units in deploy/systemd are those that `lipwire service print` writes; its other files."""

from pathlib import Path
from typing import get_args

import pytest

from lipwire.cli.service.definition import Server, ServiceDefinition
from lipwire.cli.service.systemd import unit_of
from lipwire.config import CompositingConfig, InferenceConfig

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"


@pytest.mark.parametrize("server", get_args(Server))
def test_a_unit_is_what_the_command_prints(server: Server) -> None:
    config = Path("/etc/lipwire", f"{server}.yaml")
    service = ServiceDefinition(server, Path("/opt/lipwire/bin/lipwire"), config, "lipwire")
    assert (UNITS / f"{service.name}.service").read_text() == unit_of(service)


def test_the_ports_of_both_servers_are_kept_for_them() -> None:
    ports = sorted(config().server.port for config in (InferenceConfig, CompositingConfig))
    lines = (UNITS / "lipwire.sysctl.conf").read_text().splitlines()
    assert f"net.ipv4.ip_local_reserved_ports = {','.join(map(str, ports))}" in lines
