"""inference.InferenceService and lipwire.v1.MouthService: the avatars' networks, for whoever asks.

The first speaks the guide's form, frames in and floats out; the second is what Lipwire's own
compositing server uses, frame numbers in and bytes out. Both ask the same backend.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import grpc
import numpy as np

from lipwire.domain import Float32Array, LipwireError
from lipwire.rpc.backends import Backend, FloatMouths, ModelStatus
from lipwire.rpc.calls import current
from lipwire.rpc.errors import is_answer, public_message
from lipwire.rpc.generated import inference_pb2 as pb
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceServicer
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.rpc.generated.lipwire.v1.mouths_pb2_grpc import MouthServiceServicer
from lipwire.rpc.gpustatus import gpu_message
from lipwire.rpc.messages import (
    batch_size_of,
    frame_index_of,
    model_id_of,
    revision_of,
    visual_of,
    windows_of,
)
from lipwire.rpc.pages import page_of
from lipwire.rpc.parsing import with_array

_HEALTH_TIMEOUT_S: Final = 2.0


def _left() -> float | None:
    call = current()
    return None if call is None else call.remaining_s()


class InferenceServicer(InferenceServiceServicer):
    """Answers from one backend. Errors go as with ``CompositingServicer``."""

    def __init__(
        self,
        backend: Backend,
        *,
        names: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``names`` gives every model that may be asked for, in order."""
        self._backend = backend
        self._names = names
        self._clock = clock

    def InferBatch(  # noqa: N802
        self, request: pb.InferBatchRequest, context: grpc.ServicerContext
    ) -> pb.InferBatchResponse:
        """The network's output as it is, for 1 to 50 frames."""
        started = self._clock()
        try:
            answer, output = self._infer(request)
        except LipwireError as error:
            if not is_answer(error):
                raise
            answer = pb.InferBatchResponse(error=public_message(error), error_code=error.code)
            output = None
        answer.total_time_ms = self._ms_since(started)
        if output is None:
            return answer
        return with_array(answer, pb.InferBatchResponse.OUTPUT_FIELD_NUMBER, output)

    def _infer(self, request: pb.InferBatchRequest) -> tuple[pb.InferBatchResponse, Float32Array]:
        model_id = model_id_of(request.model_id)
        count = batch_size_of(request.batch_size)
        first = frame_index_of(request.start_frame_idx)
        windows = windows_of(request.audio_features, count)
        visual = visual_of(request.visual_frames, count)
        revision = revision_of(request.revision)
        floats = (
            self._of_own_frames(model_id, first, windows, revision)
            if visual is None
            else self._backend.mouths_of(
                model_id, visual, windows, revision=revision, timeout_s=_left()
            )
        )
        answer = pb.InferBatchResponse(
            success=True, gpu_id=floats.gpu_id, inference_time_ms=floats.inference_ms
        )
        return answer, floats.values.astype("<f4", copy=False)

    def _of_own_frames(
        self, model_id: str, first: int, windows: Float32Array, revision: str
    ) -> FloatMouths:
        # By frame number a backend gives bytes; as floats they are what those bytes stand for.
        mouths = self._backend.mouths(
            model_id, first, windows, revision=revision, timeout_s=_left()
        )
        values = mouths.pixels.transpose(0, 3, 1, 2) / np.float32(255)
        return FloatMouths(values.astype(np.float32), mouths.gpu_id, mouths.inference_ms)

    def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Every model that may be asked for. A bad page_size is INVALID_ARGUMENT."""
        names = self._names()
        page, token = page_of(names, request.page_size, request.page_token)
        loaded = {status.model_id for status in self._backend.models(timeout_s=_left())}
        return pb.ListModelsResponse(
            models=[
                pb.ModelInfo(model_id=name, loaded=name in loaded, loaded_in=int(name in loaded))
                for name in page
            ],
            next_page_token=token,
            total=len(names),
            workers=1,
        )

    def LoadModel(  # noqa: N802
        self, request: pb.LoadModelRequest, context: grpc.ServicerContext
    ) -> pb.LoadModelResponse:
        """Have the network ready before it is asked for."""
        started = self._clock()
        try:
            status = self._backend.load(model_id_of(request.model_id), timeout_s=_left())
        except LipwireError as error:
            if not is_answer(error):
                raise
            return pb.LoadModelResponse(error=public_message(error), error_code=error.code)
        return pb.LoadModelResponse(
            success=True, load_time_ms=self._ms_since(started), model=_stats_message(status)
        )

    def UnloadModel(  # noqa: N802
        self, request: pb.UnloadModelRequest, context: grpc.ServicerContext
    ) -> pb.UnloadModelResponse:
        """Let go of the network, once requests that use it are done."""
        try:
            unloaded = self._backend.unload(model_id_of(request.model_id), timeout_s=_left())
        except LipwireError as error:
            if not is_answer(error):
                raise
            return pb.UnloadModelResponse(error=public_message(error), error_code=error.code)
        return pb.UnloadModelResponse(success=True, unloaded=unloaded)

    def GetModelStats(  # noqa: N802
        self, request: pb.GetModelStatsRequest, context: grpc.ServicerContext
    ) -> pb.GetModelStatsResponse:
        """What is loaded, one model or all."""
        statuses = self._backend.models(timeout_s=_left())
        wanted = request.model_id
        return pb.GetModelStatsResponse(
            models=[
                _stats_message(status)
                for status in statuses
                if not wanted or status.model_id == wanted
            ],
            loaded_models=len(statuses),
            max_models=self._backend.health(timeout_s=_HEALTH_TIMEOUT_S).max_models,
            memory_bytes=sum(status.memory_bytes for status in statuses),
            workers=1,
        )

    def Health(  # noqa: N802
        self, request: pb.HealthRequest, context: grpc.ServicerContext
    ) -> pb.HealthResponse:
        """Whether a request sent now would be served."""
        health = self._backend.health(timeout_s=_HEALTH_TIMEOUT_S)
        return pb.HealthResponse(
            healthy=health.healthy,
            gpu_count=health.gpu_count,
            loaded_models=health.loaded_models,
            max_models=health.max_models,
            version=health.version,
            detail=health.detail,
            workers=1,
            gpus=[gpu_message(pb.GpuStatus, gpu) for gpu in health.gpus],
        )

    def _ms_since(self, started: float) -> float:
        return (self._clock() - started) * 1000


class MouthServicer(MouthServiceServicer):
    """Mouths by frame number. Whatever goes wrong is a status."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def Mouths(  # noqa: N802
        self, request: mouths_pb2.MouthsRequest, context: grpc.ServicerContext
    ) -> mouths_pb2.MouthsResponse:
        """Consecutive mouths: (count, 320, 320, 3) uint8 in the package's colour order."""
        model_id = model_id_of(request.model_id)
        count = batch_size_of(request.count, "count")
        first = frame_index_of(request.first_frame, "first_frame")
        windows = windows_of(request.windows, count, "windows")
        revision = revision_of(request.revision)
        mouths = self._backend.mouths(
            model_id, first, windows, revision=revision, timeout_s=_left()
        )
        answer = mouths_pb2.MouthsResponse(
            gpu_id=mouths.gpu_id, inference_time_ms=mouths.inference_ms
        )
        field = mouths_pb2.MouthsResponse.PIXELS_FIELD_NUMBER
        return with_array(answer, field, mouths.pixels)


def _stats_message(status: ModelStatus) -> pb.ModelStats:
    return pb.ModelStats(
        model_id=status.model_id,
        memory_bytes=status.memory_bytes,
        uses=status.use_count,
        idle_s=status.idle_s,
        in_use=status.in_use,
        gpu_id=status.gpu_id,
        loaded_in=status.loaded_in,
    )
