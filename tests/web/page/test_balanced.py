"""The page behind HAProxy, with the configuration of deploy/haproxy and two servers."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload
from tests.cli.conftest import Served, serving_in
from tests.support.haproxy import Haproxy, haproxy, program
from tests.support.ownports import own_port
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, Open, Visit, repeated

from lipwire.rpc.workers import socket_folder

pytestmark = BROWSER


@dataclass
class Balanced:
    """Two servers behind HAProxy. ``address`` is the page's, there; ``pages`` are those of the
    servers themselves."""

    proxy: Haproxy
    address: str
    servers: list[Served]
    pages: list[str]


@pytest.fixture
def balanced(root: Path, tmp_path: Path) -> Iterator[Balanced]:
    program()
    http = f"127.0.0.1:{own_port()}"
    variables = {"HTTP_BIND": http}
    servers, pages = [], []
    with ExitStack() as stack:
        start = serving_in(stack, tmp_path)
        for number in (1, 2):
            server = start(
                *("serve", "--models-root", root, "--port", 0, "--web-port", 0),
                LIPWIRE_METRICS__PORT="0",
                LIPWIRE_SPEECH__VOICE="none",
                LIPWIRE_SERVER__DRAIN_DELAY="5",
            )
            servers.append(server)
            pages.append(server.wait_for(r"Page: (\S+)"))
            variables[f"COMPOSITING_{number}"] = server.address
            variables[f"WEB_{number}"] = pages[-1].removeprefix("http://").rstrip("/")
            health = server.wait_for(r"Prometheus: http://127.0.0.1:(\d+)/")
            variables[f"COMPOSITING_{number}_HEALTH_PORT"] = health
        proxy = stack.enter_context(haproxy(stack.enter_context(socket_folder()), variables))
        proxy.until_up("web")
        yield Balanced(proxy, f"http://{http}/", servers, pages)


def unforeseen(*visits: Visit) -> list[str]:
    """What pages logged as errors, but that a machine that is busy has had them come back."""
    return [error for here in visits for error in here.errors if "429" not in error]


def test_it_talks_friends_see_it_and_it_goes_over_when_its_server_stops(
    balanced: Balanced, visit: Open, speech: FilePayload
) -> None:
    first, second = visit(balanced.address), visit(balanced.address)
    first.is_live()
    second.is_live()
    asked = f"v1/sessions/{first.session()}"

    def at_home(page: str) -> bool:
        return first.page.request.get(page + asked).status == 200

    (home,) = [number for number, page in enumerate(balanced.pages) if at_home(page)]
    friend = visit(f"{balanced.address}?session={first.session()}")
    friend.is_live()
    first.page.set_input_files("#file", repeated(speech, 10))
    first.shows("[data-state=speaking]")
    friend.shows("[data-state=speaking]")
    assert not second.page.is_visible("[data-state=speaking]")
    first.page.click("#interrupt")
    until(lambda: not friend.page.is_visible("[data-state=speaking]"))
    assert unforeseen(first, second, friend) == []

    before = first.session()
    balanced.servers[home].process.send_signal(signal.SIGTERM)
    until(lambda: first.session() not in ("", before), seen=lambda: balanced.proxy.lines[-5:])
    first.is_live()
    first.page.set_input_files("#file", speech)
    first.shows("[data-state=speaking]")
