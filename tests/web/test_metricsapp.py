"""The port with a server's numbers: who may read them, and what it says of the server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.webparts import Asked

from lipwire.domain import Unavailable
from lipwire.security import OPEN, AccessControl, KeyFile
from lipwire.web.metricsapp import metrics_app
from lipwire.web.server import WebServer

TEXT = b"# TYPE lipwire_x gauge\nlipwire_x 1.0\n"
Start = Callable[..., "Port"]


class Port(Asked):
    def __init__(self, port: int) -> None:
        self.port = port


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def started(
            control: AccessControl = OPEN,
            ready: Callable[[], bool] = lambda: True,
            hosts: tuple[str, ...] = (),
        ) -> Port:
            server = WebServer(
                lambda: metrics_app(lambda: TEXT, ready=ready, hosts=hosts, control=control),
                host="127.0.0.1",
                port=0,
                name="metrics",
            )
            return Port(stack.enter_context(server).port)

        yield started


def test_numbers_are_read_as_prometheus_reads_them(start: Start) -> None:
    answer = start().ask("GET", "/metrics", token=None)
    assert (answer.status, answer.body) == (200, TEXT)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_whether_it_answers_and_whether_it_is_ready(start: Start) -> None:
    ready = [False]
    port = start(ready=lambda: ready[0])
    assert port.ask("GET", "/healthz", token=None).body == b"ok\n"
    assert port.ask("GET", "/readyz", token=None).status == 503
    assert port.ask("GET", "/readyz/balancer", token=None).status == 404
    ready[0] = True
    assert port.ask("GET", "/readyz", token=None).status == 200
    assert port.ask("GET", "/readyz/balancer", token=None).status == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/metrics"), ("GET", "/"), ("GET", "/v1")])
def test_there_is_nothing_else(start: Start, method: str, path: str) -> None:
    assert start().ask(method, path, token=None).status in (403, 404, 405)


def test_a_page_elsewhere_cannot_read_them_under_another_name(start: Start) -> None:
    rebound = {"Host": "evil.example"}
    assert start().ask("GET", "/metrics", headers=rebound, token=None).status == 403
    assert start(hosts=("*",)).ask("GET", "/metrics", headers=rebound, token=None).status == 200


def test_who_reads_shows_a_key_that_may_read_for_all_tenants(start: Start, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    tokens = {
        None: 401,
        "lw_wrong": 401,
        keys.create("prometheus", operations=["read"]): 200,
        keys.create("everything"): 200,
        keys.create("renders", operations=["render"]): 403,
        keys.create("shop", tenant="acme"): 403,
        keys.create("some", avatars=["acme-*"]): 403,
    }
    with AccessControl(keys=keys) as control:
        port = start(control)
        for token, status in tokens.items():
            assert port.ask("GET", "/metrics", token=token).status == status
            assert port.ask("GET", "/healthz", token=token).status == 200
            assert port.ask("GET", "/readyz", token=token).status == 200


def test_a_port_that_is_taken_names_the_key_for_another(start: Start) -> None:
    taken = start().port
    with pytest.raises(Unavailable, match=r"choose another one with metrics\.port"):
        WebServer(
            lambda: metrics_app(lambda: TEXT, ready=lambda: True, hosts=()),
            host="127.0.0.1",
            port=taken,
            name="metrics",
        )
