"""The page's microphone."""

import json

from tests.support.waiting import until
from tests.web.page.visits import BROWSER, Open

pytestmark = BROWSER


def test_the_microphone_speaks_while_space_is_held(address: str, visit: Open) -> None:
    sent: list[str | bytes] = []
    here = visit(address, permissions=["microphone"])
    here.page.on(
        "websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(payload))
    )
    here.is_live()
    here.page.focus("#microphone")
    here.page.keyboard.down(" ")
    until(lambda: here.value("true") and any(isinstance(one, bytes) and one for one in sent))
    assert here.page.get_attribute("#microphone", "aria-pressed") == "true"
    here.page.keyboard.up(" ")
    until(lambda: here.value("true") and '{"type":"input_audio_buffer.commit"}' in sent)
    assert here.page.get_attribute("#microphone", "aria-pressed") == "false"
    assert not here.page.is_visible("#notice")


def test_the_microphone_speaks_over_a_socket_where_there_is_one(address: str, visit: Open) -> None:
    sent: list[str | bytes] = []
    here = visit(
        address,
        lambda page: page.route_web_socket(
            lambda url: url.endswith("/socket?rate=44100") or url.endswith("/socket?rate=48000"),
            lambda socket: socket.on_message(lambda message: sent.append(message)),
        ),
        permissions=["microphone"],
    )
    here.is_live()
    here.page.focus("#microphone")
    here.page.keyboard.down(" ")
    until(lambda: here.value("true") and len(sent) > 3)
    here.page.keyboard.up(" ")
    until(lambda: here.value("true") and isinstance(sent[-1], str))
    assert json.loads(sent[-1]) == {"type": "input_audio_buffer.commit"}
    assert all(isinstance(piece, bytes) and len(piece) % 2 == 0 for piece in sent[:-1])


def test_a_microphone_that_is_refused_is_explained(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    here.page.focus("#microphone")
    here.page.keyboard.down(" ")
    here.shows("#notice", "microphone is blocked")
