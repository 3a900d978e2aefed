"""Calls about the whole server, passed on to its other processes and answered for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from lipwire.domain import Call, Cancelled, LipwireError
from lipwire.rpc.calls import call_of
from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.workers.merging import Answer, one_effect, one_health, one_list, one_sum
from lipwire.rpc.workers.siblings import Siblings

Outcome = Answer | LipwireError
Merge = Callable[[int, Outcome, Mapping[int, Outcome]], Answer]
"""Makes one answer of this process's number, what it says itself, and what the others say."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """How a call is passed on."""

    merge: Merge
    longest_s: float
    """What another process has to answer in."""
    share: float
    """As much of what the caller has left, at most: there is to be time to say who was late."""


def _of_good(merge: Callable[[Answer, Mapping[int, Outcome]], Answer]) -> Merge:
    def merged(_: int, own: Outcome, others: Mapping[int, Outcome]) -> Answer:
        return merge(_answered(own), others)

    return merged


def _answered(own: Outcome) -> Answer:
    if isinstance(own, LipwireError):
        raise own
    return own


_HOW: Final[Mapping[str, _Shared]] = {
    # An avatar may have to be compiled, which takes minutes.
    "LoadModel": _Shared(one_effect, 600.0, 0.9),
    "UnloadModel": _Shared(one_effect, 10.0, 0.9),
    "ListModels": _Shared(_of_good(one_list), 2.0, 0.9),
    "GetModelStats": _Shared(_of_good(one_sum), 2.0, 0.9),
    # Asked once a second by whoever watches this server, with little time.
    "Health": _Shared(
        lambda index, own, others: one_health(index, _answered(own), others), 1.0, 0.5
    ),
}
_SERVICES: Final = (
    compositing_pb2.DESCRIPTOR.services_by_name["CompositingService"],
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
)
_METHODS: Final[Mapping[str, tuple[type[Message], _Shared]]] = {
    f"/{service.full_name}/{name}": (
        GetMessageClass(service.methods_by_name[name].output_type),
        shared,
    )
    for service in _SERVICES
    for name, shared in _HOW.items()
}
"""Everything else is one process's business."""


class SharingInterceptor(grpc.ServerInterceptor):
    """A gRPC interceptor that answers calls about the whole server (lists, loads, statistics,
    health) for all of its processes: it asks them all and merges the answers. gRPC calls it for
    each call.

    It goes behind ``ErrorInterceptor``, whose ``Call`` says how long there is.
    """

    def __init__(self, siblings: Siblings, *, most_live: int | None = None) -> None:
        """``siblings`` are the server's other processes, ``most_live`` the live sessions that all
        processes may have together; None is no limit."""
        self._siblings = siblings
        self._most_live = most_live

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return a handler for the method that ``handler_call_details`` names: for those about the
        whole server (LoadModel, UnloadModel, ListModels, GetModelStats, Health) one that asks all
        processes, this one by the handler that ``continuation`` returns, and answers with what they
        say together; for others that handler; None where there is no such method. Called by gRPC;
        see ``grpc.ServerInterceptor``."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.unary_unary is None or method not in _METHODS:
            return handler
        behaviour = handler.unary_unary
        kind, shared = _METHODS[method]

        def run(request: Message, context: grpc.ServicerContext) -> Answer:
            call = call_of(context)
            timeout_s = _timeout_s(shared, call)
            own: Outcome
            with self._siblings.asking(method, request, kind, timeout_s, call) as answers:
                try:
                    own = behaviour(request, context)
                except Cancelled:
                    raise
                except LipwireError as error:
                    own = error
                answer = shared.merge(self._siblings.place.index, own, answers())
            if self._most_live is not None and isinstance(answer, compositing_pb2.HealthResponse):
                answer.live_capacity = min(answer.live_capacity, self._most_live)
            return answer

        return grpc.unary_unary_rpc_method_handler(
            run,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _timeout_s(shared: _Shared, call: Call) -> float:
    left_s = call.remaining_s()
    return shared.longest_s if left_s is None else min(shared.longest_s, left_s * shared.share)
