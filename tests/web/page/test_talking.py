"""The page, talked to: what is seen and heard."""

import shutil
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import (
    FilePayload,
)
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, FACE, HEAR, MOUTH, SIZE, Open, movement, refusing

pytestmark = BROWSER

TELL_EVENTS: Final = """async () => {
    globalThis.events = []
    const id = document.body.dataset.session
    new EventSource(`/v1/sessions/${id}/events`).addEventListener('speech_ended',
        ({ data }) => events.push(JSON.parse(data)))
    await new Promise((resolve) => setTimeout(resolve, 200))
}"""


def test_it_plays_and_asks_nobody_else(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    assert here.hosts == {urlsplit(address).netloc}
    assert here.errors == []


def test_the_mouth_moves_while_a_recording_is_said(
    address: str, visit: Open, speech: FilePayload
) -> None:
    here = visit(address)
    here.is_live()
    here.page.evaluate("document.querySelectorAll('.mark, .sound').forEach(e => e.remove())")
    until(lambda: movement(here)[MOUTH].mean() < 4)  # what the encoder changes at rest
    here.page.set_input_files("#file", speech)
    here.shows("[data-state=speaking]")
    elsewhere = np.ones((SIZE[1], SIZE[0]), bool)
    elsewhere[FACE] = False

    def mouth_moves() -> bool:
        changes = movement(here, 4)
        return bool(changes[MOUTH].mean() > max(8, 2 * changes[elsewhere].mean()))

    until(mouth_moves)
    here.shows("[data-state=idle]")
    assert here.errors == []


def test_sound_comes_with_it_and_is_heard_after_a_click(
    address: str, visit: Open, speech: FilePayload
) -> None:
    here = visit(address)
    here.is_live()
    assert here.value("video.muted")
    here.shows("#sound", "Tap for sound")
    here.page.click("#sound")
    assert not here.value("video.muted")
    here.page.evaluate(HEAR)
    here.page.set_input_files("#file", speech)
    until(lambda: here.value("loudest()") > 0.05)


def test_what_is_said_can_be_interrupted(address: str, visit: Open, speech: FilePayload) -> None:
    here = visit(address)
    here.is_live()
    here.page.evaluate(TELL_EVENTS)
    here.page.set_input_files("#file", [speech])
    here.page.set_input_files("#file", [speech])
    here.shows("[data-state=speaking]")
    here.page.keyboard.press("Escape")
    until(lambda: not here.page.is_visible("#interrupt"))
    until(lambda: here.value("events.some(e => e.type === 'speech_ended' && e.interrupted)"))
    here.shows("[data-state=idle]")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_a_text_is_said_and_shown(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    friend = visit(f"{address}?session={here.session()}")
    friend.is_live()
    here.page.fill("#text", "Good morning. How are you?")
    here.page.press("#text", "Shift+Enter")
    here.page.press("#text", "Enter")
    until(lambda: here.page.input_value("#text") == "")
    friend.shows("#caption", "Good morning.")
    here.shows("#caption", "How are you?")
    until(lambda: not here.page.is_visible("#caption"))
    assert here.errors == []


def test_a_server_without_a_voice_says_so_and_the_text_stays(address: str, visit: Open) -> None:
    here = visit(address, refusing("**/speak", 501))
    here.is_live()
    here.page.fill("#text", "Good morning.")
    here.page.press("#text", "Enter")
    here.shows("#notice", "no voice")
    assert here.page.input_value("#text") == "Good morning."
