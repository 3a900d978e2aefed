"""Rendering a whole recording to a video file or a folder of JPEG files, as fast as the machine
can."""

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from lipwire.audio import Recording, frame_count
from lipwire.compose import JpegFolderWriter, VideoWriter
from lipwire.config import usable_cores
from lipwire.domain import FPS, Float32Array, Progress, UInt8Array
from lipwire.session.lockediterator import LockedIterator
from lipwire.session.offline import animate
from lipwire.session.performer import Performing
from lipwire.session.shutmouth import ShutMouth
from lipwire.session.timing import Stopwatch

MAX_LANES = 16
"""Beyond these the one thread that composes and encodes is what limits the speed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a render uses the machine: the network works on ``lanes`` batches at a time, each batch
    in a thread of its own and of ``batch_size`` frames."""

    batch_size: int
    lanes: int

    @classmethod
    def for_machine(cls, fixed_batch: int | None, cores: int | None = None) -> "Pace":
        """Return the fastest setting on ``cores`` cores (None: all that this process may use): a
        lane for each core, 16 at most. ``fixed_batch`` is the only batch size that the network
        takes; None where it takes any, and batches have 2 frames then.

        A core works on a batch of its own, which is faster than several cores on one. Small batches
        are as fast as large ones on a processor, and take less memory.
        """
        lanes = usable_cores() if cores is None else cores
        return cls(batch_size=fixed_batch or 2, lanes=min(lanes, MAX_LANES))


def render_video(
    performer: Performing,
    recording: Recording,
    writer: VideoWriter,
    *,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Render the avatar ``performer`` saying ``recording`` into ``writer``, a video, waiting until
    all frames are written. Returns what the user should be warned of, one line each, besides
    ``recording.warnings``; often an empty tuple. ``writer`` was opened with the avatar's size and
    the recording's rate and channels; the caller closes it.

    The avatar has to be opened with the part "planes", which has its frames in I420.
    ``start_frame`` (from 0) is the avatar's frame under the first mouth, ``pace`` how the machine
    is used. ``stopwatch`` adds up the time of each stage, and ``progress(done, total)``, numbers of
    frames, is called in this thread after each frame (None: nothing is called). The recording is
    read once: sound and pictures are written side by side, so that neither waits in memory for the
    other.

    Raises InvalidInput where the avatar was opened without that part, or the recording turns out to
    be damaged when the render gets there, FormChanged where a later part of the recording has
    another rate or other channels than its beginning (``lipwire.audio.redone_if_changed`` begins
    again then), StorageFailed where the video cannot be written, AvatarInvalid where the network
    fails, Unavailable where it was unloaded, or the device or server that runs it is gone; for an
    avatar of a server also NotFound where it was removed, AvatarChanged where its network was
    replaced, and Cancelled where the request ends. An error that ``progress`` raises is passed on,
    and so ends the render.
    """
    planes = None  # written over from frame to frame: the encoder has its copy by then
    track = _SoundTrack(recording, writer)
    shut = ShutMouth(performer)
    mouths = _perform(
        performer, recording, track.heard(), start_frame, pace, stopwatch, progress, shut
    )
    with closing(track), closing(mouths):
        for index, background, mouth in mouths:
            with stopwatch.measure("compose"):
                planes = performer.avatar.planes(background, mouth, planes)
            with stopwatch.measure("encode"):
                track.write(until_s=(index + 1) / FPS)
                writer.write_planes(planes)
    track.write(until_s=math.inf)
    return shut.warnings(recording)


def render_frames(
    performer: Performing,
    recording: Recording,
    folder: JpegFolderWriter,
    *,
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Render the avatar ``performer`` saying ``recording`` into ``folder``, one JPEG a frame,
    waiting until all are written. Returns what the user should be warned of, one line each, besides
    ``recording.warnings``; often an empty tuple.

    The avatar has to be opened with the part "jpeg", which has its frames as JPEG. ``start_frame``
    (from 0) is the avatar's frame under the first mouth, ``pace`` how the machine is used.
    ``stopwatch`` adds up the time of each stage, and ``progress(done, total)``, numbers of frames,
    is called in this thread after each frame (None: nothing is called).

    Raises InvalidInput where the avatar was opened without that part, or the recording turns out to
    be damaged when the render gets there, FormChanged where a later part of the recording has
    another rate or other channels than its beginning (``lipwire.audio.redone_if_changed`` begins
    again then), StorageFailed where a file cannot be written, AvatarInvalid where the network
    fails, Unavailable where it was unloaded, or the device or server that runs it is gone; for an
    avatar of a server also NotFound where it was removed, AvatarChanged where its network was
    replaced, and Cancelled where the request ends. An error that ``progress`` raises is passed on,
    and so ends the render.
    """
    heard = LockedIterator(recording.heard())
    shut = ShutMouth(performer)
    mouths = _perform(performer, recording, heard, start_frame, pace, stopwatch, progress, shut)
    with closing(heard), closing(mouths):
        for _, background, mouth in mouths:
            with stopwatch.measure("compose"):
                jpeg = performer.avatar.jpeg(background, mouth)
            with stopwatch.measure("encode"):
                folder.write(jpeg)
    return shut.warnings(recording)


class _SoundTrack:
    """The sound of a recording on its way from the audio's thread, which takes ``heard``, into the
    video of the caller's thread."""

    def __init__(self, recording: Recording, writer: VideoWriter) -> None:
        self._pieces = LockedIterator(recording.pieces())
        self._rate_hz = recording.rate_hz
        self._writer = writer
        self._waiting: deque[Float32Array] = deque()  # (n, channels) float32 each
        self._written_s = 0.0

    def heard(self) -> Iterator[Float32Array]:
        """What the network hears; the sound that belongs to it waits to be written."""
        for piece in self._pieces:
            self._waiting.append(piece.sound)
            yield piece.heard

    def write(self, *, until_s: float) -> None:
        """Write sound until ``until_s`` is reached or none waits."""
        while self._written_s < until_s and self._waiting:
            sound = self._waiting.popleft()
            self._writer.write_audio(sound)
            self._written_s += len(sound) / self._rate_hz

    def close(self) -> None:
        """End ``heard``, whoever takes it."""
        self._pieces.close()


def _perform(
    performer: Performing,
    recording: Recording,
    heard: Iterable[Float32Array],
    start_frame: int,
    pace: Pace,
    stopwatch: Stopwatch,
    progress: Progress | None,
    shut: ShutMouth,
) -> Generator[tuple[int, int, UInt8Array]]:
    """(frame of the video, frame of the avatar, mouth) of each frame; progress is told after it."""
    batches = animate(
        performer,
        heard,
        start_frame=start_frame,
        batch_size=pace.batch_size,
        lanes=pace.lanes,
        stopwatch=stopwatch,
        observer=shut.observe,
    )
    with closing(batches):
        for batch in batches:
            for offset, mouth in enumerate(batch.mouths):
                shut.show(batch.background + offset, mouth)
                yield batch.first + offset, batch.background + offset, mouth
                if progress is not None:
                    progress(batch.first + offset + 1, frame_count(recording.samples))
