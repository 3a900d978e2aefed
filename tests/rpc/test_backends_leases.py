"""Leases of live sessions at inference servers: who is asked, and who when that one is gone."""

from collections.abc import Iterator

import pytest
from tests.rpc.inferenceservers import Server, backend_over, up
from tests.support.waiting import WAIT_S, until

from lipwire.domain import Call, InvalidInput, NotFound, Overloaded, Unavailable
from lipwire.rpc.backends.affinity import rendezvous
from lipwire.rpc.generated.lipwire.v1.mouths_pb2 import LeaseRequest
from lipwire.serving import LEASE_S


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """Two servers, the first of which is asked for anna first."""
    servers = [Server(), Server()]
    order = rendezvous("anna", {server.url: 1.0 for server in servers})
    servers.sort(key=lambda server: order.index(server.url))
    yield servers[0], servers[1]
    for server in servers:
        server.rpc.stop()


def lease(holder: str = "session", seconds: float = WAIT_S) -> tuple[str, str, Call]:
    return holder, "anna", Call(seconds, service="live")


def test_a_lease_is_held_by_the_server_that_the_avatars_frames_come_from(
    pair: tuple[Server, Server],
) -> None:
    first, second = pair
    with backend_over(*pair) as backend:
        until(lambda: up(backend) == 2)
        backend.acquire(*lease())
        assert first.network.leases == {"session": "anna"}
        assert second.network.leases == {}
        backend.release("session")
        assert first.network.leases == {}


def test_the_next_server_loads_the_network_before_it_is_needed(pair: tuple[Server, Server]) -> None:
    with backend_over(*pair) as backend:
        until(lambda: up(backend) == 2)
        backend.acquire(*lease())
        until(lambda: "anna" in pair[1].network.held)
        assert pair[1].network.leases == {}


def test_where_a_server_is_gone_the_next_one_holds_the_lease(pair: tuple[Server, Server]) -> None:
    first, second = pair
    with backend_over(*pair) as backend:
        until(lambda: up(backend) == 2)
        backend.acquire(*lease())
        first.kill()
        backend.acquire(*lease())
        assert second.network.leases == {"session": "anna"}


def test_a_server_that_drains_holds_no_new_lease(pair: tuple[Server, Server]) -> None:
    first, second = pair
    with backend_over(*pair) as backend:
        until(lambda: up(backend) == 2)
        first.rpc.drain(WAIT_S)
        backend.acquire(*lease())
        assert (first.network.leases, list(second.network.leases)) == ({}, ["session"])


def test_a_server_without_room_refuses_and_no_other_is_asked(pair: tuple[Server, Server]) -> None:
    first, second = pair
    first.network.error = Overloaded("3 live sessions run here; 3 fit", retry_after_s=5.0)
    with backend_over(*pair) as backend:
        until(lambda: up(backend) == 2)
        with pytest.raises(Overloaded, match="3 live sessions run here; 3 fit") as caught:
            backend.acquire(*lease())
    assert caught.value.retry_after_s == 5.0
    assert first.network.asked == ["anna"]
    assert second.network.asked == []


def test_where_no_server_answers_a_lease_is_refused_at_once(pair: tuple[Server, Server]) -> None:
    for server in pair:
        server.kill()
    with backend_over(*pair) as backend, pytest.raises(Unavailable):
        backend.acquire(*lease())


def test_giving_back_raises_nothing_where_servers_are_gone(pair: tuple[Server, Server]) -> None:
    with backend_over(*pair) as backend:
        for server in pair:
            server.kill()
        backend.release("session")
    backend.release("session")


def test_what_is_wrong_with_a_lease_is_said(pair: tuple[Server, Server]) -> None:
    with backend_over(pair[0]) as backend:
        with pytest.raises(InvalidInput):
            backend.acquire("session", "", Call(WAIT_S))
        pair[0].network.error = NotFound("there is no avatar 'anna'")
        with pytest.raises(NotFound, match="there is no avatar"):
            backend.acquire(*lease())


def test_health_sums_sessions_and_capacity_of_all_servers(pair: tuple[Server, Server]) -> None:
    for number, server in enumerate(pair):
        server.network.live = (1 + number, 4)
    with backend_over(*pair) as backend:
        health = backend.health()
    assert (health.live_sessions, health.live_capacity) == (3, 8)


def test_a_server_says_how_long_a_lease_lasts(pair: tuple[Server, Server]) -> None:
    with backend_over(pair[0]) as backend:
        stub = backend._servers._connections[pair[0].url].leases
        answer = stub.Lease(LeaseRequest(holder="session", model_id="anna"), timeout=WAIT_S)
    assert answer.lasts_s == LEASE_S
