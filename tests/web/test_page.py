"""The page in a browser, on a server in this process."""

import io
import json
import shutil
import wave
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Page,
    Route,
    sync_playwright,
)
from tests.conftest import make_package_at
from tests.support.waiting import until

from lipwire.audio import decode_audio
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import SAMPLE_RATE_HZ
from lipwire.wiring.servers import open_serve

CHROMIUM: Final = "/usr/bin/chromium"
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
)
SIZE: Final = (320, 240)
FACE: Final = np.s_[60:182, 60:190]
"""Around the crop rectangle of ``make_package_at``'s frame."""
MOUTH: Final = np.s_[100:170, 80:160]
Shades = np.ndarray[Any, np.dtype[np.int16]]

TELL_EVENTS: Final = """async () => {
    globalThis.events = []
    const id = document.body.dataset.session
    new EventSource(`/v1/sessions/${id}/events`).addEventListener('speech_ended',
        ({ data }) => events.push(JSON.parse(data)))
    await new Promise((resolve) => setTimeout(resolve, 200))
}"""
VOICE: Final = f"speech: {{voice: {'espeak-ng' if shutil.which('espeak-ng') else 'none'}}}"
KEEP_CONNECTIONS: Final = """
    globalThis.connections = []
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...given) { super(...given); connections.push(this) }
    }"""
BREAK_CONNECTION: Final = """() => {
    const [connection] = connections
    Object.defineProperty(connection, 'connectionState', { value: 'failed' })
    connection.dispatchEvent(new Event('connectionstatechange'))
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs chromium"),
]


@dataclass
class Visit:
    """A page in a tab, and what happened in it."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    """What the page raised or logged as an error."""

    def shows(self, selector: str, text: str = "") -> None:
        """Wait until an element is seen, and holds ``text``."""
        until(
            lambda: (
                self.page.is_visible(selector)
                and text.lower() in self.page.inner_text(selector).lower()
            ),
            seen=lambda: (self.page.inner_text("body"), self.errors),
        )

    def is_live(self) -> None:
        """Wait until the video plays."""
        self.shows("[data-phase=live]")
        before = self.value("video.currentTime")
        until(lambda: self.value("video.currentTime") > before + 0.5)
        until(lambda: self.value("video.videoWidth") == SIZE[0])

    def value(self, expression: str) -> Any:
        """Evaluate with ``video`` the element."""
        return self.page.evaluate(
            f"() => {{ const video = document.querySelector('video'); return {expression} }}"
        )

    def session(self) -> str:
        """The id of the tab's session."""
        return str(self.value("document.body.dataset.session"))

    def picture(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """What the video shows: (height, width, 3) int16 BGR."""
        data = self.page.locator("video").screenshot(scale="css")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        return np.asarray(cv2.resize(pixels, SIZE, interpolation=cv2.INTER_AREA), np.int16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two avatars whose frames stand still: what moves in them is the mouth."""
    root = tmp_path_factory.mktemp("avatars")
    first = make_package_at(root / "anna", frames=1, size=SIZE)
    shutil.copytree(first, root / "bert")
    return root


@contextmanager
def serving(root: Path, file: Path, port: int = 0) -> Iterator[str]:
    """Give the address of the page of a server of its own."""
    file.write_text(f"models_root: {root}\nweb: {{port: {port}}}\n{VOICE}\n")
    here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
    told: dict[str, Mapping[str, object]] = {}
    with open_serve(
        load_compositing_config(file, here),
        load_inference_config(None, {}),
        tell=told.__setitem__,
        by_speed=False,
    ):
        yield str(told["Web"]["Page"])


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(root, tmp_path_factory.mktemp("server") / "compositing.yaml") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


Open = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """``visit(address, prepare=lambda page: ..., **options)``: a page in a browser of its own, or
    in another tab of the one that ``context`` is."""
    contexts: list[BrowserContext] = []

    def opened(
        address: str,
        prepare: Callable[[Page], object] = id,
        context: BrowserContext | None = None,
        **options: Any,
    ) -> Visit:
        if context is None:
            context = browser.new_context(viewport={"width": 900, "height": 700}, **options)
            contexts.append(context)
        page = context.new_page()
        visit = Visit(page)
        page.on("request", lambda request: visit.hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on(
            "console",
            lambda said: visit.errors.append(said.text) if said.type == "error" else None,
        )
        prepare(page)
        page.goto(address)
        return visit

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def speech() -> FilePayload:
    """4 s of speech, a WAV file."""
    pcm = decode_audio(Path(str(files("lipwire") / "assets" / "speech" / "sample.flac")))
    samples = np.rint(pcm[: 4 * SAMPLE_RATE_HZ] * 32767).astype("<i2")
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.tobytes())
    return {"name": "speech.wav", "mimeType": "audio/wav", "buffer": data.getvalue()}


def refusing(
    pattern: str, status: int, *, times: int | None = None, headers: dict[str, str] | None = None
) -> Callable[[Page], None]:
    """What has a page's requests refused, the first ``times`` of them."""

    def prepare(page: Page) -> None:
        def refuse(route: Route) -> None:
            route.fulfill(status=status, headers=headers, body='{"detail": "made up"}')

        page.route(pattern, refuse, times=times)

    return prepare


def movement(visit: Visit, pictures: int = 12) -> Shades:
    """How much each pixel changes while so many pictures are taken: (240, 320) int16."""
    taken = np.stack([visit.picture() for _ in range(pictures)])
    changes: Shades = (taken.max(axis=0) - taken.min(axis=0)).max(axis=2)
    return changes


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
    here.page.evaluate(
        """() => {
            const context = new AudioContext(), analyser = context.createAnalyser()
            const { srcObject } = document.querySelector('video')
            context.createMediaStreamSource(srcObject).connect(analyser)
            globalThis.loudest = () => {
                const samples = new Float32Array(analyser.fftSize)
                analyser.getFloatTimeDomainData(samples)
                return Math.max(...samples)
            }
        }"""
    )
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


def test_the_microphone_speaks_while_space_is_held(address: str, visit: Open) -> None:
    sent: list[str | bytes] = []
    here = visit(address, permissions=["microphone"])
    here.page.on(
        "websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(payload))
    )
    here.is_live()
    here.page.focus("#microphone")
    here.page.keyboard.down(" ")
    until(lambda: here.value("true") and any(isinstance(one, bytes) and one for one in sent))
    assert here.page.get_attribute("#microphone", "aria-pressed") == "true"
    here.page.keyboard.up(" ")
    until(lambda: here.value("true") and '{"type":"input_audio_buffer.commit"}' in sent)
    assert here.page.get_attribute("#microphone", "aria-pressed") == "false"
    assert not here.page.is_visible("#notice")


def test_the_microphone_speaks_over_a_socket_where_there_is_one(address: str, visit: Open) -> None:
    sent: list[str | bytes] = []
    here = visit(
        address,
        lambda page: page.route_web_socket(
            lambda url: url.endswith("/socket?rate=44100") or url.endswith("/socket?rate=48000"),
            lambda socket: socket.on_message(lambda message: sent.append(message)),
        ),
        permissions=["microphone"],
    )
    here.is_live()
    here.page.focus("#microphone")
    here.page.keyboard.down(" ")
    until(lambda: here.value("true") and len(sent) > 3)
    here.page.keyboard.up(" ")
    until(lambda: here.value("true") and isinstance(sent[-1], str))
    assert json.loads(sent[-1]) == {"type": "input_audio_buffer.commit"}
    assert all(isinstance(piece, bytes) and len(piece) % 2 == 0 for piece in sent[:-1])


def test_a_microphone_that_is_refused_is_explained(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    here.page.focus("#microphone")
    here.page.keyboard.down(" ")
    here.shows("#notice", "microphone is blocked")


def test_a_friend_sees_the_same_session(address: str, visit: Open, speech: FilePayload) -> None:
    here = visit(address)
    here.is_live()
    friend = visit(f"{address}?session={here.session()}")
    friend.is_live()
    told = here.page.request.get(f"{address}v1/sessions/{here.session()}").json()
    assert told["viewers"] == 2
    assert not friend.page.is_visible("#composer")
    here.page.set_input_files("#file", speech)
    friend.shows("[data-state=speaking]")


def test_loading_it_again_keeps_the_session(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    before = here.session()
    here.page.reload()
    here.is_live()
    assert here.session() == before


def test_a_session_that_was_left_is_found_again_and_one_in_another_tab_is_not_taken(
    address: str, visit: Open
) -> None:
    here = visit(address)
    here.is_live()
    before, context = here.session(), here.page.context
    other = visit(address, context=context)
    other.is_live()
    assert other.session() != before
    second = other.session()
    other.page.close()
    third = visit(address, context=context)
    third.is_live()
    assert third.session() == second


def test_leaving_it_leaves_the_session(address: str, visit: Open) -> None:
    here, other = visit(address), visit(address)
    here.is_live()
    session = here.session()
    here.page.goto("about:blank")
    until(lambda: other.page.request.get(f"{address}v1/sessions/{session}").json()["viewers"] == 0)


def test_another_avatar_is_another_session(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    before = here.session()
    here.page.select_option("#avatar", "bert")
    until(lambda: here.session() != before)
    here.is_live()
    assert here.page.request.get(f"{address}v1/sessions/{before}").status == 404
    assert here.page.title() == "bert · Lipwire"


def test_a_full_server_is_asked_again_when_it_says(address: str, visit: Open) -> None:
    refuse = refusing("**/whep/**", 429, times=1, headers={"Retry-After": "3"})
    here = visit(address, refuse)
    here.shows("#failure-title", "places are taken")
    here.shows("#failure-action", "s)")
    here.is_live()


@pytest.mark.parametrize(
    ("pattern", "status", "title"),
    [
        ("**/whep/**", 406, "cannot show the video"),
        ("**/whep/**", 404, "no such avatar"),
        ("**/whep/**", 503, "not ready"),
        ("**/v1/avatars", 403, "refuses this page"),
        ("**/v1/avatars", 500, "something went wrong"),
    ],
)
def test_a_refusal_is_explained(
    address: str, visit: Open, pattern: str, status: int, title: str
) -> None:
    here = visit(address, refusing(pattern, status))
    here.shows("#failure-title", title)
    here.shows("#failure-detail", "made up")


def test_media_that_do_not_get_through_are_explained(address: str, visit: Open) -> None:
    def without_candidates(route: Route) -> None:
        answer = route.fetch()
        lines = [line for line in answer.text().splitlines() if "candidate" not in line]
        route.fulfill(response=answer, body="\r\n".join(lines) + "\r\n")

    def prepare(page: Page) -> None:
        page.clock.install()
        page.route("**/whep/**", without_candidates)

    here = visit(address, prepare)

    def later() -> bool:
        here.page.clock.fast_forward(2_000)
        return here.page.is_visible("#failure")

    until(later)
    here.shows("#failure-title", "does not get through")


def test_a_session_that_ends_can_be_begun_anew(address: str, visit: Open) -> None:
    here = visit(address)
    here.is_live()
    before = here.session()
    here.page.evaluate("id => fetch(`/v1/sessions/${id}`, {method: 'DELETE'})", before)
    here.shows("#failure-title", "has ended")
    here.shows("#failure-action", "Talk again")
    here.page.click("#failure-action")
    here.is_live()
    assert here.session() != before


def test_a_link_to_a_session_that_is_over_says_so(address: str, visit: Open) -> None:
    here = visit(f"{address}?session=nobody")
    here.shows("#failure-title", "has ended")
    here.page.click("#failure-action")
    here.is_live()


def test_a_broken_connection_is_made_again(address: str, visit: Open) -> None:
    here = visit(address, lambda page: page.add_init_script(KEEP_CONNECTIONS))
    here.is_live()
    before = here.session()
    here.page.evaluate(BREAK_CONNECTION)
    here.shows("#waiting", "Connection lost")
    here.is_live()
    assert here.session() == before
    assert here.value("connections.length") == 2


def test_a_server_that_goes_is_missed_and_asked_for_again(
    root: Path, tmp_path: Path, visit: Open
) -> None:
    file = tmp_path / "compositing.yaml"
    with serving(root, file) as address:
        here = visit(address)
        here.is_live()
    here.shows("#failure-title", "server is gone")
    with serving(root, file, port=urlsplit(address).port or 0):
        here.shows("#failure-title", "has ended")
        here.page.click("#failure-action")
        here.is_live()


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
