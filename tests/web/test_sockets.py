"""A session over one WebSocket."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import pytest
from tests.support.waiting import until
from tests.support.webfront import house_asked
from tests.support.webparts import TOKEN, WebHouse
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from lipwire.session.live import LiveSession, SessionRules

SECOND = np.full(16_000, 9000, "<i2").tobytes()


@pytest.fixture(params=["here", pytest.param("passed on", marks=pytest.mark.slow)])
def house(request: pytest.FixtureRequest) -> Iterator[WebHouse]:
    """Asked itself, and through another process of the same server."""
    with house_asked(request.param, SessionRules(reconnect_grace_s=30)) as house:
        yield house


@contextmanager
def socket(
    house: WebHouse, session: str, query: str = "rate=16000", **more: Any
) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{house.server.port}/v1/sessions/{session}/socket?{query}&token={quote_plus(TOKEN)}"
    with connect(url, proxy=None, max_queue=None, **more) as connection:
        assert told(connection)["type"] == "session"
        yield connection


def told(connection: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(connection.recv(60))
    return message


def send(connection: ClientConnection, kind: str, **values: Any) -> None:
    connection.send(json.dumps({"type": kind, **values}))


def answered(connection: ClientConnection) -> None:
    """Wait until the server has read all that was sent."""
    send(connection, "nothing of this kind")
    while "of this kind" not in told(connection).get("message", ""):
        pass


def ends(session: LiveSession) -> list[object]:
    """What grows with each end of speech that the session has been told."""
    told: list[object] = []
    end = session.end_of_speech

    def counted(*, after_interrupts: int | None = None) -> None:
        end(after_interrupts=after_interrupts)
        told.append(after_interrupts)

    session.end_of_speech = counted  # type: ignore[method-assign]
    return told


def spoken_s(house: WebHouse, session: LiveSession) -> float:
    house.time.run(8)
    return session.counts.spoken_ms / 1000


def test_binary_audio_is_spoken_and_events_come(house: WebHouse) -> None:
    session = house.session(house.open())
    ended = ends(session)
    with socket(house, session.id) as connection:
        connection.send(SECOND)
        connection.send(SECOND)
        send(connection, "input_audio_buffer.commit")
        until(lambda: ended)
        assert spoken_s(house, session) == 2
        kinds = [told(connection)["type"]]
        while kinds[-1] != "speech_ended":
            kinds.append(told(connection)["type"])
        assert "speech_began" in kinds


def test_audio_in_json_has_its_own_rate_and_channels(house: WebHouse) -> None:
    session = house.session(house.open())
    ended = ends(session)
    stereo = np.full((8000, 2), 9000, "<i2").tobytes()
    with socket(house, session.id) as connection:
        audio = base64.b64encode(stereo).decode()
        send(connection, "input_audio_buffer.append", audio=audio, rate=8000, channels=2)
        send(connection, "end_of_speech")
        until(lambda: ended)
        assert spoken_s(house, session) == 1


def test_what_was_sent_before_leaving_is_said(house: WebHouse) -> None:
    """As the page does at the end of push to talk."""
    session = house.session(house.open())
    ended = ends(session)
    protocol = Subprotocol("lipwire.audio.v1")
    with socket(house, session.id, subprotocols=[protocol]) as connection:
        assert connection.subprotocol == protocol
        connection.send(SECOND)
        send(connection, "end_of_speech")
    until(lambda: ended and not session._outputs)
    assert spoken_s(house, session) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["response.cancel", "output_audio_buffer.clear"])
def test_interrupts_get_through_while_audio_waits(house: WebHouse, kind: str) -> None:
    session = house.session(house.open())
    ended = ends(session)
    with socket(house, session.id) as connection:
        for _ in range(70):  # a session takes a minute
            connection.send(SECOND)
        answered(connection)
        until(lambda: not session.silent)
        send(connection, kind)
        connection.send(SECOND)
        send(connection, "input_audio_buffer.commit")
        until(lambda: ended)
        assert spoken_s(house, session) == 1


def test_what_waits_is_bounded(house: WebHouse) -> None:
    session = house.open()
    piece = bytes(2_000_000)
    with socket(house, session) as connection:
        for _ in range(12):
            connection.send(piece)
        message = told(connection)
        while message["type"] != "error":
            message = told(connection)
        assert message["code"] == "RESOURCE_EXHAUSTED"
        assert "16,777,216" in message["message"]
        send(connection, "response.cancel")
        answered(connection)
        assert house.session(session).silent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "type None"),
        ('{"type": "dance"}', "type dance"),
        ('{"type": "input_audio_buffer.append"}', "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "!"}', "base64"),
        ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "3 bytes"),
        ('{"type": "input_audio_buffer.append", "audio": "AA==", "rate": "x"}', "rate is x"),
        ('{"type": "input_audio_buffer.append", "audio": "", "rate": 1}', "1"),
        ('{"type": "input_audio_buffer.append", "audio": "", "channels": 65}', "65"),
        ('{"type": "listening"}', "listening"),
        ('{"type": "say"}', "text"),
        ('{"type": "say", "text": "Hello"}', "no voice"),
        (b"\0", "1 bytes"),
    ],
)
def test_wrong_messages_are_answered_and_the_socket_goes_on(
    house: WebHouse, message: str | bytes, words: str
) -> None:
    session = house.open()
    with socket(house, session) as connection:
        connection.send(message)
        error = told(connection)
        assert (error["type"], error["code"]) == ("error", "INVALID_ARGUMENT")
        assert words in error["message"]
        connection.send(SECOND)
        send(connection, "input_audio_buffer.commit")
        until(lambda: not house.session(session).silent)


def test_commands_reach_the_session() -> None:
    said: list[str] = []

    def speak(session: LiveSession, text: str) -> None:
        said.append(text)

    with WebHouse(SessionRules(max_idle_s=30), speak=speak) as house:
        session = house.open()
        with socket(house, session) as connection:
            send(connection, "listening", listening=True)
            send(connection, "say", text="Hello")
            answered(connection)
            assert said == ["Hello"]
            house.time.run(20)
            assert house.session(session).state.value == "listening"
            send(connection, "keep_alive")
            answered(connection)
            house.time.run(20)
            assert not house.session(session).closed
            house.time.run(20)
            last = told(connection)
            while last["type"] != "ended":
                last = told(connection)
            assert last == {"type": "ended", "reason": "max_idle"}
            with pytest.raises(ConnectionClosed):
                connection.recv(60)


def test_a_socket_is_a_client_of_its_session(house: WebHouse) -> None:
    session = house.session(house.open())
    with socket(house, session.id):
        house.time.run(40)
    until(lambda: not session._outputs)
    house.time.run(20)
    assert house.session(session.id) is session
    house.time.run(20)
    assert session.closed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/sessions/none/socket", {"Authorization": f"Bearer {TOKEN}"}, 404),
        ("/v1/sessions/ID/socket?rate=1", {"Authorization": f"Bearer {TOKEN}"}, 400),
        ("/v1/sessions/ID/socket?channels=x", {"Authorization": f"Bearer {TOKEN}"}, 400),
        ("/v1/sessions/ID/socket", {}, 403),
        ("/v1/sessions/ID/socket", {"Origin": "https://evil.example"}, 403),
        ("/v1/sessions/ID/socket?token=wrong", {}, 403),
        ("/v1/elsewhere", {"Authorization": f"Bearer {TOKEN}"}, 404),
        ("/elsewhere", {"Authorization": f"Bearer {TOKEN}"}, 404),
    ],
)
def test_sockets_are_refused(
    house: WebHouse, path: str, headers: dict[str, str], status: int
) -> None:
    session = house.open()
    url = f"ws://127.0.0.1:{house.server.port}{path.replace('ID', session)}"
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(url, proxy=None, additional_headers=headers),
    ):
        pass
    response = refused.value.response
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert not house.session(session)._outputs
