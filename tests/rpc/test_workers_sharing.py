"""What is said of a whole server besides sums."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from lipwire.domain.tracing import current_trace
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.compositing_pb2_grpc import (
    CompositingServiceServicer,
    CompositingServiceStub,
    add_CompositingServiceServicer_to_server,
)
from lipwire.rpc.server.server import ServerOptions, Service
from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.wiring.listening import listening


class Live(CompositingServiceServicer):
    """Has 2 sessions, and room for 5."""

    def Health(self, request: pb.HealthRequest, context: object) -> pb.HealthResponse:  # noqa: N802
        return pb.HealthResponse(healthy=True, live_sessions=2, live_capacity=5)


class Named(Live):
    """Notes the requests that it is asked in."""

    def Health(self, request: pb.HealthRequest, context: object) -> pb.HealthResponse:  # noqa: N802
        trace = current_trace()
        self.asked.append("" if trace is None else trace.request_id)
        return pb.HealthResponse(healthy=True)

    def __init__(self) -> None:
        self.asked: list[str] = []


@pytest.fixture
def folder() -> Iterator[Path]:
    with socket_folder() as path:
        yield path


@pytest.mark.parametrize(("most", "fit"), [(None, 10), (64, 10), (7, 7)])
def test_the_configuration_limits_how_many_sessions_fit_in_all(
    folder: Path, most: int | None, fit: int
) -> None:
    servicer = Live()  # type: ignore[abstract]
    service = Service(
        "compositing.CompositingService",
        lambda server: add_CompositingServiceServicer_to_server(servicer, server),
    )
    with ExitStack() as stack:
        for index in range(2):
            server = stack.enter_context(
                listening(
                    [service],
                    ServerOptions(host="127.0.0.1"),
                    healthy=lambda: True,
                    place=WorkerPlace(folder, index, 2),
                    parts=[service],
                    most_live=most,
                )
            )
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
        stub: Any = CompositingServiceStub(channel)
        health = stub.Health(pb.HealthRequest(), timeout=60)
        assert (health.live_sessions, health.live_capacity, health.detail) == (4, fit, "")


def test_all_processes_work_for_the_same_request(folder: Path) -> None:
    servicer = Named()  # type: ignore[abstract]
    service = Service(
        "compositing.CompositingService",
        lambda server: add_CompositingServiceServicer_to_server(servicer, server),
    )
    with ExitStack() as stack:
        for index in range(3):
            server = stack.enter_context(
                listening(
                    [service],
                    ServerOptions(host="127.0.0.1"),
                    healthy=lambda: True,
                    place=WorkerPlace(folder, index, 3),
                    parts=[service],
                )
            )
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
        stub: Any = CompositingServiceStub(channel)
        stub.Health(pb.HealthRequest(), timeout=60, metadata=[("x-request-id", "mine-1")])
    assert servicer.asked == ["mine-1"] * 3
