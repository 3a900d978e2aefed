"""Tickets of one server at another: used once, and not known while Redis is away."""

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Access, StorageFailed, Unauthenticated, Unavailable
from lipwire.security import Tickets
from lipwire.security.shared.tickettexts import SharedTexts
from lipwire.stores import RedisAddress, RedisConnection

pytestmark = needs_redis
ACME = Access("key phone", "acme: 1 ä", frozenset({"live", "read"}), ("acme-*",))
ORIGIN = "https://app.example"
PATIENT: dict[str, Any] = {"timeout_s": WAIT_S, "retry_s": 0.05, "beat_s": 0.05}


class Servers(ExitStack):
    """``one()``: the tickets of one server more, by a Redis server of their own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.server = self.enter_context(RedisServer(folder))
        self.connections: list[RedisConnection] = []

    def one(self, clock: Clock | None = None, **given: Any) -> Tickets:
        address = RedisAddress("127.0.0.1", self.server.port)
        redis = self.enter_context(RedisConnection(address, **(PATIENT | given)))
        until(lambda: redis.up)
        self.connections.append(redis)
        return Tickets(None, SharedTexts(redis), now=clock or Clock())

    def away(self) -> None:
        self.server.kill()
        until(lambda: not any(redis.up for redis in self.connections))

    def back(self) -> None:
        self.server.start()
        until(lambda: all(redis.up for redis in self.connections))

    @property
    def kept(self) -> list[str]:
        return self.server.names("lipwire:ticket:*")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with Servers(tmp_path / "redis") as servers:
        yield servers


def test_a_ticket_counts_at_another_server_and_once(servers: Servers) -> None:
    one, two = servers.one(), servers.one()
    text = one.issue(ACME, "acme-anna", ORIGIN, minutes=5)
    found = two.find(text)
    assert found.access == Access("key phone", "acme: 1 ä", frozenset({"live"}), ("acme-anna",))
    assert (found.origin, found.lasts_s, found.shared) == (ORIGIN, 300, True)
    two.take(text)
    for each in (one, two):
        with pytest.raises(Unauthenticated, match="it was used, or has expired"):
            each.take(text)


def test_redis_has_the_hash_of_a_ticket_until_it_expires(servers: Servers) -> None:
    text = servers.one().issue(ACME, "acme-anna", ORIGIN, seconds=60)
    assert servers.kept == [f"lipwire:ticket:{hashlib.sha256(text.encode()).hexdigest()}"]
    (name,) = servers.kept
    assert text.removeprefix("lipwire_ticket_") not in servers.server.ask("GET", name)
    assert 0 < servers.server.ask("PTTL", name) <= 60_000


def test_of_many_servers_at_one_time_one_takes_it(servers: Servers) -> None:
    every = [servers.one() for _ in range(6)]
    for _ in range(5):
        text = every[0].issue(ACME, "acme-anna", ORIGIN)
        together = threading.Barrier(len(every))
        with ThreadPoolExecutor(len(every)) as pool:
            assert sum(pool.map(partial(took, text, together), every)) == 1


def took(text: str, together: threading.Barrier, tickets: Tickets) -> bool:
    together.wait(60)
    try:
        tickets.take(text)
    except Unauthenticated:
        return False
    return True


def test_a_ticket_that_opened_nothing_is_given_back_to_all(servers: Servers) -> None:
    one, two = servers.one(), servers.one()
    text = one.issue(ACME, "acme-anna", ORIGIN)
    one.give_back(text, one.take(text))
    two.give_back(text, two.take(text))
    assert 0 < servers.server.ask("PTTL", servers.kept[0]) <= 60_000
    one.take(text)


def test_clocks_of_servers_may_differ_as_redis_has_one(servers: Servers) -> None:
    early, late = Clock(), Clock()
    late.now += 86_400
    one, two = servers.one(early), servers.one(late)
    ticket = two.find(one.issue(ACME, "acme-anna", ORIGIN, seconds=30))
    assert late.now < ticket.until_s <= late.now + 30
    assert one.find(two.issue(ACME, "acme-anna", ORIGIN)).until_s <= early.now + 60


def test_secrets_are_for_their_own_server(servers: Servers) -> None:
    one, two = servers.one(), servers.one()
    secret = one.secret(one.take(one.issue(ACME, "acme-anna", ORIGIN)), "an id")
    assert servers.kept == []
    with pytest.raises(Unauthenticated):
        two.find(secret)
    servers.away()
    assert one.find(secret).access.session == "an id"


def test_while_redis_is_away_tickets_count_where_they_were_given(servers: Servers) -> None:
    one, two = servers.one(), servers.one()
    before = one.issue(ACME, "acme-anna", ORIGIN)
    servers.away()
    with pytest.raises(Unavailable, match=r"^tickets cannot be looked up now; try again"):
        one.take(before)
    text = one.issue(ACME, "acme-anna", ORIGIN)
    ticket = one.take(text)
    one.give_back(text, ticket)
    servers.back()
    with pytest.raises(Unauthenticated):
        two.take(text)
    one.take(text)
    for each in (one, two):
        with pytest.raises(Unauthenticated):
            each.take(text)
    two.take(one.issue(ACME, "acme-anna", ORIGIN))


def test_a_ticket_is_not_given_back_while_redis_is_away(servers: Servers) -> None:
    one = servers.one()
    text = one.issue(ACME, "acme-anna", ORIGIN)
    ticket = one.take(text)
    servers.away()
    with pytest.raises(StorageFailed, match=r"^tickets cannot be kept now$"):
        one.give_back(text, ticket)
    servers.back()
    with pytest.raises(Unauthenticated):
        one.take(text)


def test_one_that_hangs_issues_no_ticket_that_counts_twice(servers: Servers) -> None:
    """The answer that a ticket is kept is lost, and the ticket is kept."""
    one, two = servers.one(timeout_s=0.1, beat_s=3600), servers.one()
    until(lambda: servers.connections[0].stats().commands)
    servers.server.hang()
    text = one.issue(ACME, "acme-anna", ORIGIN)
    servers.server.go_on()
    until(lambda: len(servers.kept) == 1 and servers.connections[0].up)
    one.take(text)
    for each in (one, two):
        with pytest.raises(Unauthenticated):
            each.take(text)


def test_a_redis_that_goes_back_in_time_gives_no_used_ticket_to_who_used_it(
    tmp_path: Path,
) -> None:
    with Servers(tmp_path / "redis") as servers:
        one = servers.one()
        text = one.issue(ACME, "acme-anna", ORIGIN)
        servers.server.ask("SAVE")
        one.take(text)
        servers.away()
        servers.back()
        assert len(servers.kept) == 1
        with pytest.raises(Unauthenticated):
            one.take(text)


def forged(**changed: Any) -> str:
    access = {"subject": "x", "tenant": "acme", "operations": ["live"], "avatars": ["anna"]}
    told = access | {"session": ""} | changed
    lasts = told.pop("lasts_s", 60)
    return json.dumps([json.dumps(list(told.values())), ORIGIN, 1e12, lasts])


@pytest.mark.slow
@pytest.mark.parametrize(
    "garbage",
    [
        *("", "x", "{}", "[" * 100_000, "[1, 2, 3, 4]", "\x00\xff", "1e999", "x" * 1_000_000),
        *('["[]", 1, 2, 3]', '["[1,2,3,4,5]", "", 1e12, 60]', '["null", "", 1e12, 60]'),
        forged(operations=["manage"]),
        forged(operations=["live", "manage"]),
        forged(session="somebody's"),
        forged(avatars=["a", "b"]),
        forged(avatars=[1]),
        forged(lasts_s=1e9),
        forged(lasts_s=float("nan")),
        forged(lasts_s=-1),
    ],
)
def test_what_others_wrote_is_no_ticket(servers: Servers, garbage: str) -> None:
    one = servers.one()
    text = one.issue(ACME, "acme-anna", ORIGIN)
    (name,) = servers.kept
    servers.server.ask("SET", name, garbage, "PX", 60_000)
    with pytest.raises(Unauthenticated):
        one.take(text)
    servers.server.ask("SET", name, forged(), "PX", 60_000)
    assert one.find(text).access.tenant == "acme", "else nothing was tried here"
    servers.server.ask("SET", name, forged())
    with pytest.raises(Unauthenticated):
        one.take(text)  # it has no end
    servers.server.ask("DEL", name)
    servers.server.ask("RPUSH", name, "a list")
    with pytest.raises(Unauthenticated):
        one.take(text)
    assert servers.connections[0].up


def test_a_ticket_too_large_to_be_shared_counts_where_it_was_given(servers: Servers) -> None:
    one = servers.one()
    text = one.issue(Access("key", "t" * 70_000), "anna", ORIGIN)
    assert servers.kept == []
    assert one.take(text).access.tenant == "t" * 70_000
