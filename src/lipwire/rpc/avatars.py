"""compositing.CompositingService without its batches: the avatars that a process holds."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import grpc

import lipwire
from lipwire.avatars import Avatar
from lipwire.avatars.registry import Registry
from lipwire.domain import InvalidInput, LipwireError
from lipwire.rpc.backends import Backend, BackendHealth
from lipwire.rpc.calls import current
from lipwire.rpc.errors import is_answer, public_message
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceServicer
from lipwire.rpc.gpustatus import gpu_message
from lipwire.rpc.messages import model_id_of
from lipwire.rpc.pages import page_of

_HEALTH_TIMEOUT_S: Final = 2.0


class AvatarsServicer(CompositingServiceServicer):
    """Loads, unloads and tells of the avatars of one registry, and of their networks.

    Errors go as with ``CompositingServicer``.
    """

    def __init__(
        self,
        avatars: Registry[Avatar],
        *,
        names: Callable[[], Sequence[str]],
        networks: Backend | None,
        inference_url: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``names`` gives every avatar that may be asked for, in order. ``networks`` are told and
        asked as well; None where somebody else does that."""
        self._avatars = avatars
        self._names = names
        self._networks = networks
        self._inference_url = inference_url
        self._clock = clock

    def InferBatchComposite(  # noqa: N802
        self, request: pb.CompositeBatchRequest, context: grpc.ServicerContext
    ) -> pb.CompositeBatchResponse:
        """Batches are ``CompositingServicer``'s."""
        raise InvalidInput("no batches are made here; ask on the server's port")

    def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Every avatar that may be asked for. A bad page_size is INVALID_ARGUMENT."""
        names = self._names()
        page, token = page_of(names, request.page_size, request.page_token)
        loaded = {item.name for item in self._avatars.stats().items}
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
        """Have the avatar here and its network ready."""
        started = self._clock()
        try:
            model_id = model_id_of(request.model_id)
            self._avatars.load(model_id, timeout_s=_left())
            if self._networks is not None:
                self._networks.load(model_id, timeout_s=_left())
        except LipwireError as error:
            if not is_answer(error):
                raise
            return pb.LoadModelResponse(error=public_message(error), error_code=error.code)
        took_ms = (self._clock() - started) * 1000
        return pb.LoadModelResponse(success=True, load_time_ms=took_ms)

    def UnloadModel(  # noqa: N802
        self, request: pb.UnloadModelRequest, context: grpc.ServicerContext
    ) -> pb.UnloadModelResponse:
        """Let go of the avatar here and of its network."""
        try:
            model_id = model_id_of(request.model_id)
            unloaded = self._avatars.unload(model_id)
            if self._networks is not None:
                unloaded |= self._networks.unload(model_id, timeout_s=_left())
        except LipwireError as error:
            if not is_answer(error):
                raise
            return pb.UnloadModelResponse(error=public_message(error), error_code=error.code)
        return pb.UnloadModelResponse(success=True, unloaded=unloaded)

    def GetModelStats(  # noqa: N802
        self, request: pb.GetModelStatsRequest, context: grpc.ServicerContext
    ) -> pb.GetModelStatsResponse:
        """What is loaded here, one avatar or all, and how well the registry did."""
        stats = self._avatars.stats()
        wanted, now = request.model_id, time.monotonic()  # the registry's clock
        answer = pb.GetModelStatsResponse(
            models=[
                pb.ModelStats(
                    model_id=item.name,
                    memory_bytes=item.bytes,
                    uses=item.uses,
                    idle_s=0.0 if item.pins else max(0.0, now - item.last_used_s),
                    in_use=item.pins,
                    loaded_in=1,
                )
                for item in stats.items
                if not wanted or item.name == wanted
            ],
            loaded_models=len(stats.items),
            max_models=stats.max_items or 0,
            memory_bytes=stats.bytes,
            hits=stats.hits,
            misses=stats.misses,
            evictions=stats.evictions,
            failures=stats.failures,
            workers=1,
        )
        if self._networks is not None and not wanted:
            with suppress(LipwireError):  # frames can be told of without networks
                networks = self._networks.models(timeout_s=_HEALTH_TIMEOUT_S)
                answer.loaded_networks = sum(status.loaded_in for status in networks)
                answer.network_memory_bytes = sum(status.memory_bytes for status in networks)
        return answer

    def Health(  # noqa: N802
        self, request: pb.HealthRequest, context: grpc.ServicerContext
    ) -> pb.HealthResponse:
        """Whether a request sent now would be served."""
        health = self._health()
        stats = self._avatars.stats()
        return pb.HealthResponse(
            healthy=health.healthy,
            loaded_models=len(stats.items),
            max_models=stats.max_items or 0,
            inference_server_url=self._inference_url,
            inference_server_healthy=health.healthy,
            version=lipwire.__version__,
            detail=health.detail,
            workers=1,
            gpus=[gpu_message(pb.GpuStatus, gpu) for gpu in health.gpus],
        )

    def _health(self) -> BackendHealth:
        if self._networks is None:
            return BackendHealth(True, 0, 0, 0, lipwire.__version__)
        return self._networks.health(timeout_s=_HEALTH_TIMEOUT_S)


def _left() -> float | None:
    call = current()
    return None if call is None else call.remaining_s()
