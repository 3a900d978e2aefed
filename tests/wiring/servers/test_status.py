"""What running servers tell of themselves to whoever asks by ``StatusConnection``."""

import datetime
from pathlib import Path

import pytest
from tests.support.waiting import WAIT_S
from tests.wiring.servers.everycall import SECRET, Start, secured

from lipwire import __version__
from lipwire.domain import Unauthenticated, Unavailable
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.credentials import ClientSecurity, ClientTls
from lipwire.rpc.serverstatus import StatusConnection
from lipwire.security import KeyFile
from lipwire.security.devcerts import make_certificates


def test_a_compositing_server_tells_of_avatars_and_counts(start: Start) -> None:
    address = f"127.0.0.1:{start('serve', '').port}"
    with CompositingConnection(address) as connection, StatusConnection(address) as asking:
        before = asking.status(WAIT_S)
        first = connection.models(WAIT_S)[0].model_id
        connection.load(first, WAIT_S)
        after = asking.status(WAIT_S)
    assert (before.kind, before.version, before.workers) == ("compositing server", __version__, 1)
    assert (before.healthy, before.detail, before.loaded, before.models) == (True, "", 0, ())
    (model,) = after.models
    assert (model.name, model.loaded_in, after.loaded) == (first, 1, 1)
    assert model.memory_bytes == after.memory_bytes > 0
    assert (after.misses, after.failures) == (1, 0)
    assert after.known >= 1


def test_an_inference_server_is_known_for_what_it_is(start: Start) -> None:
    with StatusConnection(f"127.0.0.1:{start('inference', '').port}") as asking:
        for _ in range(2):  # the second time it is known which service to ask
            status = asking.status(WAIT_S)
            assert (status.kind, status.healthy) == ("inference server", True)
            assert (status.hits, status.misses) == (None, None)


def test_nobody_is_told_without_a_key(start: Start, keys: KeyFile, tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    make_certificates(certs, ["localhost"], now=datetime.datetime.now(datetime.UTC))
    tls = f"server: {{tls: {{cert: {certs}/server.crt, key: {certs}/server.key}}}}"
    key = keys.create("watching", operations=["read"])
    (tmp_path / "secret").write_bytes(SECRET)
    server = start("serve", f"{tls}\n{secured(tmp_path, keys)}")
    address = f"localhost:{server.port}"
    encrypted = ClientTls(certs / "ca.crt")
    with StatusConnection(address, security=ClientSecurity(encrypted, key)) as asking:
        assert asking.status(WAIT_S).healthy
    with (
        StatusConnection(address, security=ClientSecurity(encrypted)) as asking,
        pytest.raises(Unauthenticated),
    ):
        asking.status(WAIT_S)


def test_who_is_not_there_is_named() -> None:
    with (
        StatusConnection("127.0.0.1:9") as asking,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"),
    ):
        asking.status(WAIT_S)
