"""Calls while servers are full, stop, fall silent or come back: nobody who asks sees an error that
another server could have spared them."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.rpc.inferenceservers import Server, ask, backend_over, black_hole, up
from tests.support.waiting import WAIT_S, until

from lipwire.domain import Call, Overloaded, Unavailable
from lipwire.rpc.backends import RetryPolicy
from lipwire.rpc.backends.fleet import FleetPolicy, Verdict


@pytest.mark.slow
def test_a_full_server_is_asked_again_when_it_said(servers: list[Server]) -> None:
    network = servers[0].network
    network.error, network.fail_times = Overloaded("full", retry_after_s=0.3), 1
    with backend_over(servers[0]) as backend:
        began = time.monotonic()
        ask(backend)
        assert time.monotonic() - began >= 0.3
    assert len(network.asked) == 2


def test_a_full_server_is_spared_where_another_has_room(servers: list[Server]) -> None:
    for server in servers[:2]:
        server.network.error = Overloaded("full", retry_after_s=2 * WAIT_S)
    with backend_over(*servers) as backend:
        until(lambda: up(backend) == 3)
        for number in range(8):
            ask(backend, f"user_{number}")  # which has no time to wait for a server that is full
    assert len(servers[2].network.asked) == 8


def test_overload_everywhere_is_said_with_the_time_to_wait(servers: list[Server]) -> None:
    for server in servers:
        server.network.error = Overloaded("50 requests wait", retry_after_s=2 * WAIT_S)
    with backend_over(*servers) as backend:
        began = time.monotonic()
        with pytest.raises(Overloaded, match="50 requests wait") as caught:
            ask(backend, call=Call(WAIT_S))
        assert time.monotonic() - began < WAIT_S / 2, "waiting would have been for nothing"
    assert caught.value.retry_after_s == 2 * WAIT_S


@pytest.mark.slow
def test_a_server_killed_under_load_costs_nobody_an_error(servers: list[Server]) -> None:
    stop, errors, done = threading.Event(), [], [0] * 6
    with backend_over(*servers) as backend:

        def client(number: int) -> None:
            choice = random.Random(number)
            while not stop.is_set():
                try:
                    ask(backend, f"user_{choice.randrange(30)}")
                    done[number] += 1
                except Exception as error:
                    errors.append(error)

        for server in servers:
            server.network.delay_s = 0.01
        threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        until(lambda: sum(done) > 60)
        victim = servers[0]
        victim.kill()
        at_kill = sum(done)
        until(lambda: sum(done) > at_kill + 60)
        servers[0] = Server(victim.rpc.port)
        until(lambda: len(servers[0].network.asked) > 3)  # it is back and gets work again
        servers[1].kill()
        at_kill = sum(done)
        until(lambda: sum(done) > at_kill + 60)
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


@pytest.mark.slow
def test_a_drained_server_costs_nobody_an_error(servers: list[Server]) -> None:
    with backend_over(*servers) as backend, ThreadPoolExecutor(4) as clients:
        for server in servers:
            server.network.delay_s = 0.02
        calls = [clients.submit(ask, backend, f"user_{number}") for number in range(80)]
        assert servers[1].network.entered.wait(WAIT_S)
        assert servers[1].rpc.drain(WAIT_S)
        for call in calls:
            call.result()


def test_a_call_that_was_lost_half_way_is_done_elsewhere(servers: list[Server]) -> None:
    with backend_over(*servers) as backend, ThreadPoolExecutor(1) as clients:
        until(lambda: up(backend) == 3)
        ask(backend)
        home = next(server for server in servers if server.network.asked)
        home.network.entered.clear()
        home.network.delay_s = 30.0
        call = clients.submit(ask, backend)
        assert home.network.entered.wait(WAIT_S)
        home.kill()
        call.result(WAIT_S)


def test_no_server_at_all_is_said_soon_and_without_addresses(servers: list[Server]) -> None:
    for server in servers:
        server.kill()
    with backend_over(*servers) as backend:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"^no inference server answers: connection refused$"):
            ask(backend)
        assert time.monotonic() - began < WAIT_S / 2
        health = backend.health(call=Call(WAIT_S))
    assert not health.healthy
    assert all(server.url in health.detail for server in servers)


def test_a_server_that_comes_while_a_call_waits_is_used(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in servers[:2]:
        server.kill()
    # Pauses that nobody would wait for, and time for one of them.
    patient = RetryPolicy(100, first_pause_s=2 * WAIT_S, longest_pause_s=2 * WAIT_S)
    with (
        backend_over(*servers[:2], retries=patient, timeout_s=4 * WAIT_S) as backend,
        ThreadPoolExecutor(1) as clients,
    ):
        resting, rest = threading.Event(), backend._servers.fleet.rest

        def noted(pause_s: float, stop: Callable[[], bool]) -> None:
            resting.set()
            rest(pause_s, stop)

        monkeypatch.setattr(backend._servers.fleet, "rest", noted)
        call = clients.submit(ask, backend)
        assert resting.wait(WAIT_S)
        servers[0] = Server(servers[0].rpc.port)
        call.result(WAIT_S / 2)


def test_a_black_hole_costs_nobody_their_time(servers: list[Server]) -> None:
    with black_hole() as hole, backend_over(hole, servers[0], servers[1]) as backend:
        until(lambda: up(backend) == 2)
        for number in range(10):
            began = time.monotonic()
            ask(backend, f"user_{number}", call=Call(WAIT_S))
            assert time.monotonic() - began < WAIT_S / 2


def test_a_silent_server_loses_its_calls_to_others(servers: list[Server]) -> None:
    home = servers[0]
    with backend_over(*servers, check_every_s=3600) as backend, ThreadPoolExecutor(1) as clients:
        until(lambda: up(backend) == 3)
        names = (f"user_{number}" for number in range(100))
        model = next(name for name in names if backend._servers.fleet.order(name)[0] == home.url)
        home.network.delay_s = 30.0
        call = clients.submit(ask, backend, model)
        assert home.network.entered.wait(WAIT_S)

        # A process that is stopped: it neither answers checks nor closes its connections.
        connection = backend._servers._connections[home.url]
        checks: list[Callable[[Verdict, str], None]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "check", lambda timeout_s, tell: checks.append(tell))
            backend._servers._check(connection)
            for _ in range(FleetPolicy().silent_checks - 1):
                checks.pop()("silent", "no answer")  # and the next one follows at once
            assert not call.done(), "it may only be busy"

            def checked_once_more() -> bool:
                if not checks:
                    backend._servers._check(connection)
                checks.pop()("silent", "no answer")
                return call.done()

            until(checked_once_more)
        call.result()
    assert home.network.left_early.wait(WAIT_S)
