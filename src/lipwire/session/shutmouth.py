"""Noticing that the network hears nothing, so that the mouth stays shut, while people hear
sound."""

from typing import Final

import numpy as np

from lipwire.audio import MEL_BANDS, ROW_COLUMNS, AudioEncoder, Recording
from lipwire.domain import Float32Array

_LOUD_RMS: Final = 0.01  # -40 dB of full scale in some second: nobody takes that for silence
_EDGE_FRAMES: Final = 8  # where the sound begins or ends at once, the network hears a click
_SILENCE: Final = -4.0  # every value of the mel spectrogram of silence
_TOLERANCE: Final = 0.01
_MIDDLE_ROW: Final = slice(16, 18)
"""Of a window (32, 16, 16), 16 rows of 512 numbers: the one in the middle."""


class ShutMouth:
    """Compares what the network hears of each frame with what it hears of silence."""

    def __init__(self, encoder: AudioEncoder) -> None:
        """``encoder`` is the avatar's audio encoder, which is asked for windows of silence."""
        mel = np.full((1, 1, MEL_BANDS, ROW_COLUMNS), _SILENCE, np.float32)
        self._silence = encoder.encode(mel).reshape(2, 16, 16)
        self._most = _TOLERANCE * float(np.abs(self._silence).max())
        self._frames = 0
        self._heard_at: int | None = None  # the first frame behind the edge that is not silent

    def observe(self, windows: Float32Array) -> None:
        """Take in the windows of the next frames, (n, 32, 16, 16) float32."""
        if self._heard_at is None:
            differences = np.abs(windows[:, _MIDDLE_ROW] - self._silence).max(axis=(1, 2, 3))
            differences[: max(0, _EDGE_FRAMES - self._frames)] = 0
            heard = np.flatnonzero(differences > self._most)
            self._heard_at = self._frames + int(heard[0]) if len(heard) else None
        self._frames += len(windows)

    def warnings(self, recording: Recording) -> tuple[str, ...]:
        """Return a line for the user where ``recording`` is loud in some second and the network
        heard nothing in all of it; else an empty tuple. Call it once all windows were observed."""
        end = self._frames - _EDGE_FRAMES
        heard = self._heard_at is not None and self._heard_at < end
        if heard or end <= _EDGE_FRAMES or recording.loudest_rms < _LOUD_RMS:
            return ()
        return (
            "the sound is loud and the mouth stays shut throughout: for the network it is silence; "
            "it hears from 55 to 7600 Hz",
        )
