"""Servers of a store that Redis tells when something is published."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conftest import PackageFactory
from tests.support.numbers import Read
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import until
from tests.wiring.servers.asking import ask

from lipwire.avatars.store import pushing
from lipwire.cli.app import app
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import NotFound
from lipwire.observe.metrics import ServerMetrics
from lipwire.rpc.connection import CompositingConnection
from lipwire.stores.objects import ObjectStore
from lipwire.wiring.servers import open_serve

pytestmark = needs_redis
NEVER_S = 3600
Start = Callable[..., tuple[CompositingConnection, Callable[[], Read]]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/store")


@pytest.fixture
def versions(store: ObjectStore, make_package: PackageFactory, tmp_path: Path) -> tuple[str, str]:
    """Two of anna, the first of which is published."""
    one = pushing.push(store, "anna", make_package(tmp_path / "one")).version
    two = pushing.push(store, "anna", make_package(tmp_path / "two", seed=1)).version
    pushing.publish(store, "anna", one)
    return one, two


@pytest.fixture
def start(store: ObjectStore, redis: RedisServer, tmp_path: Path) -> Iterator[Start]:
    """``start()``: a connection to a server that never looks by itself, and its numbers."""
    with ExitStack() as stack:

        def started(
            poll_s: float = NEVER_S,
        ) -> tuple[CompositingConnection, Callable[[], Read]]:
            file = tmp_path / "config.yaml"
            file.write_text(
                f"models_root: {store.url}\n"
                f"store: {{cache_folder: cache, poll_seconds: {poll_s}}}\n"
                f"redis: {{url: '{redis.url}', retry_seconds: 0.1}}\n"
            )
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__ENABLED": "false",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            metrics = ServerMetrics()
            server = stack.enter_context(
                open_serve(
                    load_compositing_config(file, here),
                    load_inference_config(None, {}),
                    tell=lambda *_: None,
                    metrics=metrics,
                )
            )
            connection = stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))
            return connection, lambda: Read(metrics.read())

        yield started


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """``run("publish", "anna")``: what the command says on standard error."""
    monkeypatch.setenv("LIPWIRE_MODELS_ROOT", store.url)

    def command(*arguments: str) -> str:
        app(["avatar", *arguments], standalone_mode=False)
        return capsys.readouterr().err

    return command


@pytest.mark.slow
def test_what_is_published_taken_back_and_forgotten_is_told_at_once(
    start: Start,
    versions: tuple[str, str],
    run: Callable[..., str],
    redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (one, numbers), (two, _) = start(), start()
    first = ask(one, "anna", 2)
    assert ask(two, "anna", 2) == first
    until(lambda: numbers()("lipwire_store_notices_heard") == 1)
    said = run("publish", "anna", versions[1], "--redis-url", redis.url)
    assert "told 2 processes of servers to look" in said
    until(lambda: ask(one, "anna", 2) != first and ask(two, "anna", 2) != first)
    second = ask(one, "anna", 2)
    assert ask(two, "anna", 2) == second
    assert numbers()("lipwire_store_noticed_total") == 2  # and when Redis was reached

    monkeypatch.setenv("LIPWIRE_REDIS__URL", redis.url)
    run("rollback", "anna")
    until(lambda: ask(one, "anna", 2) == first == ask(two, "anna", 2))
    run("forget", "anna", "--yes")
    for connection in (one, two):
        until(lambda: not _there(connection))  # noqa: B023


def _there(connection: CompositingConnection) -> bool:
    try:
        ask(connection, "anna")
    except NotFound:
        return False
    return True


@pytest.mark.slow
def test_what_was_published_while_redis_was_away_is_seen_when_it_is_back(
    start: Start,
    versions: tuple[str, str],
    run: Callable[..., str],
    redis: RedisServer,
) -> None:
    connection, numbers = start()
    first = ask(connection, "anna", 2)
    until(lambda: numbers()("lipwire_store_notices_heard") == 1)
    redis.kill()
    said = run("publish", "anna", versions[1], "--redis-url", redis.url)
    assert "servers notice within store.poll_seconds: Redis at 127.0.0.1:" in said
    until(lambda: numbers()("lipwire_store_notices_heard") == 0)
    assert ask(connection, "anna", 2) == first
    redis.start()
    until(lambda: ask(connection, "anna", 2) != first)


@pytest.mark.slow
def test_while_redis_is_away_the_store_is_looked_at_as_without(
    start: Start, versions: tuple[str, str], store: ObjectStore, redis: RedisServer
) -> None:
    connection, _ = start(poll_s=0.2)
    first = ask(connection, "anna", 2)
    redis.kill()
    pushing.publish(store, "anna", versions[1])
    until(lambda: ask(connection, "anna", 2) != first)
