"""The backend over inference servers: arrays to messages, messages to arrays."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Final

import numpy as np

from lipwire.domain import (
    ANY_REVISION,
    AUDIO_WINDOW_SHAPE,
    MOUTH_PX,
    AudioWindows,
    Call,
    CropsNeeded,
    InvalidInput,
    LipwireError,
    Revision,
    Service,
    Unavailable,
    Visual,
)
from lipwire.domain.closing import Closing
from lipwire.rpc.backends.channels import (
    MAX_MESSAGE_BYTES,
    Connection,
    Pending,
)
from lipwire.rpc.backends.cropswanted import CropsWanted
from lipwire.rpc.backends.fleet import FleetPolicy
from lipwire.rpc.backends.replicas import ReplicaPolicy
from lipwire.rpc.backends.retries import MAX_RETRIES, RetryPolicy
from lipwire.rpc.backends.servers import InferenceServers, Send
from lipwire.rpc.backends.statuses import error_of_answer
from lipwire.rpc.backends.transfer import (
    answer_with,
    array_of,
    check_batch,
    check_name,
    gpu_of,
    request_with,
    status_of,
)
from lipwire.rpc.credentials import PLAIN, ClientSecurity
from lipwire.rpc.generated import inference_pb2, management_pb2
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.rpc.reachability import check_address
from lipwire.rpc.routing import Metadata
from lipwire.serving import BackendHealth, DrawnFloatMouths, DrawnMouths, MakeCrops, ModelStatus

DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_MESSAGE_BYTES: Final = 100 * 2**20
HEALTH_TIMEOUT_S: Final = 2.0
"""For asking servers how they are, where the caller sets no limit."""

LOAD_TIMEOUT_S: Final = 120.0
"""For loading, where the caller sets no limit: an avatar may have to be compiled first."""

_RELEASE_TIMEOUT_S: Final = 2.0

_LOG: Final = logging.getLogger("lipwire.rpc")
_LARGEST_INDEX: Final = 2**63 - 1
_SERVICE_NUMBERS: Final[Mapping[Service, "mouths_pb2.Service.ValueType"]] = {
    "live": mouths_pb2.SERVICE_LIVE,
    "batch": mouths_pb2.SERVICE_BATCH,
    "render": mouths_pb2.SERVICE_RENDER,
}


class RemoteBackend(Closing):
    """Makes mouths, the pictures that avatars' networks draw, by asking one or more inference
    servers (a ``Backend``); a context manager. Methods may be called from any thread, and wait for
    the answer: as long as ``call``, the request that this is done for, has left, and at most 120 s
    for loading and leases, 2 s for health, and 10 s for all else (unless made with another
    ``timeout_s``). ``call`` None is no request in particular. Avatars' names (``model_id``) have 1
    to 255 characters; methods raise InvalidInput for any other.

        with RemoteBackend(["10.0.0.1:50051", "10.0.0.2:50051"], max_retries=3) as backend:
            mouths = backend.mouths("anna", 0, windows, call=Call(2.0))

    Make it in the process that uses it: gRPC's channels do not outlive a fork.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_retries: int = 3,
        max_message_bytes: int = DEFAULT_MESSAGE_BYTES,
        use_proxy: bool = False,
        security: ClientSecurity = PLAIN,
        retries: RetryPolicy | None = None,
        fleet: FleetPolicy | None = None,
        replicas: int | ReplicaPolicy = 1,
        check_every_s: float = 1.0,
    ) -> None:
        """``urls`` are HOST:PORT; one may be a load balancer. Connects in the background.

        ``timeout_s`` is for a call with all its retries, of which there are at most
        ``max_retries``; ``retries`` takes the place of that number. A message has at most
        ``max_message_bytes``. ``use_proxy`` says whether the environment's proxy variables count,
        and ``security`` how connections are encrypted and what token is sent (see
        ``open_channel``). With several servers each gets a health check every ``check_every_s``
        seconds; ``fleet`` says when a server counts as unreachable, and ``replicas`` is how many
        servers at most are asked for one avatar while its calls are more than one server can answer
        in time, or a ``ReplicaPolicy`` that also says when that is so. Raises InvalidInput for
        arguments out of range, an address that cannot be one, and a file of ``security`` that
        cannot be read.
        """
        if not urls or len(set(urls)) != len(urls):
            raise InvalidInput(
                f"inference servers are {list(urls)}, wanted is one or more, each named once"
            )
        for url in urls:
            check_address(url, "inference server")
        if not 0 < timeout_s < threading.TIMEOUT_MAX:
            raise InvalidInput(f"timeout is {timeout_s} s, wanted is a time above 0")
        if not 0 < max_message_bytes <= MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"messages of {max_message_bytes} bytes, allowed are 1 to {MAX_MESSAGE_BYTES}"
            )
        if isinstance(replicas, int):
            replicas = ReplicaPolicy(replicas)
        if not 1 <= replicas.most <= MAX_RETRIES:
            raise InvalidInput(f"replicas is {replicas.most}, allowed are 1 to {MAX_RETRIES}")
        # A lease that a server refuses is asked of the model's other replicas, and of nobody else;
        # one that it does not answer, of the next.
        self._lease_retries = RetryPolicy(replicas.most - 1)
        self._timeout_s = timeout_s
        self._crops_wanted = CropsWanted(time.monotonic)
        self._servers = InferenceServers(
            urls,
            retries=retries or RetryPolicy(max_retries),
            fleet=fleet or FleetPolicy(),
            replicas=replicas,
            max_message_bytes=max_message_bytes,
            use_proxy=use_proxy,
            security=security,
            check_every_s=check_every_s,
        )

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: AudioWindows,
        *,
        revision: Revision = ANY_REVISION,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        """Return mouths for frames ``first``, ``first + 1`` and so on of avatar ``model_id``, one
        for each of ``windows``, what the network hears of a frame: (N, 32, 16, 16) float32 gives
        (N, 320, 320, 3) uint8, in the colour order of the avatar's package (bgr or rgb). Waits for
        the answer.

        ``revision`` is that of the avatar whose frames the mouths will be pasted into (hashes of
        its files; the default fits any). ``crops()`` returns those frames' crops, which the network
        is shown, (N, 320, 320, 3) uint8; it is called, and they are sent, only where a server has
        answered that it is without these frames; None where there are none. ``call`` is the request
        that this is done for; the server is told its class and tenant (None: class batch, no
        tenant).

        Raises AvatarChanged where the server's network is of another revision, CropsNeeded where
        the server is without these frames and ``crops`` is None, NotFound, InvalidInput,
        AvatarInvalid; and where no server answers in time Unavailable, Overloaded,
        DeadlineExceeded, or Cancelled where ``call`` ends first.
        """
        count = check_batch("windows", windows, AUDIO_WINDOW_SHAPE)
        if not 0 <= first <= _LARGEST_INDEX:
            raise InvalidInput(f"first frame is {first}, allowed are 0 to {_LARGEST_INDEX}")
        check_name(model_id)
        kind = mouths_pb2.MouthsRequest
        message = kind(
            model_id=model_id,
            count=count,
            first_frame=first,
            frames_revision=revision.frames,
            model_revision=revision.model,
            service=_SERVICE_NUMBERS["batch" if call is None else call.service],
            tenant="" if call is None else call.tenant,
        )
        speech = {kind.WINDOWS_FIELD_NUMBER: windows}
        small = request_with(message, speech)

        def large() -> bytes:
            assert crops is not None  # asked for only where there are any
            return request_with(message, {**speech, kind.CROPS_FIELD_NUMBER: crops()})

        data = self._ask_for_mouths(model_id, small, None if crops is None else cache(large), call)
        field = mouths_pb2.MouthsResponse.PIXELS_FIELD_NUMBER
        answer, pixels = answer_with(mouths_pb2.MouthsResponse, data, field)
        pixels = array_of(pixels, (count, MOUTH_PX, MOUTH_PX, 3), np.dtype(np.uint8))
        return DrawnMouths(pixels, answer.gpu_id, answer.inference_time_ms, answer.model_revision)

    def _ask_for_mouths(
        self,
        model_id: str,
        small: bytes,
        large: Callable[[], bytes] | None,
        call: Call | None,
    ) -> bytes:
        """The answer to the request ``small``, or to ``large``, which brings crops, of a server
        that needs them."""
        budget_s = _budget_s(call, self._timeout_s)
        until_s = time.monotonic() + budget_s
        asked = ""
        sent = small

        def send(server: Connection, left_s: float, metadata: Metadata) -> Pending[bytes]:
            nonlocal asked, sent
            asked = server.address
            sent = large() if large and (asked, model_id) in self._crops_wanted else small
            return server.mouths.future(sent, timeout=left_s, metadata=metadata)

        while True:
            try:
                left_s = until_s - time.monotonic()
                return self._servers.ask(model_id, send, left_s, call, worked_s=_mouths_worked_s)
            except CropsNeeded:
                if large is None or sent is not small:
                    raise
                if self._crops_wanted.add(asked, model_id):
                    _LOG.info(
                        "inference server %s has not the frames of %s that are here; requests bring"
                        " crops (0.3 MB a frame)",
                        asked,
                        model_id,
                        extra={"model": model_id, "server": asked},
                    )

    def mouths_of(
        self,
        model_id: str,
        visual: Visual,
        windows: AudioWindows,
        *,
        revision: Revision = ANY_REVISION,
        call: Call | None = None,
    ) -> DrawnFloatMouths:
        """Return the network's own output, (N, 3, 320, 320) float32, by custom in [0, 1], of avatar
        ``model_id`` for ``visual`` (N, 6, 320, 320) and ``windows`` (N, 32, 16, 16), float32 both.
        ``visual`` is what the network sees, in [0, 1]: channels 0 to 2 are the crop, 3 to 5 the
        crop with the mouth black (rows 5 to 309 of columns 5 to 314). Colours are in the order of
        the avatar's package (bgr or rgb). Waits for the answer.

        ``revision`` is that of the avatar that the crops are of; the default fits any. Servers are
        not told class and tenant of ``call``, and run this as class batch. Raises AvatarChanged
        where the server's network is of another revision, NotFound, InvalidInput, AvatarInvalid;
        and where no server answers in time Unavailable, Overloaded, DeadlineExceeded, or Cancelled
        where ``call`` ends first.
        """
        count = check_batch("windows", windows, AUDIO_WINDOW_SHAPE)
        if check_batch("visual", visual, (6, MOUTH_PX, MOUTH_PX)) != count:
            raise InvalidInput(f"visual is {len(visual)} frames, windows are for {count}")
        check_name(model_id)
        kind = inference_pb2.InferBatchRequest
        request = request_with(
            kind(
                model_id=model_id,
                batch_size=count,
                frames_revision=revision.frames,
                model_revision=revision.model,
            ),
            {
                kind.VISUAL_FRAMES_FIELD_NUMBER: visual,
                kind.AUDIO_FEATURES_FIELD_NUMBER: windows,
            },
        )
        data = self._servers.ask(
            model_id,
            lambda server, left_s, metadata: server.infer_batch.future(
                request, timeout=left_s, metadata=metadata
            ),
            _budget_s(call, self._timeout_s),
            call,
            worked_s=_floats_worked_s,
        )
        field = inference_pb2.InferBatchResponse.OUTPUT_FIELD_NUMBER
        answer, output = answer_with(inference_pb2.InferBatchResponse, data, field)
        if not answer.success:
            raise error_of_answer(answer.error_code, answer.error)
        values = array_of(output, (count, 3, MOUTH_PX, MOUTH_PX), np.dtype("<f4"))
        return DrawnFloatMouths(values, answer.gpu_id, answer.inference_time_ms)

    def load(self, model_id: str, *, call: Call | None = None) -> ModelStatus:
        """Have the network of avatar ``model_id`` loaded before it is asked for, waiting for that,
        and return its numbers (memory, device, use). ``call`` is the request that this is done for.

        Only the server that this avatar's calls go to is asked. Raises NotFound, AvatarInvalid, and
        where no server answers in time Unavailable, Overloaded or DeadlineExceeded.
        """
        check_name(model_id)
        served_by = ""

        def send(
            server: Connection, left_s: float, metadata: Metadata
        ) -> Pending[management_pb2.LoadModelResponse]:
            nonlocal served_by
            served_by = server.address
            request = management_pb2.LoadModelRequest(model_id=model_id)
            return server.inference.LoadModel.future(request, timeout=left_s, metadata=metadata)

        answer = self._servers.ask(model_id, send, _budget_s(call, LOAD_TIMEOUT_S), call)
        if not answer.success:
            raise error_of_answer(answer.error_code, answer.error)
        return status_of(answer.model, served_by)

    def unload(self, model_id: str, *, call: Call | None = None) -> bool:
        """Have the network of avatar ``model_id`` unloaded in all servers, in each as soon as its
        calls under way are done, which is not waited for. Returns whether any server had it.
        ``call`` is the request that this is done for.

        Raises the error of a server that failed. Where there are several servers, those that a
        health check or a call has found unreachable need not answer. Before Unavailable is raised,
        all servers are asked once more.
        """
        check_name(model_id)
        unloaded, failed = self._tell_to_unload(model_id, call)
        if isinstance(failed, Unavailable):
            again, failed = self._tell_to_unload(model_id, call)
            unloaded = unloaded or again
        if failed is not None:
            raise failed
        return unloaded

    def _tell_to_unload(self, model_id: str, call: Call | None) -> tuple[bool, LipwireError | None]:
        """Whether any server had it, and why one that is up did not answer."""
        request = management_pb2.UnloadModelRequest(model_id=model_id)
        answers = self._servers.tell_all(
            lambda server, left_s, metadata: server.inference.UnloadModel.future(
                request, timeout=left_s, metadata=metadata
            ),
            _budget_s(call, self._timeout_s),
            model_id,
        )
        expected = self._servers.expected()
        unloaded = False
        failed: LipwireError | None = None
        for address, answer in answers.items():
            if isinstance(answer, LipwireError):
                failed = answer if address in expected else failed
            elif answer.success:
                unloaded = unloaded or answer.unloaded
            else:
                raise error_of_answer(answer.error_code, answer.error)
        return unloaded, failed

    def models(self, model_id: str = "", *, call: Call | None = None) -> tuple[ModelStatus, ...]:
        """Return numbers about each loaded network, sorted by name, or about that of avatar
        ``model_id`` alone where one is named; one that several servers hold is listed for each.
        ``call`` is the request that this is done for. Raises the first server's error where no
        server answers."""
        if model_id:
            check_name(model_id)
        request = management_pb2.GetModelStatsRequest(model_id=model_id)
        answers = self._servers.tell_all(
            lambda server, left_s, metadata: server.inference.GetModelStats.future(
                request, timeout=left_s, metadata=metadata
            ),
            _budget_s(call, self._timeout_s),
        )
        found: list[ModelStatus] = []
        errors: list[LipwireError] = []
        for address, answer in answers.items():
            if isinstance(answer, LipwireError):
                errors.append(answer)
            else:
                found += [status_of(model, address) for model in answer.models]
        if len(errors) == len(answers):
            raise errors[0]
        return tuple(sorted(found, key=lambda model: (model.model_id, model.server)))

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Reserve, for 4 seconds (``serving.leases.LEASE_S``), the share of a device's time that a
        live session of avatar ``model_id`` needs (a lease), under the name ``holder`` (the
        session's id), or renew the lease that ``holder`` has. ``call`` is the request that this is
        done for.

        The lease is held at the server that the avatar's calls go to, or at the next one where that
        server cannot be reached. Where a server has no room, the next is asked, up to the number of
        servers for one avatar that this object was created with (``replicas``, 1 by default). A
        lease that ``holder`` had at another server until now ends there. The server that would be
        asked next is sent a request to load the network too, so that the session can go on there
        when its own server fails. Raises Overloaded where there is no room for one more, NotFound
        where there is no such avatar, InvalidInput where ``holder`` has not 1 to 200 characters,
        AvatarInvalid where the network cannot be loaded or fails; and where no server answers in
        time Unavailable, DeadlineExceeded, or Cancelled where ``call`` ends first.
        """
        check_name(model_id)
        request = mouths_pb2.LeaseRequest(holder=holder, model_id=model_id)
        holds = ""

        def send(
            server: Connection, left_s: float, metadata: Metadata
        ) -> Pending[mouths_pb2.LeaseResponse]:
            nonlocal holds
            holds = server.address
            lease: Pending[mouths_pb2.LeaseResponse] = server.leases.Lease.future(
                request, timeout=left_s, metadata=metadata
            )
            return lease

        budget_s = _budget_s(call, LOAD_TIMEOUT_S)
        self._servers.ask(model_id, send, budget_s, call, retries=self._lease_retries)
        left = self._servers.replicas.held(holder, model_id, holds)
        if left:
            self._servers.tell(model_id, left, _release(holder), _RELEASE_TIMEOUT_S)
        load = management_pb2.LoadModelRequest(model_id=model_id)
        self._servers.tell_next(
            model_id,
            holds,
            lambda server, left_s, metadata: server.inference.LoadModel.future(
                load, timeout=left_s, metadata=metadata
            ),
            LOAD_TIMEOUT_S,
        )

    def release(self, holder: str) -> None:
        """End the lease of ``holder`` (see ``acquire``) at all servers, if there is one. Raises
        nothing: at a server that does not answer, the lease ends by itself within 4 seconds."""
        with suppress(LipwireError):
            self._servers.tell_all(
                _release(holder), _RELEASE_TIMEOUT_S, self._servers.replicas.released(holder)
            )

    def health(self, *, call: Call | None = None) -> BackendHealth:
        """Return whether mouths can be had, which is so while at least one server is healthy; waits
        for the servers' answers, 2 s at most. ``call`` is the request that this is done for. Raises
        nothing.

        Numbers are sums over all servers that answer, and the GPUs are those of all of them;
        ``detail`` names the servers that are not healthy or do not answer.
        """
        request = management_pb2.HealthRequest()
        try:
            answers = self._servers.tell_all(
                lambda server, left_s, metadata: server.inference.Health.future(
                    request, timeout=left_s, metadata=metadata
                ),
                _budget_s(call, HEALTH_TIMEOUT_S),
            )
        except LipwireError as error:
            return BackendHealth(False, 0, 0, 0, "", str(error))
        well = [a for a in answers.values() if not isinstance(a, LipwireError)]
        trouble = [
            f"{address}: {answer if isinstance(answer, LipwireError) else answer.detail}"
            for address, answer in answers.items()
            if isinstance(answer, LipwireError) or not answer.healthy
        ]
        return BackendHealth(
            healthy=any(answer.healthy for answer in well),
            gpu_count=sum(answer.gpu_count for answer in well),
            loaded_models=sum(answer.loaded_models for answer in well),
            max_models=sum(answer.max_models for answer in well),
            version=", ".join(sorted({answer.version for answer in well})),
            detail="; ".join(trouble),
            live_sessions=sum(answer.live_sessions for answer in well),
            live_capacity=sum(answer.live_capacity for answer in well),
            gpus=tuple(
                gpu_of(gpu, address)
                for address, answer in answers.items()
                if not isinstance(answer, LipwireError)
                for gpu in answer.gpus
            ),
        )

    def close(self) -> None:
        """Close all connections; calls under way and later ones raise Unavailable. Closing twice is
        allowed. See ``Backend.close``."""
        self._servers.close()


def _mouths_worked_s(data: bytes) -> float:
    field = mouths_pb2.MouthsResponse.PIXELS_FIELD_NUMBER
    return answer_with(mouths_pb2.MouthsResponse, data, field)[0].inference_time_ms / 1000


def _floats_worked_s(data: bytes) -> float:
    field = inference_pb2.InferBatchResponse.OUTPUT_FIELD_NUMBER
    return answer_with(inference_pb2.InferBatchResponse, data, field)[0].inference_time_ms / 1000


def _release(holder: str) -> Send[mouths_pb2.ReleaseLeaseResponse]:
    """What ends the lease of ``holder`` at a server."""
    request = mouths_pb2.ReleaseLeaseRequest(holder=holder)
    return lambda server, left_s, metadata: server.leases.ReleaseLease.future(
        request, timeout=left_s, metadata=metadata
    )


def _budget_s(call: Call | None, longest_s: float) -> float:
    """What is left of the caller's time; ``longest_s`` at most."""
    left_s = None if call is None else call.remaining_s()
    return longest_s if left_s is None else min(left_s, longest_s)
