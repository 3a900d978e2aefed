"""Pictures and sound over a session's socket, for viewers without WebRTC."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

import cv2
import numpy as np
import pytest
from tests.support.waiting import until
from tests.support.webparts import TOKEN, WebHouse
from websockets.sync.client import ClientConnection, connect

from lipwire.session.live import LiveSession, SessionRules
from lipwire.web.outputs import MediaTap

PICTURE, SOUND = 1, 2


@pytest.fixture
def house() -> Iterator[WebHouse]:
    with WebHouse(SessionRules(reconnect_grace_s=5)) as house:
        yield house


@contextmanager
def socket(house: WebHouse, session: LiveSession, query: str = "media=1") -> Iterator[Any]:
    """Give the connection, and what the server tells of the session."""
    url = f"ws://127.0.0.1:{house.server.port}/v1/sessions/{session.id}/socket"
    with connect(
        f"{url}?{query}&token={quote_plus(TOKEN)}", proxy=None, max_queue=None
    ) as connection:
        yield connection, json.loads(connection.recv(60))


def tap_of(session: LiveSession) -> MediaTap:
    return next(output for output in session._outputs if isinstance(output, MediaTap))


def media(connection: ClientConnection, kind: int) -> tuple[int, bytes]:
    """The next binary message of this kind: its time in ms, and its data."""
    while True:
        message = connection.recv(60)
        if isinstance(message, bytes):
            found, at_ms = struct.unpack_from("<B3xI", message)
            if found == kind:
                return at_ms, message[8:]


@pytest.mark.parametrize("raw", [False, True])
def test_pictures_come_as_jpeg_files_with_their_time(house: WebHouse, raw: bool) -> None:
    house.raw = raw
    session = house.session(house.open())
    with socket(house, session) as (connection, told):
        assert (told["width"], told["height"]) == (64, 64)
        until(lambda: len(list(session._outputs)) == 2)
        times = []
        for _ in range(3):
            until(lambda: tap_of(session).has_room)
            house.time.run(0.04)
            at_ms, file = media(connection, PICTURE)
            times.append(at_ms)
            pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
            assert pixels is not None
            assert abs(float(pixels[32, 32].mean()) - 101) < 20  # the mouth at rest
        assert times == sorted(set(times))
        assert all(at_ms % 40 == 0 for at_ms in times)


def test_sound_comes_as_pcm_with_no_gap_and_on_the_same_clock(house: WebHouse) -> None:
    session = house.session(house.open())
    with socket(house, session) as (connection, told):
        assert told["sound_rate"] == session.settings.sound_rate_hz
        until(lambda: len(list(session._outputs)) == 2)
        session.push(np.full((8000, 1), 9000, np.int16), 16_000)
        session.end_of_speech()
        heard, times = [], []
        for _ in range(60):
            house.time.run(0.04)
            at_ms, data = media(connection, SOUND)
            times.append(at_ms)
            heard.append(np.frombuffer(data, "<i2"))
        assert {len(piece) for piece in heard} == {told["sound_rate"] // 25}
        assert set(np.diff(times).tolist()) == {40}
        loud = np.concatenate(heard) > 4500
        assert abs(loud.sum() / told["sound_rate"] - 0.5) < 0.02
        until(lambda: tap_of(session).has_room)
        house.time.run(0.04)
        sound_ms, _ = media(connection, SOUND)
        picture_ms, _ = media(connection, PICTURE)  # of this moment, or of the one after it
        assert 0 <= picture_ms - sound_ms <= 40


def test_without_being_asked_for_none_come(house: WebHouse) -> None:
    session = house.session(house.open())
    with socket(house, session, "media=0") as (connection, _):
        until(lambda: len(list(session._outputs)) == 1)
        session.push(np.full((16_000, 1), 9000, np.int16), 16_000)
        session.end_of_speech()
        house.time.run(4)
        while json.loads(connection.recv(60))["type"] != "speech_ended":
            pass  # json.loads raises for what is binary


def test_who_does_not_take_sound_loses_the_oldest_and_pictures_go_on(house: WebHouse) -> None:
    session = house.session(house.open())

    async def made() -> MediaTap:
        return MediaTap()

    tap: MediaTap = house.in_loop(made())
    session.add_output(tap)
    house.time.run(4)
    assert session.counts.dropped > 80
    until(lambda: tap._messages.qsize() == 50)
    shown = session.counts.frames

    def shows_another() -> bool:
        """Once its picture was the oldest message."""
        house.time.run(1)
        return session.counts.frames > shown

    until(shows_another)
    assert tap._messages.qsize() == 50
    session.remove_output(tap)


def test_a_viewer_over_a_socket_counts_and_keeps_the_session(house: WebHouse) -> None:
    session = house.session(house.open())

    def viewers() -> int:
        return int(house.ask("GET", f"/v1/sessions/{session.id}").json["viewers"])

    with socket(house, session), socket(house, session, "rate=16000"):
        until(lambda: viewers() == 1)
        house.time.run(40)
        assert house.session(session.id) is session
    until(lambda: viewers() == 0)
    until(lambda: not session._outputs)
    house.time.run(7)
    assert session.closed


def test_the_end_of_the_session_is_told(house: WebHouse) -> None:
    session = house.session(house.open())
    with socket(house, session) as (connection, _):
        until(lambda: len(list(session._outputs)) == 2)
        house.sessions.end(session)
        last = connection.recv(60)
        while isinstance(last, bytes) or json.loads(last)["type"] != "ended":
            last = connection.recv(60)
        assert json.loads(last)["reason"] == "closed"
