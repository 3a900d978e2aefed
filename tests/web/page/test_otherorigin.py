"""The page's module in a page of another origin."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

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


class Elsewhere(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The origin of another server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


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
