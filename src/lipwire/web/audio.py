"""Audio that browsers send to a session: in order, and waiting for room without a thread."""

import asyncio
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.audio import MAX_CHANNELS, check_rate
from lipwire.domain import DeadlineExceeded, InvalidInput, Overloaded
from lipwire.session.live import LiveSession

MOST_WAITING: Final = 4
"""Pieces that wait, or are taken in, at a time; further ones are refused."""
_STEP_S: Final = 0.5
"""What a session takes in at once or not at all."""
_LOOK_EVERY_S: Final = 0.05
"""While a session has no room, how often it is looked whether it has some."""
_RETRY_AFTER_S: Final = 2.0

NO_VOICE: Final = "this server has no voice: install lipwire[speech], or send audio"

Samples = npt.NDArray[np.int16]


def check_text(text: object) -> str:
    """Return ``text``, as a client sent it, unchanged. Raises InvalidInput where it is no str, is
    blank or holds a lone surrogate."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput('there is no "text"; say what is to be said')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput('"text" has half a character (a lone surrogate)') from None
    return text


def check_format(rate_hz: int, channels: int) -> None:
    """Check that a session can take audio with ``rate_hz`` samples a second and ``channels``
    channels. Raises InvalidInput, with the values allowed, where it cannot."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidInput(f"channels is {channels}; allowed are 1 to {MAX_CHANNELS}")
    check_rate(rate_hz)


def samples_of(data: bytes, channels: int) -> Samples:
    """Return ``data``, 16-bit little-endian samples with the channels of one moment side by side,
    as (n, channels) int16, which must not be written to. Raises InvalidInput where the last sample
    is not complete."""
    if len(data) % (2 * channels):
        raise InvalidInput(
            f"the audio is {len(data)} bytes; allowed are whole samples: a multiple of"
            f" {2 * channels}"
        )
    return np.frombuffer(data, "<i2").reshape(-1, channels)


class AudioIn:
    """Pushes audio to one session in the order in which it comes. Used in one event loop; waits in
    threads, so that the loop does not."""

    def __init__(self, session: LiveSession) -> None:
        self._session = session
        self._turn = asyncio.Lock()
        self.waiting = 0
        """Pieces that wait, or are taken in."""

    async def push(self, pcm: Samples, rate_hz: int, *, ends: bool) -> None:
        """Push ``pcm``, (n, channels) int16 at ``rate_hz``, to the session, after the audio that
        came before.

        Returns when the session has taken in all of ``pcm``, or has dropped it because of an
        interrupt that came later. ``ends`` says that ``pcm`` is the last audio of its piece of
        speech. Raises Overloaded where 4 calls wait or are being taken in already, InvalidInput
        where the rate or the channels are not allowed, Cancelled where the session has ended.
        """
        if self.waiting >= MOST_WAITING:
            raise Overloaded(
                f"{self.waiting} pieces of audio wait for room; allowed are {MOST_WAITING}",
                retry_after_s=_RETRY_AFTER_S,
            )
        interrupts = self._session.interrupts
        self.waiting += 1
        try:
            async with self._turn:
                await self.push_now(pcm, rate_hz, ends=ends, interrupts=interrupts)
        finally:
            self.waiting -= 1

    async def push_now(self, pcm: Samples, rate_hz: int, *, ends: bool, interrupts: int) -> None:
        """Push ``pcm``, (n, channels) int16 at ``rate_hz``, to the session, and return when all of
        it was taken in or dropped. Waits until the session has room, but not for other calls of
        this object: it is for a caller that makes one call after the other.

        ``interrupts`` is what ``LiveSession.interrupts``, the session's count of interrupts, was
        when the audio came; the audio is dropped where the count has grown since. ``ends`` says
        that ``pcm`` is the last audio of its piece of speech. Raises InvalidInput where the rate or
        the channels are not allowed, and Cancelled where the session has ended; never Overloaded.
        """
        step = max(1, round(rate_hz * _STEP_S))
        for first in range(0, max(1, len(pcm)), step):
            while not await asyncio.to_thread(
                self._pushed, pcm[first : first + step], rate_hz, interrupts
            ):
                await asyncio.sleep(_LOOK_EVERY_S)
        if ends:
            await asyncio.to_thread(self._session.end_of_speech, after_interrupts=interrupts)

    def _pushed(self, pcm: Samples, rate_hz: int, interrupts: int) -> bool:
        try:
            self._session.push(pcm, rate_hz, after_interrupts=interrupts, timeout_s=0)
        except DeadlineExceeded:
            return False
        return True
