"""Viewers over WebRTC, with an aiortc client on loopback."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.fuzz.requesttargets import offer
from tests.support.waiting import until
from tests.support.webparts import Answer, WebHouse
from tests.support.webviewer import SDP, WebViewer
from tests.web.test_app import fails

from lipwire.session.live import SessionRules
from lipwire.web.ice import IceServers
from lipwire.web.peers import Peer


@pytest.fixture
def house() -> Iterator[WebHouse]:
    with WebHouse(SessionRules(reconnect_grace_s=5)) as house:
        yield house


def plays(house: WebHouse, condition: Callable[[], object]) -> None:
    """Let frames leave until ``condition()`` holds."""

    def holds() -> bool:
        if condition():
            return True
        house.time.run(0.04)
        return False

    until(holds)


def tasks(house: WebHouse) -> int:
    async def count() -> int:
        return len(asyncio.all_tasks())

    counted: int = house.in_loop(count())
    return counted


def told(house: WebHouse) -> str:
    """What the tasks of the server's loop do."""

    async def stacks() -> str:
        return "\n".join(f"{task} {task.get_stack()}" for task in asyncio.all_tasks())

    return str(house.in_loop(stacks()))


def test_video_and_sound_arrive_and_begin_with_a_key_frame(house: WebHouse) -> None:
    with WebViewer(house) as viewer:
        viewer.view()
        assert viewer.answer is not None
        assert viewer.answer.media_type == "application/sdp"
        assert viewer.answer.headers["etag"].strip('"') in viewer.location
        plays(house, lambda: len(viewer.pictures) >= 10 and len(viewer.sounds) >= 10)
        assert viewer.units[0] == 7
        picture = viewer.pictures[-1]
        assert (picture.width, picture.height) == (64, 64)
        times = [one.pts for one in viewer.pictures[:10]]
        assert times == sorted(set(times))
        assert viewer.sounds[0].sample_rate == 48_000
        told = house.ask("GET", f"/v1/sessions/{viewer.location.rpartition('/')[2]}").json
        assert told["viewers"] == 1


def test_a_second_viewer_has_a_picture_at_once_from_the_same_encoder(house: WebHouse) -> None:
    with WebViewer(house) as first, WebViewer(house) as second:
        first.view()
        plays(house, lambda: first.state == "connected" and len(first.pictures) >= 3)
        session = house.session(first.location.rpartition("/")[2])
        broadcast = house.hub.broadcast(session)
        broadcast.want_key()
        house.time.run(1.04)
        encoded = broadcast.encoded
        second.view(f"/whep/anna?session={session.id}")
        assert second.location.endswith(session.id)
        until(lambda: second.pictures)  # without any time of the session's
        assert broadcast.encoded == encoded
        assert house.hub.viewers(session) == broadcast.viewers == 2
        assert house.sessions.stats().active == 1
        seen = len(second.pictures)
        plays(house, lambda: len(second.pictures) > seen)


def test_who_leaves_leaves_nothing(house: WebHouse) -> None:
    before = tasks(house)
    with WebViewer(house) as viewer:
        viewer.view()
        plays(house, lambda: viewer.pictures)
        session = house.session(viewer.location.rpartition("/")[2])
        broadcast = house.hub.broadcast(session)
        assert house.ask("DELETE", viewer.location).status == 200
        assert house.hub.viewers(session) == 0
        assert not session._outputs
        assert broadcast.closed
        fails(house.ask("DELETE", viewer.location), 404, "no such viewer")
        until(lambda: tasks(house) <= before)
        assert house.session(session.id) is session  # for who comes back
        house.time.run(7)
        assert session.closed
        assert house.avatars[0].closed == 1


def test_who_vanishes_is_forgotten(house: WebHouse) -> None:
    with WebViewer(house) as viewer:
        viewer.view()
        plays(house, lambda: viewer.pictures)
        session = house.session(viewer.location.rpartition("/")[2])
        viewer.close()  # tells the other end over DTLS
        until(lambda: not house.hub.viewers(session))
        assert not session._outputs


def test_who_never_connects_leaves_nothing(
    house: WebHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipwire.web.hub.Peer", partial(Peer, connect_within_s=0))
    before = tasks(house)
    with WebViewer(house) as viewer:
        answer = house.ask("POST", "/whep/anna", viewer.offer(), SDP)
        session = house.session(answer.headers["location"].rpartition("/")[2])
        until(lambda: not house.hub.viewers(session))
        assert not session._outputs
        until(lambda: tasks(house) <= before)
        house.time.run(7)
        assert session.closed


def test_viewers_of_a_session_that_has_ended_are_disconnected(house: WebHouse) -> None:
    before = tasks(house)
    house.hub._part_after_s = 0
    with WebViewer(house) as viewer:
        viewer.view()
        plays(house, lambda: viewer.pictures)
        session = house.session(viewer.location.rpartition("/")[2])
        house.sessions.end(session)
        until(lambda: not house.hub.viewers(session))
        until(lambda: viewer.state == "closed")
        until(lambda: tasks(house) <= before)


def test_the_viewers_of_a_session_that_goes_on_stay(house: WebHouse) -> None:
    house.hub._part_after_s = 0
    with WebViewer(house) as first, WebViewer(house) as second:
        first.view()
        session = house.session(first.location.rpartition("/")[2])
        broadcast = house.hub.broadcast(session)
        house.ask("DELETE", first.location)
        second.view(f"/whep/anna?session={session.id}")
        broadcast.close()  # that of the viewer who has left, again
        for _ in range(5):
            tasks(house)
        assert house.hub.viewers(session) == 1


def test_one_viewer_leaves_and_the_other_goes_on(house: WebHouse) -> None:
    with WebViewer(house) as first, WebViewer(house) as second:
        first.view()
        plays(house, lambda: first.pictures)
        second.view(f"/whep/anna?session={first.location.rpartition('/')[2]}")
        plays(house, lambda: second.pictures)
        house.ask("DELETE", first.location)
        seen = len(second.pictures)
        plays(house, lambda: len(second.pictures) > seen + 5)


@pytest.mark.slow
def test_a_lost_picture_leads_to_a_key_frame_once_a_second_at_most(house: WebHouse) -> None:
    with WebViewer(house) as viewer:
        viewer.view()
        plays(house, lambda: len(viewer.pictures) > 30)
        session = house.session(viewer.location.rpartition("/")[2])
        broadcast = house.hub.broadcast(session)
        keys = viewer.units.count(7)
        asked: list[object] = []
        ((peer, _, _),) = house.hub._peers.values()

        def wanted() -> None:
            asked.append("key")
            broadcast.want_key()

        peer._on_key_wanted = wanted
        viewer.want_key()
        until(lambda: asked)
        plays(house, lambda: viewer.units.count(7) > keys)
        key_s = broadcast._key_s
        viewer.want_key()
        until(lambda: len(asked) > 1)
        plays(house, lambda: broadcast._key_s > key_s)
        assert broadcast._key_s - key_s >= 1


@pytest.mark.parametrize("codec", ["video/VP8"])
def test_who_has_no_h264_is_told_so(house: WebHouse, codec: str) -> None:
    with WebViewer(house) as viewer:
        offer = viewer.offer(codec)
        assert "H264" not in offer
        fails(house.ask("POST", "/whep/anna", offer, SDP), 406, "H.264")
        assert not house.avatars


def test_offers_need_their_type_a_size_and_an_avatar(house: WebHouse) -> None:
    fails(house.ask("POST", "/whep/anna", "v=0", {"Content-Type": "text/plain"}), 415, "text/plain")
    fails(house.ask("POST", "/whep/anna", b"v" * 300_000, SDP), 413)
    fails(house.ask("PATCH", "/whep/anna/viewer/session", ""), 404, "viewer")
    assert house.ask("OPTIONS", "/whep/anna").headers["accept-post"] == "application/sdp"
    told = house.ask("OPTIONS", "/whep/anna/viewer/session")
    assert told.headers["accept-patch"] == "application/trickle-ice-sdpfrag"
    with WebViewer(house) as viewer:
        offer = viewer.offer()
        fails(house.ask("POST", "/whep/carl", offer, SDP), 404, "carl")
        fails(house.ask("POST", "/whep/anna?session=none", offer, SDP), 404, "no such session")


@pytest.mark.slow
def test_a_thousand_bad_offers_do_no_harm(house: WebHouse) -> None:
    """Cut, changed, and answered again and again, in the loop of the server."""
    chance = random.Random(7)
    with WebViewer(house) as viewer:
        good = viewer.offer()
    before = tasks(house)
    session = house.session(house.open())
    lines = good.splitlines(keepends=True)
    for number in range(1000):
        match number % 4:
            case 0:
                bad = good[: chance.randrange(len(good))]
            case 1:
                bad = "v=0\r\n" + "".join(chance.choices(lines, k=chance.randrange(40)))
            case 2:
                at = chance.randrange(len(good))
                bad = good[:at] + chr(chance.randrange(0x2FFF)) * 9 + good[at + 9 :]
            case _:
                bad = chance.randbytes(200).decode("latin-1")
        if number % 4 == 3:
            answer = house.ask("POST", f"/whep/anna?session={session.id}", bad.encode(), SDP)
            fails(answer, 400)
        else:
            answer = house.ask("POST", f"/whep/anna?session={session.id}", bad.encode(), SDP)
            if answer.status == 201:
                house.ask("DELETE", answer.headers["location"])
            else:
                assert answer.status in (400, 406), answer
    assert len(house.avatars) == 1
    assert house.hub.viewers(session) == 0
    assert not session._outputs
    until(lambda: tasks(house) <= before, seen=lambda: told(house))
    assert house.ask("GET", "/healthz").status == 200


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_many_joins_and_leaves_leave_nothing(house: WebHouse) -> None:
    """No task, no thread, no socket; one viewer stays."""

    def kept() -> tuple[int, int, int]:
        return tasks(house), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    with WebViewer(house) as stays:
        stays.view()
        plays(house, lambda: stays.pictures)
        session = house.session(stays.location.rpartition("/")[2])
        counts = []
        for _ in range(60):
            with WebViewer(house) as viewer:
                viewer.view(f"/whep/anna?session={session.id}")
                pictures = viewer.pictures
                plays(house, pictures.__len__)
                house.ask("DELETE", viewer.location)
            until(lambda: house.hub.viewers(session) == 1)
            counts.append(kept())
        until(lambda: all(now <= before for now, before in zip(kept(), counts[9], strict=True)))
        assert house.hub.broadcast(session).viewers == 1


def test_ice_servers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(peer: Peer, offer: str) -> str:
        return "v=0"

    monkeypatch.setattr(Peer, "answer", answer)
    ice = IceServers(("stun:one", "turn:two"), "anna", "secret")
    with WebHouse(ice=ice) as house, WebViewer(house) as viewer:
        answered = house.ask("POST", "/whep/anna", viewer.offer(), SDP)
        asked = house.ask("OPTIONS", "/whep/anna")
        page = {"Origin": f"http://127.0.0.1:{house.server.port}"}
        from_page = house.ask("OPTIONS", "/whep/anna", headers=page, token=None)
        elsewhere = {"Origin": "http://example.org"}
        refused = [
            house.ask("OPTIONS", "/whep/anna", headers=headers, token=None)
            for headers in ({}, elsewhere)
        ]
    assert answered.headers["link"] == ", ".join(ice.links())
    assert "secret" in answered.headers["link"]
    assert asked.headers["link"] == from_page.headers["link"] == answered.headers["link"]
    assert all("link" not in one.headers and one.status == 204 for one in refused)


def test_viewers_are_limited(house: WebHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipwire.web.hub.MOST_OF_SESSION", 2)
    monkeypatch.setattr("lipwire.web.hub.MOST_VIEWERS", 3)
    first, second = (
        house.ask("POST", "/v1/sessions", {"avatar": "anna"}).json["id"] for _ in range(2)
    )

    def viewed(session: str) -> Answer:
        return house.ask("POST", f"/whep/anna?session={session}", offer(), SDP)

    left, _ = (viewed(first) for _ in range(2))
    refused = viewed(first)
    assert refused.status == 429
    assert refused.json["detail"] == "2 viewers are connected; allowed are 2"
    assert int(refused.headers["retry-after"]) >= 1
    assert viewed(second).status == 201
    assert viewed(second).json["detail"] == "3 viewers are connected; allowed are 3"
    assert house.ask("DELETE", left.headers["location"]).status == 200
    assert viewed(second).status == 201
    assert house.ask("GET", f"/v1/sessions/{second}").json["viewers"] == 2


def test_a_session_that_is_opened_by_a_viewer_too_many_ends(
    house: WebHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipwire.web.hub.MOST_VIEWERS", 0)
    assert house.ask("POST", "/whep/anna", offer(), SDP).status == 429
    assert house.ask("GET", "/v1/sessions").json["active"] == 0
