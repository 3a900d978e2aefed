"""compositing.CompositingService: speech in, pictures of a talking face out."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import grpc

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.avatars.registry import Registry
from lipwire.domain import (
    AvatarChanged,
    Float32Array,
    InvalidInput,
    LipwireError,
    Unavailable,
)
from lipwire.rpc.avatars import AvatarsServicer
from lipwire.rpc.backends import Backend, Mouths
from lipwire.rpc.calls import Call, current
from lipwire.rpc.composing import FrameFormat, compose_frames
from lipwire.rpc.errors import is_answer, public_message
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.messages import (
    RawAudio,
    batch_size_of,
    frame_index_of,
    model_id_of,
    raw_audio_of,
    visual_of,
    windows_of,
)
from lipwire.rpc.speech import windows_from_raw

_REVISIONS: Final = 3
"""How often a request begins anew because its avatar has changed."""
_WIRE_NAMES: Final[dict[FrameFormat, str]] = {"jpeg": "jpeg", "raw": "bgr24"}


@dataclass(frozen=True, slots=True)
class _Batch:
    """A request of InferBatchComposite, read and found sound."""

    model_id: str
    count: int
    first: int
    visual: Float32Array | None  # (count, 6, 320, 320)
    speech: Float32Array | RawAudio  # windows: (count, 32, 16, 16)

    @classmethod
    def read(cls, request: pb.CompositeBatchRequest) -> "_Batch":
        """Raises InvalidInput with the value seen and the value allowed."""
        model_id = model_id_of(request.model_id)
        count = batch_size_of(request.batch_size)
        first = frame_index_of(request.start_frame_idx)
        audio = raw_audio_of(
            request.raw_audio,
            sample_rate=request.sample_rate,
            channels=request.channels,
            first_frame=request.audio_start_frame,
        )
        features = request.audio_features  # every access of a bytes field copies it
        if audio is not None and features:
            raise InvalidInput(
                f"audio_features ({len(features)} bytes) and raw_audio are both given; send one"
            )
        speech = audio if audio is not None else windows_of(features, count)
        return cls(model_id, count, first, visual_of(request.visual_frames, count), speech)


class CompositingServicer(AvatarsServicer):
    """Answers for the avatars of one registry, with mouths from one backend.

    Validation, registries and backends raise domain errors. Those that say what is wrong with the
    request become ``success = false``; the others go on to the interceptor, which makes statuses.
    """

    def __init__(
        self,
        backend: Backend,
        avatars: Registry[Avatar],
        *,
        names: Callable[[], Sequence[str]],
        encoder_of: Callable[[Avatar], AudioEncoder],
        frame_format: FrameFormat = "jpeg",
        max_message_bytes: int = 100 * 1024 * 1024,
        inference_url: str = "",
        threads: Executor | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``avatars`` are opened with the part that ``frame_format`` needs (jpeg, or pixels).

        ``names`` gives every avatar that may be asked for, in order. ``encoder_of`` gives the audio
        encoder of an avatar and raises InvalidInput where it has none. ``threads`` compose the
        frames of a batch side by side; without them one comes after the other.
        """
        super().__init__(
            avatars, names=names, networks=backend, inference_url=inference_url, clock=clock
        )
        self._backend = backend
        self._encoder_of = encoder_of
        self._frame_format: FrameFormat = frame_format
        self._max_message_bytes = max_message_bytes
        self._threads = threads

    def InferBatchComposite(  # noqa: N802
        self, request: pb.CompositeBatchRequest, context: grpc.ServicerContext
    ) -> pb.CompositeBatchResponse:
        """1 to 50 frames with the mouths that fit the speech."""
        started = self._clock()
        try:
            answer = self._composite(_Batch.read(request), current())
        except LipwireError as error:
            if not is_answer(error):
                raise
            answer = pb.CompositeBatchResponse(error=public_message(error), error_code=error.code)
        answer.total_time_ms = self._ms_since(started)
        return answer

    def _composite(self, batch: _Batch, call: Call | None) -> pb.CompositeBatchResponse:
        """The frames, all of one revision of the avatar: a package may be replaced at any moment,
        and whoever has the networks looks for that at moments of its own."""
        for _ in range(_REVISIONS):
            try:
                return self._composite_one(batch, call)
            except AvatarChanged:
                self._avatars.load(batch.model_id, timeout_s=_left(call))
        raise Unavailable(
            f"avatar {batch.model_id} is not the same here and where its network is; it is being"
            " replaced, or their folders differ"
        )

    def _composite_one(self, batch: _Batch, call: Call | None) -> pb.CompositeBatchResponse:
        with self._avatars.use(batch.model_id, timeout_s=_left(call)) as avatar:
            self._check_size(batch.count, avatar)
            started = self._clock()
            windows = batch.speech
            audio_ms = 0.0
            if isinstance(windows, RawAudio):
                windows = windows_from_raw(windows, batch.count, self._encoder_of(avatar))
                audio_ms = self._ms_since(started)
            mouths = self._mouths(batch, windows, avatar.revision, call)
            started = self._clock()
            frames = compose_frames(
                avatar,
                batch.first,
                mouths.pixels,
                frame_format=self._frame_format,
                threads=self._threads,
                call=call,
            )
            return pb.CompositeBatchResponse(
                success=True,
                composited_frames=frames,
                gpu_id=mouths.gpu_id,
                inference_time_ms=mouths.inference_ms,
                composite_time_ms=self._ms_since(started),
                frame_format=_WIRE_NAMES[self._frame_format],
                width=avatar.width,
                height=avatar.height,
                audio_time_ms=audio_ms,
            )

    def _mouths(
        self, batch: _Batch, windows: Float32Array, revision: str, call: Call | None
    ) -> Mouths:
        if call is not None:
            call.check()
        if batch.visual is None:
            return self._backend.mouths(
                batch.model_id, batch.first, windows, revision=revision, timeout_s=_left(call)
            )
        floats = self._backend.mouths_of(
            batch.model_id, batch.visual, windows, revision=revision, timeout_s=_left(call)
        )
        return floats.as_mouths()

    def _check_size(self, count: int, avatar: Avatar) -> None:
        """Raw frames are large: better refused than computed and then too big to be sent."""
        if self._frame_format != "raw":
            return
        frame_bytes = avatar.width * avatar.height * 3
        most = (self._max_message_bytes - 1024) // (frame_bytes + 16)
        if count > most:
            raise InvalidInput(
                f"batch_size is {count}; allowed are up to {most} raw frames of {avatar.width} x"
                f" {avatar.height}, as messages have up to {self._max_message_bytes} bytes"
            )

    def _ms_since(self, started: float) -> float:
        return (self._clock() - started) * 1000


def _left(call: Call | None) -> float | None:
    return None if call is None else call.remaining_s()
