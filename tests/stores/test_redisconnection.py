"""A connection to a Redis server that is killed, hangs, refuses and comes back."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import until

from lipwire.domain import DependencyMissing, InvalidInput
from lipwire.security.devcerts import make_certificates
from lipwire.stores import (
    RedisAddress,
    RedisConnection,
    RedisTls,
    Script,
    StoreAway,
    StoreDamaged,
    digest,
)
from lipwire.stores.redisconnection import in_one_line

pytestmark = needs_redis
COUNT = Script("return redis.call('INCR', KEYS[1])")
QUICK: dict[str, Any] = {"retry_s": 0.05, "beat_s": 0.05}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def connected(server: RedisServer, **given: Any) -> RedisConnection:
    return RedisConnection(RedisAddress("127.0.0.1", server.port), **(QUICK | given))


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "lipwire.stores"]


def test_commands_and_scripts_are_answered(server: RedisServer) -> None:
    with connected(server) as redis:
        assert redis.up
        redis.run("SET", redis.key("a"), "1", "PX", 60_000)
        assert redis.run("GET", "lipwire:a") == b"1"
        assert [redis.script(COUNT, ["lipwire:a"], []) for _ in range(2)] == [2, 3]
        server.ask("SCRIPT", "FLUSH")
        assert redis.script(COUNT, ["lipwire:a"], []) == 4
        stats = redis.stats()
        assert (stats.up, stats.outages, stats.missed) == (True, 0, 0)
        assert stats.commands >= 5
        assert stats.seconds > 0


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_while_redis_is_away_commands_fail_at_once_and_it_is_told_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with connected(server) as redis:
        getattr(server, how)()
        until(lambda: not redis.up)
        sent = redis.stats().commands
        for _ in range(3):
            with pytest.raises(StoreAway):
                redis.run("PING")
        assert redis.stats().commands == sent, "nothing was sent"
        if how == "kill":
            server.start()
        else:
            server.go_on()
        until(lambda: redis.up)
        assert redis.run("PING") == b"PONG"
        assert redis.epoch > 1
        assert redis.stats().outages == 1
    away, back = messages(caplog)
    assert away.startswith(f"Redis at 127.0.0.1:{server.port} is away: ")
    assert back == f"Redis at 127.0.0.1:{server.port} is back"


@pytest.mark.slow
def test_one_that_hangs_is_waited_for_by_one_caller_alone(server: RedisServer) -> None:
    """All callers of the moment wait for the one timeout, not one after the other."""
    with connected(server, timeout_s=0.3, beat_s=3600, retry_s=3600) as redis:
        until(lambda: redis.stats().commands)  # the first beat
        server.hang()
        failed = []

        def ask() -> None:
            try:
                redis.run("PING")
            except StoreAway:
                failed.append(time.monotonic())

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failed) == 20
        assert redis.stats().outages == 1
        assert not redis.up


def test_an_answer_that_came_too_late_is_nobodys(server: RedisServer) -> None:
    with connected(server) as redis:
        redis.run("SET", "lipwire:late", "late", "PX", 60_000)
        server.hang()
        with pytest.raises(StoreAway):
            redis.run("GET", "lipwire:late")
        server.go_on()
        until(lambda: redis.up)
        assert redis.run("ECHO", "now") == b"now"


def test_a_server_starts_while_redis_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path / "redis")
    with connected(server) as redis, server:
        assert messages(caplog)[0].startswith(f"Redis at 127.0.0.1:{server.port} is away: ")
        until(lambda: redis.up)


@pytest.mark.slow
def test_one_that_takes_no_writes_is_away(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(server) as redis:
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreAway):
            redis.script(COUNT, ["lipwire:full"], [])
        assert not redis.up
        began, own = connections(server), itertools.count(1)
        until(lambda: connections(server) - began - next(own) >= 2)
        assert not redis.up, "it was tried again, and takes no writes"
        server.ask("CONFIG", "SET", "maxmemory", "0")
        until(lambda: redis.up)
        assert redis.stats().outages == 1
        server.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreAway):
            redis.run("SET", "lipwire:replica", "1")
        server.ask("REPLICAOF", "NO", "ONE")
        until(lambda: redis.up)
    assert [text.split(": ")[0].split()[-1] for text in messages(caplog)] == [
        *("away", "back", "away", "back")
    ]


def connections(server: RedisServer) -> int:
    """How many there were since it was started."""
    told: int = server.ask("INFO", "stats")["total_connections_received"]
    return told


def test_a_command_that_is_interrupted_leaves_no_answer_to_the_next(server: RedisServer) -> None:
    class Interrupted:
        """The connection, on which nobody waits for the answer."""

        def __init__(self, connection: Any) -> None:
            self.send_command, self.disconnect = connection.send_command, connection.disconnect

        def read_response(self) -> None:
            raise KeyboardInterrupt

    with connected(server) as redis:
        with redis._lock:
            redis._connection = cast("Any", Interrupted(redis._connection))
        with pytest.raises(KeyboardInterrupt):
            redis.run("ECHO", "first")
        until(lambda: redis.up)
        assert redis.run("ECHO", "second") == b"second"


def test_what_others_have_written_under_a_name_is_removed_by_scripts(server: RedisServer) -> None:
    with connected(server) as redis:
        server.ask("RPUSH", "lipwire:list", "x")
        with pytest.raises(StoreDamaged):
            redis.run("GET", "lipwire:list")
        assert redis.up
        assert redis.script(COUNT, ["lipwire:list"], []) == 1


@pytest.mark.parametrize("password", ["x" * 40, "two  blanks", "a"])
def test_a_password_is_hidden_wherever_it_is(password: str) -> None:
    for before in range(150, 210):
        text = in_one_line(RuntimeError("." * before + password + "."), password)
        assert not set(text) - set(".*")
        assert len(text) <= 200


def test_a_password_is_needed_and_never_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    word = "a-very-secret-word"
    with RedisServer(tmp_path / "redis", "--requirepass", word) as server:
        wrong = RedisAddress("127.0.0.1", server.port, password=f"{word}-not")
        with RedisConnection(wrong, **QUICK) as redis:
            assert not redis.up
        right = RedisAddress("127.0.0.1", server.port, password=word)
        with RedisConnection(right, **QUICK) as redis:
            assert redis.up
        assert word not in f"{wrong!r} {wrong} {caplog.text}"
        (told,) = messages(caplog)
        assert "away" in told


def test_a_connection_is_encrypted_and_its_certificate_checked(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    make_certificates(folder, ["127.0.0.1"], now=datetime.now(UTC))
    ca, cert, key = (folder / name for name in ("ca.crt", "server.crt", "server.key"))
    tls = ("--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(ca))
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path / "redis", tls=tls))
        files = RedisTls(ca, folder / "client.crt", folder / "client.key")
        good = RedisAddress("127.0.0.1", server.port, tls=files)
        redis = stack.enter_context(RedisConnection(good, timeout_s=1.0, **QUICK))
        until(lambda: redis.up)
        unknown = RedisAddress("127.0.0.1", server.port, tls=RedisTls())
        redis = stack.enter_context(RedisConnection(unknown, timeout_s=1.0, **QUICK))
        assert not redis.up


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    tls = RedisTls(ca=tmp_path / "none.pem")
    with pytest.raises(InvalidInput, match=r"redis\.ca: .*none\.pem cannot be read: No such file"):
        RedisConnection(RedisAddress("127.0.0.1", tls=tls))


def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(DependencyMissing, match=r"lipwire\[redis\]"):
        RedisConnection(RedisAddress("127.0.0.1"))


def test_what_is_no_redis_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def answer() -> None:
            for _ in range(2):
                peer, _ = other.accept()
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                peer.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with RedisConnection(RedisAddress("127.0.0.1", port), **QUICK) as redis:
            thread.join()
            assert not redis.up


def test_calls_are_made_each_beat_and_their_faults_end_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    called = []

    def call() -> None:
        called.append(1)
        raise ValueError("a fault")

    with connected(server) as redis:
        redis.each_beat(call)
        until(lambda: len(called) > 2)
        assert redis.up
    caplog.clear()


def test_nothing_is_left_of_a_connection_that_was_closed(server: RedisServer) -> None:
    with connected(server) as redis:
        assert any(each.name == "lipwire-redis" for each in threading.enumerate())
    assert all(each.name != "lipwire-redis" for each in threading.enumerate())
    with pytest.raises(StoreAway):
        redis.run("PING")


def test_names_of_keys_cannot_be_made_alike() -> None:
    hostile = ["a", "a:b", "a b", "a\r\nDEL x", "ä", "a\u0308", "", "A", "a" * 10_000, "\ud800"]
    names = {digest(text) for text in hostile}
    assert len(names) == len(hostile)
    assert all(len(name) == 32 and name.isalnum() for name in names)
