"""Models are loaded and unloaded, and health is told, over several servers."""

import dataclasses
from typing import Any

import pytest
from tests.rpc.inferenceservers import Server, ask, backend_over, up
from tests.support.waiting import WAIT_S, until

from lipwire.domain import Call, Unavailable
from lipwire.serving import GpuStatus


def test_loading_goes_to_the_models_server_and_unloading_to_all(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        until(lambda: up(backend) == 3)
        status = backend.load("anna")
        ask(backend)
        holders = [server for server in servers if "anna" in server.network.held]
        assert [status.server] == [server.url for server in holders]
        for server in servers:
            server.network.held["anna"] = 1
        assert len(backend.models()) == 3
        assert backend.unload("anna")
        assert not any(server.network.held for server in servers)
        assert not backend.unload("anna")
        assert backend.models() == ()


def test_unloading_does_not_wait_for_a_server_that_is_gone(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        ask(backend)
        servers[2].kill()
        until(lambda: up(backend) == 2)
        servers[0].network.held["anna"] = 1
        assert backend.unload("anna")


def test_unloading_does_not_fail_with_a_server_that_just_went(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        until(lambda: up(backend) == 3)
        servers[0].network.held["anna"] = 1
        servers[2].kill()
        assert backend.unload("anna")
        assert up(backend) == 2


def test_a_server_that_came_back_is_told_again_to_unload(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    with backend_over(*servers) as backend:
        until(lambda: up(backend) == 3)
        servers[2].network.held["anna"] = 1
        tell_all, told = backend._servers.tell_all, 0

        def once_out(*arguments: Any) -> Any:
            nonlocal told
            told += 1
            if told == 1:
                return {server.url: Unavailable("was out") for server in servers}
            return tell_all(*arguments)

        monkeypatch.setattr(backend._servers, "tell_all", once_out)
        assert backend.unload("anna")
        assert (told, servers[2].network.held) == (2, {})


def test_health_is_the_sum_of_all_servers(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        ask(backend)
        health = backend.health(call=Call(WAIT_S))
        assert (health.healthy, health.gpu_count, health.loaded_models) == (True, 3, 1)
        assert (health.max_models, health.version) == (300, "1.0")
        servers[0].kill()
        health = backend.health(call=Call(WAIT_S))
        assert (health.healthy, health.gpu_count) == (True, 2)
        assert servers[0].url in health.detail


def test_health_tells_the_gpus_of_every_server_that_answers(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        ask(backend)
        gpus: tuple[GpuStatus, ...] = ()

        def all_told() -> bool:  # on a busy machine one may be late
            nonlocal gpus
            gpus = backend.health().gpus
            return len(gpus) == 3

        until(all_told)
        assert [gpu.server for gpu in gpus] == [server.url for server in servers]
        assert sorted(gpu.loaded_models for gpu in gpus) == [0, 0, 1]
        wanted = GpuStatus(
            2, "NVIDIA H200", 0, 150_000_000_000, 9_000_000_000, 0.25, server=servers[0].url
        )
        assert dataclasses.replace(gpus[0], loaded_models=0) == wanted
        servers[0].kill()
        left = [server.url for server in servers[1:]]
        until(lambda: [gpu.server for gpu in backend.health().gpus] == left)
