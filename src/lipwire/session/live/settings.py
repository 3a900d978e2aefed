"""How one live session is to behave."""

from dataclasses import dataclass
from typing import Final

from lipwire.audio import LOOKAHEAD_MS
from lipwire.domain import InvalidInput

PIECE_MS: Final = 20
"""Sound leaves a session in pieces of this length."""
FRAME_MS: Final = 40
"""Pictures leave a session at this distance, 25 a second."""

_RATES_HZ: Final = range(8_000, 96_001)


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How one live session is to behave. Raises InvalidInput for numbers out of range.

    ``sound_rate_hz`` is the rate of the sound that leaves, 8,000 to 96,000, in multiples of 50.
    ``start_frame`` (>= 0) is the avatar's frame to begin with. ``lookahead_ms`` (0 to 452.5) is how
    much of the audio behind a frame's beginning is waited for before its mouth is made; with less
    than 452.5 the rest is guessed and speech is shown earlier. ``gate`` keeps the mouth at rest in
    silence, noise and music. ``crossfade_frames`` (0 to 12) are between rest and speech. Speech
    ends by itself where no audio comes for ``end_of_speech_timeout_s`` (0.1 to 60); a sender waits
    while more than ``max_buffered_speech_s`` (1 to 3600) are not spoken yet. With ``paced`` a frame
    leaves each 40 ms, else each when it is made.
    """

    sound_rate_hz: int = 48_000
    """Of the sound that leaves; 8,000 to 96,000, in whole samples per 20 ms."""
    start_frame: int = 0
    """Frame of the avatar that the session begins with, 0 or above."""
    lookahead_ms: float = LOOKAHEAD_MS
    """How much of what follows a frame is heard before its mouth is made, 0 to 452.5. Less than
    452.5 means that the rest is guessed, so that live speech is shown earlier."""
    gate: bool = True
    """Whether the mouth rests while nobody speaks in the audio: in silence, noise and music."""
    crossfade_frames: int = 2
    """Frames in which the mouth passes from rest to speech and back, 0 to 12."""
    end_of_speech_timeout_s: float = 0.5
    """Speech ends when no audio has come for so long, as if the client had said that it ends."""
    max_buffered_speech_s: float = 60.0
    """Speech that has come and is not spoken yet, at most; beyond that the sender waits."""
    paced: bool = True
    """Whether frames leave when their time has come; else as soon as they are made."""

    def __post_init__(self) -> None:
        rate = self.sound_rate_hz
        if rate not in _RATES_HZ or rate * PIECE_MS % 1000:
            raise InvalidInput(
                f"a sound rate of {rate} Hz; allowed: {_RATES_HZ.start} to {_RATES_HZ.stop - 1},"
                f" in multiples of {1000 // PIECE_MS}"
            )
        for name, value, least, most in (
            ("start_frame", self.start_frame, 0, 2**31 - 1),
            ("lookahead_ms", self.lookahead_ms, 0, LOOKAHEAD_MS),
            ("crossfade_frames", self.crossfade_frames, 0, 12),
            ("end_of_speech_timeout", self.end_of_speech_timeout_s, 0.1, 60),
            ("max_buffered_speech", self.max_buffered_speech_s, 1, 3600),
        ):
            if not least <= value <= most:
                raise InvalidInput(f"{name} is {value:g}; allowed: {least} to {most:g}")

    @property
    def piece_samples(self) -> int:
        """Samples of one 20 ms piece of sound, at ``sound_rate_hz``."""
        return self.sound_rate_hz * PIECE_MS // 1000

    @property
    def frame_samples(self) -> int:
        """Samples of the sound of one frame, 40 ms, at ``sound_rate_hz``."""
        return self.sound_rate_hz * FRAME_MS // 1000
