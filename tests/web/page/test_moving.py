"""The page when the server of its session stops."""

import json

from playwright.sync_api import FilePayload, Page, Route
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, Open, Visit, repeated

pytestmark = BROWSER


class Stopping:
    """Tells the page, as its server would, that the server of its first session stops in
    ``left_s`` seconds."""

    def __init__(self, left_s: int = 60) -> None:
        self._left_s = left_s
        self.now = False
        self.told = False

    def __call__(self, page: Page) -> None:
        page.route("**/events", self._events)

    def _events(self, route: Route) -> None:
        if self.told:
            return route.continue_()
        told: list[dict[str, object]] = [
            {"type": "session", "id": "", "avatar": "anna", "state": "idle"}
        ]
        if self.now:
            going = {"type": "going_away", "at_ms": 0, "reason": "it stops"}
            told.append({**going, "left_s": self._left_s})
            self.told = True
        body = "".join(f"data: {json.dumps(each)}\n\n" for each in told)
        return route.fulfill(content_type="text/event-stream", body=body)


def is_gone(here: Visit, address: str, session: str) -> bool:
    return here.page.request.get(f"{address}v1/sessions/{session}").status == 404


def test_it_goes_over_to_another_server_with_what_is_typed(
    address: str, visit: Open, speech: FilePayload
) -> None:
    stopping = Stopping()
    here = visit(address, stopping)
    here.is_live()
    before = here.session()
    here.page.fill("#text", "not sent yet")
    stopping.now = True
    until(lambda: here.session() != before)
    here.is_live()
    until(lambda: is_gone(here, address, before))
    assert here.page.input_value("#text") == "not sent yet"
    assert not here.page.is_visible("#failure")
    assert here.page.is_hidden("#notice")
    here.page.set_input_files("#file", speech)
    here.shows("[data-state=speaking]")


def test_what_was_not_said_is_said_elsewhere(
    address: str, visit: Open, speech: FilePayload
) -> None:
    stopping = Stopping(left_s=15)
    here = visit(address, stopping)
    here.is_live()
    before = here.session()
    said: list[str] = []
    here.page.on("request", lambda each: said.append(each.url) if "/speak" in each.url else None)
    here.page.set_input_files("#file", repeated(speech, 15))  # longer than it takes to move
    until(lambda: here.session() and said)  # the browser's events come while it is asked
    stopping.now = True
    until(lambda: here.session() != before)
    until(lambda: any(here.session() in url for url in said), seen=lambda: (said, here.errors))
    here.shows("[data-phase=live]")


def test_who_watches_is_told(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    stopping = Stopping()
    stopping.now = True
    friend = visit(f"{address}?session={here.session()}", stopping)
    friend.shows("#notice", "The server is shutting down: this session ends in 60 s.")
    assert friend.session() == here.session()
