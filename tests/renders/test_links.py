"""Signed links."""

import pytest
from starlette.datastructures import QueryParams
from tests.support.waiting import Clock

from lipwire.domain import PermissionDenied
from lipwire.renders import SignedLinks
from lipwire.renders.links import key_id

PATH = "/v1/renders/abc/"


def query_of(links: SignedLinks, path: str = PATH) -> dict[str, str]:
    return dict(QueryParams(links.query(path)[0]))


def test_a_link_counts_until_it_expires() -> None:
    clock = Clock()
    links = SignedLinks("a secret", lasts_s=60, now=clock)
    text, expires_s = links.query(PATH)
    assert expires_s == clock.now + 60
    query = QueryParams(text)
    for method in ("GET", "HEAD"):
        assert links.check(method, PATH, query) == 60
    clock.now += 59
    assert links.check("GET", PATH, query) == 1
    clock.now += 1
    with pytest.raises(PermissionDenied, match="expired"):
        links.check("GET", PATH, query)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "OPTIONS", "get"])
def test_a_link_is_for_reading(method: str) -> None:
    links = SignedLinks("a secret", lasts_s=60)
    with pytest.raises(PermissionDenied, match="GET and HEAD"):
        links.check(method, PATH, query_of(links))


@pytest.mark.parametrize(
    "changed",
    [
        {"expires": "99999999999"},
        {"expires": "-1"},
        {"expires": "²"},
        {"expires": "1" * 5000},
        {"expires": ""},
        {"key": key_id("another secret")},
        {"key": ""},
        {"signature": ""},
        {"signature": "A" * 43},
        {"signature": "\udcff"},
    ],
)
def test_a_link_that_was_changed_counts_no_more(changed: dict[str, str]) -> None:
    links = SignedLinks("a secret", lasts_s=60)
    with pytest.raises(PermissionDenied):
        links.check("GET", PATH, {**query_of(links), **changed})


def test_a_link_is_for_its_path_alone() -> None:
    links = SignedLinks("a secret", lasts_s=60)
    for path in ("/v1/renders/abd/", "/v1/renders/abc", "/v1/renders/"):
        with pytest.raises(PermissionDenied, match="not signed for this"):
            links.check("GET", path, query_of(links))


def test_the_secret_can_be_changed_without_links_that_break() -> None:
    before = SignedLinks("old secret", lasts_s=60)
    after = SignedLinks("new secret", "old secret", lasts_s=60)
    assert after.check("GET", PATH, query_of(before)) > 0
    assert query_of(after)["key"] == key_id("new secret")
    later = SignedLinks("new secret", lasts_s=60)
    with pytest.raises(PermissionDenied, match="does not count"):
        later.check("GET", PATH, query_of(before))
    assert later.check("GET", PATH, query_of(after)) > 0
