"""How many avatars stay loaded, and which go."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.avatars.sandbox.hostilenetworks import allocate_endlessly, run_for_minutes
from tests.support.quickfirst import quick_first
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.asking import Serve, ask, loaded

from lipwire.avatars import Avatar
from lipwire.avatars.frames.framecache import FrameCache
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import AvatarInvalid
from lipwire.engine import Engine
from lipwire.rpc.connection import CompositingConnection
from lipwire.wiring import registries
from lipwire.wiring.servers import open_compositing_server, open_inference_server


@pytest.fixture(scope="module")
def large_package(make_package: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With patches of 10 MB, compiled for JPEG. Nobody writes to it."""
    package: Path = make_package(
        tmp_path_factory.mktemp("large") / "large", frames=40, size=(640, 480), extension="jpg"
    )
    Avatar.open(package, parts=frozenset({"jpeg"})).close()
    return package


def test_only_so_many_avatars_stay_open(serve: Serve) -> None:
    connection = serve("capacity: {max_models: 1}")
    ask(connection, "a")
    assert loaded(connection) == {"a"}
    ask(connection, "b")
    assert loaded(connection) == {"b"}
    assert connection.stats().max_models == 1
    assert connection.stats().evictions == 1


def test_only_so_many_networks_stay_loaded(
    root: Path, tmp_path: Path, told: dict[str, Mapping[str, object]]
) -> None:
    (tmp_path / "i.yaml").write_text(f"models_root: {root}\ncapacity: {{max_models_per_gpu: 1}}\n")
    (tmp_path / "c.yaml").write_text(f"models_root: {root}\n")
    here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
    with open_inference_server(
        load_inference_config(tmp_path / "i.yaml", here), tell=told.__setitem__
    ) as inference:
        url = {
            "LIPWIRE_INFERENCE_SERVER__URL": f"127.0.0.1:{inference.port}",
            "LIPWIRE_INFERENCE_SERVER__TIMEOUT_SECONDS": str(WAIT_S),
        }
        config = load_compositing_config(tmp_path / "c.yaml", here | url)
        with (
            open_compositing_server(config, tell=told.__setitem__) as server,
            CompositingConnection(f"127.0.0.1:{server.port}") as connection,
        ):
            ask(connection, "a")
            ask(connection, "b")
            assert loaded(connection) == {"a", "b"}
            health = connection.health()
            assert (health.healthy, health.inference_server_healthy) == (True, True)
            assert health.inference_server_url == f"127.0.0.1:{inference.port}"
    assert told[f"Inference server 127.0.0.1:{inference.port}"]["Loaded models"] == "0/1"


@pytest.mark.slow
def test_memory_has_a_limit(serve: Serve, root: Path, large_package: Path) -> None:
    for name in ("big", "large"):
        shutil.copytree(large_package, root / name)
    connection = serve("capacity: {max_memory_mb: 20}")
    ask(connection, "big")
    assert connection.stats().memory_bytes > 10 * 2**20
    ask(connection, "large")
    assert loaded(connection) == {"large"}
    assert connection.stats().memory_bytes <= 20 * 2**20


@pytest.mark.parametrize("limited", quick_first(["inference", "compositing"]))
def test_the_stricter_limit_of_both_configurations_counts(serve: Serve, limited: str) -> None:
    few, many = "max_models: 1, idle_timeout_minutes: 1", "max_models: 7, idle_timeout_minutes: 0"
    keys = [few, many] if limited == "compositing" else [many, few]
    connection = serve(*(f"capacity: {{{each}}}" for each in keys))
    assert connection.stats().max_models == 1
    for name in "ab":
        ask(connection, name)
    assert loaded(connection) == {"b"}


def test_the_stricter_limit_of_memory_counts(serve: Serve, root: Path, large_package: Path) -> None:
    for name in ("big", "large"):
        shutil.copytree(large_package, root / name)
    connection = serve("capacity: {max_memory_mb: 100}", "capacity: {max_memory_mb: 20}")
    ask(connection, "big")
    ask(connection, "large")
    assert loaded(connection) == {"large"}


def test_an_avatar_is_loaded_once_and_counted_once(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_avatar, open_model = Avatar.__init__, Engine.load

    def opening(avatar: Avatar, *given: Any) -> None:
        opened.append("frames")
        open_avatar(avatar, *given)

    def loading(engine: Engine, *given: Any, **named: Any) -> Any:
        opened.append("network")
        return open_model(engine, *given, **named)

    monkeypatch.setattr(Avatar, "__init__", opening)
    monkeypatch.setattr(Engine, "load", loading)
    connection = serve()
    for _ in range(3):
        ask(connection, "a", 2)
    assert opened == ["frames", "network"]
    stats = connection.stats()
    (entry,) = stats.models
    assert (entry.model_id, entry.uses, entry.in_use) == ("a", 3, 0)
    assert (stats.loaded_models, stats.hits, stats.misses) == (1, 2, 1)
    with (
        Avatar.open(root / "a", parts=frozenset({"jpeg"})) as avatar,
        Engine(threads=1) as engine,
    ):
        weights_bytes = engine.load(avatar.model_path).weights_bytes
        assert stats.memory_bytes == entry.memory_bytes == weights_bytes + avatar.mapped_bytes
    assert (stats.loaded_networks, stats.network_memory_bytes) == (1, weights_bytes)
    assert connection.unload("a").unloaded
    assert not connection.unload("a").unloaded
    stats = connection.stats()
    assert (stats.loaded_models, stats.memory_bytes, stats.loaded_networks) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "stays"), [("lfu", "a"), ("lru", "b")])
def test_the_eviction_policy_decides_who_goes(serve: Serve, policy: str, stays: str) -> None:
    connection = serve(f"capacity: {{max_models: 2, eviction_policy: {policy}}}")
    for name in (*"aaaaa", "b", "c"):
        ask(connection, name)
    assert loaded(connection) == {stays, "c"}


@pytest.mark.slow
def test_idle_avatars_and_networks_are_given_up(serve: Serve) -> None:
    idle = "capacity: {idle_timeout_minutes: 0.005}"
    connection = serve(idle, inference=idle)
    # On a busy machine it may be given up before it is looked at.
    until(lambda: bool(ask(connection, "a")) and loaded(connection) == {"a"})
    until(lambda: loaded(connection) == set())


def test_whole_frames_in_memory_have_the_limit_of_the_configuration(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[FrameCache] = []

    def make(budget_bytes: int) -> FrameCache:
        caches.append(FrameCache(budget_bytes))
        return caches[-1]

    monkeypatch.setattr(registries, "FrameCache", make)
    ask(serve("output: {format: raw}"), "a")
    assert caches == [], "it is the cache of the process"
    ask(serve("output: {format: raw}\ncapacity: {frame_cache_mb: 16}"), "a")
    (cache,) = caches
    assert cache.budget_bytes == 16 * 2**20
    assert cache.held_bytes > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize("place", ["compositing", "inference"])
def test_packages_are_compiled_in_a_sandbox(
    serve: Serve, root: Path, place: str, make_package: Any
) -> None:
    shutil.rmtree(root / "b")
    shutil.rmtree(root / "c")
    make_package(root / "b", frames=4)
    make_package(root / "c", frames=4)
    allocate_endlessly(root / "c" / "checkpoint" / "model_best.onnx")
    said = "capacity: {compile_sandbox: true, compile_memory_mb: 1024}"
    connection = serve(**({"yaml": said} if place == "compositing" else {"inference": said}))
    ask(connection, "b")
    with pytest.raises(AvatarInvalid, match="c: compiling it needs more than 1024 MiB of memory"):
        ask(connection, "c")
    ask(connection, "a")
    assert loaded(connection) == {"a", "b"}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["compositing", "inference"])
def test_compiling_in_a_sandbox_ends_after_the_time_of_the_configuration(
    serve: Serve, root: Path, place: str, make_package: Any
) -> None:
    shutil.rmtree(root / "c")
    make_package(root / "c", frames=4)
    run_for_minutes(root / "c" / "checkpoint" / "model_best.onnx")
    said = "capacity: {compile_sandbox: true, compile_timeout_seconds: 1.5}"
    connection = serve(**({"yaml": said} if place == "compositing" else {"inference": said}))
    with pytest.raises(AvatarInvalid, match=r"c: compiling it takes longer than 1\.5 s, which are"):
        ask(connection, "c")


@pytest.mark.slow
@pytest.mark.parametrize("limited", [True, False])
def test_a_system_that_limits_no_memory_is_named(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limited: bool,
) -> None:
    monkeypatch.setattr(registries, "limits_memory", lambda: limited)
    serve("capacity: {compile_sandbox: false}")
    assert "compile_sandbox" not in caplog.text
    serve("capacity: {compile_sandbox: true}")
    said = [each.getMessage() for each in caplog.records if "compile_sandbox" in each.getMessage()]
    assert said == (
        []
        if limited
        else [
            "capacity.compile_sandbox: this system does not limit a process's memory, so"
            " compile_memory_mb does not count; its time does"
        ]
    )
