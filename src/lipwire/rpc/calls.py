"""A gRPC request from its arrival to its end: admitted or refused, run with its ``Call``, and ended
with an answer or a status.

This is the only place where errors become statuses, and where it is asked who may do what.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, cast

import grpc

from lipwire.domain import (
    EVERYTHING,
    Access,
    Call,
    Cancelled,
    InvalidInput,
    LipwireError,
    Operation,
    PermissionDenied,
)
from lipwire.rpc.credentials import credentials_of
from lipwire.rpc.errors import internal_status, status_of
from lipwire.rpc.generated.lipwire.v1.mouths_pb2 import SERVICE_LIVE, MouthsRequest
from lipwire.rpc.parsing import LARGE_BYTES, PARSERS
from lipwire.rpc.server.admission import Admission
from lipwire.security import OPEN, Control

_log: Final = logging.getLogger("lipwire.rpc")

INFERENCE_KIND: Final = "inference"
LOADING_KIND: Final = "loading"
LIVE_KIND: Final = "live session"
LIVE_FRAMES_KIND: Final = "live frames"
LEASE_KIND: Final = "lease"
_KINDS: Final[Mapping[str, str]] = {
    "InferBatchComposite": INFERENCE_KIND,
    "InferBatch": INFERENCE_KIND,
    "Mouths": INFERENCE_KIND,
    "LoadModel": LOADING_KIND,
    "Converse": LIVE_KIND,
    "Lease": LEASE_KIND,
}
"""Calls that are counted, and as what; the others are quick. Frames of live sessions are counted by
themselves, so that no number of other requests keeps them out."""


_OPERATIONS: Final[Mapping[str, Operation]] = {
    "/compositing.CompositingService/InferBatchComposite": "render",
    "/compositing.CompositingService/ListModels": "read",
    "/compositing.CompositingService/LoadModel": "manage",
    "/compositing.CompositingService/UnloadModel": "manage",
    "/compositing.CompositingService/GetModelStats": "read",
    "/compositing.CompositingService/Health": "read",
    "/inference.InferenceService/InferBatch": "infer",
    "/inference.InferenceService/ListModels": "read",
    "/inference.InferenceService/LoadModel": "manage",
    "/inference.InferenceService/UnloadModel": "manage",
    "/inference.InferenceService/GetModelStats": "read",
    "/inference.InferenceService/Health": "read",
    "/lipwire.v1.MouthService/Mouths": "infer",
    "/lipwire.v1.MouthService/Lease": "infer",
    "/lipwire.v1.MouthService/ReleaseLease": "infer",
    "/lipwire.v1.AvatarService/Converse": "live",
    "/lipwire.v1.AvatarService/InterruptSession": "live",
}
"""What each call does. One that is missing is refused to everybody."""


def _kind_of(method: str, request: object) -> str | None:
    live = isinstance(request, MouthsRequest) and request.service == SERVICE_LIVE
    return LIVE_FRAMES_KIND if live else _KINDS.get(method.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class _Received:
    """A request and how large it came; None where it could not be parsed."""

    message: object | None
    size_bytes: int


class ErrorInterceptor(grpc.ServerInterceptor):
    """Runs Lipwire's own calls: admits them, opens their ``Call``, turns errors into statuses.

    Servicers find the ``Call`` in their context (``call_of``). Each error of Lipwire's tree becomes
    the status that belongs to it. Anything else is a defect: it is logged with an incident number,
    and the client gets INTERNAL and that number, and nothing of the error's text.
    """

    def __init__(
        self, admission: Admission, packages: tuple[str, ...], control: Control = OPEN
    ) -> None:
        """``admission`` limits how many requests are worked on. ``packages`` are the protobuf
        packages whose calls are run in this way; health checks and reflection are passed on
        unchanged. ``control`` says who asks."""
        self._admission = admission
        self._control = control
        self._prefixes = tuple(f"/{package}." for package in packages)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a method, which runs the request as this class does; the handler
        that ``continuation`` returns where the method is of no such package. See
        ``grpc.ServerInterceptor``."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._prefixes):
            return handler
        if handler.stream_stream is not None:
            return self._streaming(method, handler)
        behaviour = handler.unary_unary
        small = handler.request_deserializer
        if behaviour is None or small is None:
            return handler
        large = PARSERS.get(method, small)

        def parse(data: bytes) -> _Received:
            try:
                message = small(data) if len(data) < LARGE_BYTES else large(data)
                return _Received(message, len(data))
            except Exception:  # protobuf's DecodeError has no common type among its versions
                return _Received(None, len(data))

        def run(received: _Received, context: grpc.ServicerContext) -> object:
            return self._run(method, behaviour, received, context)

        return grpc.unary_unary_rpc_method_handler(
            run, request_deserializer=parse, response_serializer=_bytes_of
        )

    def _streaming(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour, parse = handler.stream_stream, handler.request_deserializer
        assert behaviour is not None
        assert parse is not None

        def run(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with (
                self._ending(method, context) as caller,
                open_call(context, caller.enter()) as call,
            ):
                handed = with_call(context, call)
                messages = Messages(requests, parse, method, caller.saw)
                with self._admission.admit(_KINDS[method.rpartition("/")[2]]):
                    yield from behaviour(messages, handed)

        return grpc.stream_stream_rpc_method_handler(
            run, request_deserializer=None, response_serializer=handler.response_serializer
        )

    def _run(
        self,
        method: str,
        behaviour: Callable[[Any, grpc.ServicerContext], object],
        received: _Received,
        context: grpc.ServicerContext,
    ) -> object:
        request = received.message
        with self._ending(method, context) as caller:
            access = caller.enter(request)
            if request is None:
                raise _not_parsed(method)
            with open_call(context, access) as call:
                call.check()
                handed = with_call(context, call)
                kind = _kind_of(method, request)
                if kind is None:
                    answer = behaviour(request, handed)
                else:
                    with self._admission.admit(kind, received.size_bytes):
                        answer = behaviour(request, handed)
                caller.outcome = getattr(answer, "error_code", "") or caller.outcome
                return answer

    @contextmanager
    def _ending(self, method: str, context: grpc.ServicerContext) -> Iterator[_Caller]:
        """End the request with the status that belongs to an error of the block, which is given
        whoever makes it, and record it."""
        caller = _Caller(self._control, method, context)
        status: grpc.Status
        try:
            yield caller
            caller.left(caller.outcome)
            return
        except GeneratorExit:  # a stream whose client has gone
            caller.left("CANCELLED")
            raise
        except Cancelled as error:
            status = status_of(error)  # nobody reads it
        except LipwireError as error:
            status = status_of(error)
            level = logging.ERROR if error.code == "INTERNAL" else logging.DEBUG
            _log.log(level, "%s: %s: %s", method, error.code, error)
        except Exception:
            incident = secrets.token_hex(4)
            _log.exception("%s failed; incident %s", method, incident)
            status = internal_status(incident)
        caller.left(status.code.name)
        # Outside of the try: it raises, which is how gRPC wants a behaviour to end.
        context.abort_with_status(status)


class _Caller:
    """Whoever makes one request. ``enter`` comes first, ``left`` when it has ended."""

    __slots__ = (
        "_address",
        "_began_s",
        "_context",
        "_control",
        "_method",
        "access",
        "model_id",
        "outcome",
    )

    def __init__(self, control: Control, method: str, context: grpc.ServicerContext) -> None:
        self._control = control
        self._method = method
        self._context = context
        self._began_s = time.perf_counter()
        self._address = ""
        self.access: Access = EVERYTHING
        """What they may do; known once they have entered."""
        self.model_id = ""
        """The avatar that the request names."""
        self.outcome = "OK"
        """What it ends with, unless with an error: a status' name."""

    def enter(self, request: object = None) -> Access:
        """Let ``request`` begin, and return what its caller may do. Raises Unauthenticated,
        PermissionDenied, and what ``AccessControl.enter`` raises."""
        operation = _OPERATIONS.get(self._method)
        if operation is None:
            raise PermissionDenied(f"nobody may call {self._method[1:]}")
        if not self._control.asks:
            return EVERYTHING
        self.model_id = getattr(request, "model_id", "")
        credentials = credentials_of(self._context)
        self._address = credentials.address
        self.access = self._control.access(credentials)
        frames = getattr(request, "batch_size", 0) or getattr(request, "count", 0)
        self._control.enter(self.access, operation, max(0, frames))
        return self.access

    def saw(self, message: Any) -> None:
        """Take the avatar's name from the first ``message`` of a live session's stream."""
        self.model_id = message.start.model_id

    def left(self, outcome: str) -> None:
        """Record the request, which has ended with ``outcome``: OK, or a status' name."""
        audit = self._control.audit
        if audit is None:
            return
        known = self.access is not EVERYTHING
        audit.write(
            {
                "tenant": self.access.tenant,
                "subject": self.access.subject if known else "",
                "address": self._address,
                "operation": _OPERATIONS.get(self._method, ""),
                "call": self._method[1:],
                "avatar": self.model_id,
                "outcome": outcome,
                "ms": round((time.perf_counter() - self._began_s) * 1000, 1),
            }
        )


class Messages:
    """The messages of a stream, as servicers get them. One that cannot be parsed raises
    InvalidInput, and the next one can be had all the same."""

    __slots__ = ("_datas", "_method", "_parse", "_saw")

    def __init__(
        self,
        datas: Iterator[bytes],
        parse: Callable[[bytes], object],
        method: str,
        saw: Callable[[Any], None],
    ) -> None:
        self._saw: Callable[[Any], None] | None = saw
        self._datas = datas
        self._parse = parse
        self._method = method

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        data = next(self._datas)
        try:
            message = self._parse(data)
        except Exception:  # protobuf's DecodeError has no common type among its versions
            raise _not_parsed(self._method) from None
        saw, self._saw = self._saw, None
        if saw is not None:
            saw(message)
        return message

    def unparsed(self) -> Iterator[bytes]:
        """Return an iterator over the messages that follow, serialised as they come."""
        return self._datas


class _CallContext:
    """gRPC's context of a request, and the call that was opened for it."""

    __slots__ = ("_context", "call")

    def __init__(self, context: grpc.ServicerContext, call: Call) -> None:
        self._context: Final = context
        self.call: Final = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _not_parsed(method: str) -> InvalidInput:
    return InvalidInput(f"the message is no protobuf message of {method[1:]}")


def _bytes_of(answer: Any) -> bytes:
    """Of a message, or of one ``with_array``."""
    data: bytes = answer.SerializeToString()
    return data


@contextmanager
def open_call(context: grpc.ServicerContext, access: Access = EVERYTHING) -> Iterator[Call]:
    """Open a ``Call`` with the deadline of the gRPC request ``context`` and the tenant of
    ``access``, which says what the caller may do, and give it to the ``with`` block. A context
    manager: the call ends with the block, or when the client cancels or disconnects."""
    remaining_s = context.time_remaining()
    # gRPC says infinity, or hundreds of years, where the caller set none.
    unlimited = remaining_s is None or not math.isfinite(remaining_s) or remaining_s > 1e9
    call = Call(None if unlimited else remaining_s, tenant=access.tenant, access=access)
    if not context.add_callback(call.end):
        call.end()
    try:
        yield call
    finally:
        call.end()


def with_call(context: grpc.ServicerContext, call: Call) -> grpc.ServicerContext:
    """Return a context that behaves as ``context`` and carries ``call``: give it to a servicer,
    which gets the call from it with ``call_of``."""
    return cast(grpc.ServicerContext, _CallContext(context, call))


def call_of(context: grpc.ServicerContext) -> Call:
    """Return the call that ``with_call`` put into ``context``. Raises TypeError where there is
    none."""
    if not isinstance(context, _CallContext):
        raise TypeError("no call was opened for this request")
    return context.call
