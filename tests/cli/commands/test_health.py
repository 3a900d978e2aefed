"""`lipwire health`, as whoever calls it sees it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.conftest import Lipwire

from lipwire.rpc.credentials import ServerTls, server_credentials
from lipwire.rpc.server.server import RpcServer, ServerOptions
from lipwire.security.devcerts import make_certificates


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder, ["lipwire.example.org"], client="probe", now=datetime.now(UTC))
    return folder


@pytest.fixture
def closed(certs: Path) -> Iterator[str]:
    """The address of a server that only clients with a certificate can connect to."""
    tls = ServerTls(certs / "server.crt", certs / "server.key", certs / "ca.crt")
    options = ServerOptions(host="127.0.0.1", credentials=server_credentials(tls))
    with RpcServer([], options) as server:
        yield f"127.0.0.1:{server.port}"


def test_a_server_that_serves_is_0(lipwire: Lipwire) -> None:
    with RpcServer([], ServerOptions(host="127.0.0.1")) as server:
        address = f"127.0.0.1:{server.port}"
        serves = lipwire("health", address, "--timeout", 60)
        assert (serves.code, serves.out) == (0, "serving\n")
        works = lipwire("health", address, "--live", "--timeout", 60)
        assert (works.code, works.out) == (0, "live\n")
    gone = lipwire("health", address, "--timeout", 60)
    assert gone.code == 1
    assert "connection refused" in gone.err


def test_a_server_that_does_not_work_is_1(lipwire: Lipwire) -> None:
    with RpcServer([], ServerOptions(host="127.0.0.1"), live=lambda: False) as server:
        said = lipwire("health", f"127.0.0.1:{server.port}", "--live", "--timeout", 60)
    assert said.code == 1
    assert "says that liveness is not serving" in said.err


def test_the_certificate_may_have_another_name(lipwire: Lipwire, closed: str, certs: Path) -> None:
    shown = ["--tls-ca", certs / "ca.crt", "--tls-cert", certs / "client.crt"]
    shown += ["--tls-key", certs / "client.key", "--timeout", 60]
    assert lipwire("health", closed, *shown).code == 1
    assert lipwire("health", closed, *shown, "--tls-name", "lipwire.example.org").code == 0


def test_a_name_without_tls_is_refused(lipwire: Lipwire) -> None:
    said = lipwire("health", "--tls-name", "lipwire.example.org")
    assert said.code == 2
    assert "--tls-name is for a connection by TLS" in said.err
