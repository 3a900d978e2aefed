"""compositing.CompositingService: batches of frames that say a piece of speech."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import grpc

from lipwire.domain import Call, InvalidInput, LipwireError
from lipwire.registry import Registry
from lipwire.rpc.calls import call_of
from lipwire.rpc.errors import refusal
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.services.avatars import AvatarsServicer
from lipwire.rpc.services.messages import (
    batch_size_of,
    frame_index_of,
    model_id_of,
    raw_audio_of,
    visual_of,
    windows_of,
)
from lipwire.serving import (
    Backend,
    Batch,
    CompositedBatch,
    Compositor,
    FrameFormat,
    LoadedAvatar,
)
from lipwire.session.live import LiveSessions

_log: Final = logging.getLogger("lipwire.rpc.times")
_WIRE_NAMES: Final[dict[FrameFormat, str]] = {"jpeg": "jpeg", "raw": "bgr24", "h264": "h264"}


class CompositingServicer(AvatarsServicer):
    """Answers gRPC's CompositingService for the avatars of one registry, with batches of frames
    made by one compositor. gRPC calls its methods, each with a request message and its ``context``,
    which carries the ``Call`` (``call_of``): who asks, and until when.

    Errors that say what is wrong with the request become ``success = false`` in the answer; the
    others are raised, and ``ErrorInterceptor`` makes statuses of them.
    """

    def __init__(
        self,
        compositor: Compositor,
        avatars: Registry[LoadedAvatar],
        networks: Backend,
        *,
        names: Callable[[], Sequence[str]],
        inference_url: str = "",
        sessions: LiveSessions | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``compositor`` makes the frames, of ``avatars``. ``networks`` is the backend that makes
        their mouths. ``names`` returns every avatar that may be asked for, sorted.
        ``inference_url`` is the address of ``networks`` in other processes; empty where they are
        part of ``avatars``. ``sessions`` are the live sessions of this process, where it has any.
        ``clock`` gives seconds."""
        super().__init__(
            avatars,
            names=names,
            networks=networks,
            inference_url=inference_url,
            sessions=sessions,
            clock=clock,
        )
        self._compositor = compositor

    def InferBatchComposite(  # noqa: N802
        self, request: pb.CompositeBatchRequest, context: grpc.ServicerContext
    ) -> pb.CompositeBatchResponse:
        """Return the 1 to 50 frames that ``request`` asks for, with mouths that fit its speech, in
        the compositor's format, and how long each step took in milliseconds. Waits until they are
        made."""
        started = self._clock()
        try:
            call = call_of(context)
            answer = self._answer(self._compositor.composite(_batch_of(request, call), call))
        except LipwireError as error:
            answer = refusal(pb.CompositeBatchResponse, error)
        answer.total_time_ms = (self._clock() - started) * 1000
        return answer

    def _answer(self, made: CompositedBatch) -> pb.CompositeBatchResponse:
        return pb.CompositeBatchResponse(
            success=True,
            composited_frames=made.frames,
            gpu_id=made.gpu_id,
            inference_time_ms=made.inference_ms,
            composite_time_ms=made.composite_ms,
            frame_format=_WIRE_NAMES[self._compositor.frame_format],
            width=made.width,
            height=made.height,
            audio_time_ms=made.audio_ms,
        )


class LoggingCompositingServicer(CompositingServicer):
    """A ``CompositingServicer`` that logs how long each batch took (``log_compositing_times`` in
    the configuration)."""

    def InferBatchComposite(  # noqa: N802
        self, request: pb.CompositeBatchRequest, context: grpc.ServicerContext
    ) -> pb.CompositeBatchResponse:
        """Return the 1 to 50 frames that ``request`` asks for, with mouths that fit its speech, and
        log one line: the times of the batch, or, as a warning, why it was refused."""
        answer = super().InferBatchComposite(request, context)
        if not answer.success:
            _log.warning(
                "%.64s: refused with %s: %s",
                request.model_id,
                answer.error_code,
                answer.error,
                extra={"model": request.model_id[:64], "error_code": answer.error_code},
            )
            return answer
        count = len(answer.composited_frames)
        figures = {
            "model": request.model_id,
            "frames": count,
            "gpu_id": answer.gpu_id,
            "inference_ms": round(answer.inference_time_ms, 2),
            "composite_ms": round(answer.composite_time_ms, 2),
            "audio_ms": round(answer.audio_time_ms, 2),
            "total_ms": round(answer.total_time_ms, 2),
        }
        _log.info(
            "%s: %d frames in %.1f ms (inference %.1f, compositing %.1f, per frame %.2f)",
            request.model_id,
            count,
            answer.total_time_ms,
            answer.inference_time_ms,
            answer.composite_time_ms,
            answer.total_time_ms / count,
            extra=figures,
        )
        return answer


def _batch_of(request: pb.CompositeBatchRequest, call: Call) -> Batch:
    """Raises InvalidInput with the value seen and the value allowed, and NotFound."""
    model_id = model_id_of(request.model_id, call.access)
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
    return Batch(model_id, count, first, visual_of(request.visual_frames, count), speech)
