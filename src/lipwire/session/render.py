"""A whole speech to a file or a folder, as fast as the machine can."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from lipwire.audio import frame_count
from lipwire.compose import VideoWriter
from lipwire.domain import FPS, Float32Array, UInt8Array
from lipwire.session.jpeg_folder import JpegFolder
from lipwire.session.offline import animate
from lipwire.session.performer import Performer
from lipwire.session.timing import Stopwatch

Progress = Callable[[int, int], None]
"""Called after each frame with how many are done and how many there are in all."""


@dataclass(frozen=True, slots=True)
class Speech:
    """One recording in its two forms, both beginning at the same moment."""

    pcm: Float32Array  # (samples,) float32 at 16 kHz, mono: what the network hears
    track: Float32Array  # (samples,) or (samples, channels) float32: what people hear
    track_rate_hz: int

    @property
    def frames(self) -> int:
        return frame_count(len(self.pcm))


@dataclass(frozen=True, slots=True)
class Pace:
    """How the machine is used: ``lanes`` batches of ``batch_size`` in the network at a time."""

    batch_size: int = 4
    lanes: int = 1


def render_video(
    performer: Performer,
    speech: Speech,
    writer: VideoWriter,
    *,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None = None,
) -> None:
    """Write ``speech`` and the face that says it into ``writer``.

    The avatar has to be opened with its "planes". The sound is handed over frame by frame beside
    the pictures, so that the file's two tracks stay close to each other.
    """
    with closing(_perform(performer, speech, start_frame, pace, stopwatch, progress)) as mouths:
        for index, background, mouth in mouths:
            with stopwatch.measure("compose"):
                planes = performer.avatar.planes(background, mouth)
            with stopwatch.measure("encode"):
                writer.write_planes(planes)
                writer.write_audio(_track_of_frame(speech, index))


def render_frames(
    performer: Performer,
    speech: Speech,
    folder: JpegFolder,
    *,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None = None,
) -> None:
    """Write the face that says ``speech`` into ``folder``, one JPEG a frame.

    The avatar has to be opened with its "jpeg" part.
    """
    with closing(_perform(performer, speech, start_frame, pace, stopwatch, progress)) as mouths:
        for index, background, mouth in mouths:
            with stopwatch.measure("compose"):
                jpeg = performer.avatar.jpeg(background, mouth)
            with stopwatch.measure("encode"):
                folder.write(index, jpeg)


def _perform(
    performer: Performer,
    speech: Speech,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None,
) -> Generator[tuple[int, int, UInt8Array]]:
    """(frame of the video, frame of the avatar, mouth) of each frame; progress is told after it."""
    batches = animate(
        performer,
        speech.pcm,
        start_frame=start_frame,
        batch_size=pace.batch_size,
        lanes=pace.lanes,
        stopwatch=stopwatch,
    )
    with closing(batches):
        for batch in batches:
            for offset, mouth in enumerate(batch.mouths):
                yield batch.first + offset, batch.background + offset, mouth
                if progress is not None:
                    progress(batch.first + offset + 1, speech.frames)


def _track_of_frame(speech: Speech, frame: int) -> Float32Array:
    """The piece of sound that belongs to ``frame``; the last frame takes all that remains."""
    start, end = (index * speech.track_rate_hz // FPS for index in (frame, frame + 1))
    return speech.track[start:] if frame == speech.frames - 1 else speech.track[start:end]
