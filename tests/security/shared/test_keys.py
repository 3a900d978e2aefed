"""API keys of several servers that tell each other of them by a Redis server."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Unauthenticated
from lipwire.security import KeyFile
from lipwire.security.keys import ApiKey, hash_of
from lipwire.security.shared.keys import SharedKeys
from lipwire.stores import RedisAddress, RedisConnection

pytestmark = needs_redis
PATIENT: dict[str, Any] = {"timeout_s": WAIT_S, "retry_s": 0.05, "beat_s": 0.05}


class Servers(ExitStack):
    """``one("a")``: the API keys of a server more, whose file is that of machine a."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.clock = Clock()
        self.server = self.enter_context(RedisServer(folder / "redis"))
        self.connections: list[RedisConnection] = []

    def file(self, machine: str) -> KeyFile:
        return KeyFile(self.folder / machine / "keys.json", now=self.clock)

    def create(self, machine: str, name: str, **given: Any) -> str:
        key = self.file(machine).create(name, **given)
        self.clock.now += 2  # so that each looks at its file
        return key

    def revoke(self, machine: str, name: str) -> None:
        self.file(machine).revoke(name)
        self.clock.now += 2

    def one(self, machine: str, *, new: bool = True) -> SharedKeys:
        address = RedisAddress("127.0.0.1", self.server.port)
        redis = self.enter_context(RedisConnection(address, **PATIENT))
        self.connections.append(redis)
        return SharedKeys(self.file(machine), redis, new=new, now=self.clock)

    def copy(self, machine: str, to: str) -> None:
        (self.folder / to).mkdir()
        text = (self.folder / machine / "keys.json").read_bytes()
        (self.folder / to / "keys.json").write_bytes(text)

    def away(self) -> None:
        self.server.kill()
        until(lambda: not any(redis.up for redis in self.connections))

    def back(self) -> None:
        self.server.start()
        until(lambda: all(redis.up for redis in self.connections))

    def told(self, what: str) -> bool:
        return any(name.startswith(what) for name in self.server.ask("HKEYS", "lipwire:keys"))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with Servers(tmp_path) as servers:
        yield servers


def counts(keys: SharedKeys, key: str) -> bool:
    try:
        keys.access(key)
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize("new", [True, False])
def test_a_key_that_is_revoked_at_one_server_counts_at_none(servers: Servers, new: bool) -> None:
    key, other = (servers.create("a", name) for name in ("phone", "tablet"))
    servers.copy("a", "b")
    one, two = servers.one("a", new=new), servers.one("b", new=new)
    assert counts(one, key)
    assert counts(two, key)
    servers.revoke("a", "phone")
    until(lambda: not counts(two, key))
    assert not counts(one, key)
    assert counts(two, other)
    assert not counts(servers.one("b", new=new), key), "also at one that starts later, at once"
    with pytest.raises(Unauthenticated, match="it may have been revoked"):
        two.access(key)


def test_a_key_of_one_server_counts_at_the_others(servers: Servers) -> None:
    one, two = servers.one("a"), servers.one("b")
    key = servers.create("a", "phone", tenant="acme: 1", avatars=["a*"], lifetime_s=1000)
    until(lambda: counts(two, key))
    assert two.access(key) == one.access(key)
    assert not counts(two, f"{key[:-1]}{'A' if key[-1] != 'A' else 'B'}")
    other = servers.create("b", "phone", tenant="beta")
    until(lambda: counts(one, other))
    assert [one.access(each).tenant for each in (key, other)] == ["acme: 1", "beta"]
    servers.clock.now += 1000
    with pytest.raises(Unauthenticated, match="the API key phone has expired"):
        two.access(key)


def test_by_default_keys_of_one_server_count_there_alone(servers: Servers) -> None:
    one, two = servers.one("a", new=False), servers.one("b", new=False)
    key = servers.create("a", "phone")
    one.sync()
    servers.server.ask("HSET", "lipwire:keys", f"new:{hash_of(key)}", text_of(servers, "a"))
    servers.server.ask("HINCRBY", "lipwire:keys", "version", 1)
    two.sync()
    assert counts(one, key)
    assert not counts(two, key)


def text_of(servers: Servers, machine: str) -> str:
    (key,) = servers.file(machine).listed()
    return json.dumps(asdict(key))


def test_what_was_heard_counts_on_while_redis_is_away_and_is_told_again(servers: Servers) -> None:
    key, gone = servers.create("a", "phone"), servers.create("a", "tablet")
    servers.copy("a", "b")
    one, two = servers.one("a"), servers.one("c")
    three = servers.one("b")
    servers.revoke("a", "tablet")
    until(lambda: counts(two, key) and not counts(three, gone))
    servers.away()
    assert counts(two, key)
    assert not counts(three, gone)
    servers.revoke("a", "phone")
    assert not counts(one, key)
    assert counts(two, key), "it cannot know yet"
    servers.back()  # and has forgotten all
    until(lambda: not counts(two, key))
    assert not counts(servers.one("b"), gone)


def test_a_key_revoked_while_no_server_ran_is_told_by_the_file(servers: Servers) -> None:
    key = servers.create("a", "phone")
    two = servers.one("b")
    with RedisConnection(RedisAddress("127.0.0.1", servers.server.port), **PATIENT) as redis:
        SharedKeys(servers.file("a"), redis, new=True, now=servers.clock)
        until(lambda: counts(two, key))
    servers.revoke("a", "phone")
    assert counts(two, key)
    servers.one("a")
    until(lambda: not counts(two, key))
    assert not servers.told("new:")


def test_a_file_that_is_away_for_a_moment_revokes_nothing(servers: Servers) -> None:
    key = servers.create("a", "phone")
    one, two = servers.one("a"), servers.one("b")
    until(lambda: counts(two, key))
    (servers.folder / "a" / "keys.json").unlink()
    servers.clock.now += 2
    one.sync()
    two.sync()
    assert counts(two, key)
    assert not servers.told("gone:")


GARBAGE = [
    *("", "x", "{}", "[]", "null", "[" * 100_000, '{"name": "a"}', "\x00\xff", "x" * 100_000),
]


@pytest.mark.slow
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_what_others_wrote_is_no_key_and_revokes_none(
    servers: Servers, caplog: pytest.LogCaptureFixture, garbage: str
) -> None:
    key = servers.create("a", "phone")
    one, two = servers.one("a"), servers.one("b")
    until(lambda: counts(two, key))
    for name in (f"new:{'0' * 64}", "new:x", "gone:x", f"gone:{key}", "", "\ud7ff", "new:"):
        servers.server.ask("HSET", "lipwire:keys", name, garbage)
    servers.server.ask("HSET", "lipwire:keys", f"gone:new:{'0' * 64}", garbage)
    forged = ApiKey("evil", "1" * 64, "", ("manage",), ("*",), 0.0, None)
    servers.server.ask("HSET", "lipwire:keys", f"new:{'2' * 64}", json.dumps(asdict(forged)))
    servers.server.ask("HINCRBY", "lipwire:keys", "version", 1)
    with caplog.at_level(logging.WARNING):
        for each in (one, two, one, two):
            each.sync()
    told = [each for each in caplog.records if "API key that is none" in each.getMessage()]
    assert len(told) == 2, "by each once"
    assert len(two._new) == 1
    assert two._gone == set()
    servers.server.ask("HSET", "lipwire:keys", "version", garbage)
    third = servers.create("a", "third")
    until(lambda: counts(two, third))
    servers.server.ask("SET", "lipwire:keys", garbage)
    fourth = servers.create("a", "fourth")
    until(lambda: counts(two, fourth))
    servers.server.ask("FLUSHALL")
    until(lambda: counts(servers.one("c"), key))
    assert counts(one, fourth)
    assert 0 < servers.server.ask("TTL", "lipwire:keys") <= 90 * 86_400


def test_redis_has_hashes_of_keys_alone(servers: Servers) -> None:
    key = servers.create("a", "phone")
    servers.one("a")
    until(lambda: servers.told("new:"))
    kept = str(servers.server.ask("HGETALL", "lipwire:keys"))
    _, _, secret = key.split("_", 2)  # which may have further ones
    assert secret not in kept
    assert hash_of(key) in kept
