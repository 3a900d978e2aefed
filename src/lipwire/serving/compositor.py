"""A batch: windows made of the speech, mouths of the windows, and frames of the mouths.

speech ──▶ windows ──▶ the avatar's network: mouths ──▶ pasted and encoded: frames
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal

from lipwire.avatars import Avatar
from lipwire.compose.livevideo import BatchVideoEncoder, check_video_size
from lipwire.domain import (
    AudioWindows,
    AvatarChanged,
    Call,
    InvalidInput,
    Mouths,
    UInt8Array,
    Unavailable,
    Visual,
)
from lipwire.domain.tracing import span
from lipwire.domain.versions import Choose, one_version, who_of
from lipwire.registry import Registry
from lipwire.serving.encoders import AudioEncoders
from lipwire.serving.loadedavatars import LoadedAvatar
from lipwire.serving.speech import RawAudio, windows_from_raw

PictureFormat = Literal["jpeg", "raw"]
"""Each frame by itself."""
FrameFormat = Literal[PictureFormat, "h264"]

DEFAULT_CRF: Final = 23
"""x264's own."""

_REVISIONS: Final = 3
"""How often a batch begins anew because its avatar has changed."""
_FRAMES_A_TASK: Final = 6
"""Fewer are not worth handing to another thread: a JPEG takes some 0.4 ms."""
_FRAME_OVERHEAD_BYTES: Final = 16
_ANSWER_OVERHEAD_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """A request for ``count`` consecutive frames of avatar ``model_id``, from number ``first`` on,
    0 or above; past the avatar's last frame its frames are shown back and forth.

    ``visual`` is what the network is shown, (count, 6, 320, 320) float32; None where it is shown
    the avatar's own frames. ``speech`` is the audio windows, (count, 32, 16, 16) float32, or the
    audio that they are made of (``RawAudio``).
    """

    model_id: str
    count: int
    first: int
    """Number of the first frame, 0 or above; past the avatar's last frame they run back and
    forth."""
    visual: Visual | None
    """(count, 6, 320, 320) float32: what the network is shown in the guide's form. None where it is
    shown the avatar's own frames."""
    speech: AudioWindows | RawAudio
    """(count, 32, 16, 16) float32 windows, or the audio that they are made of."""


@dataclass(frozen=True, slots=True)
class CompositedBatch:
    """The frames of a batch, and how long each step took.

    ``frames`` has the bytes of each frame: a JPEG file; or raw pixels, height x width x 3, BGR; or
    an access unit of H.264. ``width`` and ``height`` are in pixels, both even in H.264. ``gpu_id``
    is the number of the device that made the mouths, as CUDA counts, 0 for a processor.
    ``audio_ms`` is how long it took to make windows of raw audio, 0 where windows were given,
    ``inference_ms`` how long the network ran, and ``composite_ms`` how long it took to paste mouths
    and encode frames.
    """

    frames: list[bytes]
    """JPEG files; or raw pixels: height x width x 3, BGR; or access units of H.264."""
    width: int
    height: int
    """Even in H.264, where a last column or row is repeated."""
    gpu_id: int
    """Number of the device that made the mouths, as CUDA counts; 0 where it was a processor."""
    audio_ms: float
    """How long windows took to be made of raw audio; 0 where windows were given."""
    inference_ms: float
    """How long the network ran, without the time that the batch waited."""
    composite_ms: float
    """How long the mouths took to be pasted, and the frames to be encoded."""


class Compositor:
    """Answers batches, requests for some frames, with the avatars of one registry: has mouths made
    and pastes them into the avatars' frames. Thread-safe."""

    def __init__(
        self,
        avatars: Registry[LoadedAvatar],
        encoders: AudioEncoders,
        *,
        frame_format: FrameFormat = "jpeg",
        crf: int = DEFAULT_CRF,
        max_answer_bytes: int | None = None,
        threads: Executor | None = None,
        choose: Choose = one_version,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``avatars`` are loaded with their frames, and with the part that ``frame_format``
        ("jpeg", "raw" or "h264") needs: jpeg, pixels, or planes for H.264. ``encoders`` make
        windows of raw audio. ``crf`` is the quality of H.264, 1 to 51, less is better.

        Batches whose raw frames take more than ``max_answer_bytes`` are refused (None: none are).
        ``threads`` compose the frames of a batch side by side; without them one comes after the
        other. ``choose`` says of which version of an avatar a batch is made, ``clock`` gives
        seconds.
        """
        self._choose = choose
        self._avatars = avatars
        self._encoders = encoders
        self.frame_format: Final = frame_format
        self._crf = crf
        self._max_answer_bytes = max_answer_bytes
        self._threads = threads
        self._clock = clock

    def composite(self, batch: Batch, call: Call) -> CompositedBatch:
        """Return the frames of ``batch``, all of one revision of the avatar, for the request
        ``call``.

        Where the avatar turns out to have changed meanwhile it is loaded again and the batch begins
        anew, in three attempts at most. Raises InvalidInput where the frames are too large, the
        speech is too short or the avatar has no audio encoder, NotFound and AvatarInvalid where the
        avatar is not there or cannot be loaded, Overloaded where there is no room for the avatar or
        the request, Unavailable where the avatar here and its network are of different revisions in
        all attempts or a server is stopping, DeadlineExceeded and Cancelled where ``call`` ends
        before.
        """
        who = who_of(call.tenant, call.client)
        with self._choose(batch.model_id, who, call.service) as chosen:
            for _ in range(_REVISIONS):
                try:
                    return self._composite(chosen.name, batch, call)
                except AvatarChanged:
                    self._avatars.load(chosen.name, timeout_s=call.remaining_s())
            raise Unavailable(
                f"avatar {batch.model_id} is not the same here and where its network is; it is"
                " being replaced, or their folders differ"
            )

    def _composite(self, name: str, batch: Batch, call: Call) -> CompositedBatch:
        with ExitStack() as stack:
            with span("avatar", avatar=batch.model_id):  # which may have to be loaded
                avatar = stack.enter_context(self._avatars.use(name, timeout_s=call.remaining_s()))
            frames = avatar.frames
            assert frames is not None  # as __init__ asks for
            self._check_size(batch.count, frames)
            windows = batch.speech
            audio_ms = 0.0
            if isinstance(windows, RawAudio):
                started = self._clock()
                with span("audio"), self._encoders.use(avatar.encoder, call) as encoder:
                    windows = windows_from_raw(windows, batch.count, encoder)
                audio_ms = self._ms_since(started)
            call.check()
            with span("mouths", avatar=batch.model_id, frames=batch.count):
                if batch.visual is None:
                    mouths = avatar.network.mouths(batch.first, windows, call=call)
                else:
                    mouths = avatar.network.mouths_of(batch.visual, windows, call=call).as_mouths()
            started = self._clock()
            with span("composite", frames=batch.count, form=self.frame_format):
                composited = self._composed(frames, batch.first, mouths.pixels, call)
            even = int(self.frame_format == "h264")
            return CompositedBatch(
                frames=composited,
                width=frames.width + even * (frames.width % 2),
                height=frames.height + even * (frames.height % 2),
                gpu_id=mouths.gpu_id,
                audio_ms=audio_ms,
                inference_ms=mouths.inference_ms,
                composite_ms=self._ms_since(started),
            )

    def _composed(self, frames: Avatar, first: int, mouths: Mouths, call: Call) -> list[bytes]:
        """Frames in this compositor's format."""
        if self.frame_format == "h264":
            return encode_frames(frames, first, mouths, crf=self._crf, call=call)
        return compose_frames(
            frames,
            first,
            mouths,
            frame_format=self.frame_format,
            threads=self._threads,
            call=call,
        )

    def _check_size(self, count: int, frames: Avatar) -> None:
        """Raw frames are large: better refused than computed and then too big to be sent."""
        if self.frame_format == "h264":
            check_video_size(frames.width, frames.height)
        most_bytes = self._max_answer_bytes
        if self.frame_format != "raw" or most_bytes is None:
            return
        frame_bytes = frames.width * frames.height * 3
        most = (most_bytes - _ANSWER_OVERHEAD_BYTES) // (frame_bytes + _FRAME_OVERHEAD_BYTES)
        if count > most:
            raise InvalidInput(
                f"batch_size is {count}; allowed are up to {most} raw frames of {frames.width} x"
                f" {frames.height}, as messages have up to {most_bytes} bytes"
            )

    def _ms_since(self, started: float) -> float:
        return (self._clock() - started) * 1000


def compose_frames(
    avatar: Avatar,
    first: int,
    mouths: Mouths,
    *,
    frame_format: PictureFormat,
    threads: Executor | None,
    call: Call | None,
) -> list[bytes]:
    """Return frames ``first``, ``first + 1`` and so on of ``avatar`` with ``mouths`` pasted into
    them, one for each of ``mouths``, (N, 320, 320, 3) uint8: JPEG files, or raw pixels (height x
    width x 3, BGR), as ``frame_format`` says.

    ``first`` is 0 or above; past the avatar's last frame its frames are shown back and forth.
    ``threads`` compose several frames side by side; where it is None, the caller's thread composes
    all. Raises InvalidInput where the avatar was opened without the part that ``frame_format``
    needs (jpeg, or pixels for raw), and DeadlineExceeded or Cancelled where ``call``, the request
    that this is for, ends before.
    """
    compose: Callable[[int, UInt8Array], bytes] = (
        avatar.jpeg
        if frame_format == "jpeg"
        else lambda i, mouth: avatar.pixels(i, mouth).tobytes()
    )

    def some(start: int, stop: int) -> list[bytes]:
        frames = []
        for index in range(start, stop):
            if call is not None:
                call.check()
            frames.append(compose(first + index, mouths[index]))
        return frames

    count = len(mouths)
    if threads is None or count <= _FRAMES_A_TASK:
        return some(0, count)
    starts = range(0, count, _FRAMES_A_TASK)
    tasks = [
        threads.submit(some, start, min(start + _FRAMES_A_TASK, count)) for start in starts[1:]
    ]
    try:
        frames = some(0, _FRAMES_A_TASK)
        for task in tasks:
            frames += task.result()
        return frames
    finally:
        # An error must not leave threads inside an avatar that is let go of.
        for task in tasks:
            if not task.cancel():
                task.exception()


def encode_frames(
    avatar: Avatar, first: int, mouths: Mouths, *, crf: int, call: Call | None
) -> list[bytes]:
    """Return frames ``first``, ``first + 1`` and so on of ``avatar`` with ``mouths`` pasted into
    them, one for each of ``mouths``, (N, 320, 320, 3) uint8, as H.264: one access unit for each
    frame, of which the first can be decoded by itself. ``crf`` is their quality, 1 to 51, lower is
    better.

    ``first`` is 0 or above; past the avatar's last frame its frames are shown back and forth.
    Raises InvalidInput where the avatar was opened without the part ``planes``, its frames are too
    large for H.264 or ``crf`` is out of range, and DeadlineExceeded or Cancelled where ``call``,
    the request that this is for, ends before.
    """
    encoder = BatchVideoEncoder(avatar.width, avatar.height, crf)
    planes: UInt8Array | None = None
    frames = []
    for index, mouth in enumerate(mouths, first):
        if call is not None:
            call.check()
        avatar.look_ahead(index)
        planes = avatar.planes(index, mouth, planes)
        frames.append(encoder.encode(planes))
    return frames
