"""Viewers at the end of a network that loses one packet in fifty, and takes 50 ms."""

import itertools
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from playwright.sync_api import Page, Route
from tests.support.flashing import SETTINGS, FlashingAvatar, beeping, real_threads, saying
from tests.support.lossynetwork import LossyNetwork
from tests.support.waiting import until
from tests.support.webparts import WebHouse
from tests.support.webviewer import WebViewer
from tests.web.page.visits import CHROMIUM, KEEP_CONNECTIONS, Open, Visit

from lipwire.audio import decode_audio
from lipwire.domain import SAMPLE_RATE_HZ

FIGURES: Final = """async () => {
    const reports = [...(await connections[0].getStats()).values()]
    const of = (kind) => reports.find(one => one.type === 'inbound-rtp' && one.kind === kind)
    return [of('video'), of('audio')]
}"""
SIZE: Final = (640, 360)
PICTURES: Final = 200

pytestmark = pytest.mark.slow


@pytest.fixture
def house() -> Iterator[WebHouse]:
    """Time in it is that of the clock on the wall: so are the pauses before packets are asked for
    again."""
    with (
        real_threads() as threads,
        WebHouse(
            threads=threads, open_avatar=lambda name: FlashingAvatar().flashing(*SIZE)
        ) as house,
    ):
        yield house


def test_what_was_lost_is_sent_again_and_the_picture_goes_on(house: WebHouse) -> None:
    with LossyNetwork() as network, WebViewer(house) as viewer:
        session = house.in_loop(house.hub.open("anna", SETTINGS))
        viewer.view(f"/whep/anna?session={session.id}", network)
        until(lambda: viewer.pictures)
        first = viewer.pictures[0].pts
        with beeping(session, 60):
            until(lambda: viewer.pictures[-1].pts - first >= PICTURES * 3600)
        # Of those until the last one: on a busy machine others wait to be decoded.
        shown = viewer.pictures.copy()
        sent = (shown[-1].pts - first) / 3600 + 1
        assert network.lost > 10
        assert viewer.resent
        assert viewer.resent <= viewer.missed
        assert len(viewer.resent) >= 0.9 * len(viewer.missed) - 2
        assert len(shown) >= 0.8 * sent


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs chromium")
def test_in_a_browser_sound_stays_whole_and_the_picture_goes_on(
    house: WebHouse, visit: Open
) -> None:
    with LossyNetwork() as network:

        def between(route: Route) -> None:
            if route.request.method != "POST":
                route.continue_()
                return
            answer = route.fetch(post_data=network.offered(route.request.post_data or ""))
            route.fulfill(response=answer, body=network.answered(answer.text()))

        def prepare(page: Page) -> None:
            page.add_init_script(KEEP_CONNECTIONS)
            page.route("**/whep/**", between)

        session = house.in_loop(house.hub.open("anna", SETTINGS))
        page = f"http://127.0.0.1:{house.server.port}/?session={session.id}"
        pcm = decode_audio(Path(str(files("lipwire") / "assets" / "speech" / "sample.flac")))
        speech = np.rint(pcm * 32767).astype(np.int16)
        with saying(session, itertools.repeat(speech, 20), SAMPLE_RATE_HZ):
            here = visit(page, prepare)
            here.shows("[data-phase=live]")
            broadcast = house.hub.broadcast(session)
            until(lambda: Figures(here).whole > 0)
            encoded, before = broadcast.encoded, Figures(here)
            until(
                lambda: broadcast.encoded - encoded > PICTURES and Figures(here).resent > 0,
                seen=lambda: (Figures(here), here.errors),
            )
            encoded, now = broadcast.encoded - encoded, Figures(here)
    # How many of these the browser decodes in time, and how much of the sound it makes up, depends
    # on how busy the machine is: benchmarks/page_fps.py.
    assert now.whole - before.whole >= 0.8 * encoded
    assert now.shown > before.shown
    assert now.sounds_lost - before.sounds_lost > 0


class Figures:
    """What the browser has received of both."""

    def __init__(self, visit: Visit) -> None:
        video, sound = visit.page.evaluate(FIGURES)
        self.whole: int = video.get("framesReceived", 0)
        """Pictures of which every packet has come."""
        self.shown: int = video["framesDecoded"]
        self.resent: int = video.get("retransmittedPacketsReceived", 0)
        self.sounds_lost: int = sound["packetsLost"]
        self.made_up: int = sound.get("concealedSamples", 0)
        """Samples of sound that were lost, and that no other packet had."""

    def __repr__(self) -> str:
        return str(vars(self))
