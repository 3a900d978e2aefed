"""Mouths from inference servers: what is asked and answered as arrays, and as messages."""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import grpc
import numpy as np

from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    MOUTH_PX,
    Float32Array,
    InvalidInput,
    LipwireError,
    Unavailable,
)
from lipwire.rpc.backends.channels import (
    MAX_MESSAGE_BYTES,
    Connection,
    Pending,
    check_address,
)
from lipwire.rpc.backends.fleet import FleetPolicy
from lipwire.rpc.backends.protocol import (
    BackendHealth,
    FloatMouths,
    ModelStatus,
    Mouths,
)
from lipwire.rpc.backends.retries import RetryPolicy
from lipwire.rpc.backends.servers import InferenceServers
from lipwire.rpc.backends.statuses import error_of_answer
from lipwire.rpc.backends.transfer import (
    Metadata,
    answer_with,
    array_of,
    check_batch,
    check_name,
    gpu_of,
    metadata_of,
    request_with,
    status_of,
)
from lipwire.rpc.calls import current
from lipwire.rpc.generated import inference_pb2
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2

DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_MESSAGE_BYTES: Final = 100 * 2**20
HEALTH_TIMEOUT_S: Final = 2.0
"""For asking servers how they are, where the caller sets no limit."""

LOAD_TIMEOUT_S: Final = 120.0
"""For loading, where the caller sets no limit: an avatar may have to be compiled first."""

_LARGEST_INDEX: Final = 2**63 - 1


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
        self._servers = InferenceServers(
            urls,
            retries=retries or RetryPolicy(max_retries),
            fleet=fleet or FleetPolicy(),
            max_message_bytes=max_message_bytes,
            credentials=credentials,
            check_every_s=check_every_s,
        )

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> Mouths:
        """See ``Backend.mouths``."""
        count = check_batch("windows", windows, AUDIO_WINDOW_SHAPE)
        if not 0 <= first <= _LARGEST_INDEX:
            raise InvalidInput(f"first frame is {first}, allowed are 0 to {_LARGEST_INDEX}")
        check_name(model_id)
        message = mouths_pb2.MouthsRequest(
            model_id=model_id, count=count, first_frame=first, revision=revision
        )
        request = request_with(message, {mouths_pb2.MouthsRequest.WINDOWS_FIELD_NUMBER: windows})
        data = self._servers.ask(
            model_id,
            lambda server, left_s, metadata: server.mouths.future(
                request, timeout=left_s, metadata=metadata
            ),
            _budget_s(timeout_s, self._timeout_s),
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
        revision: str = "",
        timeout_s: float | None = None,
    ) -> FloatMouths:
        """See ``Backend.mouths_of``."""
        count = check_batch("windows", windows, AUDIO_WINDOW_SHAPE)
        if check_batch("visual", visual, (6, MOUTH_PX, MOUTH_PX)) != count:
            raise InvalidInput(f"visual is {len(visual)} frames, windows are for {count}")
        check_name(model_id)
        kind = inference_pb2.InferBatchRequest
        request = request_with(
            kind(model_id=model_id, batch_size=count, revision=revision),
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
            _budget_s(timeout_s, self._timeout_s),
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

        answer = self._servers.ask(model_id, send, _budget_s(timeout_s, LOAD_TIMEOUT_S))
        if not answer.success:
            raise error_of_answer(answer.error_code, answer.error)
        return status_of(answer.model, served_by)

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        """See ``Backend.unload``. Told to all servers: the model may have been served by any, while
        others were out. One that is out itself need not answer; one that was out when it was told
        and has come back is told again.
        """
        check_name(model_id)
        unloaded, failed = self._tell_to_unload(model_id, timeout_s)
        if isinstance(failed, Unavailable):
            again, failed = self._tell_to_unload(model_id, timeout_s)
            unloaded = unloaded or again
        if failed is not None:
            raise failed
        return unloaded

    def _tell_to_unload(
        self, model_id: str, timeout_s: float | None
    ) -> tuple[bool, LipwireError | None]:
        """Whether any server had it, and why one that is up did not answer."""
        request = inference_pb2.UnloadModelRequest(model_id=model_id)
        answers = self._servers.tell_all(
            lambda server, left_s: server.inference.UnloadModel.future(
                request, timeout=left_s, metadata=metadata_of(model_id)
            ),
            _budget_s(timeout_s, self._timeout_s),
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

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        """See ``Backend.models``. A model that several servers hold is listed for each."""
        request = inference_pb2.GetModelStatsRequest()
        answers = self._servers.tell_all(
            lambda server, left_s: server.inference.GetModelStats.future(request, timeout=left_s),
            _budget_s(timeout_s, self._timeout_s),
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
        """See ``Backend.health``: healthy while one server is; numbers are sums over all,
        and GPUs are those of all that answer."""
        request = inference_pb2.HealthRequest()
        try:
            answers = self._servers.tell_all(
                lambda server, left_s: server.inference.Health.future(request, timeout=left_s),
                _budget_s(timeout_s, HEALTH_TIMEOUT_S),
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
            gpus=tuple(
                gpu_of(gpu, address)
                for address, answer in answers.items()
                if not isinstance(answer, LipwireError)
                for gpu in answer.gpus
            ),
        )

    def close(self) -> None:
        """See ``Backend.close``. Calls under way raise Unavailable."""
        self._servers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _budget_s(timeout_s: float | None, longest_s: float) -> float:
    """What the caller leaves, or the call that this thread works for; ``longest_s`` at most."""
    call = current()
    left_s = call.remaining_s() if timeout_s is None and call is not None else timeout_s
    return longest_s if left_s is None else min(left_s, longest_s)
