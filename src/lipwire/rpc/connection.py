"""A client's connection to a compositing server."""

import time
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lipwire.domain import LipwireError, Unavailable
from lipwire.domain.closing import Closing
from lipwire.domain.tracing import current_trace, new_trace
from lipwire.rpc.backends.statuses import error_of_answer, error_of_call, error_of_request
from lipwire.rpc.credentials import PLAIN, ClientSecurity
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated import management_pb2
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.reachability import Cause, Peer, cause_of, check_address
from lipwire.rpc.routing import routing
from lipwire.rpc.transport import connecting_within, open_channel

MAX_MESSAGE_MB: Final = 200
_CONNECTED_WITHIN_S: Final = 10.0
_TRY_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Composited:
    """The frames that a server made for one request, each as ``frame_format`` says: "jpeg" (a
    file), "bgr24" (height x width x 3 bytes) or "h264" (an access unit). Times are in milliseconds:
    ``inference_ms`` of the network, ``composite_ms`` of compositing and ``audio_ms`` of the audio
    encoder, ``server_ms`` of the server's whole work, and ``elapsed_ms`` from the call to the
    answer by the client's clock."""

    frames: tuple[bytes, ...]
    frame_format: str
    """"jpeg"; "bgr24": height x width x 3 bytes; or "h264": an access unit."""
    inference_ms: float
    composite_ms: float
    audio_ms: float
    server_ms: float
    elapsed_ms: float
    """From the call to the answer, as the client's clock has it."""

    @property
    def overhead_ms(self) -> float:
        """Milliseconds of ``elapsed_ms`` that were not spent on network, compositing and audio, but
        on gRPC, queues and copies; 0 or more."""
        return max(0.0, self.elapsed_ms - self.inference_ms - self.composite_ms - self.audio_ms)


class CompositingConnection(Closing):
    """A connection to the compositing server at ``address`` (host:port).

    A context manager, for use by many threads. It connects by itself, also anew, when something is
    asked. Methods that ask the server wait for its answer, at most ``timeout_s`` seconds (None:
    without limit), and raise the error that the server sent, such as InvalidInput, NotFound or
    Overloaded; where the server cannot be reached (Unavailable) or does not answer in time
    (DeadlineExceeded), the error has the address, the cause and a hint.
    """

    def __init__(
        self,
        address: str,
        *,
        max_message_mb: int = MAX_MESSAGE_MB,
        use_proxy: bool = False,
        security: ClientSecurity = PLAIN,
    ) -> None:
        """Does not connect yet.

        Messages have at most ``max_message_mb`` MiB. ``use_proxy`` says whether the environment's
        proxy variables count, and ``security`` how the connection is encrypted and what token is
        sent (see ``open_channel``). Raises InvalidInput where ``address`` cannot be an address, a
        file of ``security`` cannot be read, or its token would go to another machine without
        encryption.
        """
        self.address: Final = address
        self._peer: Final = Peer(address, "compositing server", use_proxy)
        check_address(address, self._peer.kind)
        self._channel = open_channel(
            address,
            max_message_bytes=max_message_mb * 1024 * 1024,
            use_proxy=use_proxy,
            security=security,
            options=[connecting_within(_CONNECTED_WITHIN_S)],
        )
        self._stub: Any = CompositingServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the server answers, at most ``timeout_s`` seconds; whether it says that it is
        healthy makes no difference. Raises Unavailable, with the cause, where the server does not
        answer in that time, and at once where waiting would not help, such as where what answers at
        the address does not speak gRPC."""
        until_s = time.monotonic() + timeout_s
        cause: Cause | None = None
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                self._health.Check(health_pb2.HealthCheckRequest(), timeout=left_s)
                return
            except grpc.RpcError as failure:
                code = failure.code()
                if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    return  # it is there, and has another opinion of health checks
                found = cause_of(failure, self._peer.kind, use_proxy=self._peer.use_proxy)
                if found is not None and found.lasting:
                    raise error_of_call(failure, self._peer) from None
                cause = found or cause
            time.sleep(min(_TRY_EVERY_S, left_s))
        raise Unavailable(
            f"no {self._peer.kind} at {self.address} within {timeout_s:g} s: {cause or 'no answer'}"
        )

    def composite(
        self, request: pb.CompositeBatchRequest, timeout_s: float | None = None
    ) -> Composited:
        """Send ``request`` (``lipwire.rpc.requests`` makes some), wait until the server has made
        its frames, and return them. Waits at most ``timeout_s`` seconds (None: without limit).
        Raises the error that the server sent."""
        started_s = time.perf_counter()
        answer: pb.CompositeBatchResponse = self._called(
            self._stub.InferBatchComposite, request, timeout_s
        )
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        return Composited(
            frames=tuple(answer.composited_frames),
            frame_format=answer.frame_format,
            inference_ms=answer.inference_time_ms,
            composite_ms=answer.composite_time_ms,
            audio_ms=answer.audio_time_ms,
            server_ms=answer.total_time_ms,
            elapsed_ms=elapsed_ms,
        )

    def models(self, timeout_s: float | None = None) -> list[management_pb2.ModelInfo]:
        """Return every avatar that the server has, all pages of its list. Waits at most
        ``timeout_s`` seconds (None: without limit). Raises the error that the server sent."""
        return list(self.listing(timeout_s).models)

    def listing(self, timeout_s: float | None = None) -> management_pb2.ListModelsResponse:
        """Return all pages of the server's list of avatars as one message; its ``workers`` and
        ``detail`` are the last page's. Waits at most ``timeout_s`` seconds for each page (None:
        without limit). Raises the error that the server sent."""
        whole = self._page("", timeout_s)
        while whole.next_page_token:
            page = self._page(whole.next_page_token, timeout_s)
            whole.models.extend(page.models)
            whole.next_page_token = page.next_page_token
            whole.workers, whole.detail = page.workers, page.detail
        return whole

    def _page(self, token: str, timeout_s: float | None) -> management_pb2.ListModelsResponse:
        request = management_pb2.ListModelsRequest(page_token=token)
        page: management_pb2.ListModelsResponse = self._called(
            self._stub.ListModels, request, timeout_s
        )
        return page

    def load(
        self, model_id: str, timeout_s: float | None = None
    ) -> management_pb2.LoadModelResponse:
        """Have the server load avatar ``model_id``, wait until that is done, and return the
        server's answer, with the time that loading took. Waits at most ``timeout_s`` seconds (None:
        without limit). Raises the error that the server sent, such as NotFound, AvatarInvalid or
        Overloaded."""
        request = management_pb2.LoadModelRequest(model_id=model_id)
        answer: management_pb2.LoadModelResponse = self._called(
            self._stub.LoadModel, request, timeout_s
        )
        return answer

    def unload(
        self, model_id: str, timeout_s: float | None = None
    ) -> management_pb2.UnloadModelResponse:
        """Have the server unload avatar ``model_id``; ``unloaded`` is False in the answer where it
        was not loaded. Waits at most ``timeout_s`` seconds (None: without limit). Raises the error
        that the server sent."""
        request = management_pb2.UnloadModelRequest(model_id=model_id)
        answer: management_pb2.UnloadModelResponse = self._called(
            self._stub.UnloadModel, request, timeout_s
        )
        return answer

    def stats(self, model_id: str = "", timeout_s: float | None = None) -> pb.GetModelStatsResponse:
        """Return numbers about the avatar ``model_id``, or about all where that is empty, with a
        row for each that is loaded, and counts of the server as a whole. Waits at most
        ``timeout_s`` seconds (None: without limit). Raises the error that the server sent."""
        request = management_pb2.GetModelStatsRequest(model_id=model_id)
        answer: pb.GetModelStatsResponse = self._called(
            self._stub.GetModelStats, request, timeout_s
        )
        return answer

    def health(self, timeout_s: float | None = None) -> pb.HealthResponse:
        """Return the server's own health and that of its inference servers. Waits at most
        ``timeout_s`` seconds (None: without limit). Raises the error that the server sent."""
        answer: pb.HealthResponse = self._called(
            self._stub.Health, management_pb2.HealthRequest(), timeout_s
        )
        return answer

    def _called(self, method: Any, request: object, timeout_s: float | None) -> Any:
        """The answer of the stub's ``method`` to ``request``. Raises what it says."""
        trace = current_trace() or new_trace()
        metadata = (*routing(model_id=getattr(request, "model_id", "")), *trace.headers())
        try:
            answer = method(request, timeout=timeout_s, metadata=metadata)
            if not getattr(answer, "success", True):
                raise error_of_answer(answer.error_code, answer.error)
        except grpc.RpcError as failure:
            raise error_of_request(failure, self._peer, trace) from None
        except LipwireError as error:
            error.request_id = trace.request_id
            raise
        return answer

    def close(self) -> None:
        """Close the connection; calls under way fail, and so do later ones. Closing twice is
        allowed."""
        self._channel.close()
