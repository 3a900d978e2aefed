"""The page's module in a page of another origin."""

from pathlib import Path

import pytest
from tests.web.page.visits import BROWSER, SIZE, Open, serving

pytestmark = BROWSER

TALK = """async ([server, avatar, media]) => {
    const { LipwireSession, avatars } = await import(server + 'lipwire.js')
    const video = document.body.appendChild(document.createElement('video'))
    video.muted = true
    const session = new LipwireSession(), began = new Promise((resolve) =>
        session.addEventListener('speech_began', ({ detail }) => resolve(detail.speech)))
    session.attach(video)
    const names = await avatars({ server })
    await session.connect({ server, avatar, media })
    await session.speak(new Int16Array(16_000).fill(9000))
    const speech = await began
    const { width, height } = await session.statistics()
    await session.end()
    return { names, speech, width, height }
}"""


@pytest.mark.parametrize("media", ["webrtc", "pictures"])
def test_a_listed_page_can_use_the_module(
    root: Path, tmp_path: Path, elsewhere: str, visit: Open, media: str
) -> None:
    with serving(root, tmp_path / "c.yaml", web={"allowed_origins": [elsewhere]}) as address:
        here = visit(elsewhere)
        told = here.page.evaluate(TALK, [address, "anna", media])
    assert told == {"names": ["anna", "bert"], "speech": 1, "width": SIZE[0], "height": SIZE[1]}
    assert not [error for error in here.errors if "CORS" in error]


def test_a_page_that_is_not_listed_cannot(address: str, elsewhere: str, visit: Open) -> None:
    here = visit(elsewhere)
    told = here.page.evaluate(
        """async (server) => ({
            module: await import(server + 'lipwire.js').then(() => 'there', () => 'refused'),
            read: await fetch(server + 'v1/avatars').then(() => 'there', () => 'refused'),
            socket: await new Promise((resolve) => {
                const socket = new WebSocket(server.replace('http', 'ws') + 'v1/sessions/x/socket')
                socket.onopen = () => resolve('there')
                socket.onerror = () => resolve('refused')
            }),
        })""",
        address,
    )
    assert told == {"module": "refused", "read": "refused", "socket": "refused"}
