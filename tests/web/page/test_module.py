"""The page's module in another page."""

import numpy as np
from playwright.sync_api import (
    FilePayload,
)
from tests.web.page.visits import BROWSER, SIZE, Open

pytestmark = BROWSER


def test_another_page_can_use_the_module(address: str, visit: Open, speech: FilePayload) -> None:
    here = visit(f"{address}healthz")
    figures = here.page.evaluate(
        """async ([avatar, pcm]) => {
            const { LipwireSession } = await import('/lipwire.js')
            const video = document.body.appendChild(document.createElement('video'))
            video.muted = true
            const session = new LipwireSession(), began = new Promise((resolve) =>
                session.addEventListener('speech_began', ({ detail }) => resolve(detail.speech)))
            session.attach(video)
            await session.connect({ avatar })
            await session.speak(Int16Array.from(pcm))
            const speech = await began
            const figures = await session.statistics()
            await session.end()
            return { ...figures, speech, phase: session.phase }
        }""",
        ["anna", np.frombuffer(speech["buffer"][44:], "<i2")[:32_000].tolist()],
    )
    assert figures["phase"] == "closed"
    assert figures["speech"] == 1
    assert (figures["width"], figures["height"]) == SIZE
    assert figures["packetsLost"] == 0
