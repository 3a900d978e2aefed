"""Minutes of live sessions a month, of several machines that share a Redis server: each counted
once, whatever ends, hangs or forgets."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import MinutesUsedUp
from lipwire.security import LiveMinutes
from lipwire.security.minutes import EVERY_S
from lipwire.security.shared.minutes import Exchanged, SharedMinutes
from lipwire.stores import RedisAddress, RedisConnection, StoreAway

pytestmark = needs_redis
PATIENT: dict[str, Any] = {"timeout_s": WAIT_S, "retry_s": 0.05, "beat_s": 0.05}
MONTH_S = 31 * 86_400


class Machines(ExitStack):
    """``one("a")``: a process of machine a more, by a Redis server of their own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.server = self.enter_context(RedisServer(folder / "redis"))
        self.clock = Clock()
        self.clock.now = datetime(2030, 1, 15, 12, tzinfo=UTC).timestamp()
        self.connections: list[RedisConnection] = []

    def one(self, machine: str | None, most_minutes: float = 10, **given: Any) -> LiveMinutes:
        address = RedisAddress("127.0.0.1", self.server.port)
        redis = self.enter_context(RedisConnection(address, **(PATIENT | given)))
        self.connections.append(redis)
        file = None if machine is None else self.file(machine)
        return LiveMinutes(file, most_minutes, SharedMinutes(redis), now=self.clock)

    def file(self, machine: str) -> Path:
        return self.folder / machine / "minutes.json"

    def away(self) -> None:
        self.server.kill()
        until(lambda: not any(redis.up for redis in self.connections))

    def back(self) -> None:
        self.server.start()
        until(lambda: all(redis.up for redis in self.connections))

    @property
    def counted_ms(self) -> int:
        """All that Redis has of all tenants."""
        names = self.server.names("lipwire:minutes:*")
        return sum(int(each) for name in names for each in self.server.ask("HVALS", name))


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with Machines(tmp_path) as machines:
        yield machines


def used_s(minutes: LiveMinutes, tenant: str = "acme") -> float:
    """What it knows to be used, asked anew."""
    minutes.check(tenant)
    minutes.sync()
    return minutes._used_s(tenant)


def test_what_one_machine_has_counted_counts_at_the_others(machines: Machines) -> None:
    one, two = machines.one("a", 2), machines.one("b", 2)
    assert one.spend("acme", 100)
    one.sync()
    two.check("acme")
    assert not two.spend("acme", 20)
    assert two.spend("beta", 100)
    two.sync()
    machines.clock.now += EVERY_S
    with pytest.raises(MinutesUsedUp, match="tenant acme has used 2 minutes") as refused:
        one.check("acme")
    assert refused.value.used_minutes == 2
    one.check("beta")
    assert json.loads(machines.file("a").read_text())["seconds"] == {"acme": 100.0}


def test_a_session_ends_seconds_after_another_machine_has_used_the_rest(
    machines: Machines,
) -> None:
    one, two = machines.one("a", 2), machines.one("b", 2)
    assert one.spend("acme", 1)
    one.sync()
    two.spend("acme", 119)
    two.sync()
    assert one.spend("acme", 0.5), "it has not heard of that yet"
    machines.clock.now += EVERY_S
    assert one.due
    one.sync()
    assert not one.spend("acme", 0.5)


@pytest.mark.parametrize("machine", ["a", None])
def test_a_machine_that_starts_again_counts_on(machines: Machines, machine: str | None) -> None:
    for _ in range(3):
        with machines.one(machine) as minutes:
            minutes.spend("acme", 60)
    assert used_s(machines.one(machine)) == 180
    assert machines.counted_ms == 180_000
    (name,) = machines.server.names("lipwire:minutes:*")
    assert machines.server.ask("HLEN", name) == (1 if machine else 3)


def test_a_process_that_is_killed_loses_what_it_had_not_told(machines: Machines) -> None:
    killed = machines.one("a")
    killed.spend("acme", 60)
    killed.sync()
    killed.spend("acme", 4)
    del killed
    assert used_s(machines.one("a")) == 60
    assert used_s(machines.one("b")) == 60


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["a", None])
def test_what_is_counted_while_redis_is_away_is_told_when_it_is_back(
    machines: Machines, machine: str | None
) -> None:
    one, two = machines.one(machine), machines.one("b")
    one.spend("acme", 60)
    two.spend("acme", 60)
    for each in (one, two):
        each.sync()
    assert used_s(one) == 120
    machines.away()
    one.spend("acme", 60)
    one.sync()
    two.sync()
    assert used_s(one) == 180, "what was known of others counts on"
    assert used_s(two) == 120
    machines.back()
    assert machines.counted_ms == 0, "it has forgotten all"
    one.sync()
    two.sync()
    for each in (one, two):
        assert used_s(each) == 180
    assert machines.counted_ms == 180_000


@pytest.mark.slow
def test_after_redis_has_forgotten_also_tenants_without_sessions_are_told_again(
    machines: Machines,
) -> None:
    one = machines.one("a")
    for number in range(250):
        one.spend(f"tenant {number}", 60)
    one.sync()
    machines.clock.now += 86_400
    one.sync()
    assert one._wanted_s == {}
    machines.away()
    machines.back()
    one.sync()
    assert machines.counted_ms == 250 * 60_000


@pytest.mark.slow
def test_one_that_hangs_is_told_once_however_often_it_is_tried(machines: Machines) -> None:
    """The answer that it was told is lost, again and again."""
    one = machines.one("a", timeout_s=0.05)
    until(lambda: machines.connections[0].up)
    for _ in range(3):
        one.spend("acme", 60)
        machines.server.hang()
        one.sync()
        machines.server.go_on()
        until(lambda: machines.connections[0].up)
        one.sync()
    assert used_s(one) == 180
    assert machines.counted_ms == 180_000


def test_a_machine_that_has_lost_its_file_learns_it_from_redis(machines: Machines) -> None:
    with machines.one("a") as minutes:
        minutes.spend("acme", 60)
    machines.file("a").unlink()
    one = machines.one("a")
    assert used_s(one) == 60
    one.spend("acme", 60)
    assert used_s(one) == 120
    assert json.loads(machines.file("a").read_text())["seconds"] == {"acme": 120.0}
    machines.file("a").unlink()
    machines.file("a").with_name("minutes.json.id").write_text("damaged")
    assert used_s(machines.one("a")) == 120
    assert machines.counted_ms == 120_000


def test_processes_of_one_machine_are_one_source(machines: Machines) -> None:
    every = [machines.one("a", 1000) for _ in range(2)] + [machines.one("b", 1000)]

    def use(minutes: LiveMinutes) -> None:
        for _ in range(10):
            minutes.spend("acme", 1)
            minutes.sync()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(use, every))
    for each in every:
        assert used_s(each) == 30
    assert machines.counted_ms == 30_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_each_second_is_counted_once(machines: Machines, seed: int) -> None:
    chance = random.Random(seed)
    every = {name: [machines.one(name, 1e6) for _ in range(2)] for name in "ab"}
    spent_s, up = 0, True
    for _ in range(40):
        match chance.choice(["spend", "spend", "sync", "sync", "restart", "redis"]):
            case "spend":
                seconds = chance.randrange(1, 60)
                spent_s += seconds
                chance.choice(every[chance.choice("ab")]).spend("acme", seconds)
            case "sync":
                chance.choice(every[chance.choice("ab")]).sync()
            case "restart":
                name, at = chance.choice("ab"), chance.randrange(2)
                every[name][at].close()
                every[name][at] = machines.one(name, 1e6)
            case "redis":
                if up:
                    machines.away()
                else:
                    machines.back()
                up = not up
        machines.clock.now += chance.choice([0, 1, EVERY_S])
    if not up:
        machines.back()
    for _ in range(2):
        for each in (each for two in every.values() for each in two):
            each.sync()
    assert {used_s(each) for two in every.values() for each in two} == {spent_s}
    assert machines.counted_ms == 1000 * spent_s


def test_a_month_begins_with_none_used_anywhere(machines: Machines) -> None:
    one, two = machines.one("a", 1), machines.one("b", 1)
    one.spend("acme", 60)
    one.sync()
    with pytest.raises(MinutesUsedUp):
        two.check("acme")
    machines.clock.now = datetime(2030, 2, 1, tzinfo=UTC).timestamp()
    two.check("acme")
    assert two.spend("acme", 30)
    one.check("acme")
    two.sync()
    assert used_s(one) == 30


HOSTILE = ["acme", "acme:2030-01", "ACME", "a c\r\nme", "ä", "*", "", "acme\x00", "\ud800"]


def test_tenants_of_any_name_are_counted_apart_and_all_that_is_kept_ends(
    machines: Machines,
) -> None:
    one, two = machines.one(None, 60), machines.one(None, 60)
    for seconds, tenant in enumerate(HOSTILE, 1):
        one.spend(tenant, seconds)
    one.sync()
    for seconds, tenant in enumerate(HOSTILE, 1):
        assert used_s(two, tenant) == seconds
    names = machines.server.names()
    assert len([name for name in names if name.startswith("lipwire:minutes:2030-01:")]) == 9
    for name in names:
        assert name.isascii()
        assert 0 < machines.server.ask("PTTL", name) < 2 * MONTH_S * 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "garbage",
    [
        *("nan", "inf", "-inf", "-5", "1e300", "x", "", "99999999999999999999", "\x00"),
        "1" * 100_000,
    ],
)
def test_what_others_wrote_is_not_counted(machines: Machines, garbage: str) -> None:
    one = machines.one("a")
    one.spend("acme", 60)
    one.sync()
    (name,) = machines.server.names("lipwire:minutes:*")
    machines.server.ask("HSET", name, "somebody", garbage)
    source = machines.file("a").with_name("minutes.json.id").read_text().strip()
    machines.server.ask("HSET", name, source, garbage)
    assert used_s(one) == 60
    machines.server.ask("SET", name, garbage)
    assert used_s(one) == 60
    assert machines.counted_ms == 60_000
    assert machines.connections[0].up


def test_a_lower_number_than_before_changes_nothing(machines: Machines) -> None:
    machines.one(None)
    shared = SharedMinutes(machines.connections[0])
    month: dict[str, Any] = {"left_s": 100.0}
    assert shared.exchange("2030-01", "a", {"acme": 5.0}, **month) == {"acme": Exchanged(0, 0)}
    assert shared.exchange("2030-01", "a", {"acme": 3.0}, **month) == {"acme": Exchanged(5, 0)}
    assert shared.exchange("2030-01", "b", {"acme": 1.5}, **month) == {"acme": Exchanged(0, 5)}
    assert shared.exchange("2030-01", "a", {"acme": 5.0}, **month) == {"acme": Exchanged(5, 1.5)}
    assert shared.exchange("2030-02", "a", {}, **month) == {}
    machines.away()
    with pytest.raises(StoreAway):
        shared.exchange("2030-01", "a", {"acme": 5.0}, **month)
