"""What a server said went wrong, as an error of Lipwire's own tree again.

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
    Unavailable,
)

_BY_CODE: Final[dict[str, type[LipwireError]]] = {
    "INVALID_ARGUMENT": InvalidInput,
    "OUT_OF_RANGE": InvalidInput,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": AvatarInvalid,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
}
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


def error_of_call(failed: object) -> LipwireError:
    """The error that ``failed`` stands for: what a call raised, which is the call itself.

    Texts that are not Lipwire's own name addresses and other things inside; they are left out, and
    ``reason_of_call`` gives them for the log.
    """
    if not isinstance(failed, grpc.Call):
        return LipwireError("the call of the inference server failed")
    code = failed.code().name
    text = _line(failed.details())
    reason, retry_after_s = _details(failed)
    known = _BY_REASON.get(reason.replace("_", "").lower())
    if known is not None:
        return _make(known, text, retry_after_s)
    if code == "RESOURCE_EXHAUSTED" and _OVERSIZE in text:
        return InvalidInput(f"the batch does not fit in a message: {text}")
    # CANCELLED, because nobody here cancelled it: the server is stopping.
    broken = code in ("INTERNAL", "UNKNOWN") and any(word in text for word in _BROKEN)
    kind = Unavailable if broken or code == "CANCELLED" else _BY_CODE.get(code, LipwireError)
    text = _TEXTS.get(kind, f"the inference server refused the call with {code}")
    return _make(kind, text, retry_after_s)


def reason_of_call(failed: object) -> str:
    """Code and text of a failed call, as they came; one line, for logs."""
    if not isinstance(failed, grpc.Call):
        return _line(str(failed))
    return f"{failed.code().name}: {_line(failed.details())}"


def error_of_answer(code: str, text: str) -> LipwireError:
    """The error of an answer with ``success = false``: the guide's way of saying what is wrong."""
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
