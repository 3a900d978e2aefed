"""inference.InferenceService and lipwire.v1.MouthService: the avatars' networks, for whoever asks.

The first speaks the guide's form, frames in and floats out; the second is what Lipwire's own
compositing server uses, frame numbers in and bytes out. Both ask the same backend.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import grpc
import numpy as np

from lipwire.domain import AudioWindows, Call, Float32Array, LipwireError, Revision
from lipwire.domain.names import canonical_name
from lipwire.rpc.calls import call_of
from lipwire.rpc.errors import refusal
from lipwire.rpc.generated import inference_pb2 as pb
from lipwire.rpc.generated import management_pb2
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceServicer
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.rpc.generated.lipwire.v1.mouths_pb2_grpc import MouthServiceServicer
from lipwire.rpc.parsing import with_array
from lipwire.rpc.services.management import (
    HEALTH_TIMEOUT_S,
    gpu_message,
    list_models,
    load_model,
    unload_model,
)
from lipwire.rpc.services.messages import (
    batch_size_of,
    crops_of,
    frame_index_of,
    model_id_of,
    revision_of,
    service_of,
    tenant_of,
    visual_of,
    windows_of,
)
from lipwire.serving import LEASE_S, Backend, DrawnFloatMouths, DrawnMouths, ModelStatus

_log: Final = logging.getLogger("lipwire.rpc.times")


class InferenceServicer(InferenceServiceServicer):
    """Answers gRPC's InferenceService for the networks of one backend. gRPC calls its methods, each
    with a request message and its ``context``, which carries the ``Call`` (``call_of``): who asks,
    and until when.

    Errors that say what is wrong with the request become ``success = false`` in the answer; the
    others are raised, and ``ErrorInterceptor`` makes statuses of them.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        names: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``backend`` makes the mouths. ``names`` returns every model that may be asked for,
        sorted. ``clock`` gives seconds."""
        self._backend = backend
        self._names = names
        self._clock = clock

    def InferBatch(  # noqa: N802
        self, request: pb.InferBatchRequest, context: grpc.ServicerContext
    ) -> pb.InferBatchResponse:
        """Return the network's own output for the 1 to 50 frames of ``request``, (count, 3, 320,
        320) float32, by custom in [0, 1], in the colour order of the avatar's package (bgr or rgb),
        made from the windows that ``request`` brings (what the network hears of each frame) and
        either its crops or its frame numbers; waits for the network. The returned object is for
        gRPC to send: its fields cannot be read.

        The answer has ``success = false`` for a field out of range, an avatar that does not exist
        or whose network cannot be loaded or fails, and frame numbers where the frames are not here.
        Raises AvatarChanged where the network is of another revision than ``request`` names,
        Overloaded where there is no room for the request, Unavailable where nothing can run the
        network, DeadlineExceeded where time is too short, and Cancelled where the client has
        gone."""
        started = self._clock()
        try:
            answer, output = self._infer(request, call_of(context))
        except LipwireError as error:
            answer = refusal(pb.InferBatchResponse, error)
            output = None
        answer.total_time_ms = (self._clock() - started) * 1000
        if output is None:
            return answer
        return with_array(answer, pb.InferBatchResponse.OUTPUT_FIELD_NUMBER, output)

    def _infer(
        self, request: pb.InferBatchRequest, call: Call
    ) -> tuple[pb.InferBatchResponse, Float32Array]:
        model_id = model_id_of(request.model_id, call.access, versions=True)
        count = batch_size_of(request.batch_size)
        first = frame_index_of(request.start_frame_idx)
        windows = windows_of(request.audio_features, count)
        visual = visual_of(request.visual_frames, count)
        revision = revision_of(request.frames_revision, request.model_revision)
        floats = (
            self._of_own_frames(model_id, first, windows, revision, call)
            if visual is None
            else self._backend.mouths_of(model_id, visual, windows, revision=revision, call=call)
        )
        answer = pb.InferBatchResponse(
            success=True, gpu_id=floats.gpu_id, inference_time_ms=floats.inference_ms
        )
        return answer, floats.values.astype("<f4", copy=False)

    def _of_own_frames(
        self, model_id: str, first: int, windows: AudioWindows, revision: Revision, call: Call
    ) -> DrawnFloatMouths:
        # By frame number a backend gives bytes; as floats they are what those bytes stand for.
        mouths = self._backend.mouths(model_id, first, windows, revision=revision, call=call)
        values = mouths.pixels.transpose(0, 3, 1, 2) / np.float32(255)
        return DrawnFloatMouths(values.astype(np.float32), mouths.gpu_id, mouths.inference_ms)

    def ListModels(  # noqa: N802
        self, request: management_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> management_pb2.ListModelsResponse:
        """Return one page of the models that may be asked for, and which of them are loaded. Raises
        InvalidInput for a page_size below 0 or above 10000."""
        loaded = {status.model_id for status in self._backend.models(call=call_of(context))}
        return list_models(request, self._names(), loaded, call_of(context).access)

    def LoadModel(  # noqa: N802
        self, request: management_pb2.LoadModelRequest, context: grpc.ServicerContext
    ) -> management_pb2.LoadModelResponse:
        """Load the network of the avatar that ``request`` names, so that it is ready before it is
        asked for, wait for that, and return how long it took."""
        call = call_of(context)
        return load_model(
            request,
            lambda model_id: _stats_message(self._backend.load(model_id, call=call)),
            self._clock,
            call.access,
            versions=True,
        )

    def UnloadModel(  # noqa: N802
        self, request: management_pb2.UnloadModelRequest, context: grpc.ServicerContext
    ) -> management_pb2.UnloadModelResponse:
        """Have the network of the avatar that ``request`` names unloaded as soon as requests that
        use it are done, without waiting for these; return whether it was loaded."""
        call = call_of(context)
        return unload_model(
            request,
            lambda model_id: self._backend.unload(model_id, call=call),
            call.access,
            versions=True,
        )

    def GetModelStats(  # noqa: N802
        self, request: management_pb2.GetModelStatsRequest, context: grpc.ServicerContext
    ) -> pb.GetModelStatsResponse:
        """Return numbers about the loaded network of the avatar that the request names, or about
        all loaded ones where it names none."""
        call = call_of(context)
        statuses = self._backend.models(call=call)
        wanted = canonical_name(request.model_id)
        return pb.GetModelStatsResponse(
            models=[
                _stats_message(status)
                for status in statuses
                if (not wanted or status.model_id == wanted) and call.access.sees(status.model_id)
            ],
            loaded_models=len(statuses),
            max_models=self._backend.health(call=Call(HEALTH_TIMEOUT_S)).max_models,
            memory_bytes=sum(status.memory_bytes for status in statuses),
            workers=1,
        )

    def Health(  # noqa: N802
        self, request: management_pb2.HealthRequest, context: grpc.ServicerContext
    ) -> pb.HealthResponse:
        """Return whether a request sent now would probably be served, and which networks are
        loaded."""
        health = self._backend.health(call=Call(HEALTH_TIMEOUT_S))
        return pb.HealthResponse(
            healthy=health.healthy,
            gpu_count=health.gpu_count,
            loaded_models=health.loaded_models,
            max_models=health.max_models,
            version=health.version,
            detail=health.detail,
            workers=1,
            gpus=[gpu_message(pb.GpuStatus, gpu) for gpu in health.gpus],
            live_sessions=health.live_sessions,
            live_capacity=health.live_capacity,
        )


class MouthServicer(MouthServiceServicer):
    """Answers gRPC's MouthService: makes mouths for the frames that a request names by number, as
    work of the class (live, batch or render) and the tenant that it names. gRPC calls its methods,
    each with a request message and its ``context``, which carries the ``Call`` (``call_of``): who
    asks, and until when. Every error is raised, and ``ErrorInterceptor`` makes a status of it."""

    def __init__(self, backend: Backend) -> None:
        """``backend`` makes the mouths."""
        self._backend = backend

    def Mouths(  # noqa: N802
        self, request: mouths_pb2.MouthsRequest, context: grpc.ServicerContext
    ) -> mouths_pb2.MouthsResponse:
        """Return the mouths of the 1 to 50 consecutive frames that ``request`` names, (count, 320,
        320, 3) uint8 in the colour order of the avatar's package (bgr or rgb), made from the
        windows that ``request`` brings (what the network hears of each frame); waits for the
        network. The returned object is for gRPC to send: its fields cannot be read.

        Raises InvalidInput for a field out of range, NotFound where there is no such avatar, or the
        caller may not use it, AvatarChanged where the network is of another revision than
        ``request`` names, CropsNeeded where the avatar's frames are not here and ``request`` brings
        no crops, AvatarInvalid where the network cannot be loaded or fails, Overloaded where there
        is no room for the request, Unavailable where nothing can run the network, DeadlineExceeded
        where time is too short, and Cancelled where the client has gone."""
        mouths = self._draw(request, call_of(context))
        answer = mouths_pb2.MouthsResponse(
            gpu_id=mouths.gpu_id,
            inference_time_ms=mouths.inference_ms,
            model_revision=mouths.revision,
        )
        field = mouths_pb2.MouthsResponse.PIXELS_FIELD_NUMBER
        return with_array(answer, field, mouths.pixels)

    def Lease(  # noqa: N802
        self, request: mouths_pb2.LeaseRequest, context: grpc.ServicerContext
    ) -> mouths_pb2.LeaseResponse:
        """Reserve the network's time for the live session that ``request`` names (a lease), for its
        avatar, or renew the lease that it has; the answer says for how many seconds (4). Raises
        Overloaded where there is no room for one more, NotFound where there is no such avatar, or
        the caller may not use it, InvalidInput where the session's name has not 1 to 200
        characters or that of the avatar cannot be one, AvatarInvalid where the network cannot be
        loaded or fails, Unavailable where nothing can run it, DeadlineExceeded where time is too
        short, and Cancelled where the client has gone."""
        call = call_of(context)
        model_id = model_id_of(request.model_id, call.access, versions=True)
        self._backend.acquire(request.holder, model_id, call)
        return mouths_pb2.LeaseResponse(lasts_s=LEASE_S)

    def ReleaseLease(  # noqa: N802
        self, request: mouths_pb2.ReleaseLeaseRequest, context: grpc.ServicerContext
    ) -> mouths_pb2.ReleaseLeaseResponse:
        """End what the live session that the request names has reserved of this server's device
        (its lease), and answer; nothing is changed where it has reserved nothing."""
        self._backend.release(request.holder)
        return mouths_pb2.ReleaseLeaseResponse()

    def _draw(self, request: mouths_pb2.MouthsRequest, call: Call) -> DrawnMouths:
        model_id = model_id_of(request.model_id, call.access, versions=True)
        count = batch_size_of(request.count, "count")
        first = frame_index_of(request.first_frame, "first_frame")
        windows = windows_of(request.windows, count, "windows")
        revision = revision_of(request.frames_revision, request.model_revision)
        crops = crops_of(request.crops, count)
        call = call.classed(service_of(request.service), call.tenant or tenant_of(request.tenant))
        return self._backend.mouths(
            model_id,
            first,
            windows,
            revision=revision,
            crops=None if crops is None else lambda: crops,
            call=call,
        )


class LoggingInferenceServicer(InferenceServicer):
    """An ``InferenceServicer`` that logs for each batch how long the network ran
    (``log_inference_times`` in the configuration)."""

    def _infer(
        self, request: pb.InferBatchRequest, call: Call
    ) -> tuple[pb.InferBatchResponse, Float32Array]:
        answer, output = super()._infer(request, call)
        _log_inference(request.model_id, len(output), answer.gpu_id, answer.inference_time_ms)
        return answer, output


class LoggingMouthServicer(MouthServicer):
    """A ``MouthServicer`` that logs for each batch how long the network ran
    (``log_inference_times`` in the configuration)."""

    def _draw(self, request: mouths_pb2.MouthsRequest, call: Call) -> DrawnMouths:
        mouths = super()._draw(request, call)
        _log_inference(request.model_id, len(mouths.pixels), mouths.gpu_id, mouths.inference_ms)
        return mouths


def _log_inference(model_id: str, frames: int, gpu_id: int, inference_ms: float) -> None:
    _log.info(
        "%s: inference of %d frames took %.1f ms (per frame %.2f)",
        model_id,
        frames,
        inference_ms,
        inference_ms / frames,
        extra={
            "model": model_id,
            "frames": frames,
            "gpu_id": gpu_id,
            "inference_ms": round(inference_ms, 2),
        },
    )


def _stats_message(status: ModelStatus) -> management_pb2.ModelStats:
    return management_pb2.ModelStats(
        model_id=status.model_id,
        memory_bytes=status.memory_bytes,
        uses=status.use_count,
        idle_s=status.idle_s,
        in_use=status.in_use,
        gpu_id=status.gpu_id,
        loaded_in=status.loaded_in,
        runner=status.runner,
        precision=status.precision,
        revision=status.revision,
    )
