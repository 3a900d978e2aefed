"""Notices by a Redis server that is killed, hangs, refuses and comes back."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import until

from lipwire.domain import Unavailable
from lipwire.stores import Notices, RedisAddress, notice

pytestmark = needs_redis
CHANNEL = "lipwire:published"


class Looks:
    """When somebody looked."""

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.at_s.append(time.monotonic())
        if self.error is not None:
            raise self.error

    def __len__(self) -> int:
        return len(self.at_s)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def looks() -> Looks:
    return Looks()


def at(server: RedisServer) -> RedisAddress:
    return RedisAddress("127.0.0.1", server.port)


def heard(server: RedisServer, looks: Looks, **given: Any) -> Notices:
    return Notices(at(server), CHANNEL, looks, **({"retry_s": 0.05, "apart_s": 0.05} | given))


@pytest.mark.slow
def test_a_notice_has_all_look(server: RedisServer, looks: Looks) -> None:
    others = Looks()
    with heard(server, looks), heard(server, others):
        until(lambda: looks and others)
        before = len(looks), len(others)
        assert notice(at(server), CHANNEL) == 2
        until(lambda: len(looks) > before[0] and len(others) > before[1])
        assert notice(at(server), "other:published") == 0
    assert notice(at(server), CHANNEL) == 0


@pytest.mark.slow
def test_without_notices_nobody_looks_but_once(server: RedisServer, looks: Looks) -> None:
    with heard(server, looks):
        until(lambda: looks)
        time.sleep(0.5)
        assert len(looks) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "hang"])
def test_when_redis_is_back_there_is_a_look_at_once(
    server: RedisServer, looks: Looks, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with heard(server, looks) as notices:
        until(lambda: looks)
        getattr(server, how)()
        until(lambda: not notices.hearing)
        count = len(looks)
        time.sleep(0.3)
        assert len(looks) == count, "there is nothing to look for"
        if how == "kill":
            server.start()
        else:
            server.go_on()
        until(lambda: notices.hearing)
        until(lambda: len(looks) > count)
        count = len(looks)
        notice(at(server), CHANNEL)
        until(lambda: len(looks) > count)
    assert caplog.text.count("are not heard") == 1


@pytest.mark.slow
def test_a_redis_that_is_not_there_yet_is_waited_for(server: RedisServer, looks: Looks) -> None:
    server.kill()
    with heard(server, looks) as notices:
        time.sleep(0.2)
        assert not notices.hearing
        assert not looks
        server.start()
        until(lambda: looks)


@pytest.mark.slow
def test_a_flood_of_notices_costs_one_look_in_its_time(server: RedisServer, looks: Looks) -> None:
    with heard(server, looks, apart_s=0.5) as notices:
        until(lambda: looks)
        end_s = time.monotonic() + 2.0
        sent = 0
        import redis

        with redis.Redis(port=server.port) as client:
            while time.monotonic() < end_s:
                with client.pipeline(transaction=False) as pipe:
                    for _ in range(200):
                        pipe.publish(CHANNEL, b"x" * 100)
                    pipe.execute()
                sent += 200
        assert sent > 2000
        count = len(looks)
        last_s = time.monotonic()
        until(lambda: looks.at_s[-1] >= last_s - 0.5)
        assert count <= 6
        pauses = [b - a for a, b in zip(looks.at_s, looks.at_s[1:], strict=False)]
        assert min(pauses) >= 0.45
        until(lambda: notices.hearing)
        count = len(looks)
        notice(at(server), CHANNEL)
        until(lambda: len(looks) > count)


@pytest.mark.slow
def test_what_a_notice_says_is_not_read(server: RedisServer, looks: Looks) -> None:
    with heard(server, looks):
        until(lambda: looks)
        for text in ("", "x" * 100_000, "\x00\xff", '{"avatar": "../x"}'):
            count = len(looks)
            server.ask("PUBLISH", CHANNEL, text)
            until(lambda: len(looks) > count)  # noqa: B023


def test_a_look_that_fails_is_not_the_last(
    server: RedisServer, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    looks.error = RuntimeError("no")
    with heard(server, looks):
        until(lambda: looks)
        notice(at(server), CHANNEL)
        until(lambda: len(looks) > 1)
    assert "what is done for a notice failed" in caplog.text


def test_who_may_not_hear_goes_without(
    server: RedisServer, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("ACL", "SETUSER", "default", "resetchannels", "-subscribe")
    with heard(server, looks) as notices:
        until(lambda: "are not heard" in caplog.text)
        assert not notices.hearing
        assert "no permissions" in caplog.text
    assert not looks


def test_it_is_said_that_nobody_can_be_told(server: RedisServer) -> None:
    server.kill()
    with pytest.raises(Unavailable, match=f"Redis at 127.0.0.1:{server.port} cannot be told"):
        notice(at(server), CHANNEL)


def test_it_ends_at_once(server: RedisServer, looks: Looks) -> None:
    notices = heard(server, looks)
    until(lambda: looks)
    began_s = time.monotonic()
    notices.close()
    assert time.monotonic() - began_s < 2
    assert notice(at(server), CHANNEL) == 0
