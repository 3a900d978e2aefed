"""compositing.CompositingService without its batches: listing, loading and unloading of the avatars
that a process holds."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import grpc

import lipwire
from lipwire.domain import Call, InvalidInput, LipwireError
from lipwire.domain.names import canonical_name
from lipwire.registry import Registry
from lipwire.rpc.calls import call_of
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated import management_pb2
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceServicer
from lipwire.rpc.services.management import (
    HEALTH_TIMEOUT_S,
    gpu_message,
    list_models,
    load_model,
    unload_model,
)
from lipwire.serving import Backend, BackendHealth, LoadedAvatar
from lipwire.session.live import LiveSessions


class AvatarsServicer(CompositingServiceServicer):
    """Lists, loads and unloads the avatars of one registry, and their networks: the management
    calls of gRPC's CompositingService. gRPC calls its methods, each with a request message and its
    ``context``, which carries the ``Call`` (``call_of``): who asks, and until when.

    Errors that say what is wrong with the request become ``success = false`` in the answer; the
    others are raised, and ``ErrorInterceptor`` makes statuses of them.
    """

    def __init__(
        self,
        avatars: Registry[LoadedAvatar],
        *,
        names: Callable[[], Sequence[str]],
        networks: Backend | None,
        inference_url: str = "",
        sessions: LiveSessions | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``avatars`` loads avatars. ``names`` returns every avatar that may be asked for, sorted.
        ``networks`` is the backend that is asked for its health and its loaded networks; None where
        another process is asked for these.

        ``inference_url`` is the address of ``networks`` in other processes, whose networks are then
        loaded and unloaded too; empty where they are part of ``avatars``. ``sessions`` are the live
        sessions of this process, where it has any. ``clock`` gives seconds.
        """
        self._avatars = avatars
        self._names = names
        self._networks = networks
        self._remote = networks if inference_url else None
        self._inference_url = inference_url
        self._sessions = sessions
        self._clock = clock

    def InferBatchComposite(  # noqa: N802
        self, request: pb.CompositeBatchRequest, context: grpc.ServicerContext
    ) -> pb.CompositeBatchResponse:
        """Raise InvalidInput, whatever the request: only ``CompositingServicer`` makes batches."""
        raise InvalidInput("no batches are made here; ask on the server's port")

    def ListModels(  # noqa: N802
        self, request: management_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> management_pb2.ListModelsResponse:
        """Return one page of the avatars that may be asked for, and which of them are loaded in
        this process. Raises InvalidInput for a page_size below 0 or above 10000."""
        loaded = {item.name for item in self._avatars.stats().items}
        return list_models(request, self._names(), loaded, call_of(context).access)

    def LoadModel(  # noqa: N802
        self, request: management_pb2.LoadModelRequest, context: grpc.ServicerContext
    ) -> management_pb2.LoadModelResponse:
        """Load the avatar that the request names in this process, and its network where that is in
        another process; return how long that took."""
        call = call_of(context)

        def load(model_id: str) -> None:
            self._avatars.load(model_id, timeout_s=call.remaining_s())
            if self._remote is not None:
                self._remote.load(model_id, call=call)

        return load_model(request, load, self._clock, call.access)

    def UnloadModel(  # noqa: N802
        self, request: management_pb2.UnloadModelRequest, context: grpc.ServicerContext
    ) -> management_pb2.UnloadModelResponse:
        """Unload the avatar that the request names in this process, and its network where that is
        in another process; return whether either was loaded."""

        def unload(model_id: str) -> bool:
            unloaded = self._avatars.unload(model_id)
            if self._remote is not None:
                unloaded |= self._remote.unload(model_id, call=call_of(context))
            return unloaded

        return unload_model(request, unload, call_of(context).access)

    def GetModelStats(  # noqa: N802
        self, request: management_pb2.GetModelStatsRequest, context: grpc.ServicerContext
    ) -> pb.GetModelStatsResponse:
        """Return numbers about the loaded avatar that ``request`` names, or about all where it
        names none, with the registry's counts (hits, misses, evictions, failures). Numbers of
        networks are left out where these cannot be asked within 2 s."""
        access = call_of(context).access
        stats = self._avatars.stats()
        wanted, now = canonical_name(request.model_id), time.monotonic()  # the registry's clock
        answer = pb.GetModelStatsResponse(
            models=[
                management_pb2.ModelStats(
                    model_id=item.name,
                    memory_bytes=item.bytes,
                    uses=item.uses,
                    idle_s=0.0 if item.pins else max(0.0, now - item.last_used_s),
                    in_use=item.pins,
                    loaded_in=1,
                )
                for item in stats.items
                if (not wanted or item.name == wanted) and access.sees(item.name)
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
        if self._networks is not None:
            with suppress(LipwireError):  # frames can be told of without networks
                networks = self._networks.models(wanted, call=Call(HEALTH_TIMEOUT_S))
                if not wanted:
                    answer.loaded_networks = sum(status.loaded_in for status in networks)
                    answer.network_memory_bytes = sum(
                        status.device_bytes if self._remote is None else status.memory_bytes
                        for status in networks
                    )
                running = {status.model_id: status for status in networks}
                for row in answer.models:
                    if (status := running.get(row.model_id)) is not None:
                        row.runner, row.precision = status.runner, status.precision
        return answer

    def Health(  # noqa: N802
        self, request: management_pb2.HealthRequest, context: grpc.ServicerContext
    ) -> pb.HealthResponse:
        """Return whether a batch sent now would probably be served, and which avatars and networks
        are loaded."""
        health = self._health()
        stats = self._avatars.stats()
        active, capacity = self._live(health)
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
            live_sessions=active,
            live_capacity=capacity,
        )

    def _live(self, health: BackendHealth) -> tuple[int, int]:
        """How many live sessions run here, and how many fit."""
        if self._sessions is None:
            return 0, 0
        live = self._sessions.stats()
        capacity = health.live_capacity
        return live.active, capacity if live.most is None else min(capacity, live.most)

    def _health(self) -> BackendHealth:
        if self._networks is None:
            return BackendHealth(True, 0, 0, 0, lipwire.__version__)
        return self._networks.health(call=Call(HEALTH_TIMEOUT_S))
