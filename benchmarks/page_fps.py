"""What a browser shows of the page while the avatar speaks all the time.

    python benchmarks/page_fps.py [SECONDS] [--avatar NAME] [--flashing]

A server and a headless Chromium on this machine, on the same cores. The avatar (demo, where none is
named) says the bundled recording again and again. ``--flashing`` takes a test's avatar without a
network in its place, 640 x 360, so that what is measured is the way of the frames alone. Printed
are, from Chromium's statistics of the last SECONDS (30): frames decoded a second, frames left out
by server and browser, the jitter buffers, sound that was made up; the processor time that the
server's process took; what the page's own strip says; and how busy the machine was.
"""

import argparse
import base64
import itertools
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # test doubles

from tests.support.flashing import SETTINGS, FlashingAvatar, real_threads, saying
from tests.support.waiting import until
from tests.support.webparts import WebHouse
from tests.web.page.visits import ARGUMENTS, CHROMIUM, KEEP_CONNECTIONS

from lipwire.audio import decode_audio
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.config.machine import describe_machine
from lipwire.domain import SAMPLE_RATE_HZ
from lipwire.wiring.servers import open_serve

SETTLES_S = 5
SPEAK = """async ([bytes, rate]) => {
    const id = document.body.dataset.session
    const body = Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0))
    globalThis.speaking = true
    ;(async () => {
        while (globalThis.speaking) {
            await fetch(`/v1/sessions/${id}/speak?rate=${rate}`,
                { method: 'POST', headers: { 'Content-Type': 'audio/pcm' }, body })
        }
    })()
}"""
SILENCE = """async () => {
    globalThis.speaking = false
    const id = document.body.dataset.session
    await fetch(`/v1/sessions/${id}/interrupt`, { method: 'POST' })
}"""
FIGURES = """async () => {
    const id = document.body.dataset.session
    const told = await (await fetch(`/v1/sessions/${id}`)).json()
    const reports = [...(await connections.at(-1).getStats()).values()]
    const of = (kind) => reports.find(one => one.type === 'inbound-rtp' && one.kind === kind)
    return [told, of('video'), of('audio'), performance.now()]
}"""


def recording() -> np.ndarray:
    """The bundled sentence: (n,) int16 at 16 kHz."""
    pcm = decode_audio(Path(str(files("lipwire") / "assets" / "speech" / "sample.flac")))
    return np.rint(pcm * 32767).astype(np.int16)


@contextmanager
def flashing() -> Iterator[str]:
    """Give the address of the page of a server with a session that speaks."""
    with (
        real_threads() as threads,
        WebHouse(
            threads=threads, open_avatar=lambda name: FlashingAvatar().flashing(640, 360)
        ) as house,
    ):
        session = house.in_loop(house.hub.open("flashing", SETTINGS))
        with saying(session, itertools.repeat(recording(), 100), SAMPLE_RATE_HZ):
            yield f"http://127.0.0.1:{house.server.port}/?session={session.id}"


@contextmanager
def served(avatar: str) -> Iterator[str]:
    """Give the address of the page of ``lipwire serve`` with that avatar."""
    told = {}
    here = {
        "LIPWIRE_SERVER__HOST": "127.0.0.1",
        "LIPWIRE_SERVER__PORT": "0",
        "LIPWIRE_WEB__PORT": "0",
    }
    with open_serve(
        load_compositing_config(None, here), load_inference_config(None, {}), tell=told.__setitem__
    ):
        yield f"{told['Web']['Page']}?avatar={avatar}"


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=30.0)
    parser.add_argument("--avatar", default="demo")
    parser.add_argument("--flashing", action="store_true")
    asked = parser.parse_args()
    pcm = base64.b64encode(recording().tobytes()).decode()
    serving = flashing() if asked.flashing else served(asked.avatar)
    with serving as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.add_init_script(KEEP_CONNECTIONS)
        page.goto(address)
        until(lambda: page.is_visible("[data-phase=live]"), seen=lambda: page.inner_text("body"))
        if not asked.flashing:
            page.evaluate(SPEAK, [pcm, SAMPLE_RATE_HZ])
        page.wait_for_timeout(1000 * SETTLES_S)
        before, began_s = page.evaluate(FIGURES), processor_s()
        page.wait_for_timeout(1000 * asked.seconds)
        now, used_s = page.evaluate(FIGURES), processor_s() - began_s
        page.evaluate(SILENCE)
        strip = " ".join(page.inner_text("#figures").split())
        browser.close()

    seconds = (now[3] - before[3]) / 1000

    def since(part: int, name: str) -> float:
        return now[part].get(name, 0) - before[part].get(name, 0)

    machine, told = describe_machine(), now[0]
    print(
        f"{machine.processor}, {machine.cores} cores, shared by server and browser; {seconds:.1f} s"
    )
    print(f"{told['avatar']}, {told['width']} x {told['height']}, {told['state']}")
    print(f"decoded: {since(1, 'framesDecoded') / seconds:.2f} frames a second")
    print(
        f"left out: {since(0, 'dropped'):.0f} by the server, {since(1, 'framesDropped'):.0f} by the"
        f" browser; {since(1, 'freezeCount'):.0f} freezes"
    )
    for name, part in (("video", 1), ("sound", 2)):
        emitted = max(1, since(part, "jitterBufferEmittedCount"))
        print(
            f"{name}: {1000 * since(part, 'jitterBufferDelay') / emitted:.0f} ms in the jitter"
            f" buffer, {8 * since(part, 'bytesReceived') / seconds / 1000:.0f} kbit/s,"
            f" {since(part, 'packetsLost'):.0f} packets lost"
        )
    samples = max(1, since(2, "totalSamplesReceived"))
    print(f"made up: {100 * since(2, 'concealedSamples') / samples:.2f} % of the sound")
    print(f"server's process: {100 * used_s / seconds:.0f} % of a core (with this script)")
    print(f"the page says: {strip}")
    print(f"processes that ran or waited for a core in the last minute: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
