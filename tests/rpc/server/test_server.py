"""A running server: what it refuses, what it survives, how it ends."""

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from tests.support.waiting import WAIT_S, until

from lipwire.domain import Overloaded, Unavailable
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.generated.lipwire.v1.mouths_pb2 import (
    SERVICE_LIVE,
    LeaseRequest,
    MouthsRequest,
)
from lipwire.rpc.generated.lipwire.v1.mouths_pb2_grpc import MouthServiceStub
from lipwire.rpc.server.server import RpcServer, ServerOptions

if TYPE_CHECKING:
    from tests.rpc.conftest import Connect, Serve
    from tests.rpc.plainbackend import PlainBackend

REQUEST = pb.CompositeBatchRequest(
    model_id="anna", audio_features=bytes(32 * 16 * 16 * 4), batch_size=1
)
METHOD = "/compositing.CompositingService/InferBatchComposite"
CODES = grpc.StatusCode


def failure(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def details(failed: Any) -> tuple[Any, Any]:
    """google.rpc.ErrorInfo and RetryInfo of a failed call; None where it has none."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(failed)
    packed = status.details if status is not None else []
    has_info = any(detail.Unpack(info) for detail in packed if detail.Is(info.DESCRIPTOR))
    has_retry = any(detail.Unpack(retry) for detail in packed if detail.Is(retry.DESCRIPTOR))
    return info if has_info else None, retry if has_retry else None


def send(channel: grpc.Channel, data: bytes, method: str = METHOD) -> Any:
    """The future of a call whose message is ``data``, whatever that is."""
    call: Any = channel.unary_unary(method)
    return call.future(data, timeout=WAIT_S)


def health_stub(channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)  # its methods are added when it is made


def serving(channel: grpc.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = health_stub(channel).Check(request, timeout=WAIT_S)
    return int(answer.status)


@pytest.mark.slow
def test_overload_is_a_status_that_says_when_to_come_back(
    channel: grpc.Channel, backend: "PlainBackend"
) -> None:
    backend.error = Overloaded("the queue holds 50 of 50", retry_after_s=1.75)
    failed = failure(lambda: CompositingServiceStub(channel).InferBatchComposite(REQUEST))
    assert failed.code() is CODES.RESOURCE_EXHAUSTED
    assert failed.details() == "the queue holds 50 of 50"
    info, retry = details(failed)
    assert (info.reason, info.domain) == ("OVERLOADED", "lipwire")
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 750_000_000)


def test_more_requests_than_the_server_takes_are_refused_at_once(
    serve: "Serve", connect: "Connect", backend: "PlainBackend"
) -> None:
    channel = connect(serve(ServerOptions(host="127.0.0.1", max_requests=2)))
    stub = CompositingServiceStub(channel)
    backend.wait = threading.Event()
    taken = [stub.InferBatchComposite.future(REQUEST) for _ in range(2)]
    until(lambda: len(backend.timeouts) == 2)
    failed = failure(lambda: stub.InferBatchComposite(REQUEST))
    assert failed.code() is CODES.RESOURCE_EXHAUSTED
    assert details(failed)[1] is not None
    # Others are still answered.
    assert stub.Health(pb.HealthRequest(), timeout=WAIT_S).healthy
    assert serving(channel) == health_pb2.HealthCheckResponse.SERVING
    backend.wait.set()
    assert all(call.result().success for call in taken)
    assert stub.InferBatchComposite(REQUEST).success


def test_frames_and_leases_of_live_sessions_are_taken_when_no_other_request_is(
    serve: "Serve", connect: "Connect", backend: "PlainBackend"
) -> None:
    channel = connect(serve(ServerOptions(host="127.0.0.1", max_requests=1)))
    stub = MouthServiceStub(channel)
    batch = MouthsRequest(model_id="anna", count=1, windows=bytes(32 * 16 * 16 * 4))
    backend.wait = threading.Event()
    taken = stub.Mouths.future(batch)
    until(lambda: len(backend.timeouts) == 1)
    assert failure(lambda: stub.Mouths(batch)).code() is CODES.RESOURCE_EXHAUSTED
    request = MouthsRequest(service=SERVICE_LIVE)
    request.MergeFrom(batch)
    live = stub.Mouths.future(request)
    lease = stub.Lease.future(LeaseRequest(holder="session", model_id="anna"))
    until(lambda: len(backend.timeouts) == 3)
    backend.wait.set()
    assert len(live.result().pixels) == len(taken.result().pixels)
    assert lease.result().lasts_s > 0


def test_what_breaks_inside_is_internal_with_a_number_that_the_log_has(
    channel: grpc.Channel, backend: "PlainBackend", caplog: pytest.LogCaptureFixture
) -> None:
    backend.error = RuntimeError("cannot open /srv/secret/weights.bin")
    failed = failure(lambda: CompositingServiceStub(channel).InferBatchComposite(REQUEST))
    assert failed.code() is CODES.INTERNAL
    info, retry = details(failed)
    incident = info.metadata["incident"]
    assert failed.details() == f"internal error; the server's log has it under {incident}"
    assert retry is None
    everything = str(failed) + str(failed.trailing_metadata())
    assert "secret" not in everything
    assert "Traceback" not in everything
    (record,) = [record for record in caplog.records if incident in record.getMessage()]
    assert record.levelno == logging.ERROR
    assert "secret" in (record.exc_text or "")


@pytest.mark.slow
def test_random_and_cut_messages_get_an_answer_and_do_no_harm(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(11)
    whole = REQUEST.SerializeToString()
    messages = [random.bytes(int(size)) for size in random.integers(0, 300, 400)]
    messages += [whole[: int(end)] for end in random.integers(1, len(whole), 100)]
    codes = set()
    for sent in [send(channel, message) for message in messages]:
        try:
            answer = pb.CompositeBatchResponse.FromString(sent.result())
            assert not answer.success
            assert answer.error
            codes.add(CODES.OK)
        except grpc.RpcError as error:
            failed: Any = error
            codes.add(failed.code())
            if failed.code() is CODES.INVALID_ARGUMENT:
                assert failed.details() == f"the message is no protobuf message of {METHOD[1:]}"
            else:
                assert failed.code() is CODES.RESOURCE_EXHAUSTED
                assert "in hand" in failed.details()
    assert {CODES.OK, CODES.INVALID_ARGUMENT} <= codes
    assert CompositingServiceStub(channel).InferBatchComposite(REQUEST).success
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.slow
def test_a_message_of_200_mb_is_refused_by_its_size(channel: grpc.Channel) -> None:
    failed = failure(lambda: send(channel, bytes(200 * 1024 * 1024)).result())
    assert failed.code() is CODES.RESOURCE_EXHAUSTED
    assert "larger than max" in failed.details()
    assert CompositingServiceStub(channel).InferBatchComposite(REQUEST).success


def test_the_limit_on_messages_is_the_configured_one(serve: "Serve", connect: "Connect") -> None:
    options = ServerOptions(host="127.0.0.1", max_message_bytes=40_000)
    channel = connect(serve(options))
    stub = CompositingServiceStub(channel)
    assert stub.InferBatchComposite(REQUEST).success
    failed = failure(lambda: send(channel, bytes(40_001)).result())
    assert failed.code() is CODES.RESOURCE_EXHAUSTED


def test_an_unknown_call_is_unimplemented(channel: grpc.Channel) -> None:
    failed = failure(lambda: send(channel, b"", "/compositing.CompositingService/No").result())
    assert failed.code() is CODES.UNIMPLEMENTED


@pytest.mark.slow
def test_the_deadline_reaches_the_backend_and_ends_the_work(
    channel: grpc.Channel, backend: "PlainBackend"
) -> None:
    backend.wait = threading.Event()
    stub = CompositingServiceStub(channel)
    for given_s in (0.3, 3.0, 30.0):  # a busy machine may need longer to take the request in
        failed = failure(partial(stub.InferBatchComposite, REQUEST, timeout=given_s))
        assert failed.code() is CODES.DEADLINE_EXCEEDED
        if any(backend.timeouts):
            break
    timeouts = [timeout_s for timeout_s in backend.timeouts if timeout_s is not None]
    assert len(timeouts) == len(backend.timeouts)
    assert 0 < max(timeouts) <= given_s + 0.01  # gRPC rounds deadlines to milliseconds, upwards
    assert backend.left.wait(WAIT_S)


def test_without_a_deadline_the_backend_is_given_none(
    channel: grpc.Channel, backend: "PlainBackend"
) -> None:
    CompositingServiceStub(channel).InferBatchComposite(REQUEST)
    assert backend.timeouts == [None]


def test_a_cancelled_call_ends_the_work_and_frees_its_place(
    server: RpcServer,
    channel: grpc.Channel,
    backend: "PlainBackend",
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend.wait = threading.Event()
    call = CompositingServiceStub(channel).InferBatchComposite.future(REQUEST)
    assert backend.entered.wait(WAIT_S)
    assert server.in_hand == 1
    call.cancel()
    assert backend.left.wait(WAIT_S), "the backend was not told"
    until(lambda: server.in_hand == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_vanishes_ends_the_work(
    server: RpcServer, connect: "Connect", backend: "PlainBackend"
) -> None:
    backend.wait = threading.Event()
    channel = connect(server)
    begun = CompositingServiceStub(channel).InferBatchComposite.future(REQUEST)
    assert backend.entered.wait(WAIT_S)
    assert not begun.done()
    channel.close()
    assert backend.left.wait(WAIT_S)
    until(lambda: server.in_hand == 0)


def test_draining_finishes_what_is_in_hand_and_refuses_the_rest(
    server: RpcServer, channel: grpc.Channel, backend: "PlainBackend"
) -> None:
    backend.wait = threading.Event()
    stub = CompositingServiceStub(channel)
    begun = stub.InferBatchComposite.future(REQUEST)
    assert backend.entered.wait(WAIT_S)
    ended: list[bool] = []
    drainer = threading.Thread(target=lambda: ended.append(server.drain(WAIT_S)))
    drainer.start()
    until(lambda: server._admission.draining)
    assert serving(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
    failed = failure(lambda: stub.InferBatchComposite(REQUEST))
    assert failed.code() is CODES.UNAVAILABLE
    assert details(failed)[1] is not None
    assert not ended
    backend.wait.set()
    assert begun.result(timeout=WAIT_S).success
    drainer.join(WAIT_S)
    assert ended == [True]
    failed = failure(lambda: stub.InferBatchComposite(REQUEST, timeout=WAIT_S))
    assert failed.code() is CODES.UNAVAILABLE


def test_a_server_that_withdraws_is_not_ready_and_answers_all_the_same(
    server: RpcServer, channel: grpc.Channel
) -> None:
    ready = [server.ready]
    server.withdraw()
    ready.append(server.ready)
    assert ready == [True, False]
    assert serving(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
    assert CompositingServiceStub(channel).InferBatchComposite(REQUEST).success
    assert server.drain(WAIT_S)


def test_draining_cuts_off_what_takes_too_long(
    server: RpcServer, channel: grpc.Channel, backend: "PlainBackend"
) -> None:
    backend.wait = threading.Event()
    begun = CompositingServiceStub(channel).InferBatchComposite.future(REQUEST)
    assert backend.entered.wait(WAIT_S)
    assert not server.drain(0.2)  # the backend would wait for a minute, and then fail
    assert failure(lambda: begun.result(timeout=WAIT_S)).code() in (
        CODES.CANCELLED,
        CODES.UNAVAILABLE,
    )
    assert backend.left.wait(WAIT_S)


@pytest.mark.slow
def test_health_checking_v1_follows_the_servers_health(
    serve: "Serve", connect: "Connect", backend: "PlainBackend"
) -> None:
    server = serve(healthy=lambda: backend.is_healthy)
    channel = connect(server)
    kinds = health_pb2.HealthCheckResponse
    name = "compositing.CompositingService"
    assert serving(channel) == serving(channel, name) == kinds.SERVING
    backend.is_healthy = False
    until(lambda: serving(channel, name) == kinds.NOT_SERVING)
    backend.is_healthy = True
    until(lambda: serving(channel) == kinds.SERVING)
    request = health_pb2.HealthCheckRequest(service="nobody")
    failed = failure(lambda: health_stub(channel).Check(request))
    assert failed.code() is CODES.NOT_FOUND


def test_reflection_tells_services_and_messages(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) >= {
        "compositing.CompositingService",
        "inference.InferenceService",
        "lipwire.v1.MouthService",
        "grpc.health.v1.Health",
    }
    file = database.FindFileContainingSymbol("compositing.CompositeBatchRequest")
    assert "raw_audio" in str(file)


@pytest.mark.parametrize(
    "service", ["compositing.CompositingService", "inference.InferenceService"]
)
def test_a_client_that_knows_only_reflection_can_make_every_call_about_models(
    channel: grpc.Channel, service: str
) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    methods = pool.FindServiceByName(service).methods_by_name
    answers: dict[str, Any] = {}
    for name in ("ListModels", "LoadModel", "GetModelStats", "Health", "UnloadModel"):
        takes, gives = (
            GetMessageClass(kind) for kind in (methods[name].input_type, methods[name].output_type)
        )
        request: Any = takes()
        if "model_id" in takes.DESCRIPTOR.fields_by_name:
            request.model_id = "anna"
        data = send(channel, request.SerializeToString(), f"/{service}/{name}").result()
        answers[name] = gives.FromString(data)
    assert [row.model_id for row in answers["ListModels"].models][:1] == ["anna"]
    assert answers["LoadModel"].success
    assert [row.model_id for row in answers["GetModelStats"].models] == ["anna"]
    assert answers["Health"].healthy
    assert answers["UnloadModel"].success


def test_an_address_that_is_taken_is_said(serve: "Serve") -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}: another"):
            serve(ServerOptions(host="127.0.0.1", port=port))


def test_two_servers_do_not_share_a_port_by_accident(serve: "Serve") -> None:
    port = serve().port
    with pytest.raises(Unavailable, match="cannot listen"):
        serve(ServerOptions(host="127.0.0.1", port=port))


def test_servers_come_and_go_without_leaving_threads(serve: "Serve") -> None:
    serve().stop()
    before = set(threading.enumerate())
    for _ in range(5):
        serve().stop()
    until(lambda: set(threading.enumerate()) <= before)
