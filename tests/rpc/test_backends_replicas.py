"""How many servers an avatar is asked of, and which of them a call goes to."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from tests.rpc.inferenceservers import Server, ask, backend_over, up
from tests.support.waiting import Clock, until

from lipwire.domain import Call, InvalidInput, Overloaded
from lipwire.rpc.backends.affinity import rendezvous
from lipwire.rpc.backends.remote import RemoteBackend
from lipwire.rpc.backends.replicas import ReplicaPolicy, Replicas

SERVERS = ["a:1", "b:1", "c:1"]


class Scene:
    """An avatar's calls, on a clock that moves when told."""

    def __init__(self, most: int = 3) -> None:
        self.clock = Clock()
        self.replicas = Replicas(clock=self.clock, policy=ReplicaPolicy(most))
        self.servers = list(SERVERS)

    def first(self, *, live: bool = False) -> str:
        return self.replicas.order("anna", self.servers, live=live)[0]

    @contextmanager
    def call(self, *, late: bool | None = False, live: bool = False) -> Iterator[str]:
        server = self.first(live=live)
        self.replicas.began("anna", server, live=live)
        yield server
        self.replicas.ended("anna", server, live=live, late=late)

    def loaded(self, calls: int, seconds: float, *, late: bool | None) -> Counter[str]:
        """``calls`` under way all the time, each for a tenth of a second. Where they went."""
        where: Counter[str] = Counter()
        for _ in range(round(seconds * 10)):
            with ExitStack() as stack:
                where.update(stack.enter_context(self.call(late=late)) for _ in range(calls))
                self.clock.now += 0.1
        return where

    @property
    def count(self) -> int:
        return self.replicas.servers("anna")


def test_an_avatar_is_asked_of_one_server() -> None:
    scene = Scene()
    assert set(scene.loaded(1, 30, late=True)) == {"a:1"}, "one call at a time is for one server"
    assert set(scene.loaded(5, 30, late=False)) == {"a:1"}, "which carries them"
    assert set(scene.loaded(5, 30, late=None)) == {"a:1"}, "calls that fail say nothing of load"
    assert scene.replicas.order("anna", SERVERS, live=False) == SERVERS


def test_where_calls_wait_the_next_in_the_order_is_asked_as_well() -> None:
    scene = Scene()
    scene.loaded(4, 4, late=True)
    assert scene.count == 2
    where = scene.loaded(4, 10, late=False)
    assert set(where) == {"a:1", "b:1"}
    assert where["a:1"] == where["b:1"], "half each"
    assert scene.replicas.servers("bert") == 1
    assert scene.replicas.order("anna", SERVERS, live=False) == SERVERS, "the others follow"


def test_more_are_asked_one_after_the_other_and_no_more_than_may_be() -> None:
    scene = Scene(most=2)
    scene.loaded(9, 60, late=True)
    assert scene.count == 2
    scene = Scene()
    seen = []
    for _ in range(200):
        scene.loaded(9, 0.1, late=True)
        seen.append(scene.count)
    assert seen.index(3) - seen.index(2) >= 20, "after two seconds, when the second has its effect"
    assert max(seen) == 3


def test_a_call_that_is_refused_is_as_good_as_late() -> None:
    policy = ReplicaPolicy()
    replicas = Replicas(clock=Clock(), policy=policy)
    assert not replicas.is_late(took_s=0.099, worked_s=0.050)
    assert replicas.is_late(took_s=0.101, worked_s=0.050)
    assert not replicas.is_late(took_s=0.049, worked_s=0.001), "nobody minds 50 ms"


def test_when_it_calms_one_server_is_asked_again() -> None:
    scene = Scene()
    scene.loaded(9, 20, late=True)
    assert scene.count == 3
    scene.loaded(3, 200, late=False)
    assert scene.count == 3, "two would have more than one call each"
    scene.loaded(2, 60, late=False)
    assert scene.count == 2
    scene.loaded(1, 29, late=False)
    assert scene.count == 2, "not at once"
    scene.loaded(1, 20, late=False)
    assert scene.count == 1
    assert set(scene.loaded(1, 1, late=False)) == {"a:1"}


def test_of_one_that_nobody_asks_for_any_more_that_is_noticed() -> None:
    scene = Scene()
    scene.loaded(9, 20, late=True)
    scene.clock.now += 1000
    assert scene.count == 1


def test_a_server_that_is_out_is_not_asked() -> None:
    scene = Scene()
    scene.loaded(4, 4, late=True)
    scene.servers.remove("a:1")
    assert set(scene.loaded(4, 1, late=False)) == {"b:1", "c:1"}


def test_live_calls_go_where_the_leases_are_in_proportion() -> None:
    scene = Scene()
    for session in range(6):
        scene.replicas.held(f"session {session}", "anna", "b:1" if session < 4 else "c:1")
    with ExitStack() as stack:
        where = Counter(stack.enter_context(scene.call(live=True)) for _ in range(12))
    assert where == {"b:1": 8, "c:1": 4}
    assert scene.first(live=False) == "a:1"
    scene.servers.remove("b:1")
    assert scene.first(live=True) == "c:1"
    scene.servers.remove("c:1")
    assert scene.first(live=True) == "a:1", "leases are renewed there soon"


def test_a_lease_is_at_one_server_until_it_is_released() -> None:
    scene = Scene()
    assert scene.replicas.held("session", "anna", "c:1") == ""
    assert scene.first(live=True) == "c:1"
    assert scene.replicas.held("session", "anna", "c:1") == ""
    assert scene.replicas.held("session", "anna", "b:1") == "c:1"
    assert scene.first(live=True) == "b:1"
    assert scene.replicas.released("session") == "anna"
    assert scene.first(live=True) == "a:1"
    assert scene.replicas.released("session") is None


def test_avatars_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipwire.rpc.backends.replicas._MOST_REMEMBERED", 10)
    scene = Scene()
    scene.replicas.held("session", "anna", "c:1")
    scene.replicas.began("bert", "a:1", live=False)
    for number in range(100):
        scene.replicas.began(f"user {number}", "a:1", live=False)
        scene.replicas.ended(f"user {number}", "a:1", live=False, late=False)
    assert len(scene.replicas._loads) == 10
    assert scene.first(live=True) == "c:1"
    assert "bert" in scene.replicas._loads


# -- over sockets ----------------------------------------------------------------------------------


@pytest.fixture
def trio() -> Iterator[list[Server]]:
    """Three servers, in the order in which they are asked for anna."""
    servers = [Server() for _ in range(3)]
    order = rendezvous("anna", {server.url: 1.0 for server in servers})
    yield sorted(servers, key=lambda server: order.index(server.url))
    for server in servers:
        server.rpc.stop()


@contextmanager
def asking(backend: RemoteBackend, clients: int) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            ask(backend)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("patient_checks")
def test_a_hot_avatar_is_asked_of_two_servers_and_a_calm_one_of_one(trio: list[Server]) -> None:
    policy = ReplicaPolicy(2, mean_s=0.2, rise_s=0.1, calm_s=0.5)
    for server in trio:
        server.network.delay_s = 0.1
    with backend_over(*trio, replicas=policy) as backend:
        until(lambda: up(backend) == 3)
        with asking(backend, 4):
            until(lambda: len(trio[1].network.asked) >= 20)
        for server in trio:
            server.network.delay_s = 0.0
        asked = backend._servers.replicas.servers
        until(lambda: ask(backend) is not None and asked("anna") == 1)
        before = [len(server.network.asked) for server in trio]
        for _ in range(5):
            ask(backend)
        after = [len(server.network.asked) for server in trio]
    assert [b - a for a, b in zip(before, after, strict=True)] == [5, 0, 0]
    assert after[2] == 0, "never more than two"


def lease(holder: str) -> tuple[str, str, Call]:
    return holder, "anna", Call(None, service="live")


@pytest.mark.usefixtures("patient_checks")
def test_a_session_that_finds_no_room_has_its_lease_at_the_next_server(trio: list[Server]) -> None:
    with backend_over(*trio, replicas=2) as backend:
        until(lambda: up(backend) == 3)
        backend.acquire(*lease("one"))
        trio[0].network.error = Overloaded("1 live sessions run here; 1 fit", retry_after_s=5.0)
        backend.acquire(*lease("two"))
        assert [list(server.network.leases) for server in trio] == [["one"], ["two"], []]
        trio[0].network.error = None
        backend.acquire(*lease("two"))  # as it is renewed
        assert "two" in trio[0].network.leases
        until(lambda: trio[1].network.leases == {})  # it is not there for half a minute more
        backend.release("two")
        assert [list(server.network.leases) for server in trio] == [["one"], [], []]
        for server in trio:
            server.network.error = Overloaded("1 live sessions run here; 1 fit", retry_after_s=5.0)
        trio[2].network.error = None
        with pytest.raises(Overloaded, match="1 fit"):
            backend.acquire(*lease("three"))
        assert trio[2].network.leases == {}


@pytest.mark.parametrize("replicas", [0, -1, 101])
def test_how_many_there_may_be_is_checked(replicas: int) -> None:
    with pytest.raises(InvalidInput, match=f"replicas is {replicas}, allowed are 1 to 100"):
        RemoteBackend(["a:1", "b:1"], replicas=replicas)
