"""A compositing server, as a client sees it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc

from lipwire.domain import Unavailable
from lipwire.rpc.backends.statuses import error_of_answer, error_of_call
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub

MAX_MESSAGE_MB: Final = 200
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Composited:
    """Frames, and where the time went."""

    frames: tuple[bytes, ...]
    frame_format: str
    """"jpeg", or "bgr24": height x width x 3 bytes."""
    inference_ms: float
    composite_ms: float
    audio_ms: float
    server_ms: float
    elapsed_ms: float
    """From the call to the answer, as the client's clock has it."""

    @property
    def overhead_ms(self) -> float:
        """What neither the network nor the compositor nor the audio took: gRPC, queues, copies."""
        return max(0.0, self.elapsed_ms - self.inference_ms - self.composite_ms - self.audio_ms)


class CompositingConnection:
    """``CompositingService`` at ``address`` (host:port); a context manager, for many threads.

    Every method raises the errors that the server meant: InvalidInput, NotFound, Overloaded, ...
    """

    def __init__(self, address: str, *, max_message_mb: int = MAX_MESSAGE_MB) -> None:
        limit = max_message_mb * 1024 * 1024
        self.address: Final = address
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", limit),
                ("grpc.max_receive_message_length", limit),
            ],
        )
        self._stub: Any = CompositingServiceStub(self._channel)

    def wait_ready(self, timeout_s: float) -> None:
        """Until there is a connection. Raises Unavailable where there is none in time."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout_s)
        except grpc.FutureTimeoutError:
            raise Unavailable(
                f"no server answered at {self.address} within {timeout_s:g} s"
            ) from None

    def composite(
        self, request: pb.CompositeBatchRequest, timeout_s: float | None = None
    ) -> Composited:
        """The frames of ``request``."""
        started_s = time.perf_counter()
        answer: pb.CompositeBatchResponse = _called(
            lambda: self._stub.InferBatchComposite(request, timeout=timeout_s)
        )
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        _check(answer)
        return Composited(
            frames=tuple(answer.composited_frames),
            frame_format=answer.frame_format,
            inference_ms=answer.inference_time_ms,
            composite_ms=answer.composite_time_ms,
            audio_ms=answer.audio_time_ms,
            server_ms=answer.total_time_ms,
            elapsed_ms=elapsed_ms,
        )

    def models(self, timeout_s: float | None = None) -> list[pb.ModelInfo]:
        """Every avatar that may be asked for, all pages of them."""
        return list(self.listing(timeout_s).models)

    def listing(self, timeout_s: float | None = None) -> pb.ListModelsResponse:
        """All pages of the list as one; ``workers`` and ``detail`` are the last one's."""
        whole = self._page("", timeout_s)
        while whole.next_page_token:
            page = self._page(whole.next_page_token, timeout_s)
            whole.models.extend(page.models)
            whole.next_page_token = page.next_page_token
            whole.workers, whole.detail = page.workers, page.detail
        return whole

    def _page(self, token: str, timeout_s: float | None) -> pb.ListModelsResponse:
        request = pb.ListModelsRequest(page_token=token)
        page: pb.ListModelsResponse = _called(
            lambda: self._stub.ListModels(request, timeout=timeout_s)
        )
        return page

    def load(self, model_id: str, timeout_s: float | None = None) -> pb.LoadModelResponse:
        """Have an avatar ready."""
        request = pb.LoadModelRequest(model_id=model_id)
        answer: pb.LoadModelResponse = _called(
            lambda: self._stub.LoadModel(request, timeout=timeout_s)
        )
        _check(answer)
        return answer

    def unload(self, model_id: str, timeout_s: float | None = None) -> pb.UnloadModelResponse:
        """Let go of an avatar; ``unloaded`` is False where it was not loaded."""
        request = pb.UnloadModelRequest(model_id=model_id)
        answer: pb.UnloadModelResponse = _called(
            lambda: self._stub.UnloadModel(request, timeout=timeout_s)
        )
        _check(answer)
        return answer

    def stats(self, model_id: str = "", timeout_s: float | None = None) -> pb.GetModelStatsResponse:
        """Of one loaded avatar, or of all."""
        request = pb.GetModelStatsRequest(model_id=model_id)
        answer: pb.GetModelStatsResponse = _called(
            lambda: self._stub.GetModelStats(request, timeout=timeout_s)
        )
        return answer

    def health(self, timeout_s: float | None = None) -> pb.HealthResponse:
        """As the server sees itself, and its inference servers."""
        answer: pb.HealthResponse = _called(
            lambda: self._stub.Health(pb.HealthRequest(), timeout=timeout_s)
        )
        return answer

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _called(call: Callable[[], _Answer]) -> _Answer:
    try:
        return call()
    except grpc.RpcError as failure:
        raise error_of_call(failure) from None


def _check(
    answer: pb.CompositeBatchResponse | pb.LoadModelResponse | pb.UnloadModelResponse,
) -> None:
    """Raise what an answer with success = false says."""
    if not answer.success:
        raise error_of_answer(answer.error_code, answer.error)
