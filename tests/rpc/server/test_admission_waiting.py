"""Calls whose message does not come: they keep nobody else away."""

import queue
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)
from tests.rpc.plainbackend import NAMES, PlainBackend
from tests.support.waiting import WAIT_S, until

from lipwire.rpc.generated.inference_pb2 import ListModelsRequest, ListModelsResponse
from lipwire.rpc.server.server import RpcServer, ServerOptions, inference_service
from lipwire.rpc.services.inference import InferenceServicer

LIST = "/inference.InferenceService/ListModels"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SILENT = 66
"""Threads for calls that say nothing, of a server of one request at a time."""


@contextmanager
def server() -> Iterator[int]:
    """The port of a server."""
    servicer = InferenceServicer(PlainBackend(), names=lambda: NAMES)
    options = ServerOptions(host="127.0.0.1", max_requests=1)
    with RpcServer([inference_service(servicer)], options) as opened:
        yield opened.port


class Talk:
    """A call that says what it is told to."""

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        self._words: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: Any = channel.stream_stream(method)
        self.call: Any = call(iter(self._words.get, None))

    def say(self, message: Any) -> None:
        self._words.put(message.SerializeToString())

    def end(self) -> None:
        self._words.put(None)

    @property
    def over(self) -> bool:
        return not self.call.is_active()


@contextmanager
def channel(port: int) -> Iterator[grpc.Channel]:
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=own) as opened:
        yield opened


def answered(opened: grpc.Channel) -> int:
    """How many avatars a server lists, which is healthy."""
    check: Any = opened.unary_unary(CHECK, response_deserializer=HealthCheckResponse.FromString)
    assert check(b"", timeout=WAIT_S).status == HealthCheckResponse.SERVING
    listed: Any = opened.unary_unary(LIST, response_deserializer=ListModelsResponse.FromString)
    return len(listed(ListModelsRequest().SerializeToString(), timeout=WAIT_S).models)


@pytest.mark.slow
@pytest.mark.parametrize("method", [LIST, CHECK, WATCH, REFLECTION])
def test_calls_that_say_nothing_keep_nobody_away(method: str) -> None:
    with server() as port, ExitStack() as stack, channel(port) as opened:
        expected = answered(opened)
        calls: list[Talk] = []
        for _ in range(4):
            others = stack.enter_context(channel(port))
            for _ in range(60):
                calls.append(Talk(others, method))
                stack.callback(calls[-1].end)
        until(lambda: sum(each.over for each in calls) == len(calls) - SILENT)
        assert answered(opened) == expected
        ended = next(each for each in calls if each.over)
        assert ended.call.code() is grpc.StatusCode.CANCELLED


def test_who_speaks_late_is_answered() -> None:
    with server() as port, channel(port) as opened:
        talk = Talk(opened, LIST)
        answered(opened)
        talk.say(ListModelsRequest())
        assert ListModelsResponse.FromString(next(talk.call)).models


def test_reflection_that_has_spoken_may_be_cancelled_when_it_says_nothing_more() -> None:
    with server() as port, channel(port) as opened, ExitStack() as stack:
        first = Talk(opened, REFLECTION)
        stack.callback(first.end)
        for _ in range(2):
            first.say(ServerReflectionRequest(list_services=""))
            told = ServerReflectionResponse.FromString(next(first.call))
            names = [each.name for each in told.list_services_response.service]
            assert "inference.InferenceService" in names
        for _ in range(2 * SILENT):  # it may wait for its next message only after some of them
            silent = Talk(opened, CHECK)
            stack.callback(silent.end)
        until(lambda: first.over)


@pytest.mark.slow
def test_a_health_watch_stays_without_a_thread() -> None:
    with server() as port, channel(port) as opened, ExitStack() as stack:
        watching = []
        for _ in range(SILENT + 200):
            talk = Talk(opened, WATCH)
            stack.callback(talk.call.cancel)
            stack.callback(talk.end)
            talk.say(HealthCheckRequest())
            told = HealthCheckResponse.FromString(next(talk.call))
            assert told.status == HealthCheckResponse.SERVING
            watching.append(talk)
        assert not any(each.over for each in watching)
        answered(opened)


def test_a_call_without_a_message_is_refused() -> None:
    with server() as port, channel(port) as opened:
        talk = Talk(opened, CHECK)
        talk.end()
        with pytest.raises(grpc.RpcError) as caught:
            next(talk.call)
        failed: Any = caught.value
        assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert failed.details() == "the call has no message"
