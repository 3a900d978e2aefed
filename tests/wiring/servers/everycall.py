"""Every call of every server, and what it gives."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from tests.support.waiting import WAIT_S

from lipwire.rpc.generated import compositing_pb2, inference_pb2, management_pb2
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2, mouths_pb2
from lipwire.rpc.server.server import RpcServer
from lipwire.security import KeyFile

SECRET: Final = b"0123456789abcdef0123456789abcdef"
WINDOW: Final = np.zeros((1, 32, 16, 16), np.float32).tobytes()
Told = dict[str, Mapping[str, object]]
Start = Callable[..., RpcServer]


def secured(tmp_path: Path, keys: KeyFile, more: str = "") -> str:
    return (
        f"security: {{keys_file: {keys.path}, jwt: {{issuer: us, audience: lipwire,"
        f" algorithms: HS256, key_file: {tmp_path / 'secret'}}}{more}}}"
    )


# Each call of a server: its path, a request about avatar a, its answer's type.
CALLS: Final[dict[str, tuple[Any, Any]]] = {
    "/compositing.CompositingService/InferBatchComposite": (
        compositing_pb2.CompositeBatchRequest(model_id="a", audio_features=WINDOW, batch_size=1),
        compositing_pb2.CompositeBatchResponse,
    ),
    "/compositing.CompositingService/ListModels": (
        management_pb2.ListModelsRequest(),
        management_pb2.ListModelsResponse,
    ),
    "/compositing.CompositingService/LoadModel": (
        management_pb2.LoadModelRequest(model_id="a"),
        management_pb2.LoadModelResponse,
    ),
    "/compositing.CompositingService/UnloadModel": (
        management_pb2.UnloadModelRequest(model_id="a"),
        management_pb2.UnloadModelResponse,
    ),
    "/compositing.CompositingService/GetModelStats": (
        management_pb2.GetModelStatsRequest(model_id="a"),
        compositing_pb2.GetModelStatsResponse,
    ),
    "/compositing.CompositingService/Health": (
        management_pb2.HealthRequest(),
        compositing_pb2.HealthResponse,
    ),
    "/lipwire.v1.AvatarService/Converse": (
        avatar_pb2.ConverseRequest(start=avatar_pb2.StartSession(model_id="a")),
        avatar_pb2.ConverseResponse,
    ),
    "/lipwire.v1.AvatarService/InterruptSession": (
        avatar_pb2.InterruptSessionRequest(session_id="none", number=1),
        avatar_pb2.InterruptSessionResponse,
    ),
    "/lipwire.v1.AvatarService/EraseAvatar": (
        avatar_pb2.EraseAvatarRequest(model_id="a", dry_run=True),
        avatar_pb2.EraseAvatarResponse,
    ),
    "/inference.InferenceService/InferBatch": (
        inference_pb2.InferBatchRequest(model_id="a", audio_features=WINDOW, batch_size=1),
        inference_pb2.InferBatchResponse,
    ),
    "/inference.InferenceService/ListModels": (
        management_pb2.ListModelsRequest(),
        management_pb2.ListModelsResponse,
    ),
    "/inference.InferenceService/LoadModel": (
        management_pb2.LoadModelRequest(model_id="a"),
        management_pb2.LoadModelResponse,
    ),
    "/inference.InferenceService/UnloadModel": (
        management_pb2.UnloadModelRequest(model_id="a"),
        management_pb2.UnloadModelResponse,
    ),
    "/inference.InferenceService/GetModelStats": (
        management_pb2.GetModelStatsRequest(model_id="a"),
        inference_pb2.GetModelStatsResponse,
    ),
    "/inference.InferenceService/Health": (
        management_pb2.HealthRequest(),
        inference_pb2.HealthResponse,
    ),
    "/lipwire.v1.MouthService/Mouths": (
        mouths_pb2.MouthsRequest(model_id="a", windows=WINDOW, count=1),
        mouths_pb2.MouthsResponse,
    ),
    "/lipwire.v1.MouthService/Lease": (
        mouths_pb2.LeaseRequest(holder="me", model_id="a"),
        mouths_pb2.LeaseResponse,
    ),
    "/lipwire.v1.MouthService/ReleaseLease": (
        mouths_pb2.ReleaseLeaseRequest(holder="me"),
        mouths_pb2.ReleaseLeaseResponse,
    ),
}


def outcome(channel: grpc.Channel, path: str) -> str:
    """The code of what a call gives: of its status, or of the error in its answer; OK."""
    request, kind = CALLS[path]
    serialise, parse = type(request).SerializeToString, kind.FromString
    try:
        if path.endswith("/Converse"):
            ended = threading.Event()
            call = channel.stream_stream(path, serialise, parse)(
                _until(ended, request), timeout=WAIT_S
            )
            try:
                answer = next(iter(call))
                call.cancel()
            finally:
                ended.set()
        else:
            answer = channel.unary_unary(path, serialise, parse)(request, timeout=WAIT_S)
    except grpc.RpcError as error:
        return str(error.code().name)
    return getattr(answer, "error_code", "") or "OK"


def _until(ended: threading.Event, request: object) -> Iterator[object]:
    """A stream that a client keeps open, as a conversation's is."""
    yield request
    ended.wait(WAIT_S)
