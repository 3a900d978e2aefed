"""Raw audio of a request to the windows that its frames hear."""

from collections.abc import Callable
from typing import Final

import numpy as np

from lipwire.audio import (
    SAMPLES_PER_FRAME,
    AudioEncoder,
    StreamResampler,
    extract_windows,
    frame_count,
)
from lipwire.avatars import Avatar
from lipwire.domain import Float32Array, InvalidInput
from lipwire.rpc.messages import RawAudio

EncoderOf = Callable[[Avatar], AudioEncoder]

_PERIOD_FRAMES: Final = 5
"""Audio may be cut at multiples of this: 5 frames are exactly 16 columns of the mel spectrogram."""
_MARGIN_FRAMES: Final = 15
"""A frame hears rows 8 before to 7 after it, each 16 columns (5 frames) long, and a segment of the
spectrogram reaches 400 samples further; what the cut does to the edges lies beyond."""


def windows_from_raw(audio: RawAudio, count: int, encoder: AudioEncoder) -> Float32Array:
    """(count, 32, 16, 16) float32: the windows that ``extract_windows`` gives for the whole audio,
    bit for bit, from its frame ``audio.first_frame`` on.

    Only what those frames hear is worked on. Raises InvalidInput where the audio ends before.
    """
    resampler = StreamResampler(audio.sample_rate_hz, audio.samples.shape[1])
    pcm = np.concatenate([resampler.push(audio.samples), resampler.flush()])
    first, last = audio.first_frame, audio.first_frame + count
    there = frame_count(len(pcm)) if len(pcm) else 0
    if last > there:
        wanted = f"frame {first}" if count == 1 else f"frames {first} to {last - 1}"
        raise InvalidInput(f"raw_audio is {there} frames of 40 ms long; asked for are its {wanted}")
    begin = max(0, first - _MARGIN_FRAMES) // _PERIOD_FRAMES * _PERIOD_FRAMES
    end = (last + _MARGIN_FRAMES) * SAMPLES_PER_FRAME
    heard = pcm[begin * SAMPLES_PER_FRAME : end]
    return extract_windows(heard, encoder)[first - begin : last - begin]
