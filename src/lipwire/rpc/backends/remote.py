"""Mouths from inference servers: the right server, the next when it fails, in time or not at all.

1. The servers that are up are put in the order of rendezvous hashing on the model's name, so that a
   model's calls go where its weights are (``affinity``, ``fleet``).
2. The first is asked, with what is left of the deadline and ``x-model-id`` in the metadata.
3. What fails and may be repeated goes to the next, or again to the first after a pause
   (``retries``). A server that failed is out until its health checks say otherwise.

With one address nothing is hashed or watched: it may be a load balancer, whose answer to a health
check says nothing about the server that gets the next call.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
import numpy as np

from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    MOUTH_PX,
    DeadlineExceeded,
    Float32Array,
    InvalidInput,
    LipwireError,
    Unavailable,
)
from lipwire.rpc.backends.channels import (
    MAX_MESSAGE_BYTES,
    Caller,
    Connection,
    Pending,
    check_address,
)
from lipwire.rpc.backends.fleet import Fleet, FleetPolicy, Verdict
from lipwire.rpc.backends.protocol import (
    BackendHealth,
    FloatMouths,
    ModelStatus,
    Mouths,
)
from lipwire.rpc.backends.retries import RetryPolicy, Tries
from lipwire.rpc.backends.statuses import error_of_answer, error_of_call, reason_of_call
from lipwire.rpc.backends.transfer import (
    Metadata,
    answer_with,
    array_of,
    check_batch,
    check_name,
    metadata_of,
    request_with,
    status_of,
)
from lipwire.rpc.calls import Call, Cancelled, current
from lipwire.rpc.generated import inference_pb2
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2

DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_MESSAGE_BYTES: Final = 100 * 2**20
HEALTH_TIMEOUT_S: Final = 2.0
"""For asking servers how they are, where the caller sets no limit."""

LOAD_TIMEOUT_S: Final = 120.0
"""For loading, where the caller sets no limit: an avatar may have to be compiled first."""

_SETTLING_S: Final = 0.25
"""In its first moments the backend lets calls wait for the first health check of every server, but
never for more than a quarter of their time."""

_log = logging.getLogger(__name__)

_CHECK_TIMEOUT_S: Final = 1.0
_LARGEST_INDEX: Final = 2**63 - 1

_Answer = TypeVar("_Answer")
_Send = Callable[[Connection, float, Metadata], Pending[_Answer]]


class RemoteBackend:
    """A backend over one or more inference servers; a context manager.

        with RemoteBackend(["10.0.0.1:50051", "10.0.0.2:50051"], max_retries=3) as backend:
            mouths = backend.mouths("anna", 0, windows, timeout_s=2.0)

    Make it in the process that uses it: gRPC's channels do not outlive a fork.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_retries: int = 3,
        max_message_bytes: int = DEFAULT_MESSAGE_BYTES,
        credentials: grpc.ChannelCredentials | None = None,
        retries: RetryPolicy | None = None,
        fleet: FleetPolicy | None = None,
        check_every_s: float = 1.0,
    ) -> None:
        """``urls`` are HOST:PORT; one may be a load balancer. Connects in the background.

        ``timeout_s`` is for a call with all its retries; ``retries`` takes the place of
        ``max_retries``. Without ``credentials`` nothing is encrypted. Raises InvalidInput.
        """
        if not urls or len(set(urls)) != len(urls):
            raise InvalidInput(
                f"inference servers are {list(urls)}, wanted is one or more, each named once"
            )
        for url in urls:
            check_address(url)
        if not 0 < timeout_s < threading.TIMEOUT_MAX:
            raise InvalidInput(f"timeout is {timeout_s} s, wanted is a time above 0")
        if not 0 < max_message_bytes <= MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"messages of {max_message_bytes} bytes, allowed are 1 to {MAX_MESSAGE_BYTES}"
            )
        self._timeout_s = timeout_s
        self._policy = retries or RetryPolicy(max_retries)
        self._random = Random()
        self._clock = time.monotonic
        self._check_every_s = check_every_s
        self._closing = threading.Event()
        self._fleet = Fleet(urls, clock=self._clock, policy=fleet or FleetPolicy())
        self._connections = {
            url: Connection(url, max_message_bytes=max_message_bytes, credentials=credentials)
            for url in urls
        }
        self._watched = len(urls) > 1
        self._settled_by = self._clock() + _SETTLING_S
        self._watcher = threading.Thread(target=self._watch, name="inference-health", daemon=True)
        if self._watched:
            self._watcher.start()

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        timeout_s: float | None = None,
    ) -> Mouths:
        """See ``Backend.mouths``."""
        count = check_batch("windows", windows, AUDIO_WINDOW_SHAPE)
        if not 0 <= first <= _LARGEST_INDEX:
            raise InvalidInput(f"first frame is {first}, allowed are 0 to {_LARGEST_INDEX}")
        check_name(model_id)
        message = mouths_pb2.MouthsRequest(model_id=model_id, count=count, first_frame=first)
        request = request_with(message, {mouths_pb2.MouthsRequest.WINDOWS_FIELD_NUMBER: windows})
        data = self._ask(
            model_id,
            lambda server, left_s, metadata: server.mouths.future(
                request, timeout=left_s, metadata=metadata
            ),
            timeout_s,
            self._timeout_s,
        )
        field = mouths_pb2.MouthsResponse.PIXELS_FIELD_NUMBER
        answer, pixels = answer_with(mouths_pb2.MouthsResponse, data, field)
        pixels = array_of(pixels, (count, MOUTH_PX, MOUTH_PX, 3), np.dtype(np.uint8))
        return Mouths(pixels, answer.gpu_id, answer.inference_time_ms)

    def mouths_of(
        self,
        model_id: str,
        visual: Float32Array,
        windows: Float32Array,
        *,
        timeout_s: float | None = None,
    ) -> FloatMouths:
        """See ``Backend.mouths_of``."""
        count = check_batch("windows", windows, AUDIO_WINDOW_SHAPE)
        if check_batch("visual", visual, (6, MOUTH_PX, MOUTH_PX)) != count:
            raise InvalidInput(f"visual is {len(visual)} frames, windows are for {count}")
        check_name(model_id)
        kind = inference_pb2.InferBatchRequest
        request = request_with(
            kind(model_id=model_id, batch_size=count),
            {
                kind.VISUAL_FRAMES_FIELD_NUMBER: visual,
                kind.AUDIO_FEATURES_FIELD_NUMBER: windows,
            },
        )
        data = self._ask(
            model_id,
            lambda server, left_s, metadata: server.infer_batch.future(
                request, timeout=left_s, metadata=metadata
            ),
            timeout_s,
            self._timeout_s,
        )
        field = inference_pb2.InferBatchResponse.OUTPUT_FIELD_NUMBER
        answer, output = answer_with(inference_pb2.InferBatchResponse, data, field)
        if not answer.success:
            raise error_of_answer(answer.error_code, answer.error)
        values = array_of(output, (count, 3, MOUTH_PX, MOUTH_PX), np.dtype("<f4"))
        return FloatMouths(values, answer.gpu_id, answer.inference_time_ms)

    def load(self, model_id: str, *, timeout_s: float | None = None) -> ModelStatus:
        """See ``Backend.load``. Told to the server that the model's calls go to, and no other:
        on all of them it would take the place of models that are asked for there.
        """
        check_name(model_id)
        served_by = ""

        def send(
            server: Connection, left_s: float, metadata: Metadata
        ) -> Pending[inference_pb2.LoadModelResponse]:
            nonlocal served_by
            served_by = server.address
            request = inference_pb2.LoadModelRequest(model_id=model_id)
            return server.inference.LoadModel.future(request, timeout=left_s, metadata=metadata)

        answer = self._ask(model_id, send, timeout_s, LOAD_TIMEOUT_S)
        if not answer.success:
            raise error_of_answer(answer.error_code, answer.error)
        return status_of(answer.model, served_by)

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        """See ``Backend.unload``. Told to all servers: the model may have been served by any, while
        others were out. One that is out itself need not answer.
        """
        check_name(model_id)
        request = inference_pb2.UnloadModelRequest(model_id=model_id)
        answers = self._tell_all(
            lambda server, left_s: server.inference.UnloadModel.future(
                request, timeout=left_s, metadata=metadata_of(model_id)
            ),
            self._budget_s(timeout_s, current(), self._timeout_s),
        )
        up = set(self._fleet.up()) if self._watched else set(answers)
        for address, answer in answers.items():
            if not isinstance(answer, LipwireError):
                if not answer.success:
                    raise error_of_answer(answer.error_code, answer.error)
            elif address in up or len(answers) == 1:
                raise answer
        return any(not isinstance(a, LipwireError) and a.unloaded for a in answers.values())

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        """See ``Backend.models``. A model that several servers hold is listed for each."""
        request = inference_pb2.GetModelStatsRequest()
        answers = self._tell_all(
            lambda server, left_s: server.inference.GetModelStats.future(request, timeout=left_s),
            self._budget_s(timeout_s, current(), self._timeout_s),
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

    def health(self, *, timeout_s: float | None = None) -> BackendHealth:
        """See ``Backend.health``: healthy while one server is; numbers are sums over all."""
        request = inference_pb2.HealthRequest()
        try:
            answers = self._tell_all(
                lambda server, left_s: server.inference.Health.future(request, timeout=left_s),
                self._budget_s(timeout_s, current(), HEALTH_TIMEOUT_S),
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
        )

    def close(self) -> None:
        """See ``Backend.close``. Calls under way raise Unavailable."""
        self._closing.set()
        self._fleet.wake()
        for connection in self._connections.values():
            connection.close()
        if self._watched and self._watcher is not threading.current_thread():
            self._watcher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self,
        model_id: str,
        send: _Send[_Answer],
        timeout_s: float | None,
        longest_s: float,
    ) -> _Answer:
        """One call with its retries: ``send`` sends it to a server, given the seconds left."""
        call = current()
        budget_s = self._budget_s(timeout_s, call, longest_s)
        deadline = self._clock() + budget_s
        tries = Tries(self._policy, deadline, self._random)
        caller = Caller(call, self._fleet.stir)
        metadata = metadata_of(model_id)
        asked: set[str] = set()
        if self._watched and (settling := self._settled_by - self._clock()) > 0:
            self._fleet.wait_known(min(settling, budget_s / 4))
        while True:
            order = self._fleet.order(model_id)
            server = next((name for name in order if name not in asked), None)
            if server is None:
                asked.clear()
                server = order[0]
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise _late(budget_s)
            if caller.gone:
                raise Cancelled("the caller has gone")
            try:
                return self._try(self._connections[server], send, left_s, metadata, caller)
            except Unavailable as error:
                failed: LipwireError = error
            except DeadlineExceeded as error:
                # The server's own words where it refused; else it is our time that is up.
                raise (error if self._clock() < deadline else _late(budget_s)) from None
            except LipwireError as error:
                failed = error
            asked.add(server)
            another = any(name not in asked for name in self._fleet.order(model_id))
            pause_s = tries.pause_after(failed, another=another, now=self._clock())
            if pause_s is None or self._closing.is_set():
                raise failed
            if pause_s:
                self._fleet.rest(pause_s, lambda: caller.gone)

    def _try(
        self,
        server: Connection,
        send: _Send[_Answer],
        left_s: float,
        metadata: Metadata,
        caller: Caller,
    ) -> _Answer:
        """One try on one server; what goes wrong is told to the fleet."""
        asked_at = self._clock()
        try:
            pending = send(server, left_s, metadata)
        except ValueError:
            raise self._closed() from None  # what gRPC raises for a call on a closed channel
        server.keep(pending)
        caller.hold(pending)
        try:
            answer = pending.result()
        except grpc.FutureCancelledError:
            if self._closing.is_set():
                raise self._closed() from None
            if caller.gone:
                raise Cancelled("the caller has gone") from None
            raise Unavailable("no inference server answers") from None
        except grpc.RpcError as failed:
            if self._closing.is_set():
                raise self._closed() from None
            error = error_of_call(failed)
            if isinstance(error, Unavailable):
                self._lost(server.address, reason_of_call(failed), asked_at)
            elif not isinstance(error, DeadlineExceeded):
                self._fleet.answered(server.address)
            raise error from None
        finally:
            server.done(pending)
            caller.hold(None)
        self._fleet.answered(server.address)
        return answer

    def _budget_s(self, timeout_s: float | None, call: Call | None, longest_s: float) -> float:
        left_s = call.remaining_s() if timeout_s is None and call is not None else timeout_s
        return longest_s if left_s is None else min(left_s, longest_s)

    def _tell_all(
        self,
        send: Callable[[Connection, float], Pending[_Answer]],
        timeout_s: float,
    ) -> dict[str, _Answer | LipwireError]:
        """One call to every server at once, without retries; answer or error by address."""
        if self._closing.is_set():
            raise self._closed()
        answers: dict[str, _Answer | LipwireError] = {}
        try:
            sent = {
                address: send(server, timeout_s) for address, server in self._connections.items()
            }
        except ValueError:
            raise self._closed() from None
        for address, pending in sent.items():
            try:
                answers[address] = pending.result()
            except grpc.FutureCancelledError:
                answers[address] = self._closed()
            except grpc.RpcError as failed:
                answers[address] = error_of_call(failed)
        return answers

    def _lost(self, address: str, reason: str, asked_at: float) -> None:
        if self._watched and self._fleet.lost(address, reason, asked_at=asked_at):
            _log.warning("inference server %s is out: %s", address, reason)

    def _closed(self) -> Unavailable:
        return Unavailable("the connection to the inference servers is closed")

    def _watch(self) -> None:
        """Check every server, again and again."""
        while True:
            for connection in self._connections.values():
                self._check(connection)
            if self._closing.wait(self._check_every_s):
                return

    def _check(self, connection: Connection) -> None:
        asked_at = self._clock()
        address = connection.address

        def tell(verdict: Verdict, reason: str) -> None:
            change = self._fleet.judge(address, verdict, asked_at=asked_at, reason=reason)
            if change == "out":
                _log.warning("inference server %s is out: %s", address, reason)
            elif change == "back":
                _log.info("inference server %s is back", address)
            if verdict == "silent" and (up := self._fleet.up()) and address not in up:
                connection.cancel_all()  # to be tried elsewhere, while there is time

        connection.check(_CHECK_TIMEOUT_S, tell)


def _late(budget_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"no answer of an inference server within {budget_s:.3g} s")
