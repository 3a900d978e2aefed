"""Whose session a tab of the page has."""

from playwright.sync_api import (
    FilePayload,
)
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, Open

pytestmark = BROWSER


def test_a_friend_sees_the_same_session(address: str, visit: Open, speech: FilePayload) -> None:
    here = visit(address)
    here.is_live()
    friend = visit(f"{address}?session={here.session()}")
    friend.is_live()
    told = here.page.request.get(f"{address}v1/sessions/{here.session()}").json()
    assert told["viewers"] == 2
    assert not friend.page.is_visible("#composer")
    here.page.set_input_files("#file", speech)
    friend.shows("[data-state=speaking]")


def test_loading_it_again_keeps_the_session(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    before = here.session()
    here.page.reload()
    here.is_live()
    assert here.session() == before


def test_a_session_that_was_left_is_found_again_and_one_in_another_tab_is_not_taken(
    address: str, visit: Open
) -> None:
    here = visit(address)
    here.is_live()
    before, context = here.session(), here.page.context
    other = visit(address, context=context)
    other.is_live()
    assert other.session() != before
    second = other.session()
    other.page.close()
    third = visit(address, context=context)
    third.is_live()
    assert third.session() == second


def test_leaving_it_leaves_the_session(address: str, visit: Open) -> None:
    here, other = visit(address), visit(address)
    here.is_live()
    session = here.session()
    here.page.goto("about:blank")
    until(lambda: other.page.request.get(f"{address}v1/sessions/{session}").json()["viewers"] == 0)


def test_another_avatar_is_another_session(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    before = here.session()
    here.page.select_option("#avatar", "bert")
    until(lambda: here.session() != before)
    here.is_live()
    assert here.page.request.get(f"{address}v1/sessions/{before}").status == 404
    assert here.page.title() == "bert · Lipwire"
