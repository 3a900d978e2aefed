"""What the page says when something fails, and what it does then."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Page,
    Route,
)
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, KEEP_CONNECTIONS, Open, refusing, serving

pytestmark = BROWSER

BREAK_CONNECTION: Final = """() => {
    const [connection] = connections
    Object.defineProperty(connection, 'connectionState', { value: 'failed' })
    connection.dispatchEvent(new Event('connectionstatechange'))
}"""


def test_a_full_server_is_asked_again_when_it_says(address: str, visit: Open) -> None:
    refuse = refusing("**/whep/**", 429, times=1, headers={"Retry-After": "3"})
    here = visit(address, refuse)
    here.shows("#failure-title", "places are taken")
    here.shows("#failure-action", "s)")
    here.is_live()


@pytest.mark.parametrize(
    ("pattern", "status", "title"),
    [
        ("**/whep/**", 404, "no such avatar"),
        ("**/whep/**", 503, "not ready"),
        ("**/v1/avatars", 403, "refuses this page"),
        ("**/v1/avatars", 500, "something went wrong"),
    ],
)
def test_a_refusal_is_explained(
    address: str, visit: Open, pattern: str, status: int, title: str
) -> None:
    here = visit(address, refusing(pattern, status))
    here.shows("#failure-title", title)
    here.shows("#failure-detail", "made up")


def no_pictures(page: Page) -> None:
    """Have no pictures come in place of video."""
    page.route_web_socket(lambda url: "media=1" in url, lambda socket: socket.close())


def test_a_browser_that_gets_neither_video_nor_pictures_is_told(address: str, visit: Open) -> None:
    def prepare(page: Page) -> None:
        refusing("**/whep/**", 406)(page)
        no_pictures(page)

    here = visit(address, prepare)
    here.shows("#failure-title", "cannot show the video")
    here.shows("#failure-detail", "made up")


def test_media_that_do_not_get_through_are_explained(address: str, visit: Open) -> None:
    def without_candidates(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        answer = route.fetch()
        lines = [line for line in answer.text().splitlines() if "candidate" not in line]
        route.fulfill(response=answer, body="\r\n".join(lines) + "\r\n")

    def prepare(page: Page) -> None:
        page.clock.install()
        no_pictures(page)
        page.route("**/whep/**", without_candidates)

    here = visit(address, prepare)

    def later() -> bool:
        here.page.clock.fast_forward(2_000)
        return here.page.is_visible("#failure")

    until(later)
    here.shows("#failure-title", "does not get through")


def test_a_session_that_ends_can_be_begun_anew(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    before = here.session()
    here.page.evaluate("id => fetch(`/v1/sessions/${id}`, {method: 'DELETE'})", before)
    here.shows("#failure-title", "has ended")
    here.shows("#failure-action", "Talk again")
    here.page.click("#failure-action")
    here.is_live()
    assert here.session() != before


def test_a_link_to_a_session_that_is_over_says_so(address: str, visit: Open) -> None:
    here = visit(f"{address}?session=nobody")
    here.shows("#failure-title", "has ended")
    here.page.click("#failure-action")
    here.is_live()


def test_a_broken_connection_is_made_again(address: str, visit: Open) -> None:
    here = visit(address, lambda page: page.add_init_script(KEEP_CONNECTIONS))
    here.is_live()
    before = here.session()
    here.page.evaluate(BREAK_CONNECTION)
    here.shows("#waiting", "Connection lost")
    here.is_live()
    assert here.session() == before
    assert here.value("connections.length") == 2


def test_a_server_that_goes_is_missed_and_asked_for_again(
    root: Path, tmp_path: Path, visit: Open
) -> None:
    file = tmp_path / "compositing.yaml"
    with serving(root, file) as address:
        here = visit(address)
        here.is_live()
    here.shows("#failure-title", "server is gone")
    with serving(root, file, port=urlsplit(address).port or 0):
        here.shows("#failure-title", "has ended")
        here.page.click("#failure-action")
        here.is_live()
