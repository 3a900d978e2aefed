"""Finished videos that servers share."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.renderparts import Maker, ended, order, running
from tests.support.waiting import Clock, until

from lipwire.renders import Job, RenderRules, Renders, database
from lipwire.renders.cache import RenderCache
from lipwire.renders.files import RenderFiles
from lipwire.renders.forgetting import forget_avatar
from lipwire.renders.sharedvideos import SharedVideos
from lipwire.stores import RedisAddress, RedisConnection
from lipwire.stores.objects import ObjectStore

pytestmark = needs_redis
SOUND = np.zeros((1600, 1), np.int16)
RETENTION_S = 1000.0


@dataclass
class Server:
    renders: Renders
    maker: Maker
    cache: RenderCache
    videos: SharedVideos

    def made(self, one: Job) -> Job:
        """An order, when it has ended."""
        job = ended(self.renders, one)
        assert job.state == "done", job
        return job

    def order(self, text: str | None = "Hello", tenant: str = "a", **more: object) -> Job:
        sound = None if text is not None else SOUND
        return self.made(self.renders.submit(order(text, tenant, **more), sound, 16_000))


class Cluster:
    """Servers that share a Redis server and a store. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        self.store = folder / "store"
        self.clock = Clock()
        self._stack = ExitStack()

    def __enter__(self) -> "Cluster":
        self._stack.enter_context(self.redis)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def server(self, name: str, version: str = "v1", voice: str = "", **rules: object) -> Server:
        connection = self._stack.enter_context(
            RedisConnection(
                RedisAddress("127.0.0.1", self.redis.port), timeout_s=5, retry_s=0.1, beat_s=0.1
            )
        )
        until(lambda: connection.up)
        store = ObjectStore(f"file://{self.store}", what="store of renders")
        videos = SharedVideos(connection, store, retention_s=RETENTION_S, now=self.clock)
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        files = RenderFiles(folder / "renders")
        maker = Maker(folder, version=version)
        cache = RenderCache(videos, files, lambda avatar: maker.version, voice)
        renders = self._stack.enter_context(
            Renders(
                files,
                RenderRules(retention_s=RETENTION_S, **rules),  # type: ignore[arg-type]
                maker,
                cache=cache,
                now=self.clock,
            )
        )
        return Server(renders, maker, cache, videos)

    def shared(self) -> list[str]:
        """The videos in the store."""
        return sorted(path.name for path in self.store.glob("videos/*"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as cluster:
        yield cluster


def published(cluster: Cluster, server: Server, **more: object) -> Job:
    """An order that was made, and is shared."""
    before = len(cluster.shared()), len(cluster.redis.names("lipwire:renders:video:*"))
    job = server.order(**more)  # type: ignore[arg-type]
    until(
        lambda: (
            (len(cluster.shared()), len(cluster.redis.names("lipwire:renders:video:*")))
            == (before[0] + 1, before[1] + 1)
        )
    )
    return job


def test_what_one_server_has_made_another_need_not_make(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    first = published(cluster, one)
    again = two.order()
    assert two.maker.made == []
    assert again.cached
    assert not first.cached
    assert (again.video, again.frames, again.progress) == (first.video, first.frames, 1.0)
    assert two.renders.file(again).read_bytes() == one.renders.file(first).read_bytes()
    until(lambda: two.cache.results() == {"hit": 1, "miss": 0, "away": 0})
    assert one.cache.results() == {"hit": 0, "miss": 1, "away": 0}
    assert one.order().cached, "at the same server as well"


def test_a_recording_is_told_by_its_sound(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one, text=None)
    assert two.order(None).cached
    other = two.renders.submit(order(None, "a"), SOUND + 1, 16_000)
    assert not two.made(other).cached
    slower = two.renders.submit(order(None, "a"), SOUND, 8_000)
    assert not two.made(slower).cached


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [
        {"text": "Good bye"},
        {"tenant": "b"},
        {"tenant": ""},
        {"avatar": "bert"},
        {"start_frame": 1},
        {"format": "hls"},
    ],
)
def test_another_order_is_made(cluster: Cluster, other: dict[str, object]) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    assert not two.order(**other).cached  # type: ignore[arg-type]
    assert len(two.maker.made) == 1


def test_who_is_told_and_by_which_key_makes_no_other_video(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one, webhook="https://example.org/", key="1")
    assert two.order(key="2").cached


@pytest.mark.parametrize("other", [{"version": "v2"}, {"voice": "another"}])
def test_another_version_or_voice_is_another_video(cluster: Cluster, other: dict[str, str]) -> None:
    published(cluster, cluster.server("one"))
    assert not cluster.server("two", **other).order().cached


def test_what_is_not_known_of_an_avatar_is_not_shared(cluster: Cluster) -> None:
    one, two = cluster.server("one", version=""), cluster.server("two", version="")
    assert not one.order().cached
    assert not two.order().cached
    assert cluster.shared() == []


def test_an_avatar_that_is_replaced_meanwhile_is_not_shared(cluster: Cluster) -> None:
    one = cluster.server("one")
    one.maker.held.set()
    job = one.renders.submit(order("Hello", "a"), None, 0)
    until(lambda: one.maker.made)
    one.maker.version = "v2"  # what looks for "v1" was begun
    one.maker.held.clear()
    one.made(job)
    one.order("Another one")
    until(lambda: len(cluster.redis.names("lipwire:renders:video:*")) == 1)
    assert len(cluster.shared()) == 1


def test_one_that_is_there_waits_for_none_that_has_to_be_made(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    two.maker.held.set()
    running(two.renders, two.renders.submit(order("long", "a"), None, 0))
    waiting = two.renders.submit(order("longer", "a"), None, 0)
    assert two.order().cached
    assert two.renders.find(waiting.id).state == "queued"
    two.maker.held.clear()


def test_a_tenant_that_removes_its_renders_has_none_at_any_server(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    others = published(cluster, one, tenant="b")
    copy, own = two.order(), two.order("made by two")
    until(lambda: len(cluster.shared()) == 3)
    cluster.clock.now += 1
    two.renders.remove_all(tenant="a")
    assert not two.order().cached, "at once"
    until(lambda: not one.renders.every("a"))
    assert one.renders.find(others.id).state == "done"
    assert not {copy.id, own.id} & {job.id for job in two.renders.every()}
    until(lambda: len(cluster.shared()) == 2)  # that of b, and what was ordered since
    assert two.order(tenant="b").cached


def test_an_erased_avatar_is_erased_at_every_server(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    published(cluster, one, avatar="bert")
    two.order()
    cluster.clock.now += 1
    two.renders.remove_all(avatar="anna")
    until(lambda: len(cluster.shared()) == 1)
    until(lambda: [job.order.avatar for job in one.renders.every()] == ["bert"])
    assert not two.renders.every()
    assert len(list((cluster.folder / "one" / "renders" / "videos").glob("*/*.mp4"))) == 1
    assert two.order(avatar="bert").cached


def test_what_is_erased_without_a_server_is_erased_when_one_starts(cluster: Cluster) -> None:
    with Cluster(cluster.folder) as before:
        published(before, before.server("one"))
        redis = before.redis.port
    assert redis
    assert len(cluster.shared()) == 1
    forget_avatar(cluster.folder / "one" / "renders", "anna")
    cluster.server("one")
    until(lambda: cluster.shared() == [])


@pytest.mark.parametrize("cached", [False, True])
def test_who_removes_one_render_is_not_given_it_again(cluster: Cluster, cached: bool) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    first = published(cluster, one)
    again = two.order()
    if cached:
        two.renders.remove(again.id)
    else:
        one.renders.remove(first.id)
    two.renders.remove_all(tenant="nobody")
    assert not two.order().cached
    until(lambda: len(cluster.shared()) == 1)


def test_a_render_that_is_removed_while_it_is_shared_leaves_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cluster.server("one")
    put = one.videos.put

    def removed_first(content: str, asked: object, *more: object) -> str:
        (job,) = one.renders.every()
        one.renders.remove(job.id)
        return put(content, asked, *more)  # type: ignore[arg-type]

    def kept_meanwhile(*given: object) -> str:
        name = put(*given)  # type: ignore[arg-type]
        (job,) = one.renders.every()
        one.renders.remove(job.id)
        return name

    for meanwhile in (removed_first, kept_meanwhile):
        monkeypatch.setattr(one.videos, "put", meanwhile)
        one.renders.submit(order("Hello", "a"), None, 0)
        until(lambda: not one.renders.every() and not one.renders._running)
        until(lambda: cluster.shared() == [])
    assert cluster.redis.names("lipwire:renders:video:*") == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_video_that_is_gone_or_another_is_made_again(cluster: Cluster, damage: str) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    (path,) = cluster.store.glob("videos/*")
    if damage == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[:-1] if damage == "cut" else data[::-1])
    again = two.order()
    assert not again.cached
    assert two.cache.results() == {"hit": 0, "miss": 1, "away": 0}
    cluster.clock.now += 1  # the new one has another name
    assert two.order("Other").cached is False
    until(lambda: len(cluster.redis.names("lipwire:renders:video:*")) == 2)
    assert cluster.server("three").order().cached


def test_nobody_is_led_to_the_video_of_another_tenant(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one, tenant="a")
    published(cluster, one, tenant="b", text="Of b")
    keys = cluster.redis.names("lipwire:renders:video:*")
    texts = [cluster.redis.ask("GET", key) for key in keys]
    assert all("Hello" not in text and "anna" not in text for text in texts)
    for key, text in zip(keys, reversed(texts), strict=True):
        cluster.redis.ask("SET", key, text)
    assert not two.order(tenant="a").cached
    assert not two.order("Of b", tenant="b").cached
    for key in keys:
        cluster.redis.ask("SET", key, "{}")
    assert not cluster.server("three").order(tenant="a").cached


@pytest.mark.slow
def test_without_redis_videos_are_made(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "lipwire.renders")
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    cluster.redis.kill()
    for text in ("Hello", "Hello"):
        assert not two.order(text).cached
    assert two.cache.results() == {"hit": 0, "miss": 0, "away": 2}
    assert [r.message for r in caplog.records if "cache of renders" in r.message] == [
        "the cache of renders is not used: Redis is away"
    ]
    cluster.redis.start()  # which knows of nothing
    until(lambda: two.videos._redis.up and one.videos._redis.up)
    published(cluster, two, text="Later")
    assert one.order("Later").cached


@pytest.mark.slow
def test_what_is_removed_while_redis_is_away_goes_everywhere_when_it_is_back(
    cluster: Cluster,
) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    two.order()
    cluster.clock.now += 1
    cluster.redis.kill()
    two.renders.remove_all(tenant="a")
    until(lambda: cluster.shared() == [])
    assert len(one.renders.every("a")) == 1
    cluster.clock.now += 1
    later = one.order("Ordered since")
    cluster.redis.start()
    until(lambda: [job.id for job in one.renders.every("a")] == [later.id])


def test_without_the_store_videos_are_made(cluster: Cluster) -> None:
    cluster.store.write_bytes(b"no folder")
    one = cluster.server("one")
    assert not one.order().cached
    assert not one.order().cached
    assert cluster.redis.names("lipwire:renders:video:*") == []


def test_sharing_goes_on_after_an_error_that_nobody_foresaw(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RenderCache, "removed_elsewhere", lambda *given: 1 / 0)
    one = cluster.server("one")
    until(lambda: caplog.text.count("a round failed") > 1)  # the thread has gone on
    published(cluster, one)


def test_when_its_time_is_over_a_video_goes_from_the_store(cluster: Cluster) -> None:
    one, two = cluster.server("one"), cluster.server("two")
    published(cluster, one)
    cluster.clock.now += 500
    assert two.order().cached
    cluster.clock.now += 501
    one.renders.sweep()
    assert not one.renders.every()
    until(lambda: cluster.shared() == [])
    assert len(two.renders.every()) == 1, "which has its own time"
    until(lambda: cluster.redis.names("lipwire:renders:video:*") == [])


def test_a_video_of_a_server_that_is_no_more_goes_from_the_store(cluster: Cluster) -> None:
    published(cluster, cluster.server("one"))
    two = cluster.server("two")
    cluster.clock.now += RETENTION_S
    assert two.videos.remove_expired() == 0
    cluster.clock.now += 1
    assert two.videos.remove_expired() == 1
    assert cluster.shared() == []


def test_pointers_expire_with_the_videos(cluster: Cluster) -> None:
    published(cluster, cluster.server("one"))
    (key,) = cluster.redis.names("lipwire:renders:video:*")
    assert 0 < cluster.redis.ask("PTTL", key) <= RETENTION_S * 1000


def test_a_list_of_the_version_before_is_kept(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cluster.folder / "one" / "renders"
    folder.mkdir(parents=True)
    before = database._TABLES.replace("    cached INTEGER NOT NULL DEFAULT 0,\n", "").replace(
        "    shared TEXT,\n", ""
    )
    with sqlite3.connect(folder / "renders.sqlite3") as old:
        old.executescript(f"{before} PRAGMA user_version = 1;")
        old.execute(
            "INSERT INTO renders (id, tenant, subject, avatar, format, fingerprint, text,"
            " start_frame, input_bytes, state, created_s, not_before_s)"
            " VALUES ('x', 'a', 's', 'anna', 'mp4', '', 'Hello', 0, 0, 'queued', 1000, 0)"
        )
    one = cluster.server("one")
    assert ended(one.renders, one.renders.find("x")).state == "done"
    assert one.order().cached
