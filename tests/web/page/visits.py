"""The page in a browser."""

import io
import json
import shutil
import wave
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pytest
from playwright.sync_api import (
    FilePayload,
    Page,
    Route,
)
from tests.support.waiting import until

from lipwire.config import load_compositing_config, load_inference_config
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
VOICE: Final = f"speech: {{voice: {'espeak-ng' if shutil.which('espeak-ng') else 'none'}}}"
HEAR: Final = """() => {
    const context = new AudioContext(), analyser = context.createAnalyser()
    const { srcObject } = document.querySelector('video')
    context.createMediaStreamSource(srcObject).connect(analyser)
    const samples = new Float32Array(analyser.fftSize)
    let most = 0
    setInterval(() => {
        analyser.getFloatTimeDomainData(samples)
        most = Math.max(most, ...samples)
    }, 20)
    globalThis.loudest = () => most
}"""
"""Has ``loudest()`` say how loud the video element was at most since."""
BROWSER: Final = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs chromium"),
]
"""What the tests of the page are marked with."""

KEEP_CONNECTIONS: Final = """
    globalThis.connections = []
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...given) { super(...given); connections.push(this) }
    }"""

Open = Callable[..., "Visit"]


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


@contextmanager
def serving(
    root: Path,
    file: Path,
    port: int = 0,
    web: Mapping[str, object] | None = None,
    more: str = "",
) -> Iterator[str]:
    """Give the address of the page of a server of its own. ``web`` are more keys of its section,
    and ``more`` are other sections."""
    section = json.dumps({"port": port, **(web or {})})
    file.write_text(f"models_root: {root}\nweb: {section}\n{VOICE}\n{more}\n")
    here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
    told: dict[str, Mapping[str, object]] = {}
    with open_serve(
        load_compositing_config(file, here),
        load_inference_config(None, {}),
        tell=told.__setitem__,
        by_speed=False,
    ):
        yield str(told["Web"]["Page"])


def refusing(
    pattern: str, status: int, *, times: int | None = None, headers: dict[str, str] | None = None
) -> Callable[[Page], None]:
    """What has a page's requests refused, the first ``times`` of them. OPTIONS are none of them."""
    refused = 0

    def prepare(page: Page) -> None:
        def refuse(route: Route) -> None:
            nonlocal refused
            if route.request.method == "OPTIONS" or refused == times:
                route.continue_()
                return
            refused += 1
            route.fulfill(status=status, headers=headers, body='{"detail": "made up"}')

        page.route(pattern, refuse)

    return prepare


def repeated(speech: FilePayload, times: int) -> FilePayload:
    """The same WAV file, as often one after the other."""
    longer = io.BytesIO()
    with wave.open(io.BytesIO(speech["buffer"])) as read, wave.open(longer, "wb") as written:
        written.setparams(read.getparams())
        written.writeframes(times * read.readframes(read.getnframes()))
    return {**speech, "buffer": longer.getvalue()}


def movement(visit: Visit, pictures: int = 12) -> Shades:
    """How much each pixel changes while so many pictures are taken: (240, 320) int16."""
    taken = np.stack([visit.picture() for _ in range(pictures)])
    changes: Shades = (taken.max(axis=0) - taken.min(axis=0)).max(axis=2)
    return changes
