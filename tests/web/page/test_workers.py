"""The page of a server of two processes: what a tab asks for may reach either."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload
from tests.cli.conftest import Served, serving_in
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, Open

pytestmark = BROWSER


@pytest.fixture
def served(root: Path, tmp_path: Path) -> Iterator[Served]:
    with ExitStack() as stack:
        server = serving_in(stack, tmp_path)(
            *("serve", "--models-root", root, "--workers", 2, "--port", 0, "--web-port", 0),
            LIPWIRE_SPEECH__VOICE="none",
        )
        server.wait_for("Ready", 180)
        yield server


def test_it_talks_and_friends_see_it(served: Served, visit: Open, speech: FilePayload) -> None:
    address = served.wait_for(r"Page: (\S+)")
    first, second = visit(address), visit(address)
    first.is_live()
    second.is_live()
    assert first.session() != second.session()
    friend = visit(f"{address}?session={first.session()}")
    friend.is_live()
    told = f"fetch('/v1/sessions/{first.session()}').then(one => one.json())"
    until(lambda: second.page.evaluate(told)["viewers"] == 2)
    first.page.set_input_files("#file", speech)
    first.shows("[data-state=speaking]")
    friend.shows("[data-state=speaking]")
    assert not second.page.is_visible("[data-state=speaking]")
    first.page.click("#interrupt")
    until(lambda: not friend.page.is_visible("[data-state=speaking]"))
    assert [here.errors for here in (first, second, friend)] == [[], [], []]
    assert served.end() == 0
