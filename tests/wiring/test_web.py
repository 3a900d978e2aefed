"""The web server of a configuration."""

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.liveparts import LiveTime

from lipwire.config import load_compositing_config
from lipwire.config.compositing import WebSettings
from lipwire.domain import InvalidInput, Unavailable
from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.security import AccessControl, KeyFile
from lipwire.session.live import LiveSessions
from lipwire.wiring.web import check_web, open_web, shared_web


def no_sessions() -> LiveSessions:
    time = LiveTime()
    return LiveSessions(lambda model_id, call: None, time.threads, clock=time.clock)  # type: ignore[arg-type, return-value]


def opened(web: WebSettings, told: dict[str, Mapping[str, object]]) -> int:
    """Open it, ask whether it is ready, and return its port."""
    with open_web(
        web, no_sessions(), lambda: [], healthy=lambda: True, tell=told.__setitem__
    ) as server:
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


def test_max_connections_are_open_at_most() -> None:
    told: dict[str, Mapping[str, object]] = {}
    with (
        open_web(
            WebSettings(port=0, max_connections=16),
            no_sessions(),
            lambda: [],
            healthy=lambda: True,
            tell=told.__setitem__,
        ) as server,
        ExitStack() as stack,
    ):
        address = "127.0.0.1", server.port
        silent = [stack.enter_context(socket.create_connection(address, 60)) for _ in range(17)]
        assert silent[0].recv(1) == b"", "the oldest one that asks nothing makes room"
        silent[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent[-1].recv(1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_others_are_let_in_with_a_token_alone(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"web\.token") as refused:
        check_web(WebSettings(host=host))
    assert "\n" not in str(refused.value)
    check_web(WebSettings(host=host, token="sixteen letters!"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_token(host: str) -> None:
    check_web(WebSettings(host=host))


def test_several_processes_have_one_port_and_one_token() -> None:
    told: dict[str, Mapping[str, object]] = {}
    with (
        socket_folder() as folder,
        shared_web(WebSettings(port=0), tell=told.__setitem__) as environ,
        ExitStack() as stack,
    ):
        config = load_compositing_config(None, environ)
        web = config.web
        assert told["Web"] == {"Page": f"http://localhost:{web.port}/", "Token": web.token}
        for index in range(2):
            sessions, place = no_sessions(), WorkerPlace(folder, index, 2)
            server = stack.enter_context(
                open_web(
                    web,
                    sessions,
                    lambda: [],
                    healthy=lambda: True,
                    tell=lambda *_: None,
                    place=place,
                    counts=lambda: {0: 0, 1: 0},
                )
            )
            assert server.port == web.port
        for _ in range(4):  # connections, so that the kernel chooses anew
            connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
            connection.request(
                "GET", "/v1/sessions", headers={"Authorization": f"Bearer {web.token}"}
            )
            assert json.loads(connection.getresponse().read())["sessions"] == []
            connection.close()


def test_a_token_of_the_configuration_is_everybodys_and_is_not_told() -> None:
    told: dict[str, Mapping[str, object]] = {}
    web = WebSettings(port=0, token="sixteen letters!")
    with shared_web(web, tell=told.__setitem__) as environ:
        assert load_compositing_config(None, environ).web.token == "sixteen letters!"
    assert "Token" not in told["Web"]


def test_a_token_that_may_do_everything_is_not_told_where_callers_have_keys() -> None:
    told: dict[str, Mapping[str, object]] = {}
    with shared_web(WebSettings(port=0), tell=told.__setitem__, closed=True):
        assert "Token" not in told["Web"]
    told.clear()
    closed = AccessControl(keys=KeyFile(Path("keys.yaml")))
    with open_web(
        WebSettings(port=0),
        no_sessions(),
        lambda: [],
        healthy=lambda: True,
        tell=told.__setitem__,
        control=closed,
    ):
        assert "Token" not in told["Web"]


def test_a_taken_port_is_another_one_for_several_processes_where_nobody_chose_it() -> None:
    told: dict[str, Mapping[str, object]] = {}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = rf"127\.0\.0\.1:{port}.*--web-port"
        with (
            pytest.raises(Unavailable, match=wanted),
            shared_web(WebSettings(port=port), tell=told.__setitem__),
        ):
            pass
        assert not told
        chosen = WebSettings.model_construct(set(), port=port)
        with shared_web(chosen, tell=told.__setitem__) as environ:
            assert int(environ["LIPWIRE_COMPOSITING__WEB__PORT"]) != port
        assert str(told["Web"]["Port"]).startswith(f"{port} is taken")


def test_a_wrong_host_of_several_processes_is_named_as_the_file_has_it() -> None:
    web = WebSettings(host="no.such.host.invalid", token="sixteen letters!")
    with (
        pytest.raises(InvalidInput, match=r"^web\.host is 'no\.such\.host\.invalid'"),
        shared_web(web, tell=lambda *_: None),
    ):
        pass
