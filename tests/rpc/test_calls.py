"""The call of a request that came over gRPC."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest

from lipwire.domain import OPERATIONS, Cancelled
from lipwire.rpc.calls import (
    _KINDS,
    _OPERATIONS,
    _STREAMS,
    ErrorInterceptor,
    _status_for,
    call_of,
    open_call,
    with_call,
)
from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2, mouths_pb2, renders_pb2
from lipwire.rpc.server.admission import Admission
from lipwire.rpc.server.server import _PACKAGES
from lipwire.security import OPEN, AccessControl, AllowedAddresses, Control

FILES: Final = (
    compositing_pb2.DESCRIPTOR,
    inference_pb2.DESCRIPTOR,
    avatar_pb2.DESCRIPTOR,
    mouths_pb2.DESCRIPTOR,
    renders_pb2.DESCRIPTOR,
)


class Context:
    """As much of gRPC's context as ``open_call`` uses."""

    def __init__(
        self, remaining_s: float | None, alive: bool = True, metadata: tuple[Any, ...] = ()
    ) -> None:
        self.remaining_s = remaining_s
        self.alive = alive
        self.metadata = metadata
        self.callbacks: list[Callable[[], None]] = []

    def invocation_metadata(self) -> tuple[Any, ...]:
        return self.metadata

    def time_remaining(self) -> float | None:
        return self.remaining_s

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return self.alive


def opened(context: Context) -> Any:
    return open_call(context)  # type: ignore[arg-type]


def test_a_call_knows_what_its_client_calls_itself() -> None:
    for metadata, client in (
        ((("x-other", "a"), ("x-client-id", "screen 3")), "screen 3"),
        ((("x-client-id-bin", b"a"),), ""),
    ):
        with opened(Context(20.0, metadata=metadata)) as call:
            assert call.client == client
            assert call.classed("live", "acme").client == client


def test_a_servicer_finds_the_call_and_all_else_in_its_context() -> None:
    context: Any = Context(20.0)
    with open_call(context) as call:
        handed = with_call(context, call)
        assert call_of(handed) is call
        assert handed.time_remaining() == 20.0


def test_a_request_without_a_call_is_a_defect() -> None:
    context: Any = Context(None)
    with pytest.raises(TypeError, match="no call was opened"):
        call_of(context)


@pytest.mark.parametrize("remaining_s", [None, math.inf, 1e12])
def test_no_deadline_is_none(remaining_s: float | None) -> None:
    with opened(Context(remaining_s)) as call:
        assert call.remaining_s() is None
        call.check()


def test_watchers_hear_of_the_end_once_however_late_they_come() -> None:
    heard: list[int] = []
    context = Context(None)
    with opened(context) as call:
        call.on_end(lambda: heard.append(1))
        assert heard == []
        (ended,) = context.callbacks
        ended()  # gRPC says that the caller has gone
        assert heard == [1]
        call.on_end(lambda: heard.append(2))
        assert heard == [1, 2]
        with pytest.raises(Cancelled):
            call.check()
    assert heard == [1, 2]


def test_a_call_that_was_over_before_it_began_is_ended() -> None:
    with opened(Context(None, alive=False)) as call:
        assert call.ended


# -- what each call does ---------------------------------------------------------------------------


def test_it_is_known_of_each_method_what_it_does() -> None:
    assert {file.package for file in FILES} == set(_PACKAGES)
    methods = {
        f"/{service.full_name}/{method.name}": method
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert set(_OPERATIONS) == set(methods)
    assert set(_OPERATIONS.values()) <= set(OPERATIONS)
    for path, method in methods.items():
        assert method.client_streaming == method.server_streaming, path
        if method.client_streaming:
            assert method.name in _KINDS, path
        assert method.client_streaming == (path in _STREAMS), path


def _answered(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answered"


def _streamed(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield b"answered"


@pytest.fixture(params=[OPEN, AccessControl(allow_from=AllowedAddresses(["127.0.0.1"]))])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """To a server with methods that nobody has said anything of."""
    control: Control = request.param
    server = grpc.server(
        ThreadPoolExecutor(2), interceptors=[ErrorInterceptor(Admission({}), _PACKAGES, control)]
    )
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_answered, bytes, bytes),
        "Out": grpc.unary_stream_rpc_method_handler(_streamed, bytes, bytes),
        "In": grpc.stream_unary_rpc_method_handler(_answered, bytes, bytes),
        "Both": grpc.stream_stream_rpc_method_handler(_streamed, bytes, bytes),
    }
    for service in ("lipwire.v1.New", "other.New"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


def asked(channel: Any, service: str, method: str) -> bytes:
    path = f"/{service}/{method}"
    match method:
        case "Unary":
            return bytes(channel.unary_unary(path)(b"x", timeout=60))
        case "Out":
            return bytes(next(channel.unary_stream(path)(b"x", timeout=60)))
        case "In":
            return bytes(channel.stream_unary(path)(iter([b"x"]), timeout=60))
    return bytes(next(channel.stream_stream(path)(iter([b"x"]), timeout=60)))


@pytest.mark.parametrize("method", ["Unary", "Out", "In", "Both"])
def test_a_method_of_which_it_is_not_known_is_refused(channel: grpc.Channel, method: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        asked(channel, "lipwire.v1.New", method)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert asked(channel, "other.New", method) == b"answered"  # health, reflection


def test_a_client_that_has_gone_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    gone = _status_for("/lipwire.v1.AvatarService/Converse", grpc.RpcError())  # of the context
    assert gone.details == "the caller has gone"
    assert caplog.text == ""
    defect = _status_for("/lipwire.v1.AvatarService/Converse", ValueError("broken"))
    assert defect.code is grpc.StatusCode.INTERNAL
    assert "incident" in caplog.text
