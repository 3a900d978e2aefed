"""How many live sessions a tenant has, at several servers that share a Redis server."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Overloaded
from lipwire.security.shared import sessions
from lipwire.security.shared.sessions import SharedSessions
from lipwire.stores import RedisAddress, RedisConnection

pytestmark = needs_redis
PATIENT: dict[str, Any] = {"timeout_s": WAIT_S, "retry_s": 0.05, "beat_s": 0.05}


class Servers(ExitStack):
    """Servers with a Redis server of their own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.redis = self.enter_context(RedisServer(folder / "redis"))
        self.connections: list[RedisConnection] = []
        self.clock = Clock()

    def one(self) -> SharedSessions:
        address = RedisAddress("127.0.0.1", self.redis.port)
        self.connections.append(self.enter_context(RedisConnection(address, **PATIENT)))
        return SharedSessions(self.connections[-1], clock=self.clock)

    def counted(self) -> int:
        names = self.redis.names("lipwire:sessions:*")
        return sum(int(self.redis.ask("ZCARD", name)) for name in names)

    def away(self) -> None:
        self.redis.kill()
        until(lambda: not any(each.up for each in self.connections))

    def back(self) -> None:
        self.redis.start()
        until(lambda: all(each.up for each in self.connections))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with Servers(tmp_path) as servers:
        yield servers


def fits(server: SharedSessions, tenant: str = "acme", most: int = 2) -> bool:
    try:
        server.end(server.begin(tenant, most))
    except Overloaded:
        return False
    return True


def test_one_more_than_may_be_is_refused_wherever_it_comes(servers: Servers) -> None:
    one, two = servers.one(), servers.one()
    first = one.begin("acme", 2)
    two.begin("acme", 2)
    for server in (one, two):
        with pytest.raises(Overloaded, match="2 live sessions of the tenant run at all") as refused:
            server.begin("acme", 2)
        assert refused.value.retry_after_s is not None
        assert fits(server, "another tenant")
    one.end(first)
    one.end(first)
    two.begin("acme", 2)
    assert not fits(one)
    assert servers.counted() == 2
    assert "acme" not in " ".join(servers.redis.names())


@pytest.mark.slow
def test_sessions_of_a_server_that_was_killed_count_for_as_long_as_they_last(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LEASE_S", 1.0)
    gone, two = servers.one(), servers.one()
    gone.begin("acme", 1)
    assert not fits(two, most=1)
    until(lambda: fits(two, most=1))


def test_sessions_that_run_are_renewed(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LEASE_S", 2.0)
    one, two = servers.one(), servers.one()
    one.begin("acme", 1)
    (key,) = servers.redis.names("lipwire:sessions:*")

    def ends_s() -> float:
        return float(servers.redis.ask("ZRANGE", key, 0, -1, "WITHSCORES")[1])

    for _ in range(3):
        before_s = [ends_s()]
        servers.clock.now += 11
        until(lambda: [ends_s()] > before_s)  # noqa: B023
        assert not fits(two, most=1)


def test_while_redis_is_away_each_goes_by_its_own_and_afterwards_all_count_once(
    servers: Servers,
) -> None:
    one, two = servers.one(), servers.one()
    kept, ended = one.begin("acme", 3), one.begin("acme", 3)
    servers.away()
    one.end(ended)
    two.begin("acme", 1)  # who has more room decides without Redis
    servers.back()  # which has forgotten all
    until(lambda: servers.counted() == 2)
    servers.clock.now += 11
    until(lambda: one._renewed_s == two._renewed_s == servers.clock.now)
    assert servers.counted() == 2
    assert not fits(one)
    one.end(kept)
    assert fits(one)


def test_one_that_ends_while_it_is_renewed_counts_no_more(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = servers.one()
    place = one.begin("acme", 1)
    asked = one._redis.script

    def ends_before(*given: Any) -> Any:
        monkeypatch.undo()
        one.end(place)
        return asked(*given)

    monkeypatch.setattr(one._redis, "script", ends_before)
    servers.clock.now += 11
    until(lambda: one._renewed_s == servers.clock.now)
    until(lambda: servers.counted() == 0)
