"""What finished videos that are made beside it cost a live session.

    python benchmarks/renders_beside_live.py [SECONDS] [ROUNDS]

A server with two names of the demo avatar, all in this process, runs its networks in float32. A
session is sent SECONDS (10) of speech as a microphone would, ROUNDS (3) times alone and as often
while the server makes videos of the other avatar, of which three are always ordered. Printed are
the milliseconds from the last sample that a frame needs to when the frame is with the client,
median and 99th percentile, how many frames were left out, and how many frames of video were made a
second, also while nobody was live.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lipwire.bench.live import measures
from lipwire.bench.live.rig import Rig, Servers, rig
from lipwire.config.machine import describe_machine
from lipwire.domain import SAMPLE_RATE_HZ, percentile
from lipwire.rpc.generated.lipwire.v1 import renders_pb2, renders_pb2_grpc
from lipwire.rpc.transport import UNLIMITED_BYTES, open_channel

VIDEO_S = 20.0
ORDERED = 3


class Orders:
    """Keeps a server at making videos."""

    def __init__(self, servers: Servers, speech: Rig) -> None:
        channel = open_channel(servers.compositing, max_message_bytes=UNLIMITED_BYTES)
        self._stub = renders_pb2_grpc.RenderServiceStub(channel)
        self._pcm = (speech.said(VIDEO_S) * 32767).astype("<i2").tobytes()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have videos made in the block, and none afterwards."""
        stop = threading.Event()

        def order() -> None:
            while not stop.wait(0.1):
                waiting = [each for each in self._all() if not each.ended_s]
                for _ in range(ORDERED - len(waiting)):
                    self._stub.Submit(
                        renders_pb2.SubmitRenderRequest(
                            model_id=measures.OTHER, pcm=self._pcm, sample_rate=SAMPLE_RATE_HZ
                        )
                    )

        ordering = threading.Thread(target=order)
        ordering.start()
        try:
            self._wait_for_frames()
            yield
        finally:
            stop.set()
            ordering.join()
            for each in self._all():
                self._stub.Cancel(renders_pb2.CancelRenderRequest(id=each.id))

    def frames(self) -> int:
        """Frames of video that were made of those that are known."""
        return sum(each.done_frames for each in self._all())

    def _all(self) -> list[renders_pb2.Render]:
        return list(self._stub.List(renders_pb2.ListRendersRequest(most=100)).renders)

    def _wait_for_frames(self) -> None:
        before = self.frames()
        while self.frames() == before:
            time.sleep(0.1)


def main(seconds: float, rounds: int) -> None:
    """Print the figures."""
    print(describe_machine())
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        avatars = stack.enter_context(rig(avatars=2, quick=False))
        servers = stack.enter_context(avatars.serve(more={"LIPWIRE_RENDERS__FOLDER": folder}))
        orders = Orders(servers, avatars)
        with orders.running():
            begun_s, before = time.perf_counter(), orders.frames()
            time.sleep(seconds)
            made = (orders.frames() - before) / (time.perf_counter() - begun_s)
        print(f"videos, nobody live: {made:.1f} frames a second")
        times_ms: dict[bool, list[list[float]]] = {False: [], True: []}
        rates = []
        for _ in range(rounds):
            times, note = measures.latency(avatars, servers, seconds)
            times_ms[False].append(times)
            print(f"alone: {percentile(times, 50):.0f}/{percentile(times, 99):.0f} ms, {note}")
            with orders.running():
                begun_s, before = time.perf_counter(), orders.frames()
                times, note = measures.latency(avatars, servers, seconds)
                rates.append((orders.frames() - before) / (time.perf_counter() - begun_s))
            times_ms[True].append(times)
            print(
                f"beside videos: {percentile(times, 50):.0f}/{percentile(times, 99):.0f} ms,"
                f" {note}; {rates[-1]:.1f} frames of video a second"
            )
        for percent in (50, 99):
            ratio = statistics.median(
                percentile(beside, percent) / percentile(alone, percent)
                for alone, beside in zip(times_ms[False], times_ms[True], strict=True)
            )
            print(f"p{percent}: {ratio:.2f} times, the median of {rounds} rounds")


if __name__ == "__main__":
    given = [float(text) for text in sys.argv[1:]]
    seconds, rounds = given + [10.0, 3.0][len(given) :]
    main(seconds, int(rounds))
