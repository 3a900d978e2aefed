"""How servers end: processes on ports of the loopback, signals, workers that die."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.cli.conftest import WAIT_S, Serving, children_of, frames_of, serving_in
from tests.support.waiting import until

from lipwire.domain import DeadlineExceeded, Float32Array, LipwireError, Unavailable
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.requests import requests_of_windows

# Networks begin no run while there is a file "held" in the server's folder.
HELD = """
import time
from pathlib import Path
from lipwire.cli.main import main
from lipwire.engine import Engine

infer = Engine.infer

def infer_late(*arguments):
    while Path("held").exists():
        time.sleep(0.01)
    return infer(*arguments)

Engine.infer = infer_late
main()
"""


@pytest.fixture
def held_back(tmp_path: Path) -> Iterator[Serving]:
    """Servers whose networks wait while there is a file ``held`` in the test's folder."""
    with ExitStack() as stack:
        yield serving_in(stack, tmp_path, ("-c", HELD))


def is_refused(connection: CompositingConnection) -> bool:
    """Whether new requests are. One that crosses with the signal is still let in."""
    window = bytes(32 * 16 * 16 * 4)
    request = CompositeBatchRequest(model_id="sanders", audio_features=window, batch_size=1)
    try:
        connection.composite(request, 2)
    except Unavailable:
        return True
    except DeadlineExceeded:
        pass
    return False


@pytest.mark.slow
def test_a_signal_lets_a_batch_finish_and_the_process_end_well(
    held_back: Serving, models_root: Path, windows: Float32Array, tmp_path: Path
) -> None:
    served = held_back("serve", "--models-root", models_root, "--port", 0)
    request = CompositeBatchRequest(
        model_id="sanders", audio_features=windows[:50].tobytes(), batch_size=50
    )
    answers: list[Any] = []
    with (
        CompositingConnection(served.address) as connection,
        grpc.insecure_channel(served.address) as channel,
    ):
        connection.load("sanders")
        (tmp_path / "held").touch()
        health: Any = health_pb2_grpc.HealthStub(channel)
        said = health.Watch(health_pb2.HealthCheckRequest())
        serving_status = health_pb2.HealthCheckResponse
        assert next(said).status == serving_status.SERVING

        def ask() -> None:
            try:
                answers.append(connection.composite(request, WAIT_S))
            except LipwireError as error:
                answers.append(error)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        until(lambda: connection.stats("sanders").models[0].in_use == 3)
        served.process.send_signal(signal.SIGTERM)
        assert next(said).status == serving_status.NOT_SERVING
        until(lambda: is_refused(connection))
        assert answers == []
        (tmp_path / "held").unlink()
        for thread in asking:
            thread.join()
    assert served.wait() == 0
    assert [len(answer.frames) for answer in answers] == [50, 50, 50]
    assert "draining: 3 requests in hand" in served.text
    assert served.lines[-1].endswith("stopped")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_until_the_delay_is_over_what_comes_is_taken(
    serving: Serving, models_root: Path, windows: Float32Array, workers: int
) -> None:
    environ = {"LIPWIRE_SERVER__DRAIN_DELAY": "300", "LIPWIRE_METRICS__PORT": "0"}
    at = ["--models-root", models_root, "--host", "127.0.0.1", "--port", 0, "--workers", workers]
    served = serving("serve", *at, **environ)
    port = int(served.wait_for(r"[Ll]istening on port (\d+)"))
    metrics = served.wait_for(r"Prometheus: (http://127.0.0.1:\d+)/")
    served.wait_for("Ready")

    def says(path: str) -> int:
        try:
            return int(urlopen(f"{metrics}/{path}", timeout=WAIT_S).status)
        except HTTPError as refused:
            return refused.code

    until(lambda: says("readyz/balancer") == 200)
    served.process.send_signal(signal.SIGTERM)
    until(lambda: says("readyz/balancer") == 404)
    assert says("readyz") == 503
    requests = requests_of_windows("sanders", windows[:24], 24)
    assert len(frames_of(f"127.0.0.1:{port}", requests)) == 24
    children = children_of(served.process.pid)
    assert served.end() == 128 + signal.SIGTERM  # the second signal does not wait
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_one_line(serving: Serving, models_root: Path, workers: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        options = ["--host", "127.0.0.1", "--port", port, "--workers", workers]
        served = serving("serve", "--models-root", models_root, *options)
        assert served.wait() == 1
    line = served.wait_for(r"error: .*")
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert served.lines[-1] == line


@pytest.mark.slow
def test_workers_share_a_port_and_a_dead_one_is_replaced(
    serving: Serving, models_root: Path, windows: Float32Array
) -> None:
    served = serving("serve", "--models-root", models_root, "--workers", 2, "--port", 0)
    port = int(served.wait_for(r"Listening on port (\d+)"))
    served.wait_for("Ready")
    children = children_of(served.process.pid)
    assert len(children) == 2
    os.kill(children[0], signal.SIGKILL)
    served.wait_for(r"worker \d \(process \d+\) ended with -9")
    until(
        lambda: len(set(children_of(served.process.pid)) - {children[0]}) == 2,
        seen=lambda: served.text,
    )
    now = children_of(served.process.pid)
    frames = frames_of(f"127.0.0.1:{port}", requests_of_windows("sanders", windows[:24], 24))
    assert len(frames) == 24
    assert served.end() == 0
    assert not any(Path(f"/proc/{child}").exists() for child in now)


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(serving: Serving, models_root: Path) -> None:
    served = serving("serve", "--models-root", models_root, "--workers", 2, "--port", 0)
    served.wait_for("Ready")
    children = children_of(served.process.pid)
    served.end(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.slow
def test_up_runs_the_test_client_and_ends(
    serving: Serving, models_root: Path, speech: Path, tmp_path: Path
) -> None:
    ports = ["--port", 0, "--inference-port", 0]
    save = ["--save", tmp_path / "f", "--batch", 50]
    served = serving(
        "up", "sanders", speech, "--models-root", models_root, *ports, *save, "--no-stay"
    )
    assert served.wait() == 0
    served.wait_for("55 frames in 2 requests")
    assert len(list((tmp_path / "f").iterdir())) == 55


@pytest.mark.slow
def test_ctrl_c_ends_the_test_client_and_both_servers(serving: Serving, models_root: Path) -> None:
    ports = ["--port", 0, "--inference-port", 0, "--batch", 1]
    served = serving("up", "sanders", "--models-root", models_root, *ports)
    served.wait_for("compositing server at")
    served.wait_for("sanders: 1 frames in")
    children = children_of(served.process.pid)
    assert len(children) == 2
    assert served.end(signal.SIGINT) == 0
    assert "312 frames in" not in served.text
    assert not any(Path(f"/proc/{child}").exists() for child in children)
