"""Servers that tell callers apart: every call, with every kind of credential."""

import json
import time
from pathlib import Path
from typing import Any, Final

import grpc
import jwt
import pytest
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.everycall import CALLS, SECRET, Start, outcome, secured

from lipwire.domain import EVERYTHING, NotFound, Overloaded, PermissionDenied
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.credentials import FORWARDED, ClientSecurity
from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2, mouths_pb2
from lipwire.rpc.transport import open_channel
from lipwire.security import KeyFile


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
        "ticket of a page": f"lipwire_ticket_{'A' * 43}",
        "expired token": token(scope=every, avatars=["*"], exp=time.time() - 100),
        "other avatar": token(scope=every, avatars=["b"], tenant="other"),
        "other operations": keys.create("idle", operations=["manage"], avatars=["*"]),
        "right key": keys.create("right", tenant="acme", avatars=["a"]),
        "right token": token(scope=every, avatars=["a"], tenant="acme"),
    }


EVERYWHERE: Final = {
    "none": "UNAUTHENTICATED",
    "unknown key": "UNAUTHENTICATED",
    "ticket of a page": "UNAUTHENTICATED",
    "expired token": "UNAUTHENTICATED",
}
MANAGING: Final = frozenset({"LoadModel", "UnloadModel", "EraseAvatar"})
WITHOUT_AVATAR: Final = frozenset(
    {"ListModels", "GetModelStats", "Health", "InterruptSession", "ReleaseLease"}
)


def expected(path: str, credential: str) -> str:
    name = path.rpartition("/")[2]
    if credential in EVERYWHERE:
        return EVERYWHERE[credential]
    if credential == "other operations":
        return "OK" if name in MANAGING else "PERMISSION_DENIED"
    if name == "InterruptSession":  # of a session that is not there
        return "NOT_FOUND"
    if credential == "other avatar" and name not in WITHOUT_AVATAR:
        return "NOT_FOUND"
    return "OK"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["serve", "inference"])
def test_every_call_with_every_credential(
    start: Start,
    credentials: dict[str, str],
    keys: KeyFile,
    tmp_path: Path,
    kind: str,
) -> None:
    server = start(kind, secured(tmp_path, keys))
    mine = ("compositing", "AvatarService") if kind == "serve" else ("inference", "MouthService")
    paths = [path for path in CALLS if any(word in path for word in mine)]
    assert len(paths) == 9
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
    start: Start, keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
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
    start: Start, keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
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
    start: Start, keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
) -> None:
    server = start("serve", secured(tmp_path, keys, ", allow_from: 192.0.2.0/24"))
    security = ClientSecurity(token=credentials["right key"])
    with (
        CompositingConnection(f"127.0.0.1:{server.port}", security=security) as connection,
        pytest.raises(PermissionDenied, match=r"requests from 127.0.0.1 are not allowed"),
    ):
        connection.models(WAIT_S)


@pytest.mark.slow
def test_every_call_is_recorded_without_what_is_said_or_shown(
    start: Start, keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
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
    start: Start, keys: KeyFile, tmp_path: Path, credentials: dict[str, str]
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
