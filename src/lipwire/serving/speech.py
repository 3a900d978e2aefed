"""From the raw audio of a request to the windows of the frames that are asked for."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.audio import (
    SAMPLES_PER_FRAME,
    AudioEncoder,
    StreamResampler,
    extract_windows,
    frame_count,
    heard_columns,
)
from lipwire.domain import AudioWindows, InvalidInput

_PERIOD_FRAMES: Final = 5
"""Audio may be cut at multiples of this: 5 frames are exactly 16 columns of the mel spectrogram."""
_MARGIN_FRAMES: Final = 15
"""A frame hears rows 8 before to 7 after it, each 16 columns (5 frames) long, and a segment of the
spectrogram reaches 400 samples further; what the cut does to the edges lies beyond."""


@dataclass(frozen=True, slots=True)
class RawAudio:
    """16-bit PCM as a client sent it: ``samples``, (n, channels) int16, a read-only view, of
    ``sample_rate_hz`` samples a second. ``first_frame`` is the first frame of video, 25 a second,
    counted from the first sample, that windows are wanted of."""

    samples: npt.NDArray[np.int16]
    """(n, channels) int16, full scale 32768; a read-only view."""
    sample_rate_hz: int
    first_frame: int
    """The first frame that windows are wanted of, counted from the first sample, 25 a second."""


def windows_from_raw(audio: RawAudio, count: int, encoder: AudioEncoder) -> AudioWindows:
    """Return the audio windows, what the network takes of the sound around each frame, of ``count``
    frames of ``audio`` from its ``first_frame`` on, (count, 32, 16, 16) float32.

    ``audio.samples``, (n, channels) int16, are of ``audio.sample_rate_hz``; a frame is 40 ms. Only
    the audio that the windows depend on is passed to ``encoder``, the avatar's audio encoder; they
    are the same, bit for bit, as if all of it were. Several channels are averaged, or one of them
    is used where the average would cancel out. Raises InvalidInput where the audio ends before the
    last of the frames, or its rate is not 1,000 to 768,000.
    """
    columns = heard_columns(audio.samples, audio.sample_rate_hz)
    resampler = StreamResampler(audio.sample_rate_hz, columns.shape[1])
    pcm = np.concatenate([resampler.push(columns), resampler.flush()])
    first, last = audio.first_frame, audio.first_frame + count
    there = frame_count(len(pcm)) if len(pcm) else 0
    if last > there:
        wanted = f"frame {first}" if count == 1 else f"frames {first} to {last - 1}"
        raise InvalidInput(f"raw_audio is {there} frames of 40 ms long; asked for are its {wanted}")
    begin = max(0, first - _MARGIN_FRAMES) // _PERIOD_FRAMES * _PERIOD_FRAMES
    end = (last + _MARGIN_FRAMES) * SAMPLES_PER_FRAME
    heard = pcm[begin * SAMPLES_PER_FRAME : end]
    return extract_windows(heard, encoder)[first - begin : last - begin]
