"""The web server of a configuration."""

import http.client
import json
import socket
from collections.abc import Mapping

import pytest
from tests.support.liveparts import LiveTime

from lipwire.config.compositing import WebSettings
from lipwire.domain import InvalidInput, Unavailable
from lipwire.session.live import LiveSessions
from lipwire.wiring.web import check_web, open_web


def opened(web: WebSettings, told: dict[str, Mapping[str, object]]) -> int:
    """Open it, ask whether it is ready, and return its port."""
    time = LiveTime()
    sessions = LiveSessions(lambda model_id, call: None, time.threads, clock=time.clock)  # type: ignore[arg-type, return-value]
    with open_web(web, sessions, lambda: [], healthy=lambda: True, tell=told.__setitem__) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/readyz")
        answer = json.loads(connection.getresponse().read())
        assert answer["status"] == "ready"
        assert answer["lag_s"] >= 0
        connection.close()
        return server.port


def test_the_page_and_a_token_of_this_start_are_told() -> None:
    told: dict[str, Mapping[str, object]] = {}
    port = opened(WebSettings(port=0), told)
    assert told["Web"]["Page"] == f"http://localhost:{port}/"
    assert len(str(told["Web"]["Token"])) >= 32
    opened(WebSettings(port=0, token="sixteen letters!"), told)
    assert "Token" not in told["Web"]


def test_a_taken_port_names_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port}.*--web-port"):
            opened(WebSettings(port=port), {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_others_are_let_in_with_a_token_alone(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"web\.token") as refused:
        check_web(WebSettings(host=host))
    assert "\n" not in str(refused.value)
    check_web(WebSettings(host=host, token="sixteen letters!"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_token(host: str) -> None:
    check_web(WebSettings(host=host))
