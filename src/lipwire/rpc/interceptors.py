"""The one place where errors become statuses, and where a request is let in or refused."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc

from lipwire.domain import InvalidInput, LipwireError
from lipwire.rpc.admission import Admission
from lipwire.rpc.calls import Cancelled, open_call
from lipwire.rpc.errors import internal_status, status_of
from lipwire.rpc.parsing import PARSERS, serialize

_log: Final = logging.getLogger("lipwire.rpc")

_KINDS: Final[Mapping[str, str]] = {
    "InferBatchComposite": "inference",
    "InferBatch": "inference",
    "Mouths": "inference",
    "LoadModel": "loading",
}
"""Calls that are counted, and as what; the others are quick."""

INFERENCE_KIND: Final = "inference"
LOADING_KIND: Final = "loading"


@dataclass(frozen=True, slots=True)
class _Received:
    """A request and how large it came; None where it could not be parsed."""

    message: object | None
    size_bytes: int


class ErrorInterceptor(grpc.ServerInterceptor):
    """Runs Lipwire's own calls: admits them, opens their ``Call``, turns errors into statuses.

    Domain errors become the status they name. Anything else is a defect: it is logged with an
    incident number, and the caller gets INTERNAL and that number, nothing of what is inside.
    """

    def __init__(self, admission: Admission, packages: tuple[str, ...]) -> None:
        """``packages``: the protobuf packages this is for; health checks and reflection pass."""
        self._admission = admission
        self._prefixes = tuple(f"/{package}." for package in packages)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._prefixes):
            return handler
        behaviour = handler.unary_unary
        deserializer = PARSERS.get(method, handler.request_deserializer)
        if behaviour is None or deserializer is None:
            return handler

        def parse(data: bytes) -> _Received:
            try:
                return _Received(deserializer(data), len(data))
            except Exception:  # protobuf's DecodeError has no common type among its versions
                return _Received(None, len(data))

        def run(received: _Received, context: grpc.ServicerContext) -> object:
            return self._run(method, behaviour, received, context)

        return grpc.unary_unary_rpc_method_handler(
            run, request_deserializer=parse, response_serializer=serialize
        )

    def _run(
        self,
        method: str,
        behaviour: Callable[[Any, grpc.ServicerContext], object],
        received: _Received,
        context: grpc.ServicerContext,
    ) -> object:
        status: grpc.Status
        request = received.message
        try:
            if request is None:
                raise InvalidInput(f"the message is no protobuf message of {method[1:]}")
            with open_call(context) as call:
                call.check()
                kind = _KINDS.get(method.rpartition("/")[2])
                if kind is None:
                    return behaviour(request, context)
                with self._admission.admit(kind, received.size_bytes):
                    return behaviour(request, context)
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
        # Outside of the try: it raises, which is how gRPC wants a behaviour to end.
        context.abort_with_status(status)
