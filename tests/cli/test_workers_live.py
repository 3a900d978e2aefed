"""Live sessions of real processes that share two ports: whichever process a connection leads to,
every session is found."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import grpc
import numpy as np
import pytest
from tests.cli.conftest import serving_in
from tests.cli.test_workers import address_of, started, workers_of
from tests.support.waiting import WAIT_S, until
from tests.support.webparts import TOKEN, Asked
from tests.support.webviewer import WebViewer
from websockets.sync.client import connect

from lipwire.domain import NotFound, Overloaded
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.session.live import LiveFrame

pytestmark = pytest.mark.slow  # three processes

if TYPE_CHECKING:
    from tests.cli.conftest import Served

MOST = 2
"""One in each process: however slow the machine is, it is admitted."""
CONNECTIONS = 6
"""So many, each of which the kernel gives to one of two processes."""
ENVIRON = {
    "LIPWIRE_WEB__TOKEN": TOKEN,
    "LIPWIRE_SPEECH__VOICE": "none",
    "LIPWIRE_LIVE__MAX_SESSIONS": str(MOST),
    "LIPWIRE_LIVE__RECONNECT_GRACE": "600",
    "LIPWIRE_LIVE__NOBODY_JOINED_TIMEOUT": "600",
}
PCM = np.full(8000, 9000, "<i2").tobytes()


@dataclass
class Workers(Asked):
    """The server; ``ask`` asks its HTTP API."""

    served: Served
    port: int
    address: str

    @contextmanager
    def grpc(self) -> Iterator[AvatarConnection]:
        """A connection of its own: gRPC has channels of one process share them else."""
        with AvatarConnection(self.address) as connection:
            yield connection

    def open(self) -> str:
        answer = self.ask("POST", "/v1/sessions", {"avatar": "sanders"})
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def listed(self) -> tuple[int, set[str]]:
        """How many sessions there are, and which."""
        told = self.ask("GET", "/v1/sessions").json
        assert "detail" not in told, told
        return told["active"], {one["id"] for one in told["sessions"]}

    def end_all(self) -> None:
        for session_id in self.listed()[1]:
            assert self.ask("DELETE", f"/v1/sessions/{session_id}").status == 204


@pytest.fixture(scope="module")
def serve(models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with ExitStack() as stack:
        serving = serving_in(stack, tmp_path_factory.mktemp("live"))

        def start(*arguments: object) -> Served:
            return serving(*arguments, **ENVIRON)

        served = started(start, models_root, "serve", 2, "--web-port", 0, "--host", "127.0.0.1")
        port = int(served.wait_for(r"Page: http://localhost:([0-9]+)/"))
        yield Workers(served, port, address_of(served))
        assert served.end() == 0
        assert "Traceback" not in served.text


@pytest.fixture
def workers(serve: Workers) -> Iterator[Workers]:
    """The server, without any session."""
    yield serve
    serve.end_all()


def opened_by_grpc(workers: Workers) -> dict[int, str]:
    """A session in each process, by its number, whose clients have left for a moment."""
    found: dict[int, str] = {}
    for _ in range(60):
        with workers.grpc() as client:
            try:
                session = client.converse("sanders")
            except Overloaded:  # a second one of one process, on a busy machine
                continue
            number = int(session.id.partition(".")[0])
            unwanted = session.id if number in found else ""
            if unwanted:
                session.close()
            else:
                found[number] = session.id
                session.leave()
        # One that has not ended yet would have the next make room: end one that was left.
        until(lambda gone=unwanted: gone not in workers.listed()[1])  # type: ignore[misc]
        # On a slow machine, a second one of one process has had the first make room.
        running = workers.listed()[1]
        found = {number: each for number, each in found.items() if each in running}
        if len(found) == 2:
            return found
    raise AssertionError(f"the kernel gave 60 connections to one process: {found}")


def test_sessions_over_grpc_are_found_from_any_connection(workers: Workers) -> None:
    sessions = opened_by_grpc(workers)
    assert sorted(sessions) == [0, 1]
    for session_id in sessions.values():
        for _ in range(CONNECTIONS):
            with workers.grpc() as client:
                again = client.resume(session_id)
                assert again.resumed
                assert any(isinstance(got, LiveFrame) for got in again)
                again.leave()
            with grpc.insecure_channel(workers.address) as channel:
                interrupt: Any = channel.unary_unary(
                    "/lipwire.v1.AvatarService/InterruptSession",
                    request_serializer=pb.InterruptSessionRequest.SerializeToString,
                    response_deserializer=pb.InterruptSessionResponse.FromString,
                )
                interrupt(pb.InterruptSessionRequest(session_id=session_id), timeout=WAIT_S)
            assert workers.listed() == (2, set(sessions.values()))
            assert workers.ask("GET", f"/v1/sessions/{session_id}").json["id"] == session_id


def test_sessions_over_http_begin_in_both_and_every_call_reaches_them(workers: Workers) -> None:
    ids = [workers.open() for _ in range(2)]
    assert sorted(one.partition(".")[0] for one in ids) == ["0", "1"]
    for session_id in ids:
        path = f"/v1/sessions/{session_id}"
        for _ in range(CONNECTIONS):
            assert workers.ask("GET", path).json["id"] == session_id
            said = workers.ask("POST", f"{path}/speak", PCM, {"Content-Type": "audio/pcm"})
            assert (said.status, said.json) == (202, {"seconds": 0.5})
            assert workers.ask("POST", f"{path}/interrupt").status == 204
            url = f"ws://127.0.0.1:{workers.port}{path}/socket?token={quote_plus(TOKEN)}"
            with connect(url, proxy=None) as socket:
                assert json.loads(socket.recv(WAIT_S))["id"] == session_id
    assert workers.ask("DELETE", f"/v1/sessions/{ids[0]}").status == 204
    for _ in range(CONNECTIONS):
        assert workers.ask("GET", f"/v1/sessions/{ids[0]}").status == 404
        assert workers.listed() == (1, {ids[1]})


def test_a_ticket_is_used_once_whichever_process_is_asked(workers: Workers) -> None:
    origin = {"Origin": f"http://localhost:{workers.port}"}
    ids = set()
    for _ in range(MOST):
        body = {"avatar": "sanders", "origin": origin["Origin"]}
        ticket = workers.ask("POST", "/v1/tickets", body).json["ticket"]
        begin = ("POST", "/v1/sessions", {"avatar": "sanders"}, origin)
        made = workers.ask(*begin, token=ticket)
        assert made.status == 201, made
        secret = made.headers["lipwire-session-token"]
        path = f"/v1/sessions/{made.json['id']}"
        for _ in range(CONNECTIONS):
            assert workers.ask(*begin, token=ticket).status == 401
            assert (
                workers.ask("POST", f"{path}/interrupt", None, origin, token=secret).status == 204
            )
        ids.add(made.json["id"])
    assert workers.listed() == (MOST, ids)
    assert {one[:2] for one in ids} == {"0.", "1."}


def test_counts_and_the_limit_are_of_all(workers: Workers) -> None:
    sessions = set(opened_by_grpc(workers).values())
    with ExitStack() as there:  # who has left makes room
        client = there.enter_context(workers.grpc())
        for session_id in sessions:
            there.enter_context(client.resume(session_id))
        for _ in range(CONNECTIONS):
            assert workers.listed() == (MOST, sessions)
            with CompositingConnection(workers.address) as connection:
                health = connection.health(WAIT_S)
                assert (health.live_sessions, health.live_capacity) == (MOST, MOST), health
            refused = workers.ask("POST", "/v1/sessions", {"avatar": "sanders"})
            assert (refused.status, refused.json["active"]) == (429, MOST)
            assert f"allowed are {MOST}" in refused.json["detail"]
            assert int(refused.headers["retry-after"]) > 0
            with workers.grpc() as other, pytest.raises(Overloaded, match=f"allowed are {MOST}"):
                other.converse("sanders")


def test_viewers_see_sessions_of_both(workers: Workers) -> None:
    with WebViewer(workers) as first, WebViewer(workers) as second:
        viewers = (first, second)
        for viewer in viewers:
            viewer.view("/whep/sanders")
        begun = [viewer.location.rpartition("/")[2] for viewer in viewers]
        assert sorted(one[:2] for one in begun) == ["0.", "1."]
        seen(workers, viewers, begun)
        workers.end_all()
    sessions = list(opened_by_grpc(workers).values())
    with WebViewer(workers) as first, WebViewer(workers) as second:
        viewers = (first, second)
        for viewer, session_id in zip(viewers, sessions, strict=True):
            viewer.view(f"/whep/sanders?session={session_id}")
        seen(workers, viewers, sessions)
        for viewer in viewers:
            assert workers.ask("DELETE", viewer.location).status == 200
            assert workers.ask("DELETE", viewer.location).status == 404


def seen(workers: Workers, viewers: Sequence[WebViewer], sessions: Sequence[str]) -> None:
    """Wait until each of ``viewers`` sees and hears its session."""
    for viewer in viewers:
        until(lambda: len(viewer.pictures) >= 3 and viewer.sounds)  # noqa: B023
    for session_id in sessions:
        assert workers.ask("GET", f"/v1/sessions/{session_id}").json["viewers"] == 1


def test_sessions_of_a_process_that_dies_are_gone_and_the_others_live_on(workers: Workers) -> None:
    ids = opened_by_grpc(workers)
    pids = workers_of(workers.served)
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: asked(workers, f"/v1/sessions/{ids[0]}") == 404)

    def told() -> bool:
        with workers.grpc() as client:
            try:
                client.resume(ids[0])
            except NotFound:
                return True
            except Exception:  # a connection to the dying
                return False
        raise AssertionError("it was found")

    until(told)
    until(lambda: asked(workers, f"/v1/sessions/{ids[1]}") == 200)
    until(lambda: first_of(workers) not in (None, pids[0]))
    until(lambda: listed_without_gaps(workers) == (1, {ids[1]}))
    for _ in range(CONNECTIONS):
        assert workers.ask("GET", f"/v1/sessions/{ids[0]}").status == 404
    assert workers.open().startswith("0.")  # the new process has none


def first_of(workers: Workers) -> int | None:
    """The process id of worker 0; None while it is not there, or beginning."""
    try:
        return workers_of(workers.served).get(0)
    except (ValueError, OSError):
        return None


def asked(workers: Workers, path: str) -> int:
    """The status; 0 where the connection led to a dying process."""
    try:
        return workers.ask("GET", path).status
    except OSError:
        return 0


def listed_without_gaps(workers: Workers) -> tuple[int, set[str]] | None:
    try:
        told = workers.ask("GET", "/v1/sessions").json
    except OSError:
        return None
    if "detail" in told:
        return None
    return told["active"], {one["id"] for one in told["sessions"]}
