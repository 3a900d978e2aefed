"""What went wrong, as callers see it: a gRPC status with details, or the guide's success = false.

Statuses carry google.rpc.ErrorInfo (domain "lipwire", a reason), google.rpc.RequestInfo with the
request's id and, where trying again can help, google.rpc.RetryInfo (https://google.aip.dev/193,
google/rpc/error_details.proto), which the retry policies of gRPC clients understand.
"""

import re
from typing import Any, Final, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from lipwire.domain import LipwireError
from lipwire.domain.tracing import current_trace

ERROR_DOMAIN: Final = "lipwire"
RETRY_AFTER_S: Final = 0.5
"""For errors that trying again can help and that do not say themselves when."""

_MESSAGE_CHARACTERS: Final = 500
# An absolute path, on Linux or Windows, at the beginning of a word. What is left of it is its name.
_PATH: Final = re.compile(r"(?<![\w./\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"()]+[/\\])*")
_REASON: Final = re.compile(r"(?<!^)(?=[A-Z])")
_OF_THE_REQUEST: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"})

_Answer = TypeVar("_Answer", bound=Message)


def public_message(error: BaseException) -> str:
    """Return the text of ``error`` for a client: one line of 500 characters at most, with the
    folders left out of paths."""
    line = " ".join(_PATH.sub("", str(error)).split())
    if len(line) > _MESSAGE_CHARACTERS:
        line = line[: _MESSAGE_CHARACTERS - 1] + "…"
    # Whatever was quoted from a request has to fit into a protobuf string.
    return line.encode("utf-8", "replace").decode("utf-8")


def is_answer(error: LipwireError) -> bool:
    """Return whether CompositingService and InferenceService report ``error`` in an answer with
    success = false: whether its code is INVALID_ARGUMENT, NOT_FOUND or FAILED_PRECONDITION, which
    say that the request is wrong, and trying again does not help.

    Other errors (overload, drain, deadlines, defects) are statuses, so that retry policies and load
    balancers can act on them.
    """
    return error.code in _OF_THE_REQUEST and not error.retryable


def refusal(kind: type[_Answer], error: LipwireError) -> _Answer:
    """Return an answer of the message type ``kind`` with success = false, and ``error`` in its
    fields error (its text for clients, one line of 500 characters at most, without the folders of
    paths) and error_code (its code's name). ``kind`` has to have these fields.

    Raises ``error`` itself, which is to become a gRPC status, unless it says that the request is
    wrong: its code is INVALID_ARGUMENT, NOT_FOUND or FAILED_PRECONDITION, and it is not retryable.
    """
    if not is_answer(error):
        raise error
    said: dict[str, Any] = {"error": public_message(error), "error_code": error.code}
    return kind(**said)


def reason(error: LipwireError) -> str:
    """Return the kind of ``error`` as a word for programs: the name of its class in capitals, for
    example AVATAR_INVALID for AvatarInvalid."""
    return _REASON.sub("_", type(error).__name__).upper()


def status_of(error: LipwireError) -> grpc.Status:
    """Return ``error`` as a gRPC status: its code, a text for clients (``public_message``), and
    details with its kind, the id of the request that this thread works for, and, where another
    attempt can help, after how long."""
    details = [
        error_details_pb2.ErrorInfo(
            reason=reason(error),
            domain=ERROR_DOMAIN,
            metadata={"retryable": "true" if error.retryable else "false"},
        )
    ]
    packed = [_packed(detail) for detail in details]
    if error.retryable:
        after_s = getattr(error, "retry_after_s", None)
        packed.append(_packed(_retry_info(RETRY_AFTER_S if after_s is None else after_s)))
    return _status(getattr(grpc.StatusCode, error.code), public_message(error), packed)


def internal_status(incident: str) -> grpc.Status:
    """Return the gRPC status (INTERNAL) for an error that nobody foresaw; ``incident`` is the
    number, chosen by the caller, under which the server's log has it, and which the client is
    told."""
    info = error_details_pb2.ErrorInfo(
        reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"incident": incident}
    )
    message = f"internal error; the server's log has it under {incident}"
    return _status(grpc.StatusCode.INTERNAL, message, [_packed(info)])


def _packed(
    message: error_details_pb2.ErrorInfo
    | error_details_pb2.RetryInfo
    | error_details_pb2.RequestInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _retry_info(after_s: float) -> error_details_pb2.RetryInfo:
    milliseconds = max(1, round(after_s * 1000))
    seconds, rest = divmod(milliseconds, 1000)
    delay = duration_pb2.Duration(seconds=seconds, nanos=rest * 1_000_000)
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _status(code: grpc.StatusCode, message: str, details: list[any_pb2.Any]) -> grpc.Status:
    number: int = code.value[0]
    trace = current_trace()
    if trace is not None:
        details = [*details, _packed(error_details_pb2.RequestInfo(request_id=trace.request_id))]
    status = status_pb2.Status(code=number, message=message, details=details)
    return rpc_status.to_status(status)
