"""One piece of speech on its way through a session: from its first audio to its last frame."""

from collections import deque
from typing import Final

import numpy as np

from lipwire.domain import AudioWindows, Float32Array, UInt8Array
from lipwire.session.live.arrival import Arrival
from lipwire.session.live.hearing import Heard, SpeechPiece

_SAME_S: Final = 1e-5
_QUIET: Final = 0.01
"""Samples of at most this size, -40 dB of full scale, may be left out."""


class Made:
    """The mouth of one frame that was asked for. ``mouth`` is (320, 320, 3) uint8, None until it is
    made; ``failed`` says that it could not be made."""

    __slots__ = ("failed", "mouth")

    def __init__(self) -> None:
        self.mouth: UInt8Array | None = None
        self.failed = False


class Speech:
    """One piece of speech of a live session, on its way from audio to frames: audio that was not
    worked on yet; for each frame what the network hears (its window), how much of the network's
    mouth it shows (its weight, 0 to 1) and its mouth; and its sound. Its frames are numbered from
    0, 25 a second; ``number`` is the number of the piece of speech, from 1. Not thread-safe: its
    owner calls it under the session's lock.

    ``came`` adds audio, ``take_in`` adds what was made of that audio, and ``take`` removes one
    frame after the other.
    """

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self.incoming: deque[SpeechPiece] = deque()
        """Audio that was not heard yet."""
        self.arrival = Arrival()
        """When its audio came."""
        self.ahead_s = 0.0
        """How much audio from the beginning of a frame on has to have come before it is heard, at
        most."""
        self.waited_s = 0.0
        """Since when more audio is waited for, by the session's clock."""
        self.ended = False
        """No more audio will come."""
        self.begins: int | None = None
        """Position of its first frame; None while none is heard."""
        self.total: int | None = None
        """How many frames it has; None until all of it was heard."""
        self.begun = False
        """Whether its first frame was shown."""
        self.waiting: deque[tuple[int, AudioWindows]] = deque()
        """Frames whose mouths nobody was asked for: (number, its window (1, 32, 16, 16))."""
        self.made: dict[int, Made] = {}
        """Frames whose mouths were asked for and are not shown yet."""
        self.stalled = False
        """Audio was missing, and the next frame is waited for."""
        self.waited = 0
        """Frames in which the next mouth has been waited for."""
        self.spoken_samples = 0
        """Samples of its sound that were given away, or left out."""
        self.captions: deque[tuple[float, str]] = deque()
        """What is said, as text, and how many seconds after its beginning; what was not told."""
        self._first = 0  # number of the frame that _weights begins with
        self._weights: deque[float] = deque()
        self._sound: deque[Float32Array] = deque()
        self._sound_samples = 0

    @property
    def heard(self) -> int:
        """How many of its frames have a window and a weight already: frames 0 to ``heard`` - 1,
        including those that ``take`` has removed."""
        return self._first + len(self._weights)

    @property
    def come_s(self) -> float:
        """How much of its audio has come, in seconds, spoken or not."""
        return self.arrival.come_s

    def came(self, piece: SpeechPiece, now: float) -> None:
        """Add ``piece``, audio that came at time ``now``, in seconds of the session's clock. It is
        kept in ``incoming`` until windows and sound are made of it, and its caption (the text that
        is said) until ``captions_until`` returns it."""
        if piece.caption:
            self.captions.append((self.come_s, piece.caption))
        self.arrival.add(piece.seconds, now)
        self.incoming.append(piece)
        self.waited_s = now

    def captions_until(self, at_s: float) -> list[str]:
        """Remove and return the captions (texts of what is said), in their order, of the audio that
        begins before ``at_s`` seconds from the beginning of this piece of speech."""
        texts = []
        while self.captions and self.captions[0][0] < at_s - _SAME_S:
            texts.append(self.captions.popleft()[1])
        return texts

    def take_in(self, heard: Heard) -> None:
        """Add ``heard``, what was made of this speech's next audio (the windows and weights of its
        next frames, and sound), behind what was added before. Frames with a weight above 0 are also
        added to ``waiting``, because they need mouths."""
        self.ahead_s = max(self.ahead_s, heard.ahead_s)
        for window, weight in zip(heard.windows, heard.weights, strict=True):
            if weight > 0:
                self.waiting.append((self.heard, window[None]))
            self._weights.append(weight)
        if len(heard.sound):
            self._sound.append(heard.sound)
            self._sound_samples += len(heard.sound)

    def weight(self, number: int) -> float:
        """Return how much of the network's mouth frame ``number`` (from 0) of this speech shows, 0
        to 1; the rest is the mouth at rest. The frame's weight has to be known (``number`` <
        ``heard``), and ``take`` not yet called for it."""
        return self._weights[number - self._first]

    def has_sound(self, samples: int) -> bool:
        """Return whether ``take`` can be called: whether the next ``samples`` samples of the sound,
        at the session's rate, are there, or all of the speech was heard, so that no more sound
        follows."""
        return self._sound_samples >= samples or self.total is not None

    def is_quiet(self, samples: int) -> bool:
        """Return whether the next ``samples`` samples of the sound, at the session's rate, are
        there and none of them is above -40 dB of full scale, so that they may be left out. False
        where fewer samples than that are there."""
        for part in self._sound:
            if np.abs(part[:samples]).max(initial=0) > _QUIET:
                return False
            samples -= len(part)
            if samples <= 0:
                return True
        return False

    def take(self, number: int, samples: int) -> tuple[Float32Array, Made | None]:
        """Remove frame ``number``, which has to be the one after the frame that was taken last (0
        at first; this is not checked), and return its sound and its mouth.

        The sound is the next ``samples`` samples at the session's sampling rate, (samples,) float32
        in [-1, 1], filled with silence behind the end. The mouth is a ``Made``, whose ``mouth`` is
        None as long as the network has not made it, where the frame's mouth was asked of the
        network; None where it was not, because the frame shows the mouth at rest.
        """
        taken = np.zeros(samples, np.float32)
        filled = 0
        while filled < samples and self._sound:
            first = self._sound.popleft()
            count = min(len(first), samples - filled)
            taken[filled : filled + count] = first[:count]
            if count < len(first):
                self._sound.appendleft(first[count:])
            filled += count
        self._sound_samples -= filled
        self.spoken_samples += filled
        while self._first <= number and self._weights:
            self._weights.popleft()
            self._first += 1
        return taken, self.made.pop(number, None)
