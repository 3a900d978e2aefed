"""Two servers that share one Redis server."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.everycall import Told

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import (
    DependencyMissing,
    LimitExceeded,
    MinutesUsedUp,
    Overloaded,
    Unauthenticated,
)
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.credentials import ClientSecurity
from lipwire.rpc.received import Ended
from lipwire.security import KeyFile, minutes
from lipwire.security.shared.minutes import SharedMinutes
from lipwire.session.live import sessions
from lipwire.stores import RedisAddress, RedisConnection
from lipwire.wiring.servers import open_serve

pytestmark = needs_redis


@dataclass(frozen=True)
class Server:
    """A server that listens on loopback."""

    address: str
    page: str
    told: Told


Start = Callable[..., Server]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def key(keys: KeyFile) -> str:
    return keys.create("phone", tenant="acme: the 1st", avatars=["a"])


@pytest.fixture
def start(root: Path, tmp_path: Path, keys: KeyFile, redis: RedisServer) -> Iterator[Start]:
    """``start("requests_per_minute: 1")``: a server with these limits that shares ``redis``."""
    with ExitStack() as stack:

        def started(limits: str = "", more: str = "", keys_file: Path = keys.path) -> Server:
            file, told = tmp_path / "config.yaml", Told()
            file.write_text(
                f"models_root: {root}\nredis: {{url: '{redis.url}', retry_seconds: 0.1}}\n{more}\n"
                f"security: {{keys_file: {keys_file}, limits: {{{limits}}}}}\n"
            )
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__PORT": "0",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            server = stack.enter_context(
                open_serve(
                    load_compositing_config(file, here),
                    load_inference_config(None, {}),
                    tell=told.__setitem__,
                    by_speed=False,
                )
            )
            return Server(f"127.0.0.1:{server.port}", str(told["Web"]["Page"]), told)

        yield started


@pytest.mark.slow
def test_a_tenants_requests_count_at_both_servers_also_after_redis_was_away(
    start: Start, redis: RedisServer, key: str
) -> None:
    servers = [start("requests_per_minute: 6") for _ in range(2)]
    assert servers[0].told[f"Redis 127.0.0.1:{redis.port}"] == {"Connected": "yes"}
    with ExitStack() as stack:
        security = ClientSecurity(token=key)
        one, two = (
            stack.enter_context(CompositingConnection(each.address, security=security))
            for each in servers
        )
        for connection in (one, two, one, two, one, two):
            connection.models(WAIT_S)
        for connection in (one, two):
            with pytest.raises(LimitExceeded, match="tenant acme: the 1st asks for more than 6"):
                connection.models(WAIT_S)
        redis.kill()
        until(lambda: answers(one))
        assert answers(two)
        redis.start()  # which knows of nothing

        def both_count_again() -> bool:
            return any(answers(one) for _ in range(7)) and len(redis.names("lipwire:limits:*")) == 1

        until(both_count_again)
        until(lambda: not answers(one) and not answers(two))


ORIGIN = "http://localhost:3000"


def asked(
    server: Server, method: str, path: str, token: str, body: dict[str, str] | None = None
) -> tuple[int, Any, Mapping[str, str]]:
    """Status, JSON and headers of an answer."""
    with closing(HTTPConnection(urlsplit(server.page).netloc, timeout=WAIT_S)) as connection:
        headers = {"Authorization": f"Bearer {token}", "Origin": ORIGIN}
        text = None if body is None else json.dumps(body)
        headers |= {} if text is None else {"Content-Type": "application/json"}
        connection.request(method, path, text, headers)
        answer = connection.getresponse()
        told = answer.read()
        return answer.status, json.loads(told) if told else None, dict(answer.headers.items())


@pytest.mark.slow
def test_a_ticket_of_one_server_opens_one_session_at_the_other(
    start: Start, redis: RedisServer, key: str
) -> None:
    more = f"web: {{allowed_origins: '{ORIGIN}'}}\nlive: {{nobody_joined_timeout: 600}}"
    one, two = (start(more=more) for _ in range(2))
    wanted = {"avatar": "a", "origin": ORIGIN}

    def issued() -> str:
        status, told, _ = asked(one, "POST", "/v1/tickets", key, wanted)
        assert status == 201, told
        return str(told["ticket"])

    ticket = issued()
    assert ticket not in f"{redis.names()} {redis.ask('GET', redis.names('lipwire:ticket:*')[0])}"
    status, told, headers = asked(two, "POST", "/v1/sessions", ticket, {"avatar": "a"})
    assert status == 201, told
    for each in (one, two):
        status, _, _ = asked(each, "POST", "/v1/sessions", ticket, {"avatar": "a"})
        assert status == 401
    path, secret = f"/v1/sessions/{told['id']}", headers["lipwire-session-token"]
    assert asked(two, "GET", path, secret)[0] == 200
    assert asked(one, "GET", path, secret)[0] == 401

    waiting = issued()
    redis.kill()
    assert asked(two, "GET", path, secret)[0] == 200, "a session goes on without Redis"
    status, told, _ = asked(two, "POST", "/v1/sessions", waiting, {"avatar": "a"})
    assert status == 503, told
    own = issued()
    assert asked(one, "POST", "/v1/sessions", own, {"avatar": "a"})[0] == 201
    redis.start()

    def counts_at_two() -> bool:
        return asked(two, "POST", "/v1/sessions", issued(), {"avatar": "a"})[0] == 201

    until(counts_at_two)


@pytest.mark.slow
def test_minutes_that_were_used_at_one_server_are_used_up_at_the_other(
    start: Start, redis: RedisServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minutes, "EVERY_S", 0.2)
    monkeypatch.setattr(sessions, "_EVERY_S", 0.1)
    one, two = (start("live_minutes_per_month: 1").address for _ in range(2))
    with RedisConnection(RedisAddress("127.0.0.1", redis.port), timeout_s=WAIT_S) as connection:
        month = datetime.now(UTC).strftime("%Y-%m")
        others = {"acme: the 1st": 59.5}
        SharedMinutes(connection).exchange(month, "a third server", others, left_s=100)
    security = ClientSecurity(token=key)
    with (
        AvatarConnection(one, security=security) as client,
        AvatarConnection(two, security=security) as other,
    ):
        with client.converse("a") as session:
            *_, last = session
            assert last == Ended("minutes_used_up")

        def refused() -> bool:
            try:
                other.converse("a").close()
            except MinutesUsedUp as error:
                return "tenant acme: the 1st has used 1 minutes" in str(error)
            return False

        until(refused)


@pytest.mark.slow
def test_a_tenants_live_sessions_count_at_both_servers(
    start: Start, redis: RedisServer, key: str
) -> None:
    one, two = (start("live_sessions: 1").address for _ in range(2))
    security = ClientSecurity(token=key)
    with (
        AvatarConnection(one, security=security) as client,
        AvatarConnection(two, security=security) as other,
    ):
        with client.converse("a"):
            with pytest.raises(Overloaded, match="1 live sessions of the tenant run at all"):
                other.converse("a")
            redis.kill()
            until(lambda: lets_in(other))  # each goes by its own
            assert not lets_in(client)
            redis.start()
            until(lambda: not lets_in(other))
        until(lambda: lets_in(other))


def lets_in(connection: AvatarConnection) -> bool:
    try:
        connection.converse("a").close()
    except Overloaded:
        return False
    return True


@pytest.mark.slow
def test_a_key_that_is_revoked_at_one_server_is_refused_by_the_other(
    start: Start, keys: KeyFile, key: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(keys.path.read_bytes())
    start()
    two = start(keys_file=other).address
    with CompositingConnection(two, security=ClientSecurity(token=key)) as connection:
        assert answers(connection)
        keys.revoke("phone")
        until(lambda: not answers(connection))


def answers(connection: CompositingConnection) -> bool:
    try:
        connection.models(WAIT_S)
    except (LimitExceeded, Unauthenticated):
        return False
    return True


@pytest.mark.slow
def test_without_a_url_redis_py_is_not_imported() -> None:
    code = "import sys, lipwire.wiring.servers, lipwire.cli.app; sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_redis_py_a_server_says_what_is_missing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(DependencyMissing, match=r"pip install 'lipwire\[redis\]'"):
        start()
