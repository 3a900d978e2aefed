"""Requests for the batches of a recording, in the three forms in which a client can send them.

All give the same frames. Windows are the cheapest where the client has the avatar's audio encoder;
audio needs nothing of the avatar; frames is the guide's own form, 2.4 MB a frame.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from lipwire.audio import frame_count, to_int16
from lipwire.avatars import Avatar
from lipwire.domain import (
    FPS,
    MASK_COLUMNS,
    MASK_ROWS,
    SAMPLE_RATE_HZ,
    AudioWindows,
    Crops,
    Float32Array,
    Visual,
)
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

_FRAME_SAMPLES: Final = SAMPLE_RATE_HZ // FPS
_BEFORE_FRAMES: Final = 20
_AFTER_FRAMES: Final = 15
_ALIGNED_FRAMES: Final = 5
"""Context that a batch's windows depend on, 700 ms before and 460 ms after, generously. Audio cut
at a multiple of five frames, 16 columns of the mel spectrogram, keeps the columns where they are
in the whole recording, and so every window."""


def requests_of_windows(
    model_id: str, windows: AudioWindows, batch_size: int, start_frame: int = 0
) -> Iterator[CompositeBatchRequest]:
    """Yield requests (InferBatchComposite) for N frames in which avatar ``model_id`` says a
    recording. ``windows``, (N, 32, 16, 16) float32, are what the network hears of each frame; each
    request brings those of its frames. Each asks for ``batch_size`` frames (the server allows 1 to
    50), the last for those that are left. ``start_frame`` (from 0) is the avatar's frame that the
    first request begins with."""
    for first in range(0, len(windows), batch_size):
        part = windows[first : first + batch_size]
        yield CompositeBatchRequest(
            model_id=model_id,
            audio_features=np.ascontiguousarray(part, "<f4").tobytes(),
            batch_size=len(part),
            start_frame_idx=start_frame + first,
        )


def requests_of_audio(
    model_id: str, pcm: Float32Array, batch_size: int, start_frame: int = 0
) -> Iterator[CompositeBatchRequest]:
    """Yield requests (InferBatchComposite) for the frames, 25 a second, in which avatar
    ``model_id`` says ``pcm``. Each request brings 16-bit audio and asks for ``batch_size`` frames
    (the server allows 1 to 50), the last for those that are left.

    ``pcm`` is (samples,) float32 at 16 kHz in [-1, 1]; each request brings the part of it that its
    frames depend on. ``start_frame`` (from 0) is the avatar's frame that the first request begins
    with.
    """
    samples = to_int16(pcm)
    frames = frame_count(len(samples))
    for first in range(0, frames, batch_size):
        size = min(batch_size, frames - first)
        cut = max(0, first - _BEFORE_FRAMES) // _ALIGNED_FRAMES * _ALIGNED_FRAMES
        end = (first + size + _AFTER_FRAMES) * _FRAME_SAMPLES
        yield CompositeBatchRequest(
            model_id=model_id,
            raw_audio=samples[cut * _FRAME_SAMPLES : end].tobytes(),
            sample_rate=SAMPLE_RATE_HZ,
            audio_start_frame=first - cut,
            batch_size=size,
            start_frame_idx=start_frame + first,
        )


def requests_of_frames(
    model_id: str, avatar: Avatar, windows: AudioWindows, batch_size: int, start_frame: int = 0
) -> Iterator[CompositeBatchRequest]:
    """Yield the requests of ``requests_of_windows`` for frames of avatar ``model_id``, each also
    with the crops of its frames as the network takes them (``visual_frames``), (frames, 6, 320,
    320) float32, 2.4 MB a frame. The crops are read from ``avatar``, the same avatar opened in this
    process. ``windows`` are (N, 32, 16, 16) float32. Each request asks for ``batch_size`` frames (1
    to 50), the last for those that are left; the first begins with the avatar's frame
    ``start_frame`` (from 0)."""
    for request in requests_of_windows(model_id, windows, batch_size, start_frame):
        first = request.start_frame_idx
        crops = np.stack([avatar.crop(first + i) for i in range(request.batch_size)])
        request.visual_frames = visual_frames(crops).tobytes()
        yield request


def visual_frames(crops: Crops) -> Visual:
    """Return ``crops``, (N, 320, 320, 3) uint8, as the network takes them: a new array, (N, 6, 320,
    320) float32 in [0, 1], little endian. Channels 0 to 2 are those of the crop, in its order, and
    3 to 5 the same with the mouth black (rows 5 to 309 of columns 5 to 314)."""
    visual = np.empty((len(crops), 6, *crops.shape[1:3]), "<f4")
    np.divide(crops.transpose(0, 3, 1, 2), np.float32(255), out=visual[:, :3])
    visual[:, 3:] = visual[:, :3]
    visual[:, 3:, MASK_ROWS, MASK_COLUMNS] = 0
    return visual.view(Visual)
