"""Candidates that come after the offer."""

import re
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.webparts import WebHouse
from tests.support.webviewer import FRAGMENT, SDP, WebViewer
from tests.web.test_app import fails
from tests.web.test_viewing import plays

from lipwire.domain import InvalidInput
from lipwire.session.live import SessionRules
from lipwire.web.trickle import MOST_CANDIDATES, parse_fragment, users_of

CANDIDATE = "candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host"


@pytest.fixture
def house() -> Iterator[WebHouse]:
    with WebHouse(SessionRules(reconnect_grace_s=5)) as opened:
        yield opened


def fragment(user: str = "abcd", *lines: str, mid: str = "0") -> str:
    head = (f"a=ice-ufrag:{user}", "a=ice-pwd:0123456789012345678901", "m=video 9 RTP/AVP 0")
    return "\r\n".join([*head, f"a=mid:{mid}", *lines, ""])


def test_candidates_belong_to_their_media() -> None:
    ipv6 = "candidate:2 1 UDP 1694498815 2001:db8::7 50001 typ srflx raddr 10.0.0.1 rport 9"
    told = parse_fragment(
        fragment("abcd", f"a={CANDIDATE}", "a=end-of-candidates")
        + f"m=audio 9 RTP/AVP 0\r\na=mid:sound\r\na={ipv6}\r\n"
    )
    assert told.user == "abcd"
    assert told.ended
    first, second = told.candidates
    assert (first.ip, first.port, first.type, first.sdpMid, first.sdpMLineIndex) == (
        "192.0.2.1",
        50000,
        "host",
        "0",
        0,
    )
    assert (second.ip, second.type, second.sdpMid, second.sdpMLineIndex) == (
        "2001:db8::7",
        "srflx",
        "sound",
        1,
    )


def test_a_fragment_may_have_no_media_lines() -> None:
    told = parse_fragment(f"a=ice-ufrag:abcd\na={CANDIDATE}")
    assert not told.ended
    assert (told.candidates[0].sdpMid, told.candidates[0].sdpMLineIndex) == (None, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither"),
        ("a=mid:0", "neither"),
        ("hello", "begins with 'he'"),
        ("a=candidate:1 1 udp", "is no candidate"),
        ("a=candidate:1 1 udp x 192.0.2.1 50000 typ host", "is no candidate"),
        ("\n".join([f"a={CANDIDATE}"] * (MOST_CANDIDATES + 1)), "more than 50"),
    ],
)
def test_what_is_no_fragment_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_fragment(text)


@given(st.text() | st.lists(st.sampled_from(["a=", "m=", "candidate:", "1 ", "udp ", "\n"])))
def test_nothing_but_invalid_input_is_raised(given: str | list[str]) -> None:
    with suppress(InvalidInput):
        told = parse_fragment("".join(given))
        assert told.user or told.candidates or told.ended


def test_the_users_of_an_offer() -> None:
    assert users_of("v=0\r\na=ice-ufrag:a\r\nm=x\r\na=ice-ufrag:b \r\n") == {"a", "b"}


def test_a_viewer_is_reached_by_candidates_that_follow_its_offer(house: WebHouse) -> None:
    with WebViewer(house) as viewer:
        offer = viewer.offer()
        candidates = [line for line in offer.splitlines() if line.startswith("a=candidate")]
        bare = re.sub(r"a=(candidate.*|end-of-candidates)\r\n", "", offer)
        assert candidates
        (user,) = users_of(offer)
        viewer.post(bare)
        answer = viewer.answer
        assert answer is not None
        told = fragment(user, *candidates, "a=end-of-candidates")
        added = house.ask("PATCH", viewer.location, told, FRAGMENT)
        assert (added.status, added.body) == (204, b"")
        ((peer, _, _),) = house.hub._peers.values()
        transport = peer._connection.getTransceivers()[0].sender.transport.transport
        assert len(transport.getRemoteCandidates()) == len(set(candidates))
        plays(house, lambda: len(viewer.pictures) >= 5 and len(viewer.sounds) >= 10)
        again = house.ask("PATCH", viewer.location, told, FRAGMENT)  # after the last one
        assert again.status == 204


def test_what_does_not_fit_the_viewer_is_refused(house: WebHouse) -> None:
    with WebViewer(house) as viewer:
        viewer.view()
        assert viewer.answer is not None
        place, tag = viewer.location, viewer.answer.headers["etag"]
        fails(house.ask("PATCH", place, fragment("other"), FRAGMENT), 422, "new offer")
        fails(house.ask("PATCH", place, fragment("other"), SDP), 415, "application/sdp")
        fails(house.ask("PATCH", place, "x" * 300_000, FRAGMENT), 413)
        fails(house.ask("PATCH", place, "hello", FRAGMENT), 400, "begins with")
        bad = fragment("", "a=candidate:1 1 udp 1 not-an-address 9 typ host")
        assert house.ask("PATCH", place, bad, FRAGMENT).status in (204, 400)
        fails(house.ask("PATCH", place, fragment(), FRAGMENT | {"If-Match": '"x"'}), 412)
        fitting = FRAGMENT | {"If-Match": tag}
        fails(house.ask("PATCH", place, fragment("other"), fitting), 422)
        plays(house, lambda: len(viewer.pictures) >= 5)  # and it goes on
