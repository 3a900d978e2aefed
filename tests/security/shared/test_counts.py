"""What tenants may ask several servers for that share a Redis server, which is killed, hangs, and
has what others wrote."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Access, LimitExceeded
from lipwire.security import LimitRules, TenantLimits
from lipwire.security.shared.counts import Asked, SharedCounts
from lipwire.stores import RedisAddress, RedisConnection, StoreAway

pytestmark = needs_redis
ACME = Access("key phone", "acme")
PATIENT: dict[str, Any] = {"timeout_s": WAIT_S, "retry_s": 0.05, "beat_s": 0.05}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.ask("FLUSHALL")
    return running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all that counts."""
    clock = Clock()
    clock.now = 1_900_000_020.0
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def servers(server: RedisServer, clock: Clock) -> Iterator["Servers"]:
    with Servers(server, clock) as servers:
        yield servers


class Servers(ExitStack):
    """``one(rules)``: the limits of one server more."""

    def __init__(self, server: RedisServer, clock: Clock) -> None:
        super().__init__()
        self.server, self.clock = server, clock
        self.connections: list[RedisConnection] = []

    def one(self, rules: LimitRules, **given: Any) -> TenantLimits:
        address = RedisAddress("127.0.0.1", self.server.port)
        redis = self.enter_context(RedisConnection(address, **(PATIENT | given)))
        until(lambda: redis.up)
        self.connections.append(redis)
        return TenantLimits(rules, SharedCounts(redis, now_s=self.clock))


def all_three_are_known_to(limits: TenantLimits) -> bool:
    return limits._shared is not None and limits._shared.members == 3


def taken(limits: TenantLimits, access: Access = ACME, frames: int = 0) -> bool:
    try:
        limits.take(access, frames)
    except LimitExceeded:
        return False
    return True


def test_what_one_server_was_asked_for_counts_at_the_others(servers: Servers) -> None:
    one, two = (servers.one(LimitRules(requests_per_minute=3)) for _ in range(2))
    assert [taken(each) for each in (one, two, one, two)] == [True, True, True, False]
    with pytest.raises(
        LimitExceeded, match=r"tenant acme asks for more than 3 requests a minute; allowed"
    ) as refused:
        one.take(ACME, 0)
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= 60
    assert taken(one, Access("key phone", "beta"))
    (standing,) = two.standing(ACME)
    assert (standing.policy, standing.most, standing.remaining) == ("requests", 3, 0)
    assert 0 <= standing.renewed_in_s <= 60
    servers.clock.now += 120
    assert taken(two)


def test_a_request_that_one_limit_refuses_counts_for_none(servers: Servers) -> None:
    limits = servers.one(LimitRules(requests_per_minute=2, frames_per_second=5))
    assert taken(limits, frames=50)
    assert not taken(limits, frames=1)
    assert [each.remaining for each in limits.standing(ACME)] == [1, 0]
    assert taken(limits)


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0.1, 3, 7, 10, 25, 61]), st.integers(1, 60)), max_size=40
    )
)
def test_what_is_allowed_is_what_the_library_allows_in_memory(
    running: RedisServer, asked: list[tuple[float, int]]
) -> None:
    """Two processes with one count are one process."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        clock.now = 1_900_000_000.0 + random.Random(1).random() * 60
        patch.setattr(time, "time", clock)
        running.ask("FLUSHALL")
        with Servers(running, clock) as servers:
            rules = LimitRules(requests_per_minute=7, frames_per_second=10)
            shared, alone = servers.one(rules), TenantLimits(rules)
            for passed_s, frames in asked:
                clock.now = round(clock.now + passed_s, 3)
                assert taken(shared, frames=frames) == taken(alone, frames=frames)
                told, own = shared.standing(ACME), alone.standing(ACME)
                assert [each.remaining for each in told] == [each.remaining for each in own]
                for each, its in zip(told, own, strict=True):
                    assert each.renewed_in_s == pytest.approx(its.renewed_in_s, abs=0.01)


def test_of_many_requests_at_one_time_as_many_are_let_in_as_are_allowed(servers: Servers) -> None:
    every = [servers.one(LimitRules(requests_per_minute=50)) for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        let_in = sum(threads.map(lambda at: taken(every[at % 4]), range(160)))
    assert let_in == 50


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "hang"])
def test_while_redis_is_away_each_server_allows_its_share(
    tmp_path: Path, clock: Clock, how: str
) -> None:
    rules = LimitRules(requests_per_minute=9)
    with RedisServer(tmp_path / "redis") as server, Servers(server, clock) as servers:
        every = [servers.one(rules, timeout_s=0.2) for _ in range(3)]
        for each in every:
            until(partial(all_three_are_known_to, each))
        assert sum(taken(every[0]) for _ in range(20)) == 9
        getattr(server, how)()
        until(lambda: not any(redis.up for redis in servers.connections))
        clock.now += 120
        for each in every:
            assert sum(taken(each) for _ in range(20)) == 3
            (standing,) = each.standing(ACME)
            assert (standing.most, standing.remaining) == (3, 0)
        with pytest.raises(LimitExceeded, match="asks for more than 3 requests a minute"):
            every[0].take(ACME, 0)
        if how == "kill":
            server.start()
        else:
            server.go_on()
        until(lambda: all(redis.up for redis in servers.connections))
        clock.now += 120
        assert sum(taken(each) for _ in range(20) for each in every) == 9


def test_a_share_is_never_nothing() -> None:
    rules = LimitRules(requests_per_minute=5, upload_mb_per_minute=2)
    assert rules.divided_by(1) == rules
    assert rules.divided_by(3) == LimitRules(requests_per_minute=1, upload_mb_per_minute=1)


HOSTILE = [
    *("acme", "acme:requests", "acme requests", "a c\r\nm e", "ACME", "äcme", "a\u0308cme"),
    *("*", "{acme}", "'; redis.call('FLUSHALL') --", "acme\x00", "\ud800", "a" * 5000),
]


def test_tenants_of_any_name_are_counted_apart(servers: Servers) -> None:
    limits = servers.one(LimitRules(requests_per_minute=1))
    everybody = [Access("key", name) for name in HOSTILE] + [Access("tenant acme:x"), Access("key")]
    assert [taken(limits, each) for each in everybody] == [True] * len(everybody)
    assert [taken(limits, each) for each in everybody] == [False] * len(everybody)
    for key in servers.server.names():
        assert key.isascii()
        assert key.startswith("lipwire:")
        assert "acme" not in key


GARBAGE: list[list[str | int]] = [
    ["SET", "KEY", "garbage"],
    ["RPUSH", "KEY", "a", "b"],
    ["HSET", "KEY", "requests:60:window", "nan", "requests:60:now", "inf"],
    ["HSET", "KEY", "requests:60:window", "31666667", "requests:60:now", "-5"],
    ["HSET", "KEY", "requests:60:window", "x" * 1000, "requests:60:now", "1e300"],
    ["HSET", "KEY", "requests:60:window", "31666667", "requests:60:now", "0x7", "y", "z"],
    ["XADD", "KEY", "*", "a", "b"],
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_what_others_wrote_begins_a_count_anew(servers: Servers, garbage: list[str | int]) -> None:
    limits = servers.one(LimitRules(requests_per_minute=2))
    assert taken(limits)
    (key,) = servers.server.names("lipwire:limits:*")
    servers.server.ask("DEL", key)
    servers.server.ask(*(key if each == "KEY" else each for each in garbage))
    assert [taken(limits) for _ in range(3)] == [True, True, False]
    assert servers.connections[0].up


def test_all_that_is_kept_in_redis_ends(servers: Servers) -> None:
    limits = servers.one(LimitRules(2, 5, 7))
    limits.take(ACME, 3)
    limits.upload(ACME, 1000)
    until(lambda: servers.server.names("lipwire:members"))
    assert len(servers.server.names()) >= 2
    for key in servers.server.names():
        assert 0 < servers.server.ask("PTTL", key) <= 120_000


def test_windows_begin_by_the_clock_of_redis(server: RedisServer) -> None:
    with RedisConnection(RedisAddress("127.0.0.1", server.port), **PATIENT) as redis:
        counts = SharedCounts(redis)
        asked = [Asked("requests", 1, 1_000_000, 3600)]
        assert counts.count("who", asked) == (None, counts.count("other", asked)[1])
        _, (left,) = counts.count("who", asked)
        assert left.remaining == 999_999
        until(lambda: counts.members >= 1)
    with pytest.raises(StoreAway):
        counts.count("who", asked)


def test_a_process_that_has_ended_shares_no_more(server: RedisServer) -> None:
    server.ask("ZADD", "lipwire:members", 1, "gone", 99_999_999_999, "of the future")
    with RedisConnection(RedisAddress("127.0.0.1", server.port), **PATIENT) as redis:
        counts = SharedCounts(redis)
        until(lambda: server.ask("ZCARD", "lipwire:members") == 1)
        until(lambda: counts.members == 1)
