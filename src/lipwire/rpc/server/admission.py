"""How many requests are worked on at a time, none once the server drains; and how many calls wait
for their client.

gRPC gives each call a thread as soon as its head is there, and the thread waits for the message as
long as the client likes, before anybody has asked who that is: some hundred calls that say nothing
would keep all others away. So would calls whose client takes no answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any, Final

import grpc

from lipwire.domain import InvalidInput, Overloaded, Unavailable

_RETRY_AFTER_S: Final = 0.25


class Admission:
    """Limits how many requests of each kind are worked on at a time, and how many bytes they have
    together, and refuses the rest at once. The kinds, texts like "inference", and their limits are
    given when it is made. Thread-safe.

    Refusing here, rather than in gRPC's thread pool, leaves threads for health checks, and the
    refusal says when another attempt may succeed.
    """

    __slots__ = ("_bytes", "_changed", "_draining", "_in_hand", "_limits", "_max_bytes")

    def __init__(self, limits: dict[str, int], *, max_bytes: int | None = None) -> None:
        """``limits`` is how many requests of each kind are admitted at a time, 1 or more, by the
        kind; ``max_bytes`` how large all of them may be together (None: without limit). Raises
        InvalidInput for a limit below 1."""
        for kind, limit in limits.items():
            if limit < 1:
                raise InvalidInput(f"{limit} {kind} requests at a time; allowed are 1 and more")
        self._limits: Final = dict(limits)
        self._in_hand: Final = dict.fromkeys(limits, 0)
        self._max_bytes: Final = max_bytes
        self._bytes = 0
        self._changed: Final = Condition()
        self._draining = False

    @contextmanager
    def admit(self, kind: str, size_bytes: int = 0) -> Iterator[None]:
        """Count a request of ``kind``, one of those that this was made with, of ``size_bytes``, as
        being worked on during the ``with`` block. A context manager; it does not wait for room.
        Raises Overloaded where there are too many of that kind already, or too many bytes of all,
        Unavailable once ``drain`` was called, and KeyError for another kind."""
        with self._changed:
            if self._draining:
                raise Unavailable("the server is shutting down; ask another one")
            limit = self._limits[kind]
            if self._in_hand[kind] >= limit:
                raise Overloaded(
                    f"{limit} {kind} requests are in hand, the most this server takes at a time",
                    retry_after_s=_RETRY_AFTER_S,
                )
            if self._max_bytes is not None and self._bytes + size_bytes > self._max_bytes:
                raise Overloaded(
                    f"{self._bytes:,} bytes of requests are in hand and this one has"
                    f" {size_bytes:,}; allowed are {self._max_bytes:,} together",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self._in_hand[kind] += 1
            self._bytes += size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._in_hand[kind] -= 1
                self._bytes -= size_bytes
                self._changed.notify_all()

    @property
    def draining(self) -> bool:
        """Whether ``drain`` was called, so that every new request is refused, for good, while those
        that were admitted before go on."""
        return self._draining

    @property
    def in_hand(self) -> int:
        """How many requests, of all kinds, are being worked on now."""
        with self._changed:
            return sum(self._in_hand.values())

    def drain(self, timeout_s: float) -> bool:
        """Refuse all requests from now on, and wait until those that were admitted are done, at
        most ``timeout_s`` seconds. Returns whether they are; those that are not go on. Calling it
        again waits again."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not any(self._in_hand.values()), timeout_s)


class WaitingCalls:
    """Limits how many calls wait for a message of their client, or for their client to take one:
    where more calls wait than the number that this was made with, the one that has waited for
    longest is cancelled. Thread-safe."""

    def __init__(self, most: int) -> None:
        """``most`` calls may wait at a time; the server has so many threads for them."""
        self._most: Final = most
        self._lock = threading.Lock()
        self._waiting: dict[object, grpc.ServicerContext] = {}

    @contextmanager
    def waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Count the call of ``context``, gRPC's own, as waiting during the ``with`` block. A
        context manager, which never waits itself; where there are too many, it cancels the call
        that has waited for longest, whose client gets CANCELLED."""
        key = object()
        longest = None
        with self._lock:
            if len(self._waiting) >= self._most:
                longest = self._waiting.pop(next(iter(self._waiting)))
            self._waiting[key] = context
        if longest is not None:
            longest.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(key, None)


class WaitingCallsInterceptor(grpc.ServerInterceptor):
    """A gRPC interceptor, the outermost one, that limits by ``WaitingCalls`` how many calls wait
    for their message, for the next one of a stream, or, in a stream, for their client to take an
    answer. gRPC calls it for each call."""

    def __init__(self, waiting: WaitingCalls, lasting: tuple[str, ...] = ()) -> None:
        """``waiting`` limits the calls. Streams of methods whose full names begin with one of
        ``lasting`` ("/package.") are not counted, and may wait for as long as they like, because
        their number is limited elsewhere."""
        self._calls = waiting
        self._lasting = lasting

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return a handler for the method that ``handler_call_details`` names. It runs the handler
        that ``continuation`` returns, and counts a call as waiting while a message of its client is
        waited for, or while the client of a stream takes an answer; where too many wait, the call
        that has waited for longest is cancelled. A call of a method that takes one message ends
        with INVALID_ARGUMENT where its client sends none. None where there is no such method.
        Called by gRPC, as that of every ``grpc.ServerInterceptor``."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        parse, pack = handler.request_deserializer, handler.response_serializer
        # As streams, these are called before their message has come.
        if handler.unary_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._one(handler.unary_unary), parse, pack)
        if handler.unary_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._one(handler.unary_stream), parse, pack
            )
        lasting = handler_call_details.method.startswith(self._lasting)
        if handler.stream_stream is not None and not lasting:
            return grpc.stream_stream_rpc_method_handler(
                self._each(handler.stream_stream), parse, pack
            )
        return handler

    def _one(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def run(requests: Iterator[Any], context: grpc.ServicerContext, *more: Any) -> Any:
            with self._calls.waiting(context):
                request = next(requests, self)
            if request is self:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
            return behaviour(request, context, *more)

        if not getattr(behaviour, "experimental_non_blocking", False):
            return run

        def watch(
            requests: Iterator[Any], context: grpc.ServicerContext, send: Callable[[Any], object]
        ) -> Any:
            def counted(answer: Any) -> None:
                with self._calls.waiting(context):
                    send(answer)

            return run(requests, context, counted)

        watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # gRPC's own mark
        return watch

    def _each(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def run(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            def heard() -> Iterator[Any]:
                while True:
                    with self._calls.waiting(context):
                        request = next(requests, self)
                    if request is self:
                        return
                    yield request

            for answer in behaviour(heard(), context):
                with self._calls.waiting(context):
                    yield answer

        return run
