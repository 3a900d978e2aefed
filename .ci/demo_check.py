"""See what `make demo` serves as a browser would: the page, pictures and sound while it says a
sentence that was typed. Then end the server whose process the given file names."""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from aiortc import RTCPeerConnection, RTCSessionDescription

URL = "http://localhost:8080"
READY_WITHIN_S = 180.0
WATCHED_S = 6.0


def ask(path: str, data: bytes | None = None, kind: str = "", method: str = "") -> Any:
    """Return the answer of the server's own page's request."""
    headers = {"Origin": URL} | ({"Content-Type": kind} if kind else {})
    request = urllib.request.Request(URL + path, data, headers, method=method or None)
    return urllib.request.urlopen(request, timeout=60)


def wait_until_ready() -> None:
    """Raises SystemExit where the server is not there in time."""
    until_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until_s:
        try:
            with ask("/readyz"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    sys.exit(f"no server at {URL} within {READY_WITHIN_S:g} s")


def viewed(offer: bytes) -> Any:
    """Begin a session. A machine may carry one alone, and keep one that was just left for a
    while."""
    until_s = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            return ask("/whep/demo", offer, "application/sdp")
        except urllib.error.HTTPError as error:
            if error.code != 429 or time.monotonic() > until_s:
                raise
            time.sleep(int(error.headers["Retry-After"]))


async def watch() -> tuple[int, int]:
    """View a session while it says a sentence; how many pictures and pieces of sound came."""
    connection = RTCPeerConnection()
    counts = {"video": 0, "audio": 0}
    tasks: list[asyncio.Task[None]] = []

    async def count(track: Any) -> None:
        while True:
            await track.recv()
            counts[track.kind] += 1

    connection.on("track", lambda track: tasks.append(asyncio.ensure_future(count(track))))
    connection.addTransceiver("video", direction="recvonly")
    connection.addTransceiver("audio", direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    offer = connection.localDescription.sdp.encode()
    answer = await asyncio.to_thread(viewed, offer)
    place = answer.headers["Location"]
    await connection.setRemoteDescription(RTCSessionDescription(answer.read().decode(), "answer"))
    text = json.dumps({"text": "Hello. It is good to see you."}).encode()
    speak = f"/v1/sessions/{place.rpartition('/')[2]}/speak"
    await asyncio.to_thread(ask, speak, text, "application/json")
    await asyncio.sleep(WATCHED_S)
    for task in tasks:
        task.cancel()
    await asyncio.to_thread(ask, place, None, "", "DELETE")
    await connection.close()
    return counts["video"], counts["audio"]


def main() -> None:
    wait_until_ready()
    with ask("/") as page:
        if b"<video" not in page.read():
            sys.exit("the page shows no video")
    pictures, sounds = asyncio.run(watch())
    print(
        f"{pictures / WATCHED_S:.1f} pictures and {sounds / WATCHED_S:.1f} pieces of sound a second"
    )
    if not pictures or not sounds:
        sys.exit("no picture, or no sound, came")
    pid = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if pid is not None and pid.is_file():
        os.kill(int(pid.read_text()), signal.SIGTERM)


if __name__ == "__main__":
    main()
