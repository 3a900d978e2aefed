"""Requests to inference servers and what they answer: arrays as bytes, and back."""

import math
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from lipwire.domain import Float32Array, InvalidInput, LipwireError, UInt8Array
from lipwire.domain.tracing import trace_headers
from lipwire.rpc.generated import inference_pb2, management_pb2
from lipwire.rpc.routing import Metadata, routing
from lipwire.rpc.server.bulk import MalformedError, split_fields, with_fields
from lipwire.serving import GpuStatus, ModelStatus

_Answer = TypeVar("_Answer", bound=Message)

_LONGEST_NAME: Final = 255


def check_name(model_id: str) -> None:
    """Raise InvalidInput where ``model_id`` is empty, longer than 255 characters or not text (a
    lone surrogate). Whether there is such a model is for the server to say."""
    if not 0 < len(model_id) <= _LONGEST_NAME:
        raise InvalidInput(
            f"the model's name is {len(model_id)} characters long, allowed are 1 to {_LONGEST_NAME}"
        )
    try:
        model_id.encode()
    except UnicodeEncodeError:
        raise InvalidInput("the model's name is not text") from None


def metadata_of(model_id: str | None) -> Metadata:
    """Return gRPC metadata for a call about ``model_id``: ``x-model-id``, which load balancers may
    hash on, with characters that a header may not hold as %XX; None is for a call about no model,
    which has no such header. The metadata also has the headers that carry the id of the request
    that this thread works for, if any."""
    return (*routing(model_id=model_id or ""), *trace_headers())


def check_batch(name: str, array: Float32Array, shape: tuple[int, ...]) -> int:
    """Return N, the length of ``array``. Raises InvalidInput where it is not (N, *shape) float32
    with N at least 1; ``name`` is what the error calls it. Values are not checked."""
    wanted = f"(N, {', '.join(map(str, shape))}) float32"
    if array.dtype != np.float32 or array.shape[1:] != shape or not len(array):
        raise InvalidInput(f"{name} is {array.shape} {array.dtype}, wanted is {wanted}")
    return len(array)


def request_with(message: Message, arrays: Mapping[int, Float32Array | UInt8Array]) -> bytes:
    """Return ``message`` serialised, with the contents of ``arrays`` (float32 or uint8, little
    endian, in C order) in its bytes fields, by the fields' numbers in the .proto."""
    fields = {
        number: array.astype(array.dtype.newbyteorder("<"), copy=False)
        for number, array in arrays.items()
    }
    return with_fields(message.SerializeToString(), fields)


def answer_with(kind: type[_Answer], data: bytes, number: int) -> tuple[_Answer, memoryview]:
    """Parse ``data``, a serialised message of type ``kind``. Returns the message without its bytes
    field ``number`` (as in the .proto), and the content of that field as a view of ``data``, empty
    where it is absent.

    Raises LipwireError where ``data`` is no such message.
    """
    try:
        rest, found = split_fields(data, {number})
        answer = kind()
        answer.ParseFromString(rest)
    except (MalformedError, DecodeError):
        raise LipwireError("the inference server's answer is no message") from None
    return answer, found.get(number, memoryview(b""))


def array_of(data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return ``data`` as a read-only array of ``shape`` and ``dtype``, without a copy. Raises
    LipwireError where its length is not that of such an array."""
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise LipwireError(f"the inference server gave {len(data)} bytes, wanted are {wanted}")
    return np.frombuffer(data, dtype).reshape(shape)


def status_of(model: management_pb2.ModelStats, server: str) -> ModelStatus:
    """Return ``model``, a server's row about a loaded model, as a ``ModelStatus``; ``server`` is
    its address."""
    return ModelStatus(
        model_id=model.model_id,
        gpu_id=model.gpu_id,
        memory_bytes=model.memory_bytes,
        use_count=model.uses,
        idle_s=model.idle_s,
        in_use=model.in_use,
        server=server,
        loaded_in=max(1, model.loaded_in),
        runner=model.runner,
        precision=model.precision,
        revision=model.revision,
    )


def gpu_of(gpu: inference_pb2.GpuStatus, server: str) -> GpuStatus:
    """Return ``gpu``, a server's message about a GPU, as a ``GpuStatus``; ``server`` is its
    address."""
    return GpuStatus(
        index=gpu.index,
        name=gpu.name,
        loaded_models=gpu.loaded_models,
        memory_bytes=gpu.memory_bytes,
        used_bytes=gpu.used_bytes,
        utilisation=gpu.utilisation,
        lost=gpu.lost,
        server=server,
    )
