"""Names of versions, and who belongs to a share."""

import pytest

from lipwire.domain import Access
from lipwire.domain.names import is_name
from lipwire.domain.versions import in_share, one_version, parted, versioned, who_of

VERSION = "ab" * 32


def test_a_version_has_a_name_that_no_avatar_can_have() -> None:
    name = versioned("anna 2", VERSION)
    assert parted(name) == ("anna 2", VERSION)
    assert not is_name(name)


@pytest.mark.parametrize(
    "name", ["anna", "", ":", f":{VERSION}", f"a:{VERSION[:-1]}", f"a:b:{VERSION}", f"a:{VERSION}0"]
)
def test_what_is_no_versions_name_stays_whole(name: str) -> None:
    assert parted(name) == (name, "")


def test_who_sees_an_avatar_sees_its_versions() -> None:
    access = Access("key", avatars=("anna", "shop-*"))
    assert access.sees(versioned("anna", VERSION))
    assert access.sees(versioned("shop-1", VERSION))
    assert not access.sees(versioned("zoe", VERSION))


def test_a_share_is_about_as_large_as_it_says_and_only_grows() -> None:
    texts = [f"session {number}" for number in range(4000)]
    few = {text for text in texts if in_share(0.05, "anna", VERSION, text)}
    more = {text for text in texts if in_share(0.2, "anna", VERSION, text)}
    assert 140 <= len(few) <= 260
    assert 700 <= len(more) <= 900
    assert few < more
    others = {text for text in texts if in_share(0.05, "anna", "cd" * 32, text)}
    assert len(few & others) < 40, "another canary is shown to others"


def test_a_share_is_the_same_on_every_machine() -> None:
    # By hand: SHA-256 of "anna", "v" and "who" with zero bytes between begins with 0x940705e5.
    assert in_share(0x940705E6 / 2**32, "anna", "v", "who")
    assert not in_share(0x940705E5 / 2**32, "anna", "v", "who")


def test_who_asks_is_told_from_others_by_tenant_and_client() -> None:
    whos = {who_of("", "a"), who_of("a", ""), who_of("a", "a"), who_of("", "")}
    assert len(whos) == 4
    assert who_of("", "") == ""


def test_where_there_is_one_version_everybody_is_shown_it() -> None:
    with one_version("anna", "who", "batch") as chosen:
        assert (chosen.name, chosen.kind) == ("anna", None)
