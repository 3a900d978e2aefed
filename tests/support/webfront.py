"""A server all of whose requests are passed on by another process, as far as clients can tell."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp
from tests.support.webparts import TOKEN, WebHouse

from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.session.live import LiveSessions, SessionRules
from lipwire.web.across import WebWorkers
from lipwire.web.app import web_app
from lipwire.web.hub import Hub
from lipwire.web.ice import IceServers
from lipwire.web.server import WebServer


class FrontedHouse(WebHouse):
    """A ``WebHouse`` at place 1 of two, which is asked at place 0, where no session is. What tests
    look at is what the house itself has; its clients see ``server``, the other one."""

    def __init__(self, folder: Path, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, place=WorkerPlace(folder, 1, 2), **others)
        place = WorkerPlace(folder, 0, 2)
        self._empty = LiveSessions(self._open, self.time.threads, clock=self.time.clock)
        self.behind = self.server

        def make() -> ASGIApp:
            return web_app(
                Hub(self._empty, IceServers(), clock=self.time.clock),
                lambda: ["anna", "bert"],
                healthy=lambda: self.healthy(),
                hosts=["x"],
                token=TOKEN,
                workers=WebWorkers(0, {1: place.web_socket(1)}, place.owner_of, lambda: {1: 0}),
            )

        self.server = WebServer(make, host="127.0.0.1", port=0, among=place.web_socket())

    def close(self) -> None:
        """Stop it; twice is allowed."""
        self.server.close()
        self._empty.close()
        self.server = self.behind
        super().close()


@contextmanager
def house_asked(how: str, rules: SessionRules | None = None) -> Iterator[WebHouse]:
    """Give a ``WebHouse`` with ``rules`` that is asked itself ("here"), or by way of another one
    ("passed on")."""
    with ExitStack() as stack:
        if how == "here":
            yield stack.enter_context(WebHouse(rules))
            return
        folder = stack.enter_context(socket_folder())
        yield stack.enter_context(FrontedHouse(folder, rules))
