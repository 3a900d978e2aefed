"""What viewers of one session cost, and what they leave behind.

    python benchmarks/viewers.py [SECONDS] [JOINS]

A session of a test's avatar without a network, 1280 x 720, is viewed over WebRTC by clients in a
process of their own, which do not decode. Printed are, over SECONDS (15), with one viewer and with
eight, the processor time of the event loop, where all of a viewer's work is done, in percent of a
core for 25 pictures a second, and how many pictures were encoded; and what each of the seven more
takes. Then JOINS (1000) viewers come one after the other, see a picture
and leave: printed are tasks, threads, open files and memory after the first tenth and after all.
"""

import asyncio
import gc
import multiprocessing
import os
import sys
import threading
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtcrtpreceiver

sys.path.insert(0, str(Path(__file__).parents[1]))  # test doubles

from tests.support.flashing import SETTINGS, FlashingAvatar, real_threads
from tests.support.webparts import TOKEN, WebHouse

from lipwire.config.machine import describe_machine
from lipwire.domain import FPS

SIZE = (1280, 720)
FEW, MANY = 1, 8
SETTLES_S = 3


def ask(method: str, address: str, body: bytes | None = None):
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(address, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers.get("Location"), answer.read().decode()


async def joined(address: str):
    """View, and return the connection and the viewer's address once there is a picture."""
    connection = RTCPeerConnection(RTCConfiguration([]))
    there = asyncio.Event()
    tasks = []

    @connection.on("track")
    def tracked(track) -> None:
        async def take() -> None:
            while True:
                await track.recv()
                if track.kind == "video":
                    there.set()

        tasks.append(asyncio.ensure_future(take()))

    connection.addTransceiver("video", direction="recvonly")
    connection.addTransceiver("audio", direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    offer = connection.localDescription.sdp.encode()
    location, answer = await asyncio.to_thread(ask, "POST", address, offer)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(there.wait(), 60)
    return connection, address.partition("/whep")[0] + location, tasks


async def left(viewer) -> None:
    connection, location, tasks = viewer
    await asyncio.to_thread(ask, "DELETE", location)
    await connection.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def clients(address: str, told: Connection) -> None:
    """Do what is asked for: a number of viewers to have, or a negative number of joins."""

    def passes_on(loop, incoming, outgoing, failed) -> None:
        while (task := incoming.get()) is not None:
            asyncio.run_coroutine_threadsafe(outgoing.put(task), loop)

    rtcrtpreceiver.decoder_worker = passes_on

    async def run() -> None:
        viewers = []
        while (wanted := await asyncio.to_thread(told.recv)) is not None:
            for _ in range(-wanted):
                await left(await joined(address))
            while wanted > len(viewers):
                viewers.append(await joined(address))
            while 0 <= wanted < len(viewers):
                await left(viewers.pop())
            told.send(len(viewers))

    asyncio.run(run())


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    joins = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    processes = multiprocessing.get_context("spawn")
    with (
        real_threads() as threads,
        WebHouse(
            threads=threads, open_avatar=lambda name: FlashingAvatar().flashing(*SIZE)
        ) as house,
    ):
        session = house.in_loop(house.hub.open("flashing", SETTINGS))
        broadcast = house.hub.broadcast(session)
        address = f"http://127.0.0.1:{house.server.port}/whep/flashing?session={session.id}"
        ours, theirs = processes.Pipe()
        process = processes.Process(target=clients, args=(address, theirs))
        process.start()
        theirs.close()

        def have(viewers: int) -> None:
            ours.send(viewers)
            ours.recv()

        async def of_thread() -> float:
            return time.thread_time()

        def kept() -> str:
            async def tasks() -> int:
                return len(asyncio.all_tasks())

            time.sleep(1)
            gc.collect()
            files, viewers = len(list(Path("/proc/self/fd").iterdir())), house.hub.viewers(session)
            return (
                f"{house.in_loop(tasks())} tasks, {threading.active_count()} threads,"
                f" {files} open files, {resident_mb():.1f} MiB, {viewers} viewers"
            )

        machine = describe_machine()
        print(f"{machine.processor}, {machine.cores} cores, {SIZE[0]} x {SIZE[1]}")
        costs = {}
        for viewers in (FEW, MANY):
            have(viewers)
            time.sleep(SETTLES_S)
            used_s, encoded = house.in_loop(of_thread()), broadcast.encoded
            time.sleep(seconds)
            used_s, encoded = house.in_loop(of_thread()) - used_s, broadcast.encoded - encoded
            costs[viewers] = 100 * FPS * used_s / max(1, encoded)
            print(f"{viewers} viewers: {costs[viewers]:.1f} % of a core; {encoded} encoded")
        print(f"each more: {(costs[MANY] - costs[FEW]) / (MANY - FEW):.2f} % of a core")
        have(FEW)  # who stays, so that the session goes on being encoded
        ours.send(-(joins // 10))
        ours.recv()
        print(f"after {joins // 10} joins: {kept()}")
        began_s = time.monotonic()
        ours.send(-(joins - joins // 10))
        ours.recv()
        each_ms = 1000 * (time.monotonic() - began_s) / max(1, joins - joins // 10)
        print(f"after {joins} joins: {kept()}; a picture seen and left in {each_ms:.0f} ms each")
        ours.send(None)
        process.join()


if __name__ == "__main__":
    main()
