"""Pictures alone, for viewers without H.264."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from tests.support.waiting import until
from tests.support.webfront import house_asked
from tests.support.webparts import WebHouse
from tests.web.test_app import fails

from lipwire.session.live import LiveSession, SessionRules


@pytest.fixture(params=["here", pytest.param("passed on", marks=pytest.mark.slow)])
def house(request: pytest.FixtureRequest) -> Iterator[WebHouse]:
    """Asked itself, and through another process of the same server."""
    with house_asked(request.param, SessionRules(reconnect_grace_s=5)) as house:
        yield house


@contextmanager
def stream(house: WebHouse, session: LiveSession) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=60)
    connection.request("GET", f"/v1/sessions/{session.id}/mjpeg")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=lipwire-frame"
    assert answer.readline() == b"--lipwire-frame\r\n"
    yield answer
    answer.close()
    connection.close()


def picture(answer: http.client.HTTPResponse) -> bytes:
    """The next part."""
    assert answer.readline() == b"Content-Type: image/jpeg\r\n"
    size = int(answer.readline().removeprefix(b"Content-Length: "))
    assert answer.readline() == b"\r\n"
    data = answer.read(size)
    assert answer.readline() + answer.readline() == b"\r\n--lipwire-frame\r\n"
    return data


@pytest.mark.parametrize("raw", [False, True])
def test_pictures_are_jpeg_files_whatever_the_server_sends(house: WebHouse, raw: bool) -> None:
    house.raw = raw
    session = house.session(house.open())
    with stream(house, session) as answer:
        for _ in range(3):
            until(lambda: next(iter(session._outputs)).has_room)
            house.time.run(0.04)
            pixels = cv2.imdecode(np.frombuffer(picture(answer), np.uint8), cv2.IMREAD_COLOR)
            assert pixels is not None
            assert pixels.shape == (64, 64, 3)
            assert abs(float(pixels[32, 32].mean()) - 101) < 20  # the mouth at rest


def test_pictures_are_left_out_where_the_viewer_does_not_take_them(house: WebHouse) -> None:
    session = house.session(house.open())
    with stream(house, session):
        (output,) = session._outputs
        output.show = lambda shown: setattr(output, "_free", False)  # type: ignore[method-assign]
        house.time.run(1)
        assert session.counts.frames <= 1
        assert session.counts.dropped >= 23


def test_it_ends_with_the_session_and_the_session_without_viewers(house: WebHouse) -> None:
    session = house.session(house.open())
    with stream(house, session):
        house.time.run(40)
        assert house.session(session.id) is session
    until(lambda: not session._outputs)
    house.time.run(7)
    assert session.closed
    session = house.session(house.open())
    with stream(house, session) as answer:
        house.sessions.end(session)
        assert answer.read() == b""
    fails(house.ask("GET", "/v1/sessions/none/mjpeg"), 404)
