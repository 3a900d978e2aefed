"""Live sessions of several servers in this process, each at its place, as processes would be: a
call about one reaches it whichever of them is asked."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from tests.rpc.conftest import ServeLive
from tests.rpc.liveserver import LiveServer, Raw, kinds, noise, until_seen
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import DeadlineExceeded, InvalidInput, NotFound, Overloaded, Unavailable
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.received import Ended, Refused
from lipwire.rpc.transport import connecting_within
from lipwire.rpc.workers import WorkerPlace, siblings, socket_folder
from lipwire.session.live import (
    GoingAway,
    LiveFrame,
    SessionRules,
    SessionSettings,
    SpeechBegan,
    SpeechEnded,
)

PACED = SessionSettings(gate=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    with socket_folder() as path:
        yield path


@pytest.fixture
def pair(folder: Path, serve_live: ServeLive) -> list[LiveServer]:
    """Two, each on a port of its own, so that calls can be sent to it and no other."""
    return [serve_live(place=WorkerPlace(folder, index, 2)) for index in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_session_is_found_again_whoever_is_asked(pair: list[LiveServer], index: int) -> None:
    own, other = pair[index], pair[1 - index]
    with AvatarConnection(own.address) as first:
        session = first.converse("anna", PACED)
        assert session.id.startswith(f"{index}.")
        session.push(noise(30.0), 16_000)
        until_seen(session, lambda got: isinstance(got, SpeechBegan))
        session.leave()
    with AvatarConnection(other.address) as second, second.resume(session.id) as again:
        assert (again.resumed, again.id) == (True, session.id)
        seen = until_seen(again, lambda got: isinstance(got, LiveFrame))
        assert kinds(seen, LiveFrame)[0].data.endswith(b"speaks")
        again.interrupt()  # beside the stream, too
        until_seen(again, lambda got: isinstance(got, SpeechEnded))
        again.push(noise(0.1), 16_000)
        again.end_of_speech()
        seen = until_seen(again, lambda got: isinstance(got, SpeechEnded))
        assert kinds(seen, SpeechEnded)[0].spoken_ms == 100
        assert not kinds(seen, Refused)
        assert other.sessions.stats().opened == 0  # it is still where it was
    until(lambda: own.sessions.stats().active == 0)
    with AvatarConnection(other.address) as second, pytest.raises(NotFound, match="no such"):
        second.resume(session.id)


def test_a_stream_ends_where_another_goes_on_elsewhere(pair: list[LiveServer]) -> None:
    with (
        AvatarConnection(pair[0].address) as first,
        AvatarConnection(pair[1].address) as second,
    ):
        session = first.converse("anna", PACED)
        with second.resume(session.id) as again:
            assert list(session)[-1] == Ended("resumed by another stream")
            until_seen(again, lambda got: isinstance(got, LiveFrame))


def test_an_interruption_reaches_it_and_says_where_there_is_none(pair: list[LiveServer]) -> None:
    with AvatarConnection(pair[0].address) as first, first.converse("anna", PACED) as session:
        session.push(noise(30.0), 16_000)
        until_seen(session, lambda got: isinstance(got, SpeechBegan))
        with Raw(pair[1]) as raw:
            raw.stub.InterruptSession(pb.InterruptSessionRequest(session_id=session.id))
            (ended,) = kinds(
                until_seen(session, lambda got: isinstance(got, SpeechEnded)), SpeechEnded
            )
            assert ended.interrupted
            for session_id in ("0.x", "1.x", "7.x", "x", ""):
                with pytest.raises(grpc.RpcError) as refused:
                    raw.stub.InterruptSession(pb.InterruptSessionRequest(session_id=session_id))
                assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_wrong_messages_are_refused_by_the_one_that_has_it(pair: list[LiveServer]) -> None:
    with AvatarConnection(pair[0].address) as first:
        session = first.converse("anna", PACED)
        with Raw(pair[1]) as raw:
            raw.say(start=pb.StartSession(session_id=session.id))
            raw.until("started")
            raw.send(b"\xff\xff\xff\xff")
            assert raw.until("refused").error_code == "INVALID_ARGUMENT"
            raw.say(start=pb.StartSession(session_id=session.id))
            assert "started already" in raw.until("refused").error
            raw.say(close=pb.CloseSession())
            assert raw.until("ended").reason == "closed"
    with Raw(pair[1]) as raw:
        raw.send(None)
        with pytest.raises(grpc.RpcError) as refused_at_once:
            raw.until("started")
        assert refused_at_once.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_client_that_leaves_one_has_left_the_other(pair: list[LiveServer]) -> None:
    with AvatarConnection(pair[0].address) as first, AvatarConnection(pair[1].address) as second:
        session = first.converse("anna", PACED)
        again = second.resume(session.id)
        assert list(session)[-1] == Ended("resumed by another stream")
        kept = pair[0].sessions._kept[session.id]
        until(lambda: kept.attached == 1)
        again.leave()
        until(lambda: kept.attached == 0)


@pytest.mark.slow
def test_as_many_sessions_run_as_may_in_all(folder: Path, serve_live: ServeLive) -> None:
    rules = SessionRules(max_sessions=2)
    pair = [serve_live(place=WorkerPlace(folder, index, 2), rules=rules) for index in range(2)]
    with AvatarConnection(pair[0].address) as first, AvatarConnection(pair[1].address) as second:
        with first.converse("anna", PACED), second.converse("anna", PACED):
            for client in (first, second):
                with pytest.raises(Overloaded, match="2 live sessions run; allowed are 2"):
                    client.converse("bert", PACED)
            assert [one.sessions.running for one in pair] == [2, 2]
            with pytest.raises(NotFound):  # of this one it is no question of room
                first.resume("1.x")
        until(lambda: pair[0].sessions.running == 0)
        with pytest.raises(InvalidInput):
            first.converse("anna", SessionSettings(start_frame=-1))
        with pytest.raises(NotFound):
            first.converse("zoe", PACED)
        assert pair[1].sessions.running == 0


def test_sessions_of_one_that_has_ended_are_not_found(pair: list[LiveServer], folder: Path) -> None:
    with AvatarConnection(pair[1].address) as second:
        first = AvatarConnection(pair[0].address)
        session = first.converse("anna", PACED)
        again = second.resume(session.id)
        until_seen(again, lambda got: isinstance(got, LiveFrame))
        pair[0].end()
        with pytest.raises(Unavailable):
            list(again)
        first.close()
        for _ in range(2):
            with pytest.raises(NotFound, match="no such session"):
                second.resume(session.id)
            with pytest.raises(grpc.RpcError) as refused:
                second._stub.InterruptSession(pb.InterruptSessionRequest(session_id=session.id))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            if not WorkerPlace(folder, 0, 2).socket().exists():
                with socket.socket(socket.AF_UNIX) as left:  # as a killed one leaves it
                    left.bind(str(WorkerPlace(folder, 0, 2).socket()))
        with second.converse("anna", PACED) as own:  # the others live on
            until_seen(own, lambda got: isinstance(got, LiveFrame))


@pytest.mark.slow
def test_one_that_hangs_is_not_taken_for_one_that_is_gone(
    folder: Path, serve_live: ServeLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "_ACCEPTED_WITHIN_S", 0.5)
    monkeypatch.setattr(siblings, "_OPTIONS", (*siblings._OPTIONS[:-1], connecting_within(0.5)))
    live = serve_live(place=WorkerPlace(folder, 0, 2))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(WorkerPlace(folder, 1, 2).socket()))
        silent.listen()
        with (
            AvatarConnection(live.address) as client,
            pytest.raises(DeadlineExceeded, match="no sign"),
        ):
            client.resume("1.x")


def test_clients_of_a_draining_one_have_time_to_leave_wherever_they_came_from(
    folder: Path, serve_live: ServeLive
) -> None:
    clock = Clock()
    own, other = (
        serve_live(place=WorkerPlace(folder, index, 2), clock=clock) for index in range(2)
    )
    with AvatarConnection(own.address) as first, AvatarConnection(other.address) as second:
        session = first.converse("anna", PACED)
        again = second.resume(session.id)
        assert list(session)[-1] == Ended("resumed by another stream")
        stopping = threading.Thread(target=_stop(own), name="stopping")
        stopping.start()
        until_seen(again, lambda got: isinstance(got, GoingAway))
        until(lambda: not own.server._watcher or not own.server._watcher.is_alive())
        until_seen(again, lambda got: isinstance(got, LiveFrame))
        clock.now += WAIT_S
        with pytest.raises(Unavailable, match="shutting down; begin a session on another one"):
            list(again)
        stopping.join()


def _stop(live: LiveServer) -> Callable[[], None]:
    def stop() -> None:
        live.server.drain(WAIT_S)
        live.end()

    return stop
