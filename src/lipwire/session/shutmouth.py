"""Noticing that the mouth stays shut for a whole render while people hear sound.

The network may take for silence what people hear (it hears from 55 to 7600 Hz), or hear something
that is no speech to it: hum, noise, what is left of channels that cancel out. The windows tell the
first, and tell speech by how far they are from those of silence. In between, mouths are looked at:
some that were made are compared with those that the network makes of silence on the same frames of
the avatar. Few recordings come to that.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from lipwire.audio import MEL_BANDS, ROW_COLUMNS, Recording
from lipwire.domain import Float32Array, UInt8Array
from lipwire.session.performer import Performing
from lipwire.session.timing import Stopwatch

_LOUD_RMS: Final = 0.01  # -40 dB of full scale in some second: nobody takes that for silence
_EDGE_FRAMES: Final = 8  # where the sound begins or ends at once, the network hears a click
_SILENCE: Final = -4.0  # every value of the mel spectrogram of silence
_MIDDLE_ROW: Final = slice(16, 18)
"""Of a window (32, 16, 16), 16 rows of 512 numbers: the one in the middle."""

# Differences between a row and that of silence, as parts of the largest number of the latter. With
# the demo avatar's encoder they are up to 6 in speech, 4 in speech that is 30 dB softer, 1 in white
# noise, and 0.3 in hum of 60 Hz.
_HEARD: Final = 0.01
_SPEECH: Final = 1.5
_SPEECH_FRAMES: Final = 3  # with less of it the mouths are looked at

_COMPARED: Final = 6  # mouths, those that are furthest from silence
_APART_FRAMES: Final = 5
_PIXELS: Final = slice(8, None, 16)  # of rows and columns: 20 x 20 of 320 x 320
_MOVED: Final = 8  # of 255, in one of these pixels


@dataclass(frozen=True, slots=True)
class _Shown:
    frame: int  # of the video
    background: int  # of the avatar, before the walk back and forth
    mouth: UInt8Array  # (20, 20, 3) uint8: some of its pixels


class ShutMouth:
    """Follows a render, and says at its end whether the mouth stayed shut under loud sound. The
    render reports each frame twice, in the video's order: what the network hears of the frame by
    ``observe``, and later the frame's mouth by ``show``. The two may be called in two threads."""

    def __init__(self, performer: Performing) -> None:
        """``performer`` is the avatar that is rendered; its audio encoder and network are asked
        for silence."""
        mel = np.full((1, 1, MEL_BANDS, ROW_COLUMNS), _SILENCE, np.float32)
        self._performer = performer
        self._silence = performer.encoder.encode(mel).reshape(2, 16, 16)
        self._scale = float(np.abs(self._silence).max()) or 1.0
        self._distances: list[float] = []  # of each frame's row from that of silence
        self._recent: deque[_Shown] = deque()
        self._furthest: list[_Shown] = []

    def observe(self, windows: Float32Array) -> None:
        """Note ``windows``, what the network hears of the next n frames, (n, 32, 16, 16) float32.
        Call this before ``show`` is called for these frames, always in the same thread."""
        differences = np.abs(windows[:, _MIDDLE_ROW] - self._silence).max(axis=(1, 2, 3))
        self._distances.extend((differences / self._scale).tolist())

    def show(self, background: int, mouth: UInt8Array) -> None:
        """Note the ``mouth``, (320, 320, 3) uint8, of the next frame of the video, which is pasted
        onto frame ``background`` of the avatar. Some of its pixels are copied; the array may be
        reused. Call this once for each frame, in order."""
        frame = self._recent[-1].frame + 1 if self._recent else 0
        self._recent.append(_Shown(frame, background, mouth[_PIXELS, _PIXELS].copy()))
        if len(self._recent) > _EDGE_FRAMES:
            self._keep(self._recent.popleft())

    def warnings(self, recording: Recording) -> tuple[str, ...]:
        """Return one line for the user where ``recording``, the one that was rendered, is loud
        (above -40 dB of full scale) in some second and the mouth was at rest throughout; otherwise
        an empty tuple. Call this after ``observe`` and ``show`` were called for all frames. It may
        run the network up to 6 times, and then raises AvatarInvalid where the network fails,
        Unavailable where it was unloaded, or the device or server that runs it is gone; for an
        avatar of a server also NotFound where it was removed, AvatarChanged where its network was
        replaced, and Cancelled where the request ends."""
        inner = self._distances[_EDGE_FRAMES:-_EDGE_FRAMES]
        if not inner or recording.loudest_rms < _LOUD_RMS:
            return ()
        if max(inner) > _HEARD:
            if sum(distance > _SPEECH for distance in inner) >= _SPEECH_FRAMES or self._moved():
                return ()
            why = "the network hears no speech in it"
        else:
            why = "for the network it is silence; it hears from 55 to 7600 Hz"
        return (f"the sound is loud and the mouth stays shut throughout: {why}",)

    def _keep(self, shown: _Shown) -> None:
        """Keep ``shown`` if it is among those that are furthest from silence and apart."""
        if shown.frame < _EDGE_FRAMES:
            return
        kept = self._furthest
        near = [other for other in kept if shown.frame - other.frame < _APART_FRAMES]
        rivals = near or (kept if len(kept) == _COMPARED else [])
        if rivals:
            least = min(rivals, key=self._distance)
            if self._distance(shown) <= self._distance(least):
                return
            kept.remove(least)
        kept.append(shown)

    def _distance(self, shown: _Shown) -> float:
        return self._distances[shown.frame]

    def _moved(self) -> bool:
        """Whether one of the mouths that were kept is another than at rest."""
        silence = np.tile(self._silence, (16, 1, 1))[np.newaxis]  # (1, 32, 16, 16)
        for shown in self._furthest:
            mouth = self._performer.mouths(shown.background, silence, Stopwatch())[0]
            rest = mouth[_PIXELS, _PIXELS].astype(np.int16)
            if np.abs(shown.mouth - rest).max() > _MOVED:
                return True
        return False
