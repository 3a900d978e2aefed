"""Servers that tell callers apart: every call, with every kind of credential; TLS, and what clients
of others need for it."""

import datetime
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import jwt
import numpy as np
import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import (
    EVERYTHING,
    InvalidInput,
    LipwireError,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from lipwire.rpc.backends.statuses import error_of_call
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.credentials import FORWARDED, ClientSecurity, ClientTls
from lipwire.rpc.generated import compositing_pb2, inference_pb2, management_pb2
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2, mouths_pb2
from lipwire.rpc.reachability import Peer
from lipwire.rpc.server.server import RpcServer
from lipwire.rpc.transport import open_channel
from lipwire.security import KeyFile
from lipwire.security.devcerts import make_certificates
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

SECRET: Final = b"0123456789abcdef0123456789abcdef"
WINDOW: Final = np.zeros((1, 32, 16, 16), np.float32).tobytes()
Told = dict[str, Mapping[str, object]]


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    now = datetime.datetime.now(datetime.UTC)
    make_certificates(folder, ["localhost", "127.0.0.1"], client="compositing-1", now=now)
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def start(root: Path, tmp_path: Path, told: Told) -> Iterator[Callable[..., RpcServer]]:
    """``start("serve", yaml)``, or inference or compositing, listening on loopback."""
    with ExitStack() as stack:

        def started(kind: str, yaml: str) -> RpcServer:
            file = tmp_path / f"{kind}.yaml"
            file.write_text(f"models_root: {root}\n{yaml}\n")
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__ENABLED": "false",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            tell = told.__setitem__
            if kind == "inference":
                config = load_inference_config(file, {"LIPWIRE_SERVER__PORT": "0"})
                return stack.enter_context(open_inference_server(config, tell=tell))
            compositing = load_compositing_config(file, here)
            if kind == "compositing":
                return stack.enter_context(open_compositing_server(compositing, tell=tell))
            return stack.enter_context(
                open_serve(compositing, load_inference_config(None, {}), tell=tell)
            )

        yield started


def token(**claims: Any) -> str:
    told = {"iss": "us", "aud": "lipwire", "exp": time.time() + 60, **claims}
    return jwt.encode(told, SECRET, algorithm="HS256")


@pytest.fixture
def credentials(keys: KeyFile, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "secret").write_bytes(SECRET)
    every = "live render read manage infer"
    return {
        "none": "",
        "unknown key": "lipwire_a_b",
        "expired token": token(scope=every, avatars=["*"], exp=time.time() - 100),
        "other avatar": token(scope=every, avatars=["b"], tenant="other"),
        "other operations": keys.create("idle", operations=["manage"], avatars=["*"]),
        "right key": keys.create("right", tenant="acme", avatars=["a"]),
        "right token": token(scope=every, avatars=["a"], tenant="acme"),
    }


def secured(tmp_path: Path, keys: KeyFile, more: str = "") -> str:
    return (
        f"security: {{keys_file: {keys.path}, jwt: {{issuer: us, audience: lipwire,"
        f" algorithms: HS256, key_file: {tmp_path / 'secret'}}}{more}}}"
    )


# Each call of a server: its path, a request about avatar a, its answer's type.
CALLS: Final[dict[str, tuple[Any, Any]]] = {
    "/compositing.CompositingService/InferBatchComposite": (
        compositing_pb2.CompositeBatchRequest(model_id="a", audio_features=WINDOW, batch_size=1),
        compositing_pb2.CompositeBatchResponse,
    ),
    "/compositing.CompositingService/ListModels": (
        management_pb2.ListModelsRequest(),
        management_pb2.ListModelsResponse,
    ),
    "/compositing.CompositingService/LoadModel": (
        management_pb2.LoadModelRequest(model_id="a"),
        management_pb2.LoadModelResponse,
    ),
    "/compositing.CompositingService/UnloadModel": (
        management_pb2.UnloadModelRequest(model_id="a"),
        management_pb2.UnloadModelResponse,
    ),
    "/compositing.CompositingService/GetModelStats": (
        management_pb2.GetModelStatsRequest(model_id="a"),
        compositing_pb2.GetModelStatsResponse,
    ),
    "/compositing.CompositingService/Health": (
        management_pb2.HealthRequest(),
        compositing_pb2.HealthResponse,
    ),
    "/lipwire.v1.AvatarService/Converse": (
        avatar_pb2.ConverseRequest(start=avatar_pb2.StartSession(model_id="a")),
        avatar_pb2.ConverseResponse,
    ),
    "/lipwire.v1.AvatarService/InterruptSession": (
        avatar_pb2.InterruptSessionRequest(session_id="none", number=1),
        avatar_pb2.InterruptSessionResponse,
    ),
    "/inference.InferenceService/InferBatch": (
        inference_pb2.InferBatchRequest(model_id="a", audio_features=WINDOW, batch_size=1),
        inference_pb2.InferBatchResponse,
    ),
    "/inference.InferenceService/ListModels": (
        management_pb2.ListModelsRequest(),
        management_pb2.ListModelsResponse,
    ),
    "/inference.InferenceService/LoadModel": (
        management_pb2.LoadModelRequest(model_id="a"),
        management_pb2.LoadModelResponse,
    ),
    "/inference.InferenceService/UnloadModel": (
        management_pb2.UnloadModelRequest(model_id="a"),
        management_pb2.UnloadModelResponse,
    ),
    "/inference.InferenceService/GetModelStats": (
        management_pb2.GetModelStatsRequest(model_id="a"),
        inference_pb2.GetModelStatsResponse,
    ),
    "/inference.InferenceService/Health": (
        management_pb2.HealthRequest(),
        inference_pb2.HealthResponse,
    ),
    "/lipwire.v1.MouthService/Mouths": (
        mouths_pb2.MouthsRequest(model_id="a", windows=WINDOW, count=1),
        mouths_pb2.MouthsResponse,
    ),
    "/lipwire.v1.MouthService/Lease": (
        mouths_pb2.LeaseRequest(holder="me", model_id="a"),
        mouths_pb2.LeaseResponse,
    ),
    "/lipwire.v1.MouthService/ReleaseLease": (
        mouths_pb2.ReleaseLeaseRequest(holder="me"),
        mouths_pb2.ReleaseLeaseResponse,
    ),
}


def outcome(channel: grpc.Channel, path: str) -> str:
    """The code of what a call gives: of its status, or of the error in its answer; OK."""
    request, kind = CALLS[path]
    serialise, parse = type(request).SerializeToString, kind.FromString
    try:
        if path.endswith("/Converse"):
            call = channel.stream_stream(path, serialise, parse)(iter([request]), timeout=WAIT_S)
            answer = next(iter(call))
            call.cancel()
        else:
            answer = channel.unary_unary(path, serialise, parse)(request, timeout=WAIT_S)
    except grpc.RpcError as error:
        return str(error.code().name)
    return getattr(answer, "error_code", "") or "OK"


EVERYWHERE: Final = {
    "none": "UNAUTHENTICATED",
    "unknown key": "UNAUTHENTICATED",
    "expired token": "UNAUTHENTICATED",
}
WITHOUT_AVATAR: Final = frozenset(
    {"ListModels", "GetModelStats", "Health", "InterruptSession", "ReleaseLease"}
)


def expected(path: str, credential: str) -> str:
    name = path.rpartition("/")[2]
    if credential in EVERYWHERE:
        return EVERYWHERE[credential]
    if credential == "other operations":
        return "OK" if name in ("LoadModel", "UnloadModel") else "PERMISSION_DENIED"
    if name == "InterruptSession":  # of a session that is not there
        return "NOT_FOUND"
    if credential == "other avatar" and name not in WITHOUT_AVATAR:
        return "NOT_FOUND"
    return "OK"


@pytest.mark.parametrize("kind", ["serve", "inference"])
def test_every_call_with_every_credential(
    start: Callable[..., RpcServer],
    credentials: dict[str, str],
    keys: KeyFile,
    tmp_path: Path,
    kind: str,
) -> None:
    server = start(kind, secured(tmp_path, keys))
    mine = ("compositing", "AvatarService") if kind == "serve" else ("inference", "MouthService")
    paths = [path for path in CALLS if any(word in path for word in mine)]
    assert len(paths) in (8, 9)
    found, wanted = {}, {}
    for name, credential in credentials.items():
        security = ClientSecurity(token=credential)
        address = f"127.0.0.1:{server.port}"
        with open_channel(address, max_message_bytes=-1, security=security) as channel:
            for path in paths:
                found[path, name] = outcome(channel, path)
                wanted[path, name] = expected(path, name)
    assert found == wanted


def test_every_call_of_the_services_is_in_the_matrix() -> None:
    files = (
        compositing_pb2.DESCRIPTOR,
        inference_pb2.DESCRIPTOR,
        avatar_pb2.DESCRIPTOR,
        mouths_pb2.DESCRIPTOR,
    )
    paths = {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert paths == CALLS.keys()


def test_one_tenant_sees_nothing_of_another(
    start: Callable[..., RpcServer], keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
) -> None:
    address = f"127.0.0.1:{start('serve', secured(tmp_path, keys)).port}"

    def connection(name: str) -> CompositingConnection:
        return CompositingConnection(address, security=ClientSecurity(token=credentials[name]))

    with connection("right key") as mine, connection("other avatar") as others:
        assert [model.model_id for model in mine.models(WAIT_S)] == ["a"]
        assert [model.model_id for model in others.models(WAIT_S)] == ["b"]
        mine.load("a", WAIT_S)
        assert [row.model_id for row in mine.stats("", WAIT_S).models] == ["a"]
        assert not others.stats("", WAIT_S).models
        # Nothing tells an avatar of somebody else from one that is not there.
        said = []
        for name in ("a", "x"):
            with pytest.raises(NotFound) as refused:
                others.load(name, WAIT_S)
            said.append(str(refused.value).removesuffix(name))
        assert said[0] == said[1]
        with pytest.raises(NotFound) as refused:  # one that it could see has no hint either
            mine.load("aa", WAIT_S)
        assert str(refused.value) == "no avatar named aa"

    security = ClientSecurity(token=credentials["right key"])
    with AvatarConnection(address, security=security) as client, client.converse("a") as session:
        other = ClientSecurity(token=credentials["other avatar"])
        with AvatarConnection(address, security=other) as stranger, pytest.raises(NotFound):
            stranger.resume(session.id)
        same = ClientSecurity(token=credentials["right token"])  # of the same tenant
        with AvatarConnection(address, security=same) as again:
            again.resume(session.id).end()


def test_nobody_can_say_who_they_are_as_the_servers_own_processes_do(
    start: Callable[..., RpcServer], keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
) -> None:
    server = start("serve", secured(tmp_path, keys))
    path = "/compositing.CompositingService/ListModels"
    request, kind = CALLS[path]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(path, type(request).SerializeToString, kind.FromString)
        with pytest.raises(grpc.RpcError) as refused:
            call(request, timeout=WAIT_S, metadata=((FORWARDED, EVERYTHING.told()),))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_requests_from_elsewhere_are_refused(
    start: Callable[..., RpcServer], keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
) -> None:
    server = start("serve", secured(tmp_path, keys, ", allow_from: 192.0.2.0/24"))
    security = ClientSecurity(token=credentials["right key"])
    with (
        CompositingConnection(f"127.0.0.1:{server.port}", security=security) as connection,
        pytest.raises(PermissionDenied, match=r"requests from 127.0.0.1 are not allowed"),
    ):
        connection.models(WAIT_S)


def test_every_call_is_recorded_without_what_is_said_or_shown(
    start: Callable[..., RpcServer], keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
) -> None:
    audit = tmp_path / "audit.jsonl"
    server = start("serve", secured(tmp_path, keys, f", audit_file: {audit}"))
    address = f"127.0.0.1:{server.port}"
    paths = [path for path in CALLS if "compositing" in path or "AvatarService" in path]
    for name in ("right key", "other avatar", "none"):
        security = ClientSecurity(token=credentials[name])
        with open_channel(address, max_message_bytes=-1, security=security) as channel:
            for path in paths:
                outcome(channel, path)
    until(lambda: len(audit.read_text().splitlines()) == 3 * len(paths))
    rows = [json.loads(line) for line in audit.read_text().splitlines()]
    found = {(row["call"], row["subject"]): row for row in rows}
    batch = found["compositing.CompositingService/InferBatchComposite", "key right"]
    assert (batch["tenant"], batch["avatar"], batch["outcome"]) == ("acme", "a", "OK")
    assert (batch["address"], batch["operation"]) == ("127.0.0.1", "render")
    assert batch["ms"] > 0
    live = found["lipwire.v1.AvatarService/Converse", "key right"]
    assert (live["avatar"], live["outcome"]) == ("a", "CANCELLED")
    others = found["compositing.CompositingService/LoadModel", "token of "]
    assert (others["tenant"], others["outcome"]) == ("other", "NOT_FOUND")
    nobody = [row for row in rows if not row["subject"]]
    assert {row["outcome"] for row in nobody} == {"UNAUTHENTICATED"}
    text = audit.read_text()
    assert not any(token and token in text for token in credentials.values())


def test_a_tenant_that_asks_for_too_much_is_told_when_to_come_back(
    start: Callable[..., RpcServer], keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
) -> None:
    server = start("serve", secured(tmp_path, keys, ", limits: {requests_per_minute: 2}"))
    address = f"127.0.0.1:{server.port}"
    security = ClientSecurity(token=credentials["right key"])
    with CompositingConnection(address, security=security) as connection:
        connection.models(WAIT_S)
        connection.models(WAIT_S)
        with pytest.raises(Overloaded, match="more than 2 requests a minute") as refused:
            connection.models(WAIT_S)
    assert refused.value.retry_after_s
    others = ClientSecurity(token=credentials["other avatar"])
    with CompositingConnection(address, security=others) as connection:
        connection.models(WAIT_S)


# -- TLS -----------------------------------------------------------------------------------------


def tls(certs: Path, *more: str) -> str:
    files = f"cert: {certs}/server.crt, key: {certs}/server.key"
    return f"server: {{tls: {{{', '.join([files, *more])}}}}}"


def test_clients_check_the_server(
    start: Callable[..., RpcServer], certs: Path, tmp_path: Path
) -> None:
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
    start: Callable[..., RpcServer], certs: Path, keys: KeyFile, tmp_path: Path
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
    start: Callable[..., RpcServer], certs: Path, tmp_path: Path, told: Told
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


def test_a_compositing_server_shows_its_token(
    start: Callable[..., RpcServer], keys: KeyFile, tmp_path: Path
) -> None:
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
    start: Callable[..., RpcServer], certs: Path, tmp_path: Path
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


def test_what_protects_a_server_is_said_at_its_start(
    start: Callable[..., RpcServer], certs: Path, told: Told
) -> None:
    start("serve", "")
    assert told["Security"]["Asked by"] == "anybody"
    assert str(told["Security"]["Reached from"]).startswith("this machine alone")
    start("serve", "server: {host: 0.0.0.0, insecure: true}")
    assert "INSECURE" in told["Security"]
    assert "Reached from" not in told["Security"]
