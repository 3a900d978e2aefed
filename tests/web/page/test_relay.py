"""Viewers that a TURN server alone connects: Debian's coturn, over one TCP port."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy
from playwright.sync_api import Page
from tests.support.turnserver import CREDENTIAL, USER, TurnServer
from tests.support.waiting import until
from tests.support.webparts import WebHouse
from tests.support.webviewer import SDP, WebViewer, selected_pair
from tests.web.page.visits import CHROMIUM, KEEP_CONNECTIONS, Open, serving
from tests.web.test_app import fails
from tests.web.test_viewing import plays

from lipwire.session.live import SessionRules
from lipwire.web.ice import IceServers

RELAY_ALONE: Final = """
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(given) { super({ ...given, iceTransportPolicy: 'relay' }) }
    }"""
PAIR: Final = """async () => {
    const reports = [...(await connections[0].getStats()).values()]
    const pair = reports.find(one => one.type === 'candidate-pair' && one.nominated)
    const kinds = [pair.localCandidateId, pair.remoteCandidateId].map(
        id => reports.find(one => one.id === id).candidateType)
    const video = reports.find(one => one.type === 'inbound-rtp' && one.kind === 'video')
    return [...kinds, video.framesDecoded]
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="needs turnserver (coturn)"),
]


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TurnServer]:
    with TurnServer(tmp_path_factory.mktemp("turn")) as server:
        yield server


def relayed(turn: TurnServer, *, credential: str = CREDENTIAL) -> WebHouse:
    """A server whose media goes over ``turn`` alone."""
    ice = IceServers((turn.url,), USER, credential, relay_only=True)
    return WebHouse(SessionRules(reconnect_grace_s=5), ice=ice)


def test_media_arrives_through_the_relay_alone_over_one_tcp_port(turn: TurnServer) -> None:
    server = RTCIceServer(turn.url, USER, CREDENTIAL)
    configuration = RTCConfiguration([server], RTCIceTransportPolicy.RELAY)
    with relayed(turn) as house, WebViewer(house, configuration) as viewer:
        viewer.view()
        assert viewer.answer is not None
        told = [line for line in viewer.answer.body.decode().splitlines() if "a=candidate" in line]
        assert told
        assert all(" typ relay" in line for line in told)
        plays(house, lambda: len(viewer.pictures) >= 25 and len(viewer.sounds) >= 50)
        assert viewer.pair == ("relay", "relay")
        ((peer, _, _),) = house.hub._peers.values()
        assert selected_pair(peer._connection) == ("relay", "relay")
        assert (viewer.pictures[-1].width, viewer.pictures[-1].height) == (64, 64)


def test_a_viewer_that_has_no_relay_of_its_own_is_served_by_the_servers(turn: TurnServer) -> None:
    with relayed(turn) as house, WebViewer(house) as viewer:
        viewer.view()
        plays(house, lambda: len(viewer.pictures) >= 5 and len(viewer.sounds) >= 10)
        assert viewer.pair == ("host", "relay")


def test_a_credential_that_the_relay_refuses_is_said_at_once(turn: TurnServer) -> None:
    with relayed(turn, credential="wrong") as house, WebViewer(house) as viewer:
        fails(house.ask("POST", "/whep/anna", viewer.offer(), SDP), 503, "TURN server")
        assert not house.hub._peers
        until(lambda: not house.sessions.stats().active)


def test_a_credential_that_ends_is_made_for_each_viewer(tmp_path: Path) -> None:
    with TurnServer(tmp_path, secret="shared") as turn:
        ice = IceServers((turn.url,), secret="shared", relay_only=True)
        with WebHouse(SessionRules(reconnect_grace_s=5), ice=ice) as house:
            one, other = house.hub.ice(), house.hub.ice()
            assert one.username != other.username
            server = RTCIceServer(turn.url, one.username, one.credential)
            configuration = RTCConfiguration([server], RTCIceTransportPolicy.RELAY)
            with WebViewer(house, configuration) as viewer:
                viewer.view()
                plays(house, lambda: len(viewer.pictures) >= 5 and len(viewer.sounds) >= 10)
                assert viewer.pair == ("relay", "relay")


def test_a_credential_that_has_ended_is_refused(tmp_path: Path) -> None:
    with TurnServer(tmp_path, secret="shared") as turn:
        long_ago = IceServers((turn.url,), secret="shared", relay_only=True).issued(1e9)
        with (
            WebHouse(SessionRules(reconnect_grace_s=5), ice=long_ago) as house,
            WebViewer(house) as viewer,
        ):
            fails(house.ask("POST", "/whep/anna", viewer.offer(), SDP), 503, "TURN server")


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs chromium")
def test_the_page_asks_the_server_for_its_relay_and_plays_over_it(
    turn: TurnServer, root: Path, visit: Open, tmp_path: Path
) -> None:
    ice = {"urls": turn.url, "username": USER, "credential": CREDENTIAL, "relay_only": True}

    def prepare(page: Page) -> None:
        page.add_init_script(RELAY_ALONE)
        page.add_init_script(KEEP_CONNECTIONS)

    with serving(root, tmp_path / "compositing.yaml", web={"ice": ice}) as address:
        here = visit(address, prepare)
        here.is_live()
        ours, servers, decoded = here.page.evaluate(PAIR)
        assert (ours, servers) == ("relay", "relay")
        assert decoded > 0
        assert here.errors == []
