"""Calls about one live session, passed on to the process that has it: its id names that process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import grpc

from lipwire.domain import LipwireError, NotFound, Unavailable
from lipwire.rpc.calls import Messages, call_of
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.workers.siblings import Siblings
from lipwire.session.live.sessions import NO_SESSION

_INTERRUPT: Final = "/lipwire.v1.AvatarService/InterruptSession"
_CONVERSE: Final = "/lipwire.v1.AvatarService/Converse"
_INTERRUPT_WITHIN_S: Final = 5.0

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]


class OwnerInterceptor(grpc.ServerInterceptor):
    """A gRPC interceptor that passes a call about a live session of another process of the server
    on to that process, and everything else to this one. gRPC calls it for each call.

    It goes behind ``ErrorInterceptor``, whose ``Call`` ends what is passed on.
    """

    def __init__(self, siblings: Siblings) -> None:
        """``siblings`` are the server's other processes."""
        self._siblings = siblings

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return a handler for the method that ``handler_call_details`` names: for those about one
        live session (Converse, InterruptSession) one that passes the call on to the process that
        has the session, or, where that is this one, to the handler that ``continuation`` returns;
        for others that handler; None where there is no such method. Called by gRPC; see
        ``grpc.ServerInterceptor``."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        if handler_call_details.method == _CONVERSE:
            return self._converse(handler)
        if handler_call_details.method == _INTERRUPT:
            return self._interrupt(handler)
        return handler

    def _converse(self, handler: Handler) -> Handler:
        behaviour = handler.stream_stream
        assert behaviour is not None

        def run(
            requests: Messages, context: grpc.ServicerContext
        ) -> Iterator[pb.ConverseResponse | bytes]:
            first: pb.ConverseRequest | None = next(requests, None)
            if first is None:
                yield from behaviour(iter(()), context)
                return
            owner = self._other(first.start.session_id)
            if owner is None:
                yield from behaviour(chain([first], requests), context)
                return
            unparsed = chain([first.SerializeToString()], _until_broken(requests.unparsed()))
            yield from self._siblings.streaming(owner, _CONVERSE, unparsed, call_of(context))

        return grpc.stream_stream_rpc_method_handler(
            run, request_deserializer=handler.request_deserializer, response_serializer=_bytes_of
        )

    def _interrupt(self, handler: Handler) -> Handler:
        behaviour = handler.unary_unary
        assert behaviour is not None

        def run(request: pb.InterruptSessionRequest, context: grpc.ServicerContext) -> Any:
            owner = self._other(request.session_id)
            if owner is None:
                return behaviour(request, context)
            call = call_of(context)
            left_s = call.remaining_s()
            timeout_s = min(_INTERRUPT_WITHIN_S, _INTERRUPT_WITHIN_S if left_s is None else left_s)
            with self._siblings.asking(
                _INTERRUPT, request, pb.InterruptSessionResponse, timeout_s, call, who=[owner]
            ) as answers:
                said = answers()[owner]
            if isinstance(said, Unavailable):  # its sessions have ended with it
                raise NotFound(NO_SESSION)
            if isinstance(said, LipwireError):
                raise said
            return said

        return grpc.unary_unary_rpc_method_handler(
            run,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _other(self, session_id: str) -> int | None:
        """The process that has that session; None where that is this one, or nobody."""
        owner = self._siblings.place.owner_of(session_id)
        return None if owner == self._siblings.place.index else owner


def _until_broken(messages: Iterator[bytes]) -> Iterator[bytes]:
    # gRPC raises its own Exception when a stream breaks off while it is read, and would log it.
    with suppress(Exception):
        yield from messages


def _bytes_of(answer: pb.ConverseResponse | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()
