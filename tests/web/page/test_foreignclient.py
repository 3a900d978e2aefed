"""A WHEP client of others, whip-whep of npm, in a page of another origin."""

from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page
from tests.web.page.visits import BROWSER, SIZE, Open, serving

CLIENT: Final = Path(__file__).parents[3] / ".ci" / "npm" / "node_modules" / "whip-whep" / "whep.js"

pytestmark = [
    *BROWSER,
    pytest.mark.skipif(not CLIENT.exists(), reason="needs whip-whep (npm ci --prefix .ci/npm)"),
]

TOKEN: Final = "sixteen letters!"
VIEW: Final = """async ([address, token]) => {
    const { WHEPClient } = await import('/whep.js')
    const connection = new RTCPeerConnection()
    connection.addTransceiver('video', { direction: 'recvonly' })
    connection.addTransceiver('audio', { direction: 'recvonly' })
    const stream = new MediaStream()
    connection.ontrack = ({ track }) => stream.addTrack(track)
    const video = document.body.appendChild(document.createElement('video'))
    video.muted = true
    video.srcObject = stream
    const client = new WHEPClient()
    const patched = []
    const ask = globalThis.fetch
    globalThis.fetch = async (url, options) => {
        const answer = await ask(url, options)
        if (options?.method === 'PATCH') patched.push(answer.status)
        return answer
    }
    await client.view(connection, address, token)
    await video.play()
    const until = async (done) => {
        while (!await done()) await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const received = async (kind) => [...(await connection.getStats()).values()]
        .find((one) => one.type === 'inbound-rtp' && one.kind === kind)
    await until(async () => (await received('video'))?.framesDecoded >= 25)
    await until(async () => (await received('audio'))?.totalSamplesReceived >= 48_000)
    await until(() => patched.length)
    const { codecId, frameWidth, frameHeight } = await received('video')
    const { mimeType } = (await connection.getStats()).get(codecId)
    const place = client.resourceURL.href
    await client.stop()
    return { mimeType, frameWidth, frameHeight, patched, place }
}"""


def test_it_plays_video_and_sound(
    root: Path,
    tmp_path: Path,
    elsewhere: str,
    visit: Open,
) -> None:
    def prepare(page: Page) -> None:
        page.route("**/whep.js", lambda route: route.fulfill(path=CLIENT))

    web = {"allowed_origins": [elsewhere], "token": TOKEN}
    with serving(root, tmp_path / "c.yaml", web=web) as address:
        here = visit(elsewhere, prepare)
        told = here.page.evaluate(VIEW, [f"{address}whep/anna", TOKEN])
    assert told["mimeType"] == "video/H264"
    assert (told["frameWidth"], told["frameHeight"]) == SIZE
    assert set(told["patched"]) == {204}, told  # its candidates
    assert told["place"].startswith(f"{address}whep/anna/")
