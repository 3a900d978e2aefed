"""The page of a server that tells callers apart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.web.page.visits import BROWSER, Open, serving

from lipwire.security import KeyFile

pytestmark = BROWSER


@pytest.fixture
def key(tmp_path: Path) -> str:
    return KeyFile(tmp_path / "keys.json").create("page", operations=["live", "read"])


@pytest.fixture
def closed(root: Path, tmp_path: Path, key: str) -> Iterator[str]:
    more = f"security: {{keys_file: {tmp_path / 'keys.json'}}}"
    with serving(root, tmp_path / "compositing.yaml", more=more) as address:
        yield address


def test_the_page_asks_for_a_key_and_keeps_it(closed: str, key: str, visit: Open) -> None:
    here = visit(closed)
    here.shows("#failure-title", "asks for a key")
    here.page.fill("#failure-key", "lipwire_wrong_key")
    here.page.click("#failure-action")
    here.shows("#failure-detail", "not known here")
    here.page.fill("#failure-key", key)
    here.page.press("#failure-key", "Enter")
    here.is_live()
    here.page.reload()
    here.is_live()


def test_a_link_may_bring_the_key(closed: str, key: str, visit: Open) -> None:
    here = visit(f"{closed}#key={key}")
    here.is_live()
    assert key not in here.page.url
