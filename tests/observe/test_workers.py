"""Numbers of processes, read over their sockets."""

import socket
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily
from tests.support.numbers import Read
from tests.support.waiting import until

from lipwire.observe.metrics import ServerMetrics
from lipwire.observe.workers import AnsweringSocket, WorkersMetrics


@pytest.mark.slow
def test_the_numbers_of_all_processes_are_read_and_added(tmp_path: Path) -> None:
    sockets = [tmp_path / "0.numbers", tmp_path / "1.numbers"]
    each = [ServerMetrics(), ServerMetrics()]
    for metrics in each:
        metrics.call("grpc", "a.B/C", "OK", 0.1, None)
    workers = WorkersMetrics(sockets)
    assert workers.read() == b""
    with AnsweringSocket(sockets[0], each[0].read):
        assert Read(workers.read())("lipwire_requests_total") == 1
        with AnsweringSocket(sockets[1], each[1].read):
            assert Read(workers.read())("lipwire_requests_total") == 2
    # Another process in the place of one that was killed finds its socket there.
    assert sockets[0].exists()
    with AnsweringSocket(sockets[0], ServerMetrics().read):
        assert Read(workers.read())("lipwire_requests_total") == 2


@pytest.mark.slow
def test_processes_are_ready_where_one_can_make_mouths(tmp_path: Path) -> None:
    sockets = [tmp_path / "0.numbers", tmp_path / "1.numbers"]
    workers, healthy = WorkersMetrics(sockets), [0.0, 0.0]

    def process(number: int) -> ServerMetrics:
        metrics = ServerMetrics()
        metrics.add(lambda: [GaugeMetricFamily("lipwire_healthy", "x", value=healthy[number])])
        return metrics

    assert not workers.any_healthy()
    with (
        AnsweringSocket(sockets[0], process(0).read),
        AnsweringSocket(sockets[1], process(1).read),
    ):
        assert not workers.any_healthy()
        healthy[1] = 1.0
        assert workers.any_healthy()


def test_whoever_connects_and_goes_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "0.numbers"
    asked: list[None] = []

    def read() -> bytes:
        asked.append(None)
        return b"x" * 1_000_000

    with AnsweringSocket(path, read):
        for count in range(1, 4):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
            until(lambda: len(asked) == count)  # noqa: B023 - called now
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            with client.makefile("rb") as answer:
                assert len(answer.read()) == 1_000_000


def test_numbers_that_cannot_be_read_are_logged_and_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "0.numbers"
    metrics = ServerMetrics()
    fails = [True]

    def read() -> bytes:
        if fails:
            fails.pop()
            raise OSError("nothing there")
        return metrics.read()

    workers = WorkersMetrics([path])
    with AnsweringSocket(path, read):
        assert workers.read() == b""
        assert Read(workers.read()).has("lipwire_build_info")
    assert "could not be read" in caplog.text
