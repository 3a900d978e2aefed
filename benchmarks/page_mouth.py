"""Whether the mouth in a browser moves as that of a rendered video, and how soon.

    python benchmarks/page_mouth.py [TEXT]

``lipwire serve`` with the demo avatar and a headless Chromium on this machine, on the same cores.
The text (without one, a few sentences) is typed into the page; the pixels of the video element are
read around the face, for each frame that the browser shows. Then the same text is rendered, by the
same voice. Printed are:

- the correlation of how far the mouth is open in both (as ``lipwire avatar evaluate`` measures it),
  in the frames that were shown, where both fit best: speech begins in the middle of the loop;
- how far it opens at most at rest, before the text and after it;
- the time from the text to the first frame whose mouth is open, and from an interruption to the
  first one of those that stay closed.

The loop moves the head: which of its frames is shown is found by the upper half of the face.
"""

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from page_fps import served  # this finds the test doubles, too
from playwright.sync_api import Page, sync_playwright
from tests.support.waiting import until
from tests.web.page.visits import ARGUMENTS, CHROMIUM

from lipwire.api import open_avatar
from lipwire.avatars import Avatar, find_avatar
from lipwire.config.machine import describe_machine
from lipwire.domain import CropRect
from lipwire.evaluation.material import read_material
from lipwire.evaluation.opening import openings
from lipwire.speech.hibarivoice import HibariVoice
from lipwire.speech.synthesis import said_in_full

TEXT = (
    "Good morning, and welcome. My name does not matter, but what I say is what you typed. Bananas"
    " are yellow, apples may be red, and above all, nobody has to wait for me."
)
FPS = 25
SETTLES_S = 8
RECORD = """([x, y, width, height]) => {
    const video = document.querySelector('video')
    const canvas = new OffscreenCanvas(width, height)
    const context = canvas.getContext('2d', { willReadFrequently: true })
    globalThis.shown = []
    const look = (now, told) => {
        context.drawImage(video, x, y, width, height, 0, 0, width, height)
        const pixels = context.getImageData(0, 0, width, height)
        shown.push([now, told.rtpTimestamp, pixels])
        globalThis.asked = video.requestVideoFrameCallback(look)
    }
    globalThis.asked = video.requestVideoFrameCallback(look)
}"""
WATCH_INPUT = """() => {
    globalThis.pressed = []
    for (const what of ['keydown', 'pointerdown']) {
        addEventListener(what, () => pressed.push(performance.now()), { capture: true })
    }
}"""
"""Has ``pressed`` tell when a key or a button was pressed."""
TAKE = """async () => {
    document.querySelector('video').cancelVideoFrameCallback(asked)
    const taken = []
    for (const [now, time, pixels] of shown) {
        const canvas = new OffscreenCanvas(pixels.width, pixels.height)
        canvas.getContext('2d').putImageData(pixels, 0, 0)
        const blob = await canvas.convertToBlob({ type: 'image/png' })
        const bytes = new Uint8Array(await blob.arrayBuffer())
        let text = ''
        for (let at = 0; at < bytes.length; at += 32768) {
            text += String.fromCharCode(...bytes.subarray(at, at + 32768))
        }
        taken.push([now, time, btoa(text)])
    }
    return taken
}"""
STATE = "async () => (await (await fetch(`/v1/sessions/${document.body.dataset.session}`)).json())"


class Face:
    """Where the face is in each frame of an avatar, and how far its mouth is open in a picture."""

    def __init__(self, package: Path) -> None:
        material = read_material(package)
        self._lips, self._interior = material.lips_box, material.index.interior
        with Avatar.open(package, parts=frozenset({"pixels"})) as avatar:
            self.rects = avatar.rects
            left, top = min(r.x1 for r in self.rects), min(r.y1 for r in self.rects)
            right, bottom = max(r.x2 for r in self.rects), max(r.y2 for r in self.rects)
            self.region = CropRect(left, top, right, bottom)
            self._upper = (bottom - top) // 3
            frames = (avatar.pixels(number, None) for number in range(len(self.rects)))
            self._known = np.stack([self._marks(self.cut(frame)) for frame in frames])

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """The region of ``frame`` that is compared."""
        region = self.region
        return frame[region.y1 : region.y2, region.x1 : region.x2]

    def opening(self, picture: np.ndarray) -> float:
        """How far the mouth is open in ``picture``, (height, width, 3) uint8 BGR of the region, in
        pixels."""
        number = int(np.square(self._known - self._marks(picture)).sum((1, 2)).argmin())
        rect, region = self.rects[number], self.region
        face = picture[
            rect.y1 - region.y1 : rect.y2 - region.y1, rect.x1 - region.x1 : rect.x2 - region.x1
        ]
        return float(openings(face[None], self._lips, self._interior)[0])

    def _marks(self, picture: np.ndarray) -> np.ndarray:
        """The part above the mouth, small and grey."""
        upper = cv2.cvtColor(picture[: self._upper], cv2.COLOR_BGR2GRAY)
        return cv2.resize(upper, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(
            np.float32
        )


@contextmanager
def live() -> Iterator[Page]:
    """Give the page, playing."""
    with served("demo") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.goto(address)
        until(lambda: page.is_visible("[data-phase=live]"), seen=lambda: page.inner_text("body"))
        page.wait_for_timeout(1000 * SETTLES_S)
        yield page
        browser.close()


def spoken(page: Page, face: Face, text: str, stop_s: float | None = None) -> dict[str, list]:
    """What the browser shows while ``text`` is said, and, of it, what is measured."""
    page.evaluate(
        RECORD,
        [face.region.x1, face.region.y1, face.region.width, face.region.height],
    )
    page.evaluate(WATCH_INPUT)
    page.fill("#text", text)
    page.wait_for_timeout(1000)
    page.press("#text", "Enter")
    asked_ms = page.evaluate("pressed.at(-1)")
    stopped_ms = None
    if stop_s is not None:
        page.wait_for_timeout(1000 * stop_s)
        page.click("#interrupt")
        stopped_ms = page.evaluate("pressed.at(-1)")
    until(lambda: page.evaluate(STATE)["state"] == "speaking" or stop_s is not None)
    until(lambda: page.evaluate(STATE)["state"] == "idle", timeout_s=120)
    page.wait_for_timeout(1500)
    times, frames, opened = [], [], []
    for now, time, data in page.evaluate(TAKE):
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        times.append(now)
        frames.append(time)
        opened.append(face.opening(pixels))
    return {"at": times, "rtp": frames, "open": opened, "asked": [asked_ms], "stop": [stopped_ms]}


def by_frame(shown: dict[str, list]) -> np.ndarray:
    """The opening in each frame of the session's clock; not a number in those not shown."""
    numbers = np.rint((np.array(shown["rtp"]) - shown["rtp"][0]) / (90_000 / FPS)).astype(int)
    opened = np.full(numbers[-1] + 1, np.nan)
    opened[numbers] = shown["open"]
    return opened


def correlation(seen: np.ndarray, rendered: np.ndarray) -> float:
    """That of two series, in the frames that were seen."""
    there = ~np.isnan(seen)
    return float(np.corrcoef(seen[there], rendered[there])[0, 1])


def main() -> None:
    text = sys.argv[1] if len(sys.argv) > 1 else TEXT
    package = find_avatar("demo")
    face = Face(package)
    with live() as page:
        told = spoken(page, face, text)
        broken_off = spoken(page, face, text, stop_s=3.0)
        dropped = page.evaluate(STATE)["dropped"]

    pcm, rate_hz = said_in_full(HibariVoice(), text)
    with open_avatar("demo") as avatar:
        rendered = np.array(
            [face.opening(face.cut(f.bgr)) for f in avatar.speak(pcm, rate_hz=rate_hz)]
        )

    seen = by_frame(told)
    at = {}
    for shift in range(len(seen) - len(rendered) + 1):
        at[shift] = correlation(seen[shift : shift + len(rendered)], rendered)
    best = max(at, key=at.__getitem__)
    shown_s = (told["at"][-1] - told["at"][0]) / 1000
    machine = describe_machine()
    print(f"{machine.processor}, {machine.cores} cores, shared by server and browser")
    print(
        f"{len(rendered)} frames of speech; {len(told['at']) / shown_s:.1f} frames a second shown,"
        f" {dropped} left out by the server"
    )
    print(f"correlation of the mouth's opening: {at[best]:.4f}")
    closed = max(1.0, np.percentile(rendered, 10))
    before, after = seen[: best - 3], seen[best + len(rendered) + 5 :]
    ahead, behind = np.nanmax(before, initial=0), np.nanmax(after, initial=0)
    print(
        f"open at most: {ahead:.1f} px before, {behind:.1f} after, {rendered.max():.1f} in speech"
    )
    level = max(ahead, closed) + 2.0

    def first(shown: dict[str, list], from_ms: float) -> float:
        return next(
            at - from_ms
            for at, opening in zip(shown["at"], shown["open"], strict=True)
            if at >= from_ms and opening > level
        )

    print(f"text to the first open mouth: {first(told, told['asked'][0]):.0f} ms")
    stop_ms = broken_off["stop"][0]
    still_open = [
        at
        for at, opening in zip(broken_off["at"], broken_off["open"], strict=True)
        if at >= stop_ms and opening > level
    ]
    last = max(still_open, default=stop_ms)
    rest = next(at for at in broken_off["at"] if at > last)
    print(f"interruption to rest: {rest - stop_ms:.0f} ms")


if __name__ == "__main__":
    main()
