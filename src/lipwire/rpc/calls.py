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
from lipwire.domain.tracing import REQUEST_ID, Trace, span, trace_of, traced
from lipwire.rpc.credentials import credentials_of
from lipwire.rpc.errors import internal_status, status_of
from lipwire.rpc.generated.lipwire.v1.mouths_pb2 import SERVICE_LIVE, MouthsRequest
from lipwire.rpc.parsing import LARGE_BYTES, PARSERS
from lipwire.rpc.routing import CLIENT_ID
from lipwire.rpc.server.admission import Admission
from lipwire.security import OPEN, Caller, Control

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
    "/lipwire.v1.AvatarService/EraseAvatar": "manage",
    "/lipwire.v1.RenderService/Submit": "deliver",
    "/lipwire.v1.RenderService/Get": "deliver",
    "/lipwire.v1.RenderService/List": "deliver",
    "/lipwire.v1.RenderService/Cancel": "deliver",
}
"""What each call does; one that is missing is refused."""


_STREAMS: Final = frozenset({"/lipwire.v1.AvatarService/Converse"})
"""Calls that take as long as their client likes."""

Finished = Callable[[str, str, float | None, Access | None], object]
"""Called as (method, status, seconds, access) when a call has ended: the full name of its method,
the name of its status, how long it took (None for a stream), and what its caller may do, None where
that was not found out."""


def not_measured(method: str, status: str, seconds: float | None, access: Access | None) -> None:
    """Do nothing. It is the ``Finished`` function of a server that measures no calls: called when
    one has ended, with the full name of its ``method``, the name of its ``status``, how long it
    took (``seconds``; None for a stream), and what its caller may do (``access``)."""


def _kind_of(method: str, request: object) -> str | None:
    live = isinstance(request, MouthsRequest) and request.service == SERVICE_LIVE
    return LIVE_FRAMES_KIND if live else _KINDS.get(method.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class _Received:
    """A request and how large it came; None where it could not be parsed."""

    message: object | None
    size_bytes: int


@dataclass(slots=True)
class _Ended:
    """Who makes a request, None where it makes no difference who that is, and how it has ended: OK,
    or the name of a status."""

    caller: Caller | None
    outcome: str = "OK"


class ErrorInterceptor(grpc.ServerInterceptor):
    """A gRPC interceptor that runs Lipwire's own calls: it limits how many are worked on, finds out
    who asks, opens a ``Call`` for each (its deadline, class and tenant), and turns errors into
    statuses. gRPC calls it for each call.

    Servicers find the ``Call`` in their context (``call_of``). Each error of Lipwire's tree becomes
    the status that belongs to it. Anything else is a defect: it is logged with an incident number,
    and the client gets INTERNAL and that number, and nothing of the error's text.
    """

    def __init__(
        self,
        admission: Admission,
        packages: tuple[str, ...],
        control: Control = OPEN,
        finished: Finished = not_measured,
    ) -> None:
        """``admission`` limits how many requests are worked on. ``packages`` are the protobuf
        packages whose calls are run in this way; health checks and reflection are passed on
        unchanged. ``control`` finds out who asks. ``finished(method, status, seconds, access)`` is
        called when a call has ended: with its method's full name, its status's name, how long it
        took (None for a stream), and what its caller may do."""
        self._admission = admission
        self._control = control
        self._finished = finished
        self._prefixes = tuple(f"/{package}." for package in packages)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return a handler for the method that ``handler_call_details`` names. It finds out who
        asks, refuses the call where too many are worked on, runs the handler that ``continuation``
        returns with a context that carries a ``Call``, and turns the errors that this raises into
        statuses. Where the method belongs to none of the protobuf packages that the interceptor was
        given, the handler of ``continuation`` is returned as it is. For a method of these packages
        that Lipwire does not know, the handler refuses every call with PERMISSION_DENIED. None
        where there is no such method. Called by gRPC, as that of every
        ``grpc.ServerInterceptor``."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._prefixes):
            return handler
        if method not in _OPERATIONS:
            return _refusing(method)
        if handler.stream_stream is not None:
            return self._streaming(method, handler)
        behaviour = handler.unary_unary
        small = handler.request_deserializer
        if behaviour is None or small is None:
            return _refusing(method)
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
                self._ending(method, context) as ended,
                open_call(context, _enter(ended.caller)) as call,
            ):
                caller = ended.caller
                handed = with_call(context, call)

                def saw(message: Any) -> None:
                    if caller is not None:
                        caller.model_id = message.start.model_id

                took = _uncounted if caller is None else caller.upload
                messages = Messages(requests, parse, method, saw, took)
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
        with self._ending(method, context) as ended:
            caller = ended.caller
            access = _enter(caller, request)
            if caller is not None:
                caller.upload(received.size_bytes)
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
                ended.outcome = getattr(answer, "error_code", "") or ended.outcome
                return answer

    @contextmanager
    def _ending(self, method: str, context: grpc.ServicerContext) -> Iterator[_Ended]:
        """End the request with the status that belongs to an error of the block, record it, and
        tell of it. The block is given how it has ended, to be changed."""
        trace = _trace_of(context)
        context.set_trailing_metadata(((REQUEST_ID, trace.request_id),))
        service, _, name = method[1:].rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        with traced(trace), span(method[1:], "server", **attributes) as spent:
            began_s = time.perf_counter()
            caller = None
            if self._control.asks:
                credentials = credentials_of(context)
                caller = Caller(self._control, _OPERATIONS[method], method[1:], credentials)
            ended = _Ended(caller)
            status: grpc.Status | None = None
            try:
                yield ended
                if not context.is_active():
                    ended.outcome = "CANCELLED"  # it ended because its client has gone
            except GeneratorExit:  # a stream whose client has gone
                ended.outcome = "CANCELLED"
                raise
            except Exception as error:
                status = _status_for(method, error)
            finally:
                outcome = ended.outcome if status is None else status.code.name
                if outcome != "OK":
                    spent.fail(outcome)
                if caller is not None:
                    caller.left(outcome)
                self._finished(
                    method[1:],
                    outcome,
                    None if method in _STREAMS else time.perf_counter() - began_s,
                    EVERYTHING if caller is None else caller.access,
                )
        if status is None:
            return
        # Outside of the try: it raises, which is how gRPC wants a behaviour to end.
        context.abort_with_status(status)


def _trace_of(context: grpc.ServicerContext) -> Trace:
    metadata = context.invocation_metadata()
    return trace_of({name: value for name, value in metadata if isinstance(value, str)})


def _status_for(method: str, error: Exception) -> grpc.Status:
    """What a request of ``method`` ends with that has raised ``error``."""
    if type(error) is grpc.RpcError:  # which the context raises where the client has gone
        error = Cancelled("the caller has gone")
    if isinstance(error, Cancelled):
        return status_of(error)  # nobody reads it
    if isinstance(error, LipwireError):
        level = logging.ERROR if error.code == "INTERNAL" else logging.DEBUG
        _log.log(level, "%s: %s: %s", method, error.code, error)
        return status_of(error)
    incident = secrets.token_hex(4)
    _log.exception("%s failed; incident %s", method, incident, exc_info=error)
    return internal_status(incident)


def _refusing(method: str) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of ``method`` that refuses each request, before it is read."""

    def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        _log.error("%s is refused: it is not known what it does", method)
        error = PermissionDenied(f"{method[1:]} is for nobody")
        context.abort_with_status(status_of(error))

    return grpc.stream_stream_rpc_method_handler(refuse)


def _enter(caller: Caller | None, request: object = None) -> Access:
    """Let ``request`` of ``caller`` begin, and return what they may do. Raises what
    ``Caller.enter`` raises."""
    if caller is None:
        return EVERYTHING
    caller.model_id = getattr(request, "model_id", "")
    frames = getattr(request, "batch_size", 0) or getattr(request, "count", 0)
    return caller.enter(max(0, frames))


def _uncounted(size_bytes: int) -> None:
    """Of a stream whose client may send what it likes."""


class Messages:
    """Iterates over the messages of a client's stream, parsed, for a servicer; each step waits for
    the next message. A step raises InvalidInput where its message cannot be parsed, and
    LimitExceeded where the client may not send it now; the messages after it can be read all the
    same. ``datas`` are the serialised messages of the gRPC method ``method``, which ``parse`` makes
    messages of; ``took(size_bytes)`` is called with the size of each one, and ``saw(message)`` with
    the first that was parsed. For one thread at a time."""

    __slots__ = ("_datas", "_method", "_parse", "_saw", "_took")

    def __init__(
        self,
        datas: Iterator[bytes],
        parse: Callable[[bytes], object],
        method: str,
        saw: Callable[[Any], None],
        took: Callable[[int], None],
    ) -> None:
        self._took = took
        self._saw: Callable[[Any], None] | None = saw
        self._datas = datas
        self._parse = parse
        self._method = method

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        data = next(self._datas)
        self._took(len(data))
        try:
            message = self._parse(data)
        except Exception:  # protobuf's DecodeError has no common type among its versions
            raise _not_parsed(self._method) from None
        saw, self._saw = self._saw, None
        if saw is not None:
            saw(message)
        return message

    def unparsed(self) -> Iterator[bytes]:
        """Return an iterator over the messages that follow, serialised as they come; each step
        waits for the next. ``took`` and ``saw`` are not called for them. The iterator removes
        messages from the same stream as iterating over this object does: use one of the two."""
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
    """Context manager: open a ``Call`` for the gRPC request ``context`` and give it to the ``with``
    block. The call has the deadline of the request (none where its client has set none), the name
    that the client calls itself (its metadata "x-client-id"), and ``access``, which says what the
    caller may do, with its tenant. The call ends with the block, or when the client cancels or
    disconnects."""
    remaining_s = context.time_remaining()
    # gRPC says infinity, or hundreds of years, where the caller set none.
    unlimited = remaining_s is None or not math.isfinite(remaining_s) or remaining_s > 1e9
    call = Call(
        None if unlimited else remaining_s,
        tenant=access.tenant,
        access=access,
        client=_client_of(context),
    )
    if not context.add_callback(call.end):
        call.end()
    try:
        yield call
    finally:
        call.end()


def _client_of(context: grpc.ServicerContext) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == CLIENT_ID and isinstance(value, str):
            return value
    return ""


def with_call(context: grpc.ServicerContext, call: Call) -> grpc.ServicerContext:
    """Return a context that behaves as ``context`` and carries ``call``: give it to a servicer,
    which gets the call from it with ``call_of``."""
    return cast(grpc.ServicerContext, _CallContext(context, call))


def call_of(context: grpc.ServicerContext) -> Call:
    """Return the ``Call`` that ``context`` carries: until when the request is to be answered, and
    for whom. The contexts that servicers of Lipwire's own services get from ``ErrorInterceptor``
    carry one; ``with_call`` returns such a context too. Raises TypeError where ``context`` carries
    none."""
    if not isinstance(context, _CallContext):
        raise TypeError("no call was opened for this request")
    return context.call
