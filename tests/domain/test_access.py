"""What somebody may do: operations, and avatars by patterns."""

import pytest

from lipwire.domain import (
    EVERYTHING,
    OPERATIONS,
    Access,
    InvalidInput,
    NotFound,
    PermissionDenied,
)


def test_everything_is_everything() -> None:
    assert all(EVERYTHING.may(operation) for operation in OPERATIONS)
    assert EVERYTHING.sees("anna")
    assert EVERYTHING.sees_all


@pytest.mark.parametrize(
    ("pattern", "seen", "unseen"),
    [
        ("anna", "anna", "Anna"),
        ("acme-*", "acme-anna", "xacme-anna"),
        ("acme-?", "acme-1", "acme-12"),
        ("[ab]*", "bert", "carl"),
        ("zoe\u0308", "zo\u00eb", "zoe"),  # both forms of one name
        ("zo\u00eb*", "zoe\u0308 2", "zoe"),
    ],
)
def test_avatars_are_seen_by_patterns(pattern: str, seen: str, unseen: str) -> None:
    access = Access("key", avatars=("nobody", pattern))
    assert access.sees(seen)
    assert not access.sees(unseen)
    access.check_avatar(seen)
    with pytest.raises(NotFound, match=f"^no avatar named {unseen}$"):
        access.check_avatar(unseen)


def test_without_patterns_no_avatar_is_seen() -> None:
    assert not Access("key", avatars=()).sees("anna")


def test_an_operation_that_is_not_given_is_denied() -> None:
    access = Access("key phone", operations=frozenset({"live", "read"}))
    access.check("live")
    with pytest.raises(PermissionDenied, match="needs manage; key phone may do live, read"):
        access.check("manage")
    with pytest.raises(PermissionDenied, match="may do nothing"):
        Access("key", operations=frozenset()).check("read")


def test_what_is_told_another_process_is_the_same_there() -> None:
    access = Access("key zo\u00eb", "\u6771", frozenset({"live", "read"}), ("a*", "zo\u00eb"))
    assert access.told().isascii()
    assert Access.of_text(access.told()) == access
    assert Access.of_text(EVERYTHING.told()) == EVERYTHING


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"abcd"', '["a", "b", ["fly"], []]', '["a", "b", 3, []]', '["a"]']
)
def test_what_tells_nobody_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Access.of_text(text)
