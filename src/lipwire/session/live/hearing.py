"""A piece of speech from the audio that comes in to what its frames are made of."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.audio import (
    LOOKAHEAD_MS,
    MAX_CHANNELS,
    AudioEncoder,
    EarlyWindowStream,
    StreamResampler,
    check_rate,
    check_samples,
)
from lipwire.domain import SAMPLE_RATE_HZ, AudioWindows, Float32Array, InvalidInput
from lipwire.session.live.gate import SpeechGate
from lipwire.session.live.settings import FRAME_MS, SessionSettings

Pcm = Float32Array | npt.NDArray[np.int16]

STEP_S: Final = 0.5
"""Audio is heard in steps of at most this, so that frames are made in between."""


@dataclass(frozen=True, slots=True)
class SpeechPiece:
    """Audio as it came from a client: ``pcm`` is (n,) or (n, channels), int16 or float32 in [-1,
    1], at ``rate_hz``. ``caption`` is the text that is said from its beginning on; empty where
    unknown."""

    pcm: Pcm
    """(n,) or (n, channels), int16 or float32 in [-1, 1]."""
    rate_hz: int
    caption: str = ""
    """What is said from its beginning on, as text; empty where nobody knows."""

    @property
    def seconds(self) -> float:
        """How long the audio is, in seconds, at its own rate."""
        return len(self.pcm) / self.rate_hz

    @property
    def channels(self) -> int:
        """How many channels the audio has."""
        return 1 if self.pcm.ndim == 1 else self.pcm.shape[1]


def check_piece(pcm: Pcm, rate_hz: int) -> None:
    """Raise InvalidInput where ``pcm`` cannot be audio of a session. Allowed are (n,) and (n,
    channels), n from 0, 1 to 64 channels, int16 or float32 in [-1, 1], without NaN, at a rate
    ``rate_hz`` of 1,000 to 768,000 samples a second."""
    check_rate(rate_hz)
    if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and not 1 <= pcm.shape[1] <= MAX_CHANNELS):
        raise InvalidInput(
            f"audio of shape {pcm.shape}; allowed: (samples,) or (samples, 1 to {MAX_CHANNELS})"
        )
    if pcm.dtype == np.int16:
        return
    if pcm.dtype != np.float32:
        raise InvalidInput(f"audio of type {pcm.dtype}; allowed: int16 or float32")
    check_samples(pcm)


def joined(pieces: deque[SpeechPiece]) -> SpeechPiece:
    """Remove and return, as one piece, the first of ``pieces`` and those behind it with the same
    rate, channels and dtype, up to half a second in all. The first is removed however long it is.
    Its caption is kept only where it is returned alone; else the caption is empty. ``pieces`` must
    not be empty."""
    taken = [pieces.popleft()]
    samples = len(taken[0].pcm)
    form = (taken[0].rate_hz, taken[0].pcm.shape[1:], taken[0].pcm.dtype)
    while pieces and (pieces[0].rate_hz, pieces[0].pcm.shape[1:], pieces[0].pcm.dtype) == form:
        samples += len(pieces[0].pcm)
        if samples > STEP_S * pieces[0].rate_hz:
            break
        taken.append(pieces.popleft())
    if len(taken) == 1:
        return taken[0]
    return SpeechPiece(np.concatenate([piece.pcm for piece in taken]), taken[0].rate_hz)


@dataclass(frozen=True, slots=True)
class Heard:
    """What was made of some audio of one piece of speech. ``windows`` are what the network hears of
    the next n frames, (n, 32, 16, 16) float32; ``weights`` how much of the network's mouth each of
    them shows, 0 to 1; ``sound`` the next samples for listeners, (m,) float32 in [-1, 1]. A window
    is known once ``ahead_s`` seconds of audio from its frame's beginning on have come."""

    windows: AudioWindows
    """(n, 32, 16, 16) float32, of the next n frames."""
    weights: list[float]
    """How much of the network's mouth each of these frames shows, 0 to 1."""
    sound: Float32Array
    """(m,) float32 in [-1, 1], the next samples of what people hear."""
    ahead_s: float = LOOKAHEAD_MS / 1000
    """How much audio from the beginning of a frame on has to have come for its window to be
    known."""


class SpeechReader:
    """Makes of one piece of speech, as its audio comes, what the network hears of each frame
    (windows), how much of the network's mouth the frame shows (weights, 0 to 1) and what people
    hear (sound): push its audio in order, then flush. Not for use from several threads at once."""

    def __init__(self, encoder: AudioEncoder, settings: SessionSettings) -> None:
        """``encoder`` is the avatar's audio encoder. Of ``settings``, ``lookahead_ms`` is how far
        ahead is heard, ``sound_rate_hz`` the rate of the sound, and ``gate`` and
        ``crossfade_frames`` make the weights."""
        self._settings = settings
        self._windows = EarlyWindowStream(encoder, settings.lookahead_ms)
        lookahead = int(settings.lookahead_ms * SAMPLE_RATE_HZ / 1000)
        self._gate = (
            SpeechGate(crossfade_frames=settings.crossfade_frames, lookahead_samples=lookahead)
            if settings.gate
            else None
        )
        self._frames = 0
        self._form: tuple[int, int] | None = None  # rate and channels of what came last
        self._to_network: StreamResampler | None = None
        self._to_sound: StreamResampler | None = None
        # Samples of the current form, and what has become of them for the network and for people.
        self._pushed = self._got = self._sounded = 0

    def push(self, piece: SpeechPiece) -> Heard:
        """Add the audio ``piece`` behind what was pushed before, and return the windows, weights
        and sound that are known with it and were not returned before; there may be none, and
        ``Heard`` then has empty arrays. The rate and channels of ``piece`` may differ from those
        before. Raises InvalidInput where ``piece`` is neither int16 nor float32, or has NaN,
        infinite samples or samples beyond 8.0, more than 64 channels, or a rate outside 1,000 to
        768,000 Hz. Raises an exception of ONNX Runtime where the encoder fails."""
        heard, sound = [], []
        form = (piece.rate_hz, piece.channels)
        if form != self._form:
            before_heard, before_sound = self._end_of_form()
            heard.append(before_heard)
            sound.append(before_sound)
            self._to_network = StreamResampler(*form)
            self._to_sound = StreamResampler(*form, to_hz=self._settings.sound_rate_hz)
            self._form = form
            self._pushed = self._got = self._sounded = 0
        assert self._to_network is not None
        assert self._to_sound is not None
        heard.append(self._to_network.push(piece.pcm))
        sound.append(self._to_sound.push(piece.pcm))
        self._pushed += len(piece.pcm)
        self._got += len(heard[-1])
        self._sounded += len(sound[-1])
        return self._heard(np.concatenate(heard), np.concatenate(sound))

    def flush(self) -> Heard:
        """End the piece of speech, and return the rest of its windows, weights and sound, all that
        ``push`` has not returned; there may be none. Nothing may be pushed after that. Raises an
        exception of ONNX Runtime where the encoder fails."""
        pcm, sound = self._end_of_form()
        known = self._heard(pcm, sound)
        last = self._windows.flush()
        return Heard(
            np.concatenate([known.windows, last]),
            known.weights + self._weights(len(last)),
            known.sound,
            known.ahead_s,
        )

    def _heard(self, pcm: Float32Array, sound: Float32Array) -> Heard:
        if self._gate is not None:
            self._gate.push(pcm)
        windows = self._windows.push(pcm)
        return Heard(windows, self._weights(len(windows)), sound, self._ahead_s)

    def _weights(self, frames: int) -> list[float]:
        if self._gate is not None:
            return self._gate.weights(frames)
        step = 1.0 / (self._settings.crossfade_frames + 1)
        first, self._frames = self._frames, self._frames + frames
        return [min(1.0, (frame + 1) * step) for frame in range(first, self._frames)]

    @property
    def _ahead_s(self) -> float:
        """What the window of a frame takes, or its sound, and what is being resampled now."""
        ahead_s = self._settings.lookahead_ms / 1000
        if self._form is None:
            return ahead_s
        came_s = self._pushed / self._form[0]
        lag_s = max(0.0, came_s - self._got / SAMPLE_RATE_HZ)
        sound_lag_s = max(0.0, came_s - self._sounded / self._settings.sound_rate_hz)
        return max(ahead_s + lag_s, FRAME_MS / 1000 + sound_lag_s)

    def _end_of_form(self) -> tuple[Float32Array, Float32Array]:
        """The last samples of audio of one form, for the network and for people."""
        if self._to_network is None or self._to_sound is None:
            nothing = np.empty(0, np.float32)
            return nothing, nothing
        return self._to_network.flush(), self._to_sound.flush()
