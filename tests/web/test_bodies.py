"""How much of requests' bodies a process holds, and within which time they come."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.trickling import trickling
from tests.support.waiting import WAIT_S, until
from tests.support.webparts import TOKEN, WebHouse
from websockets.sync.client import connect

from lipwire.domain import Overloaded
from lipwire.web.bodies import BodyRoom

PCM = {"Content-Type": "audio/pcm"}


def test_what_is_held_is_given_back() -> None:
    room = BodyRoom(100, 60)

    def fails() -> None:
        with room.taking("acme") as take:
            take(20)
            take(40)
            assert room.held_bytes == 60
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert room.held_bytes == 0
    with room.taking("acme") as take:
        take(60)


def test_one_tenant_leaves_room_for_others() -> None:
    room = BodyRoom(100, 60)
    with room.taking("acme") as take, room.taking("acme") as another:
        take(50)
        with pytest.raises(Overloaded, match="50 bytes of bodies are held; allowed are 60"):
            another(11)
        another(10)
        with room.taking("shop") as others:
            others(40)
            with pytest.raises(Overloaded, match="100 bytes of bodies are held; allowed are 100"):
                others(1)


@pytest.fixture
def with_room(monkeypatch: pytest.MonkeyPatch) -> Callable[..., WebHouse]:
    """Makes a server with a ``BodyRoom`` of other sizes and times."""

    def make(*sizes: int, **times: Any) -> WebHouse:
        monkeypatch.setattr("lipwire.web.app.BodyRoom", lambda: BodyRoom(*sizes, **times))
        return WebHouse()

    return make


def asking(house: WebHouse, length: int) -> socket.socket:
    """A connection over which a session is asked for, or rather, by what is no JSON; its body is
    still to come."""
    made = socket.create_connection(("127.0.0.1", house.port), WAIT_S)
    made.sendall(
        b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (TOKEN.encode(), length)
    )
    return made


def test_a_body_that_stops_coming_is_given_up(with_room: Callable[..., WebHouse]) -> None:
    with with_room(part_within_s=0.2) as house, asking(house, 1000) as slow:
        slow.sendall(b"12345")
        told = slow.recv(4096)
        assert told.startswith(b"HTTP/1.1 408")
        assert b"5 bytes of the body came; allowed are pauses of 0.2 s" in told + slow.recv(4096)
        assert house.ask("POST", "/v1/sessions", {"avatar": "anna"}).status == 201


@pytest.mark.slow
def test_a_body_that_trickles_in_is_given_up(with_room: Callable[..., WebHouse]) -> None:
    with (
        with_room(part_within_s=WAIT_S, all_within_s=0.5) as house,
        asking(house, 1_000_000) as slow,
        trickling(slow),
    ):
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")


def test_bodies_beyond_the_room_are_refused(with_room: Callable[..., WebHouse]) -> None:
    with with_room(1000, 600) as house:
        session = house.ask("POST", "/v1/sessions", {"avatar": "anna"}).json["id"]
        path = f"/v1/sessions/{session}/speak"
        with asking(house, 1000) as slow:
            slow.sendall(bytes(500))
            until(lambda: house.ask("POST", path, bytes(200), PCM).status == 429)
            refused = house.ask("POST", path, bytes(200), PCM)
            assert refused.json["detail"] == "500 bytes of bodies are held; allowed are 600"
            assert int(refused.headers["retry-after"]) >= 1
            assert house.ask("POST", path, bytes(100), PCM).status == 202
        until(lambda: house.ask("POST", path, bytes(200), PCM).status == 202)


def test_audio_is_held_until_the_session_has_taken_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session has room for some seconds, and no time passes here."""
    room = BodyRoom(8_000_000, 4_000_000)
    monkeypatch.setattr("lipwire.web.app.BodyRoom", lambda: room)
    two_minutes = bytes(3_840_000)
    with WebHouse() as house:
        session = house.ask("POST", "/v1/sessions", {"avatar": "anna"}).json["id"]
        path = f"/v1/sessions/{session}/speak"
        long = threading.Thread(target=house.ask, args=("POST", path, two_minutes, PCM))
        long.start()
        until(lambda: room.held_bytes == len(two_minutes))
        assert house.ask("POST", path, bytes(320_000), PCM).status == 429
        assert house.ask("DELETE", f"/v1/sessions/{session}").status == 204
        long.join(WAIT_S)
        until(lambda: room.held_bytes == 0)


def test_audio_that_waits_in_sockets_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    room = BodyRoom(8_000_000, 4_000_000)
    monkeypatch.setattr("lipwire.web.app.BodyRoom", lambda: room)
    with WebHouse() as house:
        session = house.ask("POST", "/v1/sessions", {"avatar": "anna"}).json["id"]
        address = f"ws://127.0.0.1:{house.port}/v1/sessions/{session}/socket"
        own = {"Authorization": f"Bearer {TOKEN}"}
        with connect(address, additional_headers=own) as opened:
            assert json.loads(opened.recv(WAIT_S))["type"] == "session"
            for _ in range(4):
                opened.send(bytes(1_920_000))  # a minute each, of which the session takes in one
            told = json.loads(opened.recv(WAIT_S))
            while told["type"] != "error":
                told = json.loads(opened.recv(WAIT_S))
            assert told["code"] == "RESOURCE_EXHAUSTED"
            assert "bytes of bodies are held; allowed are 4,000,000" in told["message"]
            assert room.held_bytes > 1_920_000
            opened.send('{"type": "response.cancel"}')
            until(lambda: room.held_bytes == 0)
            for _ in range(2):
                opened.send(bytes(1_920_000))
            until(lambda: room.held_bytes > 1_900_000)
        assert house.ask("DELETE", f"/v1/sessions/{session}").status == 204
        until(lambda: room.held_bytes == 0)
