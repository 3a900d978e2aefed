"""Three inference and two compositing servers behind HAProxy, with the configuration of
deploy/haproxy: who gets what, and what becomes of it when servers die, join and are restarted."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import WAIT_S, Served, serving_in
from tests.deploy.balancedcluster import SERVERS, TOKEN, Cluster, own_ports
from tests.rpc.inferenceservers import windows
from tests.support.haproxy import Haproxy, exchanged, haproxy, program
from tests.support.spoken import spoken
from tests.support.waiting import until

from lipwire.domain import LipwireError, NotFound, Overloaded, Unavailable
from lipwire.rpc.backends import RemoteBackend
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.received import Ended
from lipwire.rpc.workers.place import socket_folder
from lipwire.session.live import GoingAway, LiveFrame, SessionSettings, SpeechEnded

pytestmark = pytest.mark.slow

AVATARS = [f"user-{number}" for number in range(8)]
NAMES = [f"nobody-{number}" for number in range(240)]
"""Of avatars that no server has: that is soon said, and balanced as any."""
SPEECH = np.random.default_rng(4).integers(-9000, 9000, 8_000).astype(np.int16)
EXACT = SessionSettings(gate=False, crossfade_frames=0, paced=False)
WINDOW = bytes(32 * 16 * 16 * 4)


@pytest.fixture(scope="module")
def cluster(compiled_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    program()
    models = tmp_path_factory.mktemp("models")
    for name in AVATARS:
        shutil.copytree(compiled_template, models / name)
    names = (*SERVERS, *(f"{name}-health" for name in SERVERS), "grpc", "inference")
    ports = own_ports((*names, "compositing-1-web", "compositing-2-web"))
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("servers")
        cluster = Cluster(serving_in(stack, folder), models, folder, ports)
        for name in SERVERS:
            cluster.begin(name)
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[Haproxy]:
    with socket_folder() as folder, haproxy(folder, cluster.variables()) as proxy:
        yield proxy


@pytest.fixture
def whole(cluster: Cluster, proxy: Haproxy) -> Cluster:
    """All servers, with their whole share each."""
    for name in SERVERS:
        if cluster.servers[name].process.poll() is not None:
            cluster.begin(name)
    proxy.until_up("networks")
    proxy.until_up("batches")
    return cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[CompositingConnection]:
    with CompositingConnection(cluster.address) as connection:
        yield connection


@pytest.fixture
def live(cluster: Cluster) -> Iterator[AvatarConnection]:
    with AvatarConnection(cluster.address) as connection:
        yield connection


def homes(cluster: Cluster, proxy: Haproxy) -> dict[str, str]:
    """Which inference server is asked for each of NAMES."""
    before = len(proxy.asked("networks"))
    with RemoteBackend([cluster.inference_address], timeout_s=WAIT_S) as backend:
        for name in NAMES:
            with pytest.raises(NotFound):
                backend.mouths(name, 0, windows())
    until(lambda: len(proxy.asked("networks")) >= before + len(NAMES))
    return dict(zip(NAMES, proxy.asked("networks")[before:], strict=True))


def shares(where: Mapping[str, str]) -> Counter[str]:
    return Counter(where.values())


def one_frame(client: CompositingConnection, model_id: str) -> bytes:
    request = CompositeBatchRequest(model_id=model_id, audio_features=WINDOW, batch_size=1)
    (frame,) = client.composite(request, WAIT_S).frames
    return frame


def test_each_avatar_is_in_the_memory_of_one_server_of_each_kind(
    whole: Cluster, client: CompositingConnection
) -> None:
    for _ in range(3):
        for name in AVATARS:
            one_frame(client, name)
    for kind, count in (("inference", 3), ("compositing", 2)):
        loaded = [whole.loaded(f"{kind}-{number}") for number in range(1, count + 1)]
        assert sorted(name for each in loaded for name in each) == AVATARS
        assert sum(map(bool, loaded)) >= 2


def test_names_are_shared_out_and_stay(whole: Cluster, proxy: Haproxy) -> None:
    where = homes(whole, proxy)
    # 80 each; a ring is not even.
    assert all(40 <= shares(where)[name] <= 120 for name in SERVERS[:3]), shares(where)
    assert homes(whole, proxy) == where


def test_an_avatar_that_many_ask_for_is_asked_of_several(whole: Cluster, proxy: Haproxy) -> None:
    def ask(backend: RemoteBackend) -> None:
        backend.mouths("user-0", 0, windows(4))

    def had(before: Mapping[str, int]) -> list[int]:
        return sorted(number - before[name] for name, number in proxy.requests("networks").items())

    with RemoteBackend([whole.inference_address], timeout_s=WAIT_S) as backend:
        over = threading.Event()

        def ask_on() -> None:
            while not over.is_set():
                ask(backend)

        clients = [threading.Thread(target=ask_on) for _ in range(6)]
        before = proxy.requests("networks")
        for client in clients:
            client.start()
        try:
            until(lambda: had(before)[1] > 0, timeout_s=WAIT_S)
        finally:
            over.set()
            for client in clients:
                client.join()
        before = proxy.requests("networks")
        for _ in range(5):
            ask(backend)
        assert had(before) == [0, 0, 5]  # and of one when it calms


class Load:
    """Clients that ask for one frame after the other, each of an avatar of its own, and leave some
    of the machine to the servers that start meanwhile."""

    def __init__(self, address: str, clients: int = 3) -> None:
        self._address = address
        self._over = threading.Event()
        self.answered: Counter[str] = Counter()
        self.errors: list[LipwireError] = []
        self.wrong: list[str] = []
        with CompositingConnection(address) as client:
            self._wanted = {name: one_frame(client, name) for name in AVATARS[:clients]}
        self._threads = [threading.Thread(target=self._run, args=[name]) for name in self._wanted]
        for thread in self._threads:
            thread.start()

    def _run(self, name: str) -> None:
        with CompositingConnection(self._address) as client:
            while not self._over.is_set():
                try:
                    if one_frame(client, name) != self._wanted[name]:
                        self.wrong.append(name)
                except LipwireError as error:
                    self.errors.append(error)
                else:
                    self.answered[name] += 1
                self._over.wait(0.05)

    def go_on(self) -> None:
        """Until every client has had two more answers."""
        before = Counter(self.answered)
        until(
            lambda: all(self.answered[name] >= before[name] + 2 for name in self._wanted),
            timeout_s=WAIT_S,
            seen=lambda: self.errors,
        )

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_dead_inference_server_costs_no_client_anything_and_moves_its_share_alone(
    whole: Cluster, proxy: Haproxy
) -> None:
    before = homes(whole, proxy)
    load = Load(whole.address)
    try:
        load.go_on()
        whole.servers["inference-2"].end(signal.SIGKILL)
        proxy.until_status("networks", "inference-2", "DOWN")
        load.go_on()
    finally:
        load.close()
    assert (load.errors, load.wrong) == ([], [])  # compositing servers ask again

    without = homes(whole, proxy)
    moved = {name for name in NAMES if without[name] != before[name]}
    assert moved == {name for name in NAMES if before[name] == "inference-2"}
    assert set(shares({name: without[name] for name in moved})) == {"inference-1", "inference-3"}

    whole.begin("inference-2")
    proxy.until_up("networks")
    joined = homes(whole, proxy)
    assert joined == before
    taken = {name for name in NAMES if joined[name] != without[name]}
    assert {joined[name] for name in taken} == {"inference-2"}
    assert len(NAMES) / 6 <= len(taken) <= len(NAMES) / 2


def test_a_dead_compositing_server_is_told_as_unavailable(whole: Cluster, proxy: Haproxy) -> None:
    load = Load(whole.address)
    try:
        load.go_on()
        whole.servers["compositing-1"].end(signal.SIGKILL)
        proxy.until_status("batches", "compositing-1", "DOWN")
        load.go_on()
    finally:
        load.close()
    assert load.wrong == []
    assert all(isinstance(error, Unavailable) for error in load.errors), load.errors
    # What it had in hand, and what was sent as the connection broke, of each client.
    assert len(load.errors) <= 6


def test_sessions_are_shared_out_and_found_again(
    whole: Cluster, proxy: Haproxy, live: AvatarConnection
) -> None:
    before = proxy.requests("live")
    with ExitStack() as stack:
        # Of different avatars, as a slow machine carries few sessions of one.
        sessions = [stack.enter_context(live.converse(name, EXACT)) for name in AVATARS[:4]]
        after = proxy.requests("live")
        assert [after[name] - before[name] for name in SERVERS[3:]] == [2, 2]
        ids = [session.id for session in sessions]
        for session in sessions:
            session.interrupt()  # a call of its own, beside the stream
            session.leave()
        proxy.reload()
        # A new connection is the new process's; the old one goes on with those that it has.
        anew = stack.enter_context(AvatarConnection(whole.address))
        again = [stack.enter_context(anew.resume(each)) for each in ids]
        assert all(session.resumed for session in again)
        for session in again:
            assert len(spoken(session, SPEECH)) == 13


def test_why_a_session_is_refused_is_told(whole: Cluster, live: AvatarConnection) -> None:
    with pytest.raises(NotFound, match="no avatar named nobody"):
        live.converse("nobody")
    with pytest.raises(NotFound, match="there is no such session"):
        live.resume("of another server")


def test_a_session_that_has_ended_says_so_last(whole: Cluster, live: AvatarConnection) -> None:
    with live.converse("user-0", EXACT) as session, live.resume(session.id):
        assert list(session)[-1] == Ended("resumed by another stream")


def test_a_server_that_stops_gets_nothing_new_but_what_belongs_to_its_sessions(
    whole: Cluster, proxy: Haproxy, live: AvatarConnection
) -> None:
    def http(method: str, path: str, body: object = None) -> tuple[int, dict[str, str]]:
        at = proxy.folder / "http"
        status, fields, _ = exchanged(at, method, path, body, token=TOKEN)
        return status, fields

    with ExitStack() as stack:
        sessions = [stack.enter_context(live.converse(name, EXACT)) for name in AVATARS[:2]]
        posted = [http("POST", "/v1/sessions", {"avatar": name}) for name in AVATARS[2:4]]
        assert [status for status, _ in posted] == [201, 201]
        served = whole.servers["compositing-1"]
        served.process.send_signal(signal.SIGTERM)
        proxy.until_status("live", "compositing-1", "NOLB")
        before = proxy.requests("live")
        for name in AVATARS[4:7]:
            stack.enter_context(live.converse(name, EXACT))
        after = proxy.requests("live")
        assert after["compositing-1"] == before["compositing-1"]
        for session in sessions:
            session.interrupt()
            session.leave()
            assert stack.enter_context(live.resume(session.id)).resumed
        for _, fields in posted:
            assert http("GET", fields["location"])[0] == 200
            assert http("DELETE", fields["location"])[0] in (200, 204)
    assert served.wait() == 0


class Talk:
    """A client in a live session, which says the same again and again, and begins another session
    where its server goes away."""

    def __init__(self, address: str) -> None:
        self._connection = AvatarConnection(address)
        self._session = self.begun()
        self._over = threading.Event()
        self.said = 0
        self.moves = 0
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._say()
                self._over.wait(0.1)
        except Exception as error:
            self.errors.append(repr(error))

    def _say(self) -> None:
        """Each piece is to be heard and seen whole, the one that is being said as well."""
        going, frames, position = False, 0, 0
        self._session.push(SPEECH, 16_000)
        self._session.end_of_speech()
        for received in self._session:
            if isinstance(received, GoingAway):
                going = True
            elif isinstance(received, LiveFrame):
                frames, position = frames + 1, received.position
            elif isinstance(received, SpeechEnded):
                break
        if frames != 13:
            raise AssertionError(f"{frames} frames of 13")
        self.said += 1
        if going:
            following = self._following(dataclasses.replace(EXACT, start_frame=position + 1))
            self._session.close()
            self._session, self.moves = following, self.moves + 1

    def _following(self, settings: SessionSettings) -> Any:
        """A session elsewhere. While the machine is too busy for one more, the first goes on."""
        while True:
            try:
                return self._connection.converse("user-0", settings)
            except Overloaded:
                if self._over.wait(0.2):
                    raise

    def begun(self) -> Any:
        return self._connection.converse("user-0", EXACT)

    def go_on(self) -> None:
        before = self.said
        until(
            lambda: self.said >= before + 2 or self.errors,
            timeout_s=WAIT_S,
            seen=lambda: self.errors,
        )
        assert self.errors == []

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._session.close()
        self._connection.close()


class Follower(Talk):
    """One whose session goes to another server by itself."""

    def begun(self) -> Any:
        return self._connection.converse_anywhere("user-0", EXACT)

    def _say(self) -> None:
        frames = 0
        self._session.push(SPEECH, 16_000)
        self._session.end_of_speech()
        for received in self._session:
            frames += isinstance(received, LiveFrame)
            if isinstance(received, SpeechEnded):
                break
        if frames != 13:
            raise AssertionError(f"{frames} frames of 13")
        self.said += 1
        self.moves = self._session.moves


def end(server: Served, clients: Sequence[Load | Talk]) -> None:
    """Ask it to stop, and wait until it has: for as long as it has one of ``clients`` in hand."""
    server.process.send_signal(signal.SIGTERM)
    until(
        lambda: server.process.poll() is not None or any(client.errors for client in clients),
        timeout_s=WAIT_S,
        seen=lambda: server.text,
    )
    assert [client.errors for client in clients] == [[] for _ in clients]
    assert server.wait() == 0


def test_a_rolling_restart_under_load_loses_nothing(whole: Cluster, proxy: Haproxy) -> None:
    load = Load(whole.address)
    talks = [Talk(whole.address) for _ in range(2)]
    everybody: list[Any] = [load, *talks]
    try:
        for name in SERVERS:
            for one in everybody:
                one.go_on()
            end(whole.servers[name], everybody)
            for one in everybody:
                one.go_on()
            whole.begin(name)
            proxy.until_status("networks" if "inf" in name else "batches", name, "UP")
        for one in everybody:
            one.go_on()
    finally:
        for one in everybody:
            one.close()
    assert (load.errors, load.wrong) == ([], [])
    assert [talk.errors for talk in talks] == [[], []]
    assert sum(talk.moves for talk in talks) >= 2  # of either compositing server somebody has left


def test_a_client_goes_over_to_the_server_that_stays_by_itself(
    whole: Cluster, proxy: Haproxy
) -> None:
    follower = Follower(whole.address)
    try:
        follower.go_on()
        for name in ("compositing-1", "compositing-2"):  # of either it has a session, or had
            end(whole.servers[name], [follower])
            follower.go_on()
            whole.begin(name)
            proxy.until_status("batches", name, "UP")
        follower.go_on()
    finally:
        follower.close()
    assert follower.errors == []
    assert follower.moves >= 1
