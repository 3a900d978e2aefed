"""The page where no video over WebRTC is to be had: pictures and sound over a WebSocket."""

from collections.abc import Callable
from typing import Final

import pytest
from playwright.sync_api import FilePayload, Page
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, HEAR, MOUTH, Open, movement

pytestmark = BROWSER

NO_H264: Final = """
    const { addTransceiver } = RTCPeerConnection.prototype
    RTCPeerConnection.prototype.addTransceiver = function (kind, ...more) {
        const made = addTransceiver.call(this, kind, ...more)
        if (kind === 'video') {
            const { codecs } = RTCRtpReceiver.getCapabilities('video')
            made.setCodecPreferences(codecs.filter(({ mimeType }) => !/h264/i.test(mimeType)))
        }
        return made
    }"""
NO_UDP: Final = """
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(given) { super({ ...given, iceTransportPolicy: 'relay' }) }
    }"""
NO_WEBRTC: Final = "delete globalThis.RTCPeerConnection"
KEEP_SOCKETS: Final = """
    globalThis.sockets = []
    globalThis.WebSocket = class extends WebSocket {
        constructor(...given) { super(...given); sockets.push(this) }
    }"""


def having(*scripts: str) -> Callable[[Page], None]:
    """What runs ``scripts`` before a page's own."""

    def prepare(page: Page) -> None:
        for script in scripts:
            page.add_init_script(f"{{{script}\n}}")

    return prepare


@pytest.mark.parametrize(
    ("script", "label", "text"),
    [
        (NO_H264, "no H.264", "has no H.264"),
        (NO_WEBRTC, "no H.264", "has no H.264"),
        (NO_UDP, "no UDP", "lets no video (UDP) pass"),
    ],
    ids=["h264", "webrtc", "udp"],
)
def test_pictures_and_sound_come_without_video_and_it_says_so(
    address: str, visit: Open, speech: FilePayload, script: str, label: str, text: str
) -> None:
    here = visit(address, having(script))
    here.is_live()
    here.shows("#media", label)
    here.shows("#notice", text)
    until(lambda: int(here.page.inner_text("#fps").replace("–", "0")) > 10)
    assert here.page.request.get(f"{address}v1/sessions/{here.session()}").json()["viewers"] == 1
    here.page.keyboard.press("a")  # browsers let sound begin then
    here.page.evaluate("document.querySelectorAll('.mark, .sound').forEach(e => e.remove())")
    here.page.evaluate(HEAR)
    here.page.set_input_files("#file", speech)
    here.shows("[data-state=speaking]")
    until(lambda: movement(here, 4)[MOUTH].mean() > 8)
    until(lambda: here.value("loudest()") > 0.05)
    here.shows("[data-state=idle]")
    # That the server refused is all that Chromium logs.
    assert all("406" in error for error in here.errors), here.errors


def test_where_there_is_video_nothing_is_said_of_pictures(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    assert not here.page.is_visible("#media")
    assert not here.page.is_visible("#notice")


def test_a_socket_that_breaks_is_opened_again(address: str, visit: Open) -> None:
    here = visit(address, having(NO_H264, KEEP_SOCKETS))
    here.is_live()
    before = here.session()
    here.page.evaluate("sockets[0].close()")
    here.shows("#waiting", "Connection lost")
    here.is_live()
    assert here.session() == before
    assert here.value("sockets.length") == 2


def test_a_session_that_ends_is_over_for_pictures_too(address: str, visit: Open) -> None:
    here = visit(address, having(NO_H264))
    here.is_live()
    here.page.evaluate("id => fetch(`/v1/sessions/${id}`, {method: 'DELETE'})", here.session())
    here.shows("#failure-title", "has ended")
    here.shows("#failure-text", "Whoever began it has ended it.")


def test_a_friend_without_video_sees_the_same_session(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    friend = visit(f"{address}?session={here.session()}", having(NO_H264))
    friend.is_live()
    friend.shows("#media", "no H.264")
    told = here.page.request.get(f"{address}v1/sessions/{here.session()}").json()
    assert told["viewers"] == 2
    friend.page.goto("about:blank")
    until(
        lambda: (
            here.page.request.get(f"{address}v1/sessions/{here.session()}").json()["viewers"] == 1
        )
    )


def test_the_module_can_be_asked_for_pictures_and_for_video_alone(
    address: str, visit: Open
) -> None:
    here = visit(f"{address}healthz", having(NO_H264))
    told = here.page.evaluate(
        """async (avatar) => {
            const { LipwireSession } = await import('/lipwire.js')
            const alone = new LipwireSession()
            const kind = await alone.connect({ avatar, media: 'webrtc' }).catch(({ kind }) => kind)
            const session = new LipwireSession(), told = []
            session.addEventListener('media', ({ detail }) => told.push(detail.media))
            await session.connect({ avatar, media: 'pictures' })
            const { width, height } = await session.statistics()
            await session.end()
            return { kind, media: session.media, told, width, height }
        }""",
        "anna",
    )
    assert told == {"kind": "codec", "media": "pictures", "told": [], "width": 320, "height": 240}
