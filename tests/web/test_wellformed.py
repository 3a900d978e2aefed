"""Requests that are not in the encoding that URLs have."""

import socket

import pytest
from tests.support.webparts import TOKEN, WebHouse


@pytest.mark.parametrize(
    "path", [b"/v1/avatars", b"/v1/sessions/x/socket", b"/style.css", b"/whep/anna"]
)
@pytest.mark.parametrize("upgrade", [False, True])
def test_a_query_that_is_no_utf_8_is_refused(path: bytes, upgrade: bool) -> None:
    websocket = (
        b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    )
    with WebHouse() as house, socket.create_connection(("127.0.0.1", house.port)) as peer:
        peer.sendall(
            b"GET "
            + path
            + b"?rate=\x80\xff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            + TOKEN.encode()
            + b"\r\n"
            + (websocket if upgrade else b"Connection: close\r\n")
            + b"\r\n"
        )
        answer = b""
        while part := peer.recv(1 << 16):
            answer += part
            if b"\r\n\r\n" in answer and upgrade:
                break
    assert answer.split(b" ")[1] == b"400", answer


def test_a_type_of_any_length_is_told_in_short() -> None:
    with WebHouse() as house:
        answer = house.ask("POST", "/whep/anna", "v=0", {"Content-Type": "x" * 5000})
    assert answer.status == 415
    assert len(answer.json["detail"]) < 200
