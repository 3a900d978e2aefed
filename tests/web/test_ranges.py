"""Which parts of a file are asked for."""

import pytest
from starlette.datastructures import Headers

from lipwire.web.ranges import NotSatisfiable, has_already, ranges_of

ETAG, MODIFIED = '"abc"', "Mon, 30 Nov 2026 16:00:00 GMT"


def asked(given: str, **more: str) -> str:
    headers = Headers({"Range": given, **{name.replace("_", "-"): it for name, it in more.items()}})
    return ranges_of(headers, size_bytes=1000, etag=ETAG, modified=MODIFIED)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("bytes=0-499", "bytes=0-499"),
        ("bytes=999-", "bytes=999-"),
        ("bytes=-1", "bytes=-1"),
        ("bytes=-5000", "bytes=-5000"),
        ("bytes=0-99999", "bytes=0-99999"),
        ("Bytes=0-0", "bytes=0-0"),
        (" bytes=0-0 , 5-9 ", "bytes=0-0,5-9"),
        ("bytes=0-0,5000-,-0", "bytes=0-0"),
        ("", ""),
        ("bytes=", ""),
        ("bytes=-", ""),
        ("bytes=5-1", ""),
        ("bytes=0-0,9-8", ""),
        ("bytes=a-b", ""),
        ("bytes=1", ""),
        ("bytes 0-1", ""),
        ("bytes=²-³", ""),
        ("bytes=" + "9" * 5000 + "-", ""),
        ("rows=0-1", ""),
        ("bytes=" + ",".join(["0-0"] * 17), ""),
    ],
)
def test_what_is_well_formed_and_there_counts(given: str, wanted: str) -> None:
    assert asked(given) == wanted


@pytest.mark.parametrize("given", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=1000-,-0"])
def test_what_the_file_has_nothing_of_is_refused(given: str) -> None:
    with pytest.raises(NotSatisfiable):
        asked(given)


@pytest.mark.parametrize(
    ("tag", "counts"),
    [(ETAG, True), (MODIFIED, True), ('"other"', False), ('W/"abc"', False), ("abc", False)],
)
def test_a_range_of_another_file_is_the_whole_file(tag: str, counts: bool) -> None:
    assert asked("bytes=0-1", If_Range=tag) == ("bytes=0-1" if counts else "")
    if not counts:
        assert asked("bytes=5000-", If_Range=tag) == ""


@pytest.mark.parametrize(
    ("given", "has"),
    [
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"x"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_who_has_the_file_need_not_be_sent_it(given: str, has: bool) -> None:
    assert has_already(Headers({"If-None-Match": given}), ETAG) == has
