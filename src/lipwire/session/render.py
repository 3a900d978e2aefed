"""A whole speech to a file or a folder, as fast as the machine can."""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from lipwire.audio import frame_count
from lipwire.compose import JpegFolderWriter, VideoWriter
from lipwire.config import usable_cores
from lipwire.domain import FPS, Float32Array, UInt8Array
from lipwire.session.offline import animate
from lipwire.session.performer import Performer
from lipwire.session.soundtrack import Track
from lipwire.session.timing import Stopwatch

MAX_LANES = 16
"""Beyond these the one thread that composes and encodes is what limits the speed."""

Progress = Callable[[int, int], None]
"""Called after each frame with how many are done and how many there are in all."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How the machine is used: ``lanes`` batches of ``batch_size`` in the network at a time."""

    batch_size: int
    lanes: int

    @classmethod
    def for_machine(cls, fixed_batch: int | None, cores: int | None = None) -> "Pace":
        """What is fastest on ``cores`` (None: all there are) for a network of that batch.

        A core works on a batch of its own, which is faster than several on one. Small batches are
        as fast as large ones on a processor, and take less memory.
        """
        lanes = usable_cores() if cores is None else cores
        return cls(batch_size=fixed_batch or 2, lanes=min(lanes, MAX_LANES))


def render_video(
    performer: Performer,
    pcm: Float32Array,
    track: Track,
    writer: VideoWriter,
    *,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None = None,
) -> None:
    """Write ``track`` and the face that says it into ``writer``, which has the track's rate.

    ``pcm`` is the same speech as the network hears it, see ``animate``. The avatar has to be opened
    with its "planes". Sound and pictures are handed over side by side, so that neither waits in
    memory for the other.
    """
    heard_s = 0.0
    planes = None  # written over from frame to frame: the encoder has its copy by then
    with closing(_perform(performer, pcm, start_frame, pace, stopwatch, progress)) as mouths:
        for index, background, mouth in mouths:
            with stopwatch.measure("compose"):
                planes = performer.avatar.planes(background, mouth, planes)
            with stopwatch.measure("encode"):
                heard_s = _hand_over(track, writer, heard_s, until_s=(index + 1) / FPS)
                writer.write_planes(planes)
    _hand_over(track, writer, heard_s, until_s=math.inf)


def render_frames(
    performer: Performer,
    pcm: Float32Array,
    folder: JpegFolderWriter,
    *,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None = None,
) -> None:
    """Write the face that says ``pcm`` into ``folder``, one JPEG a frame.

    ``pcm`` is as in ``animate``. The avatar has to be opened with its "jpeg" part.
    """
    with closing(_perform(performer, pcm, start_frame, pace, stopwatch, progress)) as mouths:
        for _, background, mouth in mouths:
            with stopwatch.measure("compose"):
                jpeg = performer.avatar.jpeg(background, mouth)
            with stopwatch.measure("encode"):
                folder.write(jpeg)


def _hand_over(track: Track, writer: VideoWriter, heard_s: float, *, until_s: float) -> float:
    """Write sound until ``until_s`` is reached or none is left; returns how far it has come."""
    while heard_s < until_s and (piece := next(track.pieces, None)) is not None:
        writer.write_audio(piece)
        heard_s += len(piece) / track.rate_hz
    return heard_s


def _perform(
    performer: Performer,
    pcm: Float32Array,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None,
) -> Generator[tuple[int, int, UInt8Array]]:
    """(frame of the video, frame of the avatar, mouth) of each frame; progress is told after it."""
    batches = animate(
        performer,
        pcm,
        start_frame=start_frame,
        batch_size=pace.batch_size,
        lanes=pace.lanes,
        stopwatch=stopwatch,
    )
    total = frame_count(len(pcm))
    with closing(batches):
        for batch in batches:
            for offset, mouth in enumerate(batch.mouths):
                yield batch.first + offset, batch.background + offset, mouth
                if progress is not None:
                    progress(batch.first + offset + 1, total)
