"""The numbers of real processes that share a port, as Prometheus reads them."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tests.cli.test_workers import workers_of
from tests.support.numbers import Read
from tests.support.waiting import until

from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated import compositing_pb2

pytestmark = pytest.mark.slow  # three processes each

if TYPE_CHECKING:
    from tests.cli.conftest import Served, Serving

WINDOW = bytes(32 * 16 * 16 * 4)


def started(serving: Serving, root: Path, workers: int) -> Served:
    served = serving(
        *("serve", "--models-root", root, "--workers", workers, "--no-web", "--port", 0)
    )
    served.wait_for("Ready", 180)
    return served


def address_of(served: Served) -> str:
    return f"127.0.0.1:{served.wait_for(r'istening on port ([0-9]+)')}"


def replaced(served: Served, number: int, pid: int) -> bool:
    """Whether another process has the place of ``pid``."""
    with suppress(ValueError, OSError):  # one that has ended, or not begun, has no command line
        return workers_of(served).get(number) not in (None, pid)
    return False


def numbers_at(served: Served) -> str:
    return served.wait_for(r"Prometheus: (http://[0-9.:]+)/metrics")


def composite(address: str, times: int) -> None:
    request = compositing_pb2.CompositeBatchRequest(
        model_id="anna", audio_features=WINDOW, batch_size=2
    )
    for _ in range(times):
        with CompositingConnection(address) as connection:
            connection.composite(request, 60)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_processes_are_in_the_sums_and_stay_there(
    serving: Serving, compiled_template: Path, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(compiled_template, tmp_path / "models" / "anna")
    served = started(serving, tmp_path / "models", workers)
    where, address = numbers_at(served), address_of(served)

    def read() -> Read:
        with urlopen(f"{where}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            return Read(answer.read())

    def asked() -> float:
        return read()("lipwire_requests_total", code="OK")

    composite(address, 8)
    until(lambda: asked() == 8)
    found = read()
    assert found("lipwire_frames_total") == 16
    assert found("lipwire_jpeg_seconds_count") == 16
    assert found("lipwire_build_info") == 1
    assert found("process_resident_memory_bytes") > workers * 50e6
    with urlopen(f"{where}/readyz") as answer:
        assert answer.status == 200
    if workers == 1:
        return
    for number, pid in workers_of(served).items():
        os.kill(pid, signal.SIGKILL)
        until(lambda: replaced(served, number, pid))  # noqa: B023 - called now
        assert asked() == 8
    until(lambda: read()("lipwire_healthy") == 2)  # both are there again
    composite(address, 2)
    until(lambda: asked() == 10)


def test_a_server_that_ends_is_not_ready(
    serving: Serving, compiled_template: Path, tmp_path: Path
) -> None:
    shutil.copytree(compiled_template, tmp_path / "models" / "anna")
    served = started(serving, tmp_path / "models", 2)
    where = numbers_at(served)
    pids = list(workers_of(served).values())
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # so that the parent waits for them
    try:
        served.process.send_signal(signal.SIGTERM)

        def status() -> int:
            try:
                with urlopen(f"{where}/readyz", timeout=60) as answer:
                    return int(answer.status)
            except HTTPError as refused:
                return int(refused.code)

        until(lambda: status() == 503)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert served.process.wait(60) == 0
