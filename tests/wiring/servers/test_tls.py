"""Servers with TLS, and what clients of theirs need for it."""

import datetime
import shutil
from pathlib import Path

import grpc
import pytest
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.everycall import CALLS, SECRET, Start, Told, outcome, secured

from lipwire.domain import InvalidInput, LipwireError, Unauthenticated, Unavailable
from lipwire.rpc.backends.statuses import error_of_call
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.credentials import ClientSecurity, ClientTls
from lipwire.rpc.reachability import Peer
from lipwire.rpc.transport import open_channel
from lipwire.security import KeyFile
from lipwire.security.devcerts import make_certificates


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    now = datetime.datetime.now(datetime.UTC)
    make_certificates(folder, ["localhost", "127.0.0.1"], client="compositing-1", now=now)
    return folder


def tls(certs: Path, *more: str) -> str:
    files = f"cert: {certs}/server.crt, key: {certs}/server.key"
    return f"server: {{tls: {{{', '.join([files, *more])}}}}}"


def test_clients_check_the_server(start: Start, certs: Path, tmp_path: Path) -> None:
    server = start("serve", tls(certs))
    address = f"localhost:{server.port}"
    with CompositingConnection(
        address, security=ClientSecurity(ClientTls(certs / "ca.crt"))
    ) as one:
        one.models(WAIT_S)
    now = datetime.datetime.now(datetime.UTC)
    make_certificates(tmp_path / "others", ["localhost"], now=now)
    others = ClientSecurity(ClientTls(tmp_path / "others" / "ca.crt"))
    for security in (others, ClientSecurity(ClientTls()), ClientSecurity()):
        with (
            CompositingConnection(address, security=security) as connection,
            pytest.raises(Unavailable),
        ):
            connection.models(2.0)


def test_the_guides_clients_need_credentials_alone(
    start: Start, certs: Path, keys: KeyFile, tmp_path: Path
) -> None:
    """As gRPC's own documentation has it: a channel with the CA, and a token for each call."""
    (tmp_path / "secret").write_bytes(SECRET)
    key = keys.create("guide", operations=["render", "read"])
    server = start("serve", f"{tls(certs)}\n{secured(tmp_path, keys)}")
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials((certs / "ca.crt").read_bytes()),
        grpc.access_token_call_credentials(key),
    )
    path = "/compositing.CompositingService/InferBatchComposite"
    with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
        assert outcome(channel, path) == "OK"
    plain = grpc.ssl_channel_credentials((certs / "ca.crt").read_bytes())
    with grpc.secure_channel(f"localhost:{server.port}", plain) as channel:
        assert outcome(channel, path) == "UNAUTHENTICATED"
        request, kind = CALLS[path]
        call = channel.unary_unary(path, type(request).SerializeToString, kind.FromString)
        answer = call(request, timeout=WAIT_S, metadata=(("x-api-key", key),))
        assert answer.success


def test_an_inference_server_answers_named_certificates_alone(
    start: Start, certs: Path, tmp_path: Path, told: Told
) -> None:
    inference = start(
        "inference",
        tls(certs, f"client_ca: {certs}/ca.crt", "client_names: compositing-1"),
    )
    address = f"localhost:{inference.port}"
    own = f"ca: {certs}/ca.crt, cert: {certs}/client.crt, key: {certs}/client.key"
    compositing = start("compositing", f"inference_server: {{url: {address}, tls: {{{own}}}}}")
    assert told[f"Inference server {address}"]["Connected"] == "yes"
    with CompositingConnection(f"127.0.0.1:{compositing.port}") as connection:
        assert outcome(connection._channel, next(iter(CALLS))) == "OK"

    def health(security: ClientSecurity) -> LipwireError | None:
        with open_channel(address, max_message_bytes=-1, security=security) as channel:
            path = "/inference.InferenceService/Health"
            request, kind = CALLS[path]
            call = channel.unary_unary(path, type(request).SerializeToString, kind.FromString)
            try:
                call(request, timeout=5.0)
            except grpc.RpcError as error:
                return error_of_call(error, Peer(address, "inference server", use_proxy=False))
        return None

    assert health(ClientSecurity(ClientTls(certs / "ca.crt"))) is not None  # without a certificate
    now = datetime.datetime.now(datetime.UTC)
    others = tmp_path / "others"
    make_certificates(others, ["localhost"], client="compositing-1", now=now)
    forged = ClientTls(certs / "ca.crt", others / "client.crt", others / "client.key")
    assert health(ClientSecurity(forged)) is not None  # signed by somebody else
    named = ClientTls(certs / "ca.crt", certs / "client.crt", certs / "client.key")
    assert health(ClientSecurity(named)) is None
    other = start(
        "inference",
        tls(certs, f"client_ca: {certs}/ca.crt", "client_names: compositing-2"),
    )
    address = f"localhost:{other.port}"
    assert isinstance(health(ClientSecurity(named)), Unauthenticated)  # another name


def test_a_compositing_server_shows_its_token(start: Start, keys: KeyFile, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    key = keys.create("compositing", operations=["infer", "read", "manage"])
    inference = start("inference", secured(tmp_path, keys))
    url = f"inference_server: {{url: 'localhost:{inference.port}'"
    compositing = start("compositing", f"{url}, token: {key}}}")
    with CompositingConnection(f"127.0.0.1:{compositing.port}") as connection:
        assert outcome(connection._channel, next(iter(CALLS))) == "OK"
    without = start("compositing", f"{url}, max_retries: 0}}")
    with CompositingConnection(f"127.0.0.1:{without.port}") as connection:
        assert outcome(connection._channel, next(iter(CALLS))) == "UNAVAILABLE"


def test_a_certificate_is_renewed_without_a_restart(
    start: Start, certs: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(certs, tmp_path / "used")
    server = start("serve", tls(folder))
    address = f"localhost:{server.port}"
    now = datetime.datetime.now(datetime.UTC)
    make_certificates(tmp_path / "new", ["localhost"], now=now)

    def works(ca: Path) -> bool:
        security = ClientSecurity(ClientTls(ca))
        with CompositingConnection(address, security=security) as connection:
            try:
                connection.models(2.0)
            except LipwireError:
                return False
        return True

    assert works(certs / "ca.crt")
    (folder / "server.key").write_text("half a file")
    assert works(certs / "ca.crt")  # the one before counts on
    for name in ("server.crt", "server.key"):
        shutil.copy(tmp_path / "new" / name, folder / name)
    until(lambda: works(tmp_path / "new" / "ca.crt"))
    assert not works(certs / "ca.crt")


def test_a_token_goes_nowhere_without_encryption() -> None:
    security = ClientSecurity(token="secret")
    with pytest.raises(InvalidInput, match="would be sent without encryption"):
        CompositingConnection("192.0.2.1:50052", security=security)
    assert "secret" not in repr(security)
