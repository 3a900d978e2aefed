"""How far apart sound and picture are in Chromium.

    python benchmarks/av_offset.py [SECONDS]

An avatar that is white while it beeps, and black else, is viewed over WebRTC on this machine, by
a headless Chromium that shares the cores with the server. Printed are median, 95th percentile and
maximum, in milliseconds, of how much later sound is than its picture:

- seen and heard: the time at which the browser shows the first white frame
  (``requestVideoFrameCallback``: ``expectedDisplayTime``) against the time at which a sound
  worklet is given the first sample of the beep;
- by the browser's estimate: ``estimatedPlayoutTimestamp`` of sound and picture, which is what they
  show and say of the sender's clock, four times a second.
"""

import sys
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # test doubles

from tests.support.flashing import SETTINGS, FlashingAvatar, beeping, real_threads
from tests.support.webparts import WebHouse
from tests.web.page.visits import ARGUMENTS, CHROMIUM

from lipwire.config.machine import describe_machine

SIZE = (640, 360)
SETTLES_S = 10
"""Before that the browser's buffers are still finding their length."""
NEAR_MS = 400
"""A flash and a beep that are so near to each other belong together."""

WATCH = """async ([id, seconds]) => {
    const { LipwireSession } = await import('/lipwire.js')
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...given) { super(...given); globalThis.connection = this }
    }
    const video = document.createElement('video')
    document.body.append(video)
    const session = new LipwireSession()
    session.attach(video)
    await session.connect({ session: id })
    await video.play()

    const flashes = [], beeps = [], estimates = []
    const canvas = new OffscreenCanvas(8, 8)
    const context = canvas.getContext('2d', { willReadFrequently: true })
    let white = true
    const look = (now, told) => {
        context.drawImage(video, 0, 0, 8, 8)
        const bright = context.getImageData(4, 4, 1, 1).data[0] > 128
        if (bright && !white) flashes.push(told.expectedDisplayTime)
        white = bright
        video.requestVideoFrameCallback(look)
    }
    video.requestVideoFrameCallback(look)

    const audio = new AudioContext({ latencyHint: 'interactive' })
    await audio.audioWorklet.addModule(URL.createObjectURL(new Blob([`
        registerProcessor('onsets', class extends AudioWorkletProcessor {
            quiet = 0
            process([[samples]]) {
                samples?.forEach((sample, index) => {
                    if (Math.abs(sample) < 0.1) return void (this.quiet += 1)
                    if (this.quiet > 0.5 * sampleRate) {
                        this.port.postMessage(currentTime + index / sampleRate)
                    }
                    this.quiet = 0
                })
                return true
            }
        })`], { type: 'text/javascript' })))
    const onsets = new AudioWorkletNode(audio, 'onsets')
    audio.createMediaStreamSource(video.srcObject).connect(onsets).connect(audio.destination)
    onsets.port.onmessage = ({ data }) => {
        const now = audio.getOutputTimestamp()
        beeps.push(now.performanceTime + 1000 * (data - now.contextTime))
    }
    const ends = performance.now() + 1000 * seconds
    let stats
    while (performance.now() < ends) {
        await new Promise((resolve) => setTimeout(resolve, 250))
        stats = [...(await connection.getStats()).values()].filter(
            (one) => one.type === 'inbound-rtp')
        const at = (kind) => stats.find((one) => one.kind === kind).estimatedPlayoutTimestamp
        const apart = at('video') - at('audio')
        if (!Number.isNaN(apart)) estimates.push([performance.now(), apart])
    }
    const began = ends - 1000 * seconds
    return { began, flashes, beeps, estimates, stats }
}"""


def said(name: str, offsets_ms: list[float]) -> None:
    if not offsets_ms:
        print(f"{name}: nothing measured")
        return
    median, most = np.median(offsets_ms), max(offsets_ms, key=abs)
    high = np.percentile(np.abs(offsets_ms), 95)
    print(
        f"{name}: median {median:.1f}, 95 % within {high:.1f}, most {most:.1f} ms"
        f" ({len(offsets_ms)})"
    )


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with (
        real_threads() as threads,
        WebHouse(
            threads=threads, open_avatar=lambda name: FlashingAvatar().flashing(*SIZE)
        ) as house,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{house.server.port}/lipwire.js")
        session = house.in_loop(house.hub.open("flashing", SETTINGS))
        with beeping(session, seconds + 60):
            told = page.evaluate(WATCH, [session.id, seconds])
        dropped = session.counts.dropped
        browser.close()
    began = told["began"] + 1000 * SETTLES_S
    beeps = np.array(told["beeps"])
    seen = []
    for flash in told["flashes"]:
        near = beeps[np.abs(beeps - flash) < NEAR_MS] - flash
        if flash > began and len(near):
            seen.append(float(near[np.abs(near).argmin()]))
    machine = describe_machine()
    print(
        f"{machine.processor}, {machine.cores} cores, server and browser together; {seconds:g} s,"
        f" {SIZE[0]} x {SIZE[1]}, {dropped} frames left out"
    )
    said("seen and heard", seen)
    said("by the browser's estimate", [ms for at, ms in told["estimates"] if at > began])
    for one in told["stats"]:
        delay_ms, target_ms = (
            1000 * one[name] / one["jitterBufferEmittedCount"]
            for name in ("jitterBufferDelay", "jitterBufferTargetDelay")
        )
        print(
            f"{one['kind']}: {one['packetsLost']} packets lost, {delay_ms:.0f} ms in the jitter"
            f" buffer, whose aim is {target_ms:.0f};"
            f" {one.get('framesDecoded', 0)} frames decoded,"
            f" {one.get('concealedSamples', 0)} samples made up"
        )


if __name__ == "__main__":
    main()
