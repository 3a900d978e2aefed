"""Statuses as they come over a real connection, from Lipwire's servers and from others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    DependencyMissing,
    InvalidInput,
    LipwireError,
    NotFound,
    Overloaded,
    StorageFailed,
    Unavailable,
)
from lipwire.rpc.backends.statuses import error_of_answer, error_of_call, reason_of_call
from lipwire.rpc.errors import status_of
from lipwire.rpc.reachability import Peer

Code = grpc.StatusCode


class Sender:
    """A server whose one method ends with whatever status is next."""

    def __init__(self) -> None:
        self.status: Any = None
        self._threads = ThreadPoolExecutor(2)

        def end(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort_with_status(self.status)

        handler: Any = grpc.unary_unary_rpc_method_handler(end)

        class Handlers(grpc.GenericRpcHandler):
            def service(self, call: grpc.HandlerCallDetails) -> Any:
                return handler

        self._server = grpc.server(self._threads, handlers=[Handlers()])
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._call: Any = self._channel.unary_unary("/a.B/C")

    def failure(self, status: Any) -> grpc.RpcError:
        self.status = status
        with pytest.raises(grpc.RpcError) as caught:
            self._call(b"", timeout=60)
        return caught.value

    def plain(self, code: grpc.StatusCode, text: str, *details: Any) -> grpc.RpcError:
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        status = status_pb2.Status(code=code.value[0], message=text, details=packed)
        return self.failure(rpc_status.to_status(status))

    def close(self) -> None:
        self._channel.close()
        self._server.stop(0).wait()
        self._threads.shutdown()


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    sender = Sender()
    yield sender
    sender.close()


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("batch is 51; allowed are 1 to 50"),
        NotFound("no avatar named annna"),
        AvatarInvalid("the network failed"),
        DependencyMissing("needs CUDA"),
        StorageFailed("the disk is full"),
        DeadlineExceeded("24 frames would take about 400 ms"),
        Unavailable("the server is stopping"),
        LipwireError("broken"),
    ],
)
def test_what_lipwires_servers_send_comes_back_as_it_was(
    sender: Sender, error: LipwireError
) -> None:
    back = error_of_call(sender.failure(status_of(error)))
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_the_time_to_wait_comes_along(sender: Sender) -> None:
    back = error_of_call(sender.failure(status_of(Overloaded("full", retry_after_s=1.25))))
    assert isinstance(back, Overloaded)
    assert (str(back), back.retry_after_s) == ("full", 1.25)


def test_other_makes_of_server_are_understood_by_their_codes(sender: Sender) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3))
    foreign = error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="googleapis.com")
    back = error_of_call(sender.plain(Code.RESOURCE_EXHAUSTED, "quota of 10.0.0.7", foreign, retry))
    assert isinstance(back, Overloaded)
    assert back.retry_after_s == 3.0
    for code, kind in (
        (Code.INVALID_ARGUMENT, InvalidInput),
        (Code.NOT_FOUND, NotFound),
        (Code.UNAVAILABLE, Unavailable),
        (Code.DEADLINE_EXCEEDED, DeadlineExceeded),
        (Code.CANCELLED, Unavailable),
        (Code.INTERNAL, LipwireError),
        (Code.PERMISSION_DENIED, Unavailable),  # to the server that asks, not to its client
        (Code.UNAUTHENTICATED, Unavailable),
    ):
        assert type(error_of_call(sender.plain(code, "at 10.0.0.7"))) is kind


@pytest.mark.parametrize(
    "code", [Code.UNAVAILABLE, Code.INTERNAL, Code.UNIMPLEMENTED, Code.UNKNOWN]
)
def test_texts_that_are_not_lipwires_stay_in_the_log(sender: Sender, code: grpc.StatusCode) -> None:
    failed = sender.plain(code, "failed to connect to\nipv4:10.0.0.7:50051")
    assert "10.0.0.7" not in str(error_of_call(failed))
    assert reason_of_call(failed) == f"{code.name}: failed to connect to ipv4:10.0.0.7:50051"


@pytest.mark.parametrize("why", ["Connection refused", "something new"])
def test_a_server_that_is_not_reached_stays_without_an_address(sender: Sender, why: str) -> None:
    text = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50051: {why}"
    failed = sender.plain(Code.UNAVAILABLE, text)
    assert str(error_of_call(failed)).startswith("no inference server answers: ")
    assert "10.0.0.7" not in str(error_of_call(failed))
    peer = Peer("gpu1:50051", "inference server")
    assert "gpu1:50051" in str(error_of_call(failed, peer))
    assert why.lower() in reason_of_call(failed, peer).lower()


@pytest.mark.parametrize("text", ["Received RST_STREAM with error code 2", "Stream removed"])
def test_a_connection_that_broke_may_be_tried_again(sender: Sender, text: str) -> None:
    for code in (Code.INTERNAL, Code.UNKNOWN):
        assert isinstance(error_of_call(sender.plain(code, text)), Unavailable)


def test_details_that_are_noise_do_no_harm(sender: Sender) -> None:
    class Noise:
        code = Code.NOT_FOUND
        details = "x"
        trailing_metadata: tuple[tuple[str, bytes], ...] = ()

    endless = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=10**18))
    cut = any_pb2.Any()
    cut.Pack(error_details_pb2.ErrorInfo(reason="x" * 50))
    cut.value = cut.value[:20]
    far = any_pb2.Any()
    far.Pack(endless)
    for details in (b"\xff\xff", *(_status_bytes(detail) for detail in (cut, far))):
        Noise.trailing_metadata = (("grpc-status-details-bin", details),)
        assert isinstance(error_of_call(sender.failure(Noise())), NotFound)


def _status_bytes(detail: any_pb2.Any) -> bytes:
    status = status_pb2.Status(code=Code.NOT_FOUND.value[0], message="x", details=[detail])
    return bytes(status.SerializeToString())


def test_a_negative_time_to_wait_is_none_at_all(sender: Sender) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=-5))
    back = error_of_call(sender.plain(Code.RESOURCE_EXHAUSTED, "full", retry))
    assert isinstance(back, Overloaded)
    assert back.retry_after_s == 0.0


def test_answers_without_success_are_errors_by_their_code() -> None:
    back = error_of_answer("NOT_FOUND", "no avatar\nnamed annna")
    assert isinstance(back, NotFound)
    assert str(back) == "no avatar named annna"
    assert type(error_of_answer("", "")) is LipwireError
