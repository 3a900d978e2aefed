"""Clients of live sessions that note when everything came and went."""

import bisect
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from lipwire.domain import SAMPLE_RATE_HZ, Cancelled, Float32Array, LipwireError
from lipwire.domain.closing import Closing
from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.session.live import FRAME_MS, FramesDropped, LiveFrame, SessionSettings, SpeechEnded

_PIECE_S: Final = 0.02
_ON_THE_WAY_FRAMES: Final = 2
"""Frames that may be due and not have come at the end."""
_PIECE: Final = round(_PIECE_S * SAMPLE_RATE_HZ)
UNGATED: Final = SessionSettings(gate=False)
"""Every frame of the speech shows the network's mouth, in its pauses too."""


class Client(Closing):
    """One live session, whose frames and events are received and counted by a thread from the
    beginning. A context manager, which ends the session. ``frames`` is a list of pairs: when a
    frame arrived, in seconds of ``time.perf_counter``, and the frame without its data."""

    def __init__(self, connection: AvatarConnection, model_id: str) -> None:
        """Begin a session with avatar ``model_id`` over ``connection``, which stays the caller's.
        Raises the error with which the server refuses it, such as NotFound or Overloaded."""
        self.asked_s: Final = time.perf_counter()
        self.session: ConverseStream = connection.converse(model_id, UNGATED)
        self.frames: list[tuple[float, LiveFrame]] = []
        """When each frame came, and the frame without its data."""
        self.dropped = 0
        """Frames that the server said it left out."""
        self.ended: list[SpeechEnded] = []
        self.error: LipwireError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._receive, name="lipwire-bench-client")
        self._thread.start()

    def wait(self, condition: Callable[[], object], timeout_s: float) -> None:
        """Wait until ``condition()`` is true. It is called at once and again after each frame and
        event, while no more of these are received. Raises RuntimeError where it does not become
        true within ``timeout_s`` seconds. Where the session has ended with an error, that error is
        raised."""
        with self._changed:
            there = self._changed.wait_for(lambda: self.error or condition(), timeout_s)
        if self.error is not None:
            raise self.error
        if not there:
            raise RuntimeError(f"a session did not come so far within {timeout_s:.0f} s")

    def spoken(self, number: int = 0) -> int:
        """Return how many frames that show speech have arrived, not counting those among the first
        ``number`` of all frames."""
        return sum(frame.speech > 0 for _, frame in self.frames[number:])

    def close(self) -> None:
        """End the session, and wait until the server has ended it. Where it ended with an error,
        ``error`` keeps it, and nothing is raised."""
        with suppress(Cancelled):  # it has ended already
            self.session.end()
        self._thread.join()
        self.session.leave()

    def _receive(self) -> None:
        try:
            for received in self.session:
                now = time.perf_counter()
                with self._changed:
                    if isinstance(received, LiveFrame):
                        self.frames.append((now, replace(received, data=b"")))
                    elif isinstance(received, FramesDropped):
                        self.dropped += received.count
                    elif isinstance(received, SpeechEnded):
                        self.ended.append(received)
                    self._changed.notify_all()
        except LipwireError as error:
            with self._changed:
                self.error = error
                self._changed.notify_all()


def latencies_ms(
    client: Client, speech: Float32Array, lookahead_ms: float
) -> tuple[list[float], float]:
    """Push ``speech``, (n,) float32 at 16 kHz, to the session of ``client`` as fast as a microphone
    would, and wait until it was said, at most 30 s after its end. Returns the latency in
    milliseconds of each frame that arrived, and the share of frames that did not arrive, 0 to 1.

    The latency is the time from sending the last sample that the frame depends on until its
    arrival. A frame depends on the speech until its own end and ``lookahead_ms`` more. Frames near
    the end of the speech, whose look-ahead goes beyond it, have no latency here. Raises
    RuntimeError where no other frames arrived or the speech did not end in time; an error with
    which the session has ended is raised.
    """
    begun = len(client.frames)
    ended = len(client.ended)
    sent_s: list[float] = []
    next_s = time.perf_counter()
    for first in range(0, len(speech), _PIECE):
        time.sleep(max(0.0, next_s + _PIECE_S - time.perf_counter()))
        next_s = max(next_s + _PIECE_S, time.perf_counter() - 1.0)
        sent_s.append(time.perf_counter())
        client.session.push(speech[first : first + _PIECE], SAMPLE_RATE_HZ)
    client.session.end_of_speech()
    client.wait(lambda: len(client.ended) > ended, 30.0)
    spoken = [(at, frame) for at, frame in client.frames[begun:] if frame.speech]
    if not spoken:
        raise RuntimeError("no frame of the speech came")
    begins = spoken[0][1].position
    found = []
    for at, frame in spoken:
        needed_ms = (frame.position - begins + 1) * FRAME_MS + lookahead_ms
        piece = math.ceil(needed_ms / (_PIECE_S * 1000)) - 1
        if piece < len(sent_s):
            found.append((at - sent_s[piece]) * 1000)
    if not found:
        raise RuntimeError("all frames that came are among the last of the speech")
    shown = spoken[-1][1].at_ms - spoken[0][1].at_ms
    return found, 1.0 - len(spoken) / (shown // FRAME_MS + 1)


def lateness_ms(client: Client, first: int) -> list[float]:
    """Return how many milliseconds late each frame arrived that ``client`` received, 0 or more,
    from frame ``first`` on (an index into ``client.frames``); empty where there is none. The delay
    of a frame is its time of arrival less its time on the session's clock. It is late by as much as
    its delay is greater than that of the fastest twentieth of these frames."""
    offsets = [at * 1000 - frame.at_ms for at, frame in client.frames[first:]]
    if not offsets:
        return []
    earliest = sorted(offsets)[len(offsets) // 20]
    return [max(0.0, offset - earliest) for offset in offsets]


def missing(client: Client, first: int, until_s: float) -> float:
    """Return the share of the frames due to ``client`` that did not arrive, 0 to 1, between the
    arrival of frame ``first`` (an index into ``client.frames``) and ``until_s``, in seconds of
    ``time.perf_counter``. 25 frames a second are due, by the session's clock; the last two may
    still be on their way and are not missed. Returns 1 where fewer than two frames arrived in that
    time."""
    frames = client.frames[first:]
    last = bisect.bisect_right([at for at, _ in frames], until_s)
    if last < 2:
        return 1.0
    numbers = [frame.at_ms // FRAME_MS for _, frame in frames[:last]]
    since = int((until_s - frames[last - 1][0]) * 1000 / FRAME_MS)
    expected = numbers[-1] - numbers[0] + 1 + max(0, since - _ON_THE_WAY_FRAMES)
    return 1.0 - len(numbers) / expected
