"""The status that a server sent, turned into an error of Lipwire's own tree.

A status carries google.rpc.ErrorInfo with the name of the error, and google.rpc.RetryInfo where
trying again can help. Statuses without them come from gRPC itself, from a balancer in between, or
from another make of server; the code alone decides then.
"""

from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from lipwire import domain
from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    InvalidInput,
    LipwireError,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from lipwire.domain.tracing import Trace
from lipwire.rpc.reachability import Peer, cause_of

_BY_CODE: Final[dict[str, type[LipwireError]]] = {
    "INVALID_ARGUMENT": InvalidInput,
    "OUT_OF_RANGE": InvalidInput,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": AvatarInvalid,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
}
_ABOUT_US: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
"""What an inference server says of the server that asks, not of that server's client."""
_BY_REASON: Final = {
    name.lower(): kind
    for name, kind in vars(domain).items()
    if isinstance(kind, type) and issubclass(kind, LipwireError)
}
_DOMAIN: Final = "lipwire"
_OVERSIZE: Final = "larger than max"
"""In the texts of gRPC's own RESOURCE_EXHAUSTED for a message over the limit of either side."""
_BROKEN: Final = ("RST_STREAM", "Stream removed", "GOAWAY", "Connection reset", "Socket closed")
"""In the texts of gRPC's own INTERNAL and UNKNOWN for a connection that broke."""
_TEXTS: Final[dict[type[LipwireError], str]] = {
    Unavailable: "no inference server answers",
    Overloaded: "the inference server has no room for more at this moment",
    DeadlineExceeded: "the inference server did not answer in time",
}
_LONGEST: Final = 500


def error_of_call(failed: object, peer: Peer | None = None) -> LipwireError:
    """Return an error of Lipwire's own for ``failed``, the exception that a gRPC call raised. Its
    class is the one that a Lipwire server names in the details of the status; where there are none,
    it follows from the status code.

    With a ``peer``, the server that was called, the error is for whoever named that address: it has
    the address, the cause and a hint. Without, it is for the clients of a server that asked an
    inference server: texts that are not Lipwire's own, which name addresses and other internals,
    are left out; ``reason_of_call`` has them for the log. Where ``failed`` is no gRPC call, the
    error is a plain LipwireError.
    """
    if not isinstance(failed, grpc.Call):
        return LipwireError("the call of the inference server failed")
    code = failed.code().name
    text = _line(failed.details())
    reason, retry_after_s = _details(failed)
    known = _BY_REASON.get(reason.replace("_", "").lower())
    if peer is None and code in _ABOUT_US:
        why = f": {text}" if known is not None else ""
        return Unavailable(f"the inference server does not let this server ask{why}")
    if known is not None:
        return _make(known, text, retry_after_s)
    if code == "RESOURCE_EXHAUSTED" and _OVERSIZE in text:
        return InvalidInput(f"the batch does not fit in a message: {text}")
    # CANCELLED, because nobody here cancelled it: the server is stopping.
    broken = code in ("INTERNAL", "UNKNOWN") and any(word in text for word in _BROKEN)
    kind = Unavailable if broken or code == "CANCELLED" else _BY_CODE.get(code, LipwireError)
    if peer is not None:
        return _make(kind, _told(failed, peer), retry_after_s)
    cause = cause_of(failed, "inference server")
    text = _TEXTS.get(kind, f"the inference server refused the call with {code}")
    return _make(kind, f"{text}: {cause.text}" if cause else text, retry_after_s)


def error_of_request(failed: object, peer: Peer, trace: Trace) -> LipwireError:
    """Return an error of Lipwire's own for ``failed``, the exception that a gRPC call to the server
    ``peer`` raised. Its class is the one that a Lipwire server names in the details of the status;
    where there are none, it follows from the status code. Its text is the server's, or, where that
    is not Lipwire's, has the address and, where known, the cause and a hint. Where ``failed`` is no
    gRPC call, the error is a plain LipwireError.

    The call was sent with the headers of ``trace``: where a Lipwire server has answered, the error
    has the request's id (``request_id``)."""
    error = error_of_call(failed, peer)
    if isinstance(failed, grpc.Call) and says_why(failed):
        error.request_id = trace.request_id
    return error


def says_why(failed: grpc.Call) -> bool:
    """Return whether ``failed``, a gRPC call that failed, was answered by a Lipwire server, which
    sends details of its errors, and not ended by gRPC itself."""
    return bool(_details(failed)[0])


def reason_of_call(failed: object, peer: Peer | None = None) -> str:
    """Return why a call failed, as one line for the log, which may name addresses. ``failed`` is
    what the gRPC call raised.

    It is the cause and a hint where the server ``peer`` was not reached, else code and text as they
    came. Without a ``peer`` causes are not looked for.
    """
    if not isinstance(failed, grpc.Call):
        return _line(str(failed))
    cause = cause_of(failed, peer.kind, use_proxy=peer.use_proxy) if peer else None
    return str(cause) if cause else f"{failed.code().name}: {_line(failed.details())}"


def _told(failed: grpc.Call, peer: Peer) -> str:
    """What ``failed`` says to whoever named ``peer``."""
    name = f"the {peer.kind} at {peer.address}"
    if cause := cause_of(failed, peer.kind, use_proxy=peer.use_proxy):
        return f"{name} cannot be asked: {cause}"
    if failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{name} did not answer in time"
    return f"{name} answered {failed.code().name}: {_line(failed.details())}"


def error_of_answer(code: str, text: str) -> LipwireError:
    """Return the error that an answer with ``success = false`` stands for. ``code`` is its field
    error_code, the name of a gRPC status ("FAILED_PRECONDITION" for example), and ``text`` its
    field error. An unknown code gives a LipwireError."""
    return _make(_BY_CODE.get(code, LipwireError), _line(text), None)


def _make(kind: type[LipwireError], text: str, retry_after_s: float | None) -> LipwireError:
    if issubclass(kind, Overloaded):
        return kind(text, retry_after_s=retry_after_s)
    return kind(text)


def _details(failed: grpc.Call) -> tuple[str, float | None]:
    """ErrorInfo's reason (empty where there is none of ours), and RetryInfo's delay."""
    reason, retry_after_s = "", None
    try:
        status: Any = rpc_status.from_call(failed)
        for packed in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            retry = error_details_pb2.RetryInfo()
            if packed.Is(info.DESCRIPTOR) and packed.Unpack(info) and info.domain == _DOMAIN:
                reason = info.reason
            elif packed.Is(retry.DESCRIPTOR) and packed.Unpack(retry):
                retry_after_s = max(0.0, retry.retry_delay.ToTimedelta().total_seconds())
    except (ValueError, OverflowError, DecodeError):
        return "", None  # noise, or details that contradict the status: trust none of them
    return reason, retry_after_s


def _line(text: str | None) -> str:
    text = text or "no reason given"
    return " ".join(text.split())[:_LONGEST]
